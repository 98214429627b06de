"""A recording plays the same at any chunk size: samples, offsets, markers, and the trials of it."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acquire.acquisition import Acquisition
from stream.acquire.trials import Cutting, Drop, Window
from stream.sources.recording import RecordedMarker, Recording
from stream.sources.virtual_time import play

RATE_HZ = 100.0


def make_recording(numbers, markers=(), eeg_offsets=(), marker_offsets=(), start_s=50.0):
    """Samples say their number; those that are not in `numbers` were lost."""
    numbers = np.asarray(numbers)
    samples = np.column_stack([numbers, -numbers]).astype(np.float32)
    return Recording(
        *(Path("made.xdf"), "made", ("Cz", "Pz"), ("microvolts", "microvolts"), RATE_HZ),
        stamps_s=start_s + numbers / RATE_HZ,
        samples=samples,
        markers=tuple(RecordedMarker(stamp_s, text) for stamp_s, text in markers),
        eeg_offsets=tuple(eeg_offsets),
        marker_offsets=tuple(marker_offsets),
    )


@st.composite
def recordings(draw):
    """Markers in any order, also outside the recording; offsets that were measured at any time."""
    numbers = np.arange(draw(st.integers(1, 500)))
    start, count = draw(st.integers(0, 500)), draw(st.integers(0, 60))
    kept = np.setdiff1d(numbers, np.arange(start, start + count))
    times_s = st.floats(49, 56)
    texts = st.text("abü", min_size=1, max_size=3)
    offsets = st.lists(
        st.tuples(times_s, st.floats(-3e-3, 3e-3)), max_size=4, unique_by=lambda pair: pair[0]
    )
    return make_recording(
        kept if len(kept) else numbers,
        draw(st.lists(st.tuples(times_s, texts), max_size=10)),
        draw(offsets),
        draw(offsets),
    )


def in_force(offsets, raw_s):
    """The last offset that was measured up to then; the first one before that."""
    measured = sorted(offsets) or [(0.0, 0.0)]
    return next((offset for at_s, offset in reversed(measured) if at_s <= raw_s), measured[0][1])


@given(recordings(), st.integers(1, 600))
def test_every_sample_comes_once_in_order_with_the_offset_in_force(recording, chunk_samples):
    chunks = [chunk for stream, chunk in play(recording, chunk_samples) if stream == "eeg"]
    raw_s = np.concatenate([chunk.raw_s for chunk in chunks])
    np.testing.assert_array_equal(raw_s, recording.stamps_s)
    np.testing.assert_array_equal(
        np.concatenate([chunk.samples for chunk in chunks]), recording.samples
    )
    offsets_s = np.concatenate([np.full(len(chunk.raw_s), chunk.offset_s) for chunk in chunks])
    expected = [in_force(recording.eeg_offsets, stamp_s) for stamp_s in recording.stamps_s]
    np.testing.assert_array_equal(offsets_s, expected)
    for chunk in chunks:
        assert 1 <= len(chunk.raw_s) <= chunk_samples
        assert chunk.readable_s == chunk.raw_s[-1] + chunk.offset_s


@given(recordings(), st.integers(1, 600))
def test_every_marker_comes_once_before_the_samples_that_are_newer(recording, chunk_samples):
    seen = []
    newest_s = -np.inf
    for stream, chunk in play(recording, chunk_samples):
        if stream == "markers":
            (raw_s,), ((text,),) = chunk.raw_s, chunk.samples
            assert chunk.offset_s == in_force(recording.marker_offsets, raw_s)
            assert chunk.readable_s == raw_s + chunk.offset_s
            assert chunk.readable_s > newest_s  # no sample that is as new came before it
            seen.append((chunk.readable_s, raw_s, text))
        else:
            newest_s = max(newest_s, chunk.readable_s)
    assert [stamp_s for stamp_s, _, _ in seen] == sorted(stamp_s for stamp_s, _, _ in seen)
    expected = sorted((marker.stamp_s, marker.text) for marker in recording.markers)
    assert sorted((raw_s, text) for _, raw_s, text in seen) == expected


def test_without_offsets_stamps_stay_as_they_are():
    recording = make_recording(range(10), [(50.02, "a")])
    assert {chunk.offset_s for _, chunk in play(recording)} == {0.0}


def test_an_offset_applies_from_the_moment_at_which_it_was_measured():
    recording = make_recording(range(300), eeg_offsets=[(51.0, 5.0), (52.0, 5.25)])
    offsets = {
        float(raw_s): chunk.offset_s
        for _, chunk in play(recording, chunk_samples=64)
        for raw_s in chunk.raw_s
    }
    assert (offsets[50.0], offsets[51.99], offsets[52.0], offsets[52.99]) == (5.0, 5.0, 5.25, 5.25)


def cut(recording, chunk_samples):
    """(onset, stimulus, reason or samples) of every marker, by its number."""
    acquisition = Acquisition(2, Cutting(Window(-10, 60), RATE_HZ))
    decided = []
    for stream, chunk in play(recording, chunk_samples):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            told = acquisition.add_markers(chunk)
            decided += [one for one in told if isinstance(one, Drop)]
        due = acquisition.due(chunk.readable_s)
        decided += [d if isinstance(d, Drop) else (d, d.samples.tolist()) for d in due]
    decided += acquisition.end("no_data", "the recording ended")
    outcomes = {}
    for entry in decided:
        drop, samples = (entry, None) if isinstance(entry, Drop) else entry
        told = drop.reason if samples is None else samples
        outcomes[drop.number] = (drop.event.onset_s, drop.event.stimulus, told)
    return outcomes


@settings(max_examples=100, deadline=None)
@given(recordings(), st.integers(1, 200))
def test_the_trials_do_not_depend_on_the_chunk_size(recording, chunk_samples):
    assert cut(recording, chunk_samples) == cut(recording, 1)


def test_the_trials_are_the_same_from_one_chunk():
    recording = make_recording(range(2000), [(50 + s, f"s{s}") for s in range(1, 19)])
    assert cut(recording, 2000) == cut(recording, 1)


def test_a_pause_in_the_recording_costs_no_trial_before_it():
    """Samples up to 51.5 s, then from 60 s on, and a marker in between."""
    numbers = [*range(150), *range(1000, 1200)]
    recording = make_recording(numbers, [(50.8, "before"), (55.0, "in"), (60.5, "after")])
    at_once = cut(recording, 1)
    assert [type(told) is list for _, _, told in at_once.values()] == [True, False, True]
    assert cut(recording, 64) == at_once
