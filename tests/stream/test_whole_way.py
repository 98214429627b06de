"""Whatever is sent: a marker ends as the trial that it meant, to the sample, or says why not."""

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import SenderClock, Sent, Stamping, World

from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Opened, Trial, Window

CHANNELS = ("Cz", "Pz", "Oz")
N = 2500  # samples, at most
# How a stream may spell its unit, and what that is in microvolts.
UNITS = [("microvolts", 1.0), ("µV", 1.0), ("V", 1e6), ("-9", 1e-3), ("mV", 1e3), ("nV", 1e-3)]
ODD = [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e9, -1e9, 0.0]
UNKNOWN = "not in the gallery"
TEXTS = [
    *[(text, text) for text in ("face", "Käse 猫", "a\x00b", "S  7", UNKNOWN)],
    ("Gerät".encode("cp1252"), "Gerät"),
    ("Gerät".encode(), "Gerät"),
    (json.dumps({"stimulus": "cat", "repeat": 10**30, "group": [1]}), "cat"),
    ('{"stimulus": "\\ud800"}', "\\ud800"),
    ('{"image": "cat"}', None),
    ("Response/R  1", None),
    ("", ""),
]
NO_DATA_AFTER_S = 2.0


# --- what may be sent ----------------------------------------------------------------------------


@st.composite
def stampings(draw, rate_hz):
    """Each sample on its own, exactly or late, or bursts of 20 to 200 ms; losses that it shows."""
    kind = draw(st.sampled_from(["exact", "late", "bursts", "bursts"]))
    if kind == "exact":
        return Stamping(shake_s=0.05 / rate_hz), (1, 90)
    if kind == "late":
        return Stamping(late_s=draw(st.floats(0.05, 0.5)) / rate_hz), (4, 90)
    size = max(2, round(draw(st.floats(0.02, 0.2)) * rate_hz))
    return Stamping(size, draw(st.integers(1, size)), late_s=draw(st.floats(0.0, 2e-3))), (
        size,
        3 * size,
    )


@st.composite
def clocks(draw, *runs):
    first_outlier = draw(st.integers(1, 3)) if len(runs) == 1 and draw(st.booleans()) else 99
    return SenderClock(
        runs,
        drift=draw(st.sampled_from([0, 1])) * draw(st.integers(-100, 100)) * 1e-6,
        error_s=draw(st.sampled_from([1e-5, 1e-4, 1e-3])),
        outliers=tuple(range(first_outlier, 99, 3)),
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def markers(draw, n):
    place = st.integers(-600, 10 * n + 600).map(lambda tenth: tenth / 10)
    text = st.sampled_from(TEXTS) | st.tuples(st.binary(min_size=1), st.just("?"))
    odd_stamp = st.sampled_from([None] * 8 + ODD[:-1])
    sent = st.builds(
        lambda at, text, delay_s, odd: Sent(at, *text, delay_s, odd),
        *(place, text, st.just(0.0) | st.floats(0.0, 3.0), odd_stamp),
    )
    bad = st.builds(
        lambda at, bad_s, odd: Sent(
            at, json.dumps({"bad": "blink", "duration_s": bad_s}), None, 0.0, odd, bad_s
        ),
        *(place, st.floats(0.0, 1.0), odd_stamp),
    )
    twice = draw(st.sampled_from([0, 0, 1]))  # one comes again, later
    found = draw(st.lists(sent, min_size=3, max_size=12))
    again = [Sent(m.at, m.value, m.stimulus, m.delay_s + 1.5, m.odd_stamp) for m in found[:twice]]
    return (*found, *again, *draw(st.lists(bad, max_size=2)))


@st.composite
def worlds(draw):
    rate_hz = draw(st.sampled_from([100.0, 250.0, 512.0, 1000.0]))
    stamping, lost = draw(stampings(rate_hz))
    numbers = np.arange(N - draw(st.integers(0, N - 1)))
    n = len(numbers)
    losses = st.tuples(st.integers(1, N), st.integers(*lost))
    for at, count in draw(st.lists(losses, max_size=3)):
        numbers = numbers[(numbers < at) | (numbers >= at + count)]
    start_s, ppm = draw(st.sampled_from([20.0, 1234.5678, 98765.4])), draw(st.integers(-200, 200))
    runs = [(-np.inf, draw(st.sampled_from([0.0, -3.25, 5000.0, -1.7e9])))]
    if rate_hz == 100 and draw(st.booleans()):  # the sender is started again: its clock, too
        at = draw(st.integers(300, 900))
        numbers = numbers[(numbers < at) | (numbers >= at + 300)]
        away_s = draw(st.sampled_from([-1, 1])) * draw(st.floats(100, 1e5))
        runs.append((start_s + at / rate_hz, runs[0][1] + away_s))
    first = draw(st.integers(-60, -1) | st.integers(0, 10))
    edges = np.flatnonzero(np.diff(numbers, prepend=-9) > 1)
    odd_stamps = draw(st.dictionaries(st.integers(1, N // 10), st.sampled_from(ODD), max_size=6))
    return World(
        rate_hz=rate_hz,
        window=Window(first, draw(st.integers(max(first, 1) + 1, 130))),
        start_s=start_s,
        ppm=ppm,
        numbers=numbers,
        stamping=stamping,
        odd_stamps={  # one in ten at most, and not the one that tells a loss
            10 * tenth: stamp
            for tenth, stamp in odd_stamps.items()
            if 10 * tenth < len(numbers) - 30 and 10 * tenth not in edges
        },
        not_finite=frozenset(draw(st.sets(st.integers(0, N), max_size=2))),
        unit=draw(st.sampled_from(UNITS)),
        markers=draw(markers(n)),
        eeg_clock=draw(clocks(*runs)),
        marker_clock=draw(clocks((-np.inf, draw(st.sampled_from([0.0, 7.5]))))),
        chunk_sizes=tuple(draw(st.lists(st.integers(1, rate_hz // 5), min_size=1, max_size=3))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


# --- what is made of it --------------------------------------------------------------------------


def trial_stream(world, is_sliced):
    """Trials as they are; with slices, their channels in another order."""
    window_s = (world.window.first / world.rate_hz, world.window.last / world.rate_hz)
    chosen = PreprocessSettings(
        channels=CHANNELS,
        output_channels=CHANNELS[::-1],
        rate_hz=world.rate_hz,
        tmin_s=window_s[0],
        tmax_s=window_s[1],
        baseline_s=None,
        whitening="none",
    )
    sliced = {"preprocessing": Preprocessing(chosen), "marks": (world.window.count // 2,)}
    plan = TrialPlan(
        window_s=window_s,
        is_known=lambda stimulus: stimulus != UNKNOWN,
        no_data_after_s=NO_DATA_AFTER_S,
        **(sliced if is_sliced else {}),
    )
    return TrialStream(CHANNELS, world.rate_hz, plan)


def run(world, is_sliced):
    """Of each marker, as they came: the number of its trial, or None.

    Of each number: its event, its end with the samples of a trial, and its slices.
    """
    trials = trial_stream(world, is_sliced)
    numbers, events, ends, slices = [], {}, {}, defaultdict(list)

    def hear(said):
        for one in said:
            if isinstance(one, Opened):
                events[one.number] = one.event
            elif isinstance(one, Slice):
                slices[one.trial.number].append(one.array.copy())
            else:
                assert one.number not in ends
                ends[one.number] = one, one.samples.copy() if isinstance(one, Trial) else None

    for stream, chunk in world.arrivals():
        n_opened, n_ignored = len(events), trials.acquisition.facts()["ignored_markers"]
        hear(trials.add(stream, chunk))
        if stream == "markers":
            n_opened = len(events) - n_opened
            n_ignored = trials.acquisition.facts()["ignored_markers"] - n_ignored
            is_span = "blink" in str(chunk.samples[0, 0]) and abs(chunk.raw_s[0]) < 1e12
            assert n_opened + n_ignored == (not is_span)
            numbers.append(len(events) if n_opened else None)
        hear(trials.due(chunk.readable_s))
    hear(trials.end("no_data", "the session ended"))
    assert sorted(events) == sorted(ends) == list(range(1, len(events) + 1))
    return numbers, events, ends, slices


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds(), st.booleans())
def test_every_marker_ends_as_the_right_trial_or_for_the_right_reason(world, is_sliced):
    numbers, events, ends, slices = run(world, is_sliced)
    came = sorted(world.markers, key=world.readable_s)
    seen = set()
    for marker, number in zip(came, numbers, strict=True):
        assert marker.stimulus == "?" or (marker.stimulus is None) == (number is None)
        if number is None:
            continue
        assert marker.stimulus in (events[number].stimulus, "?")
        end, samples = ends[number]
        told = events[number].stimulus, marker.at if marker.odd_stamp is None else marker.odd_stamp
        if told in seen and not np.isnan(told[1]):
            assert end.reason == "duplicate"
        elif not abs(marker.odd_stamp or 0.0) < 1e12:
            assert end.reason == "no_data"
        elif events[number].stimulus == UNKNOWN:
            assert end.reason == "unknown_stimulus"
        elif marker.odd_stamp is not None:
            assert end.reason in ("no_data", "late", "gap")
        else:
            check(world, marker, end, samples, slices.get(number))
        seen.add(told)


def check(world, marker, end, samples, slices):
    """The trial is that of one of the onsets that may be meant, or none of them permits one."""
    permitted = {
        onset: world.ends(marker, onset, NO_DATA_AFTER_S - 0.5) for onset in world.onsets(marker)
    }
    if any("?" in ends for ends in permitted.values()):
        return
    if not isinstance(end, Trial):
        assert any(end.reason in ends for ends in permitted.values()), (end, permitted)
        return
    first = round(float(samples[0, 0])) - 100
    assert "cut" in permitted.get(first - world.window.first, ()), (first, permitted)
    whole = world.values(np.arange(first, first + world.window.count))
    np.testing.assert_allclose(samples, whole, rtol=1e-6)
    if slices is not None:
        np.testing.assert_allclose(np.hstack(slices), whole.T[::-1], rtol=1e-5)
