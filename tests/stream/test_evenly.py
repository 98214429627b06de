"""Samples of a recording stay what they were and are where they were taken, whatever was lost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.exports.evenly import LONGEST_GAP_S, runs_of
from stream.sources.read import read_recording
from tests.finished import RATE_HZ, Piece, finished, record


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


def runs(place, pieces, markers=()):
    path = place / "r.xdf"
    path.unlink(missing_ok=True)
    samples = record(path, pieces, markers)
    return samples, list(runs_of(read_recording(path)))


# A gap of a fraction of a sample is none; the clock is sure of losses of two and more.
gaps_s = st.floats(2.5 / RATE_HZ, 3.0) | st.floats(LONGEST_GAP_S + 1, 4000.0)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(300, 900), min_size=1, max_size=4),
    gaps=st.lists(gaps_s, min_size=3, max_size=3),
)
def test_each_sample_is_in_its_place(place, lengths, gaps):
    pieces, start_s = [], 100.0
    for n, gap_s in zip(lengths, [*gaps, 0.0], strict=False):
        pieces.append(Piece(start_s, n))
        start_s = pieces[-1].true_s[-1] + 1 / RATE_HZ + gap_s
    samples, found = runs(place, pieces)
    true_s = np.concatenate([piece.true_s for piece in pieces])
    assert len(found) == 1 + sum(gap > LONGEST_GAP_S for gap in gaps[: len(pieces) - 1])
    n_given = sum(len(run.samples) for run in found)
    assert len(samples) - n_given <= 13  # of which nobody knew the time at the end
    np.testing.assert_array_equal(np.concatenate([run.samples for run in found]), samples[:n_given])
    first = 0
    for run in found:
        at_s = true_s[first : first + len(run.samples)]
        first += len(run.samples)
        np.testing.assert_allclose(run.stamps_s, at_s, atol=1e-3)
        in_file_s = run.places / RATE_HZ
        drift_s = (in_file_s - in_file_s[0]) - (at_s - at_s[0])
        assert np.abs(drift_s).max() < (len(run.gaps) * 0.5 + 0.01) / RATE_HZ
        # What is in no sample's place is in a gap, and the other way round.
        free = np.setdiff1d(np.arange(run.n_times), run.places)
        told = [np.arange(at, at + count) for at, count in run.gaps]
        np.testing.assert_array_equal(free, np.concatenate([[], *told]))
        for number in (0, len(at_s) // 2, len(at_s) - 1):
            for off in (-0.4, 0.0, 0.4):
                assert run.place_of(at_s[number] + off / RATE_HZ) == run.places[number]
        assert run.place_of(at_s[0] - 1.0) == -RATE_HZ
        assert run.place_of(at_s[-1] + 1.0) == run.places[-1] + RATE_HZ


@pytest.mark.parametrize("behind_s", [0.0, 500.0, -500.0])
def test_an_amplifier_that_was_started_again_goes_on_in_the_same_run(place, behind_s):
    pieces = [Piece(100.0, 1000), Piece(110.0017, 1000, behind_s)]
    _, (run,) = runs(place, pieces)
    assert len(run.samples) == 2000
    assert run.gaps == [(1000, 1500)]
    assert run.place_of(107.0) == 1750
    assert not run.is_recorded(1750)
    assert run.stamp_s(2500) == pytest.approx(110.0017, abs=1e-3)


def test_a_clock_that_goes_back_begins_another_run(place):
    """As where nobody has measured by how much."""
    path = place / "back.xdf"
    record(path, [Piece(100.0, 1000), Piece(50.0, 1000)], ())
    first, second = runs_of(read_recording(path))
    assert (len(first.samples), len(second.samples)) == (1000, 1000)
    assert second.stamps_s[0] == pytest.approx(50.0)


def test_where_the_clock_jumps_and_nothing_is_lost_there_is_one_sample_that_nobody_recorded(place):
    _, (run,) = runs(place, [Piece(100.0, 1000), Piece(104.0 - 0.8 / RATE_HZ, 1000)])
    assert run.gaps == [(1000, 1)]


def test_at_a_rate_that_is_not_quite_the_nominal_one_a_marker_has_the_nearest_sample(place):
    _, (run,) = runs(place, [Piece(100.0, 1000)])
    slow = replace(run, stamps_s=100.0 + np.arange(1000) * 1.01 / RATE_HZ)
    for number in (0, 500, 998):
        at_s = slow.stamps_s[number]
        assert slow.place_of(at_s + 0.504 / RATE_HZ) == number
        assert slow.place_of(at_s + 0.506 / RATE_HZ) == number + 1


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    onsets=st.lists(st.floats(99.0, 111.0), min_size=1, max_size=6, unique=True),
    gap_s=st.floats(0.02, 2.0),
)
def test_a_trial_that_was_cut_lies_around_its_place(tmp_path_factory, onsets, gap_s):
    folder = tmp_path_factory.mktemp("session")
    pieces = [Piece(100.0, 1000), Piece(104.0 + gap_s, 1000)]
    session = finished(folder, pieces, [(at_s, "x") for at_s in sorted(onsets)])
    (run,) = runs_of(read_recording(folder / "recording.xdf"))
    file = np.zeros((run.n_times, run.samples.shape[1]), np.float32)
    file[run.places] = run.samples
    for trial, samples in session.trials.items():
        at = run.place_of(sorted(onsets)[trial - 1]) - 25
        np.testing.assert_array_equal(file[at : at + len(samples)], samples)
        assert all(not at <= first < at + len(samples) for first, _ in run.gaps)
    for one, other in pairwise(sorted(onsets)):
        assert run.place_of(one) <= run.place_of(other)
