"""What a trial stream says, in which order, and what may be changed while it runs."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stream.acquire.adaptation import Adaptation
from stream.acquire.chunk import Chunk
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.reject import RejectSettings
from stream.acquire.settings import AdaptationSettings
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Opened, Trial
from stream.acquire.triggers import TriggerSettings
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import Endpoints, FileSource, LiveSource, SessionConfig

RATE_HZ = 100.0
CHANNELS = ("Cz", "Pz", "STI")
WINDOW_S = (-0.1, 0.3)
NOISE = np.random.default_rng(0).normal(0, 10, (4000, 3)).astype(np.float32)
NOISE[:, 2] = 0


def eeg(first, stop, samples=NOISE):
    numbers = np.arange(first, stop)
    return Chunk(numbers / RATE_HZ, samples[numbers], 0.0, (stop - 1) / RATE_HZ)


def marker(at, text="a"):
    """A marker on sample `at`, which can be read at once."""
    stamp_s = at / RATE_HZ
    return Chunk(np.array([stamp_s]), np.array([[text]], object), 0.0, stamp_s)


def sliced(adaptation=None, marks=(20,), **plan):
    """A stream with a preprocessing that waits for a mark, and for the end."""
    plan = TrialPlan(preprocessing(), marks=marks, **plan)
    return TrialStream(CHANNELS, RATE_HZ, plan, adaptation)


def preprocessing():
    chosen = PreprocessSettings(
        channels=CHANNELS[:2],
        output_channels=CHANNELS[:2],
        rate_hz=RATE_HZ,
        tmin_s=WINDOW_S[0],
        tmax_s=WINDOW_S[1],
        whitening="none",
    )
    return Preprocessing(chosen, {"trial_covariance": np.diag([50.0, 150.0])})


def whole(**plan):
    return TrialStream(CHANNELS, RATE_HZ, TrialPlan(window_s=WINDOW_S, **plan))


def said(trials, events, chunk_samples, n_samples=1000, samples=NOISE):
    """Everything, in order; `events` are chunks of markers, or calls, by the sample they precede.

    What trials hold is copied, as it is good for a moment only.
    """
    told = []
    for first in range(0, n_samples, chunk_samples):
        stop = min(first + chunk_samples, n_samples)
        for at, event in events:
            if first <= at < stop:
                told += event() or [] if callable(event) else trials.add("markers", event)
        told += trials.add("eeg", eeg(first, stop, samples))
        for one in trials.due((stop - 1) / RATE_HZ):
            told.append((one.number, one.samples.copy()) if isinstance(one, Trial) else one)
    return told + trials.end("no_data", "the session ended")


def ends(told):
    """By number: the samples of a trial, or the reason of its drop."""
    of_trials = dict(one for one in told if isinstance(one, tuple))
    return of_trials | {one.number: one.reason for one in told if isinstance(one, Drop)}


onsets = st.lists(st.integers(0, 999), min_size=1, max_size=8)
sizes = st.integers(1, 300)


@settings(max_examples=60, deadline=None)
@given(onsets, sizes)
def test_of_every_trial_comes_its_announcement_its_slices_and_one_end(at, chunk_samples):
    told = said(sliced(), [(a, marker(a, f"s{i}")) for i, a in enumerate(at)], chunk_samples)
    by_number = defaultdict(list)
    for one in told:
        number = one.trial.number if isinstance(one, Slice) else getattr(one, "number", None)
        by_number[one[0] if number is None else number].append(one)
    assert sorted(by_number) == list(range(1, len(at) + 1))
    for opened, *slices, end in by_number.values():
        assert isinstance(opened, Opened)
        assert isinstance(end, tuple | Drop)
        assert all(isinstance(one, Slice) for one in slices)
        n_before = np.cumsum([0, *(one.array.shape[1] for one in slices)])
        assert [one.first for one in slices] == n_before[:-1].tolist()
        finals = [one.first for one in slices if one.final]
        assert finals == ([slices[-1].first] if isinstance(end, tuple) else [])


class Listening:
    """An adaptation that writes down when it is asked, and when it is told."""

    def __init__(self, log):
        self.log = log

    def matrix(self, onset_s):
        self.log.append(("matrix", onset_s))

    def add(self, last_stamp_s, trial):
        self.log.append(("add", last_stamp_s))


def test_a_trial_is_learnt_from_after_it_was_handed_out():
    log = []
    trials = sliced(Listening(log))
    trials.add("markers", marker(100))
    trials.add("eeg", eeg(0, 200))
    for one in trials.due(2.0):
        log.append((type(one).__name__, getattr(one, "first", None)))
    last_s = pytest.approx(1.3)
    assert log == [("matrix", 1.0), ("Slice", 0), ("add", last_s), ("Trial", None)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=8, unique=True), sizes, st.data())
def test_markers_that_come_while_it_is_paused_end_so_and_change_nothing_else(at, size, data):
    pauses = data.draw(st.lists(st.integers(0, 999), max_size=3))
    markers = [(a, marker(a, f"s{i}")) for i, a in enumerate(at)]
    paused, plain = whole(), whole()
    switches = [(a, (paused.pause, paused.resume)[i % 2]) for i, a in enumerate(sorted(pauses))]
    events = sorted([*markers, *switches], key=lambda event: event[0])
    of_paused = ends(said(paused, events, size))
    of_plain = ends(said(plain, sorted(markers, key=lambda event: event[0]), size))
    is_paused, numbers = False, iter(sorted(of_plain))
    for _, event in events:
        if callable(event):
            is_paused = event == paused.pause
        else:
            number = next(numbers)
            expected = "paused" if is_paused else of_plain[number]
            np.testing.assert_array_equal(of_paused[number], expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 999), min_size=3, max_size=8, unique=True),
    st.lists(st.integers(0, 999), min_size=1, max_size=4),
    sizes,
    sizes,
)
@example([100, 200, 300, 400], [150, 250], 1, 300)
def test_pauses_at_any_moment_are_made_again_from_the_markers_of_their_trials(
    at, pauses, size, other_size
):
    """Adapted, and sliced then: what came in a pause was not learnt from, and is not offline."""
    # Which of an end and an onset at the same moment comes first, rounding decides.
    assume(not {a + round(WINDOW_S[1] * RATE_HZ) for a in at} & {*at})
    markers = [(a, marker(a, f"s{i}")) for i, a in enumerate(at)]
    live = sliced(Adaptation(preprocessing(), AdaptationSettings()))
    switches = [(a, (live.pause, live.resume)[i % 2]) for i, a in enumerate(sorted(pauses))]
    told = said(live, sorted([*markers, *switches], key=lambda event: event[0]), size)
    paused = {one.event.mark for one in told if isinstance(one, Drop) and one.reason == "paused"}
    adaptation = Adaptation(preprocessing(), AdaptationSettings())
    offline = sliced(adaptation, marks=None, is_left_out=lambda event: event.mark in paused)
    again = said(offline, sorted(markers, key=lambda event: event[0]), other_size)
    ours, theirs = arrays(told), arrays(again)
    assert ours.keys() == theirs.keys()
    for number, array in ours.items():
        np.testing.assert_allclose(theirs[number], array, rtol=1e-5, atol=1e-4)


def arrays(told):
    """The EEG of each trial that became whole, put together from its slices."""
    whole_ones = [one.trial.number for one in told if isinstance(one, Slice) and one.final]
    return {
        number: np.concatenate(
            [one.array for one in told if isinstance(one, Slice) and one.trial.number == number],
            axis=1,
        )
        for number in whole_ones
    }


def test_what_is_known_may_change_between_two_trials():
    trials = whole(is_known={"a"}.__contains__)
    change = (150, lambda: trials.know({"b"}.__contains__))
    markers = [(at, marker(at, text)) for at in (100, 200) for text in "ab"]
    told = ends(said(trials, sorted([*markers, change], key=lambda event: event[0]), 10))
    assert [isinstance(end, np.ndarray) for _, end in sorted(told.items())] == [1, 0, 0, 1]
    assert told[2] == told[3] == "unknown_stimulus"


def test_the_limits_may_change_between_two_trials():
    trials = whole()
    change = (250, lambda: trials.reject(RejectSettings(peak_to_peak_uv=1.0)))
    told = ends(said(trials, [(100, marker(100)), change, (300, marker(300))], 10))
    assert isinstance(told[1], np.ndarray)
    assert told[2] == "rejected"


@pytest.mark.parametrize(("spike_uv", "reason"), [(0.0, None), (500.0, "rejected")])
def test_without_a_bundle_all_but_the_trigger_channel_is_judged(spike_uv, reason):
    """Codes of 200 on a channel are no artefact of 200 microvolts."""
    samples = NOISE.copy()
    samples[100:110, 2] = 200
    samples[120, 1] += spike_uv
    trials = whole(
        trigger=TriggerSettings(channel="STI"), reject=RejectSettings(peak_to_peak_uv=150)
    )
    told = ends(said(trials, [], 10, samples=samples))
    assert (told[1] if reason else type(told[1])) == (reason or np.ndarray)


def test_a_stream_of_nothing_but_triggers_has_nothing_to_judge():
    plan = TrialPlan(
        window_s=WINDOW_S,
        trigger=TriggerSettings(channel="STI"),
        reject=RejectSettings(flat_uv=1.0),
    )
    trials = TrialStream(["STI"], RATE_HZ, plan)
    codes = np.zeros((300, 1), np.float32)
    codes[100:] = 5
    trials.add("eeg", eeg(0, 300, codes))
    (trial,) = trials.due(3.0)
    assert trial.event.stimulus == "5"


@pytest.mark.parametrize(
    ("source", "compares"),
    [
        (LiveSource(eeg="amp", markers=None), False),
        (LiveSource(eeg="amp", markers="stimuli"), True),
        (FileSource(path="made.xdf"), True),
    ],
)
def test_a_trigger_beside_markers_is_compared_with_them_and_opens_no_trial(source, compares):
    session = {"session": "s", "folder": "folder", "endpoints": Endpoints.local()}
    trigger = TriggerSettings(channel="STI")
    plan = trial_plan(SessionConfig(**session, source=source, trigger=trigger))
    assert plan.cross_check == compares
    assert not trial_plan(SessionConfig(**session, source=source)).cross_check


# --- a reader that stands still, or falls behind -------------------------------------------------


def live(pauses=(), markers=range(100, 3000, 100), busy_s=0.0, streams_s=np.inf):
    """How markers end, by their sample, for a reader that looks every 20 ms at what came.

    In `pauses` (from, to) it sleeps; LSL hands over what it kept 30 ms later. Each marker keeps it
    busy for `busy_s`. The stream ends after `streams_s`, and all after 30 s.
    """
    trials = whole()
    chunks = [("eeg", eeg(n, n + 2)) for n in range(0, 3000, 2) if n < streams_s * RATE_HZ]
    chunks += [("markers", marker(at, str(at))) for at in markers]
    chunks.sort(key=lambda one: one[1].readable_s)
    queue, ended, now_s = [], {}, 0.0

    def look():
        told, taken_s = [], None
        if queue:
            stream, chunk = queue.pop(0)
            told += trials.add(stream, chunk)
            taken_s = chunk.readable_s if queue else None
        told += trials.due(trials.acquisition.attention.look(now_s, taken_s))
        ends = [one for one in told if not isinstance(one, Opened)]
        ended.update({int(one.event.stimulus): getattr(one, "reason", "") for one in ends})
        return busy_s * (len(told) - len(ends))

    while now_s < 30:
        now_s += look() + (0.001 if queue else 0.02)
        woke_s = next((to for since, to in pauses if since <= now_s < to), None)
        if woke_s is not None:
            now_s = woke_s
            look()
            now_s += 0.03
        while chunks and chunks[0][1].readable_s <= now_s:
            stream, chunk = chunks.pop(0)
            queue.append((stream, replace(chunk, readable_s=now_s) if woke_s else chunk))
    return ended


@pytest.mark.parametrize("pauses", [[(5.2, 11.0)], [(3.1, 9.0), (9.5, 15.2), (15.3, 22.0)]])
def test_a_reader_that_stood_still_cuts_what_it_finds(pauses):
    assert live(pauses) == dict.fromkeys(range(100, 3000, 100), "")


@pytest.mark.parametrize(("eeg_s", "end"), [(2.2, Trial), (2.6, Drop)])
def test_a_marker_before_the_first_sample_waits_from_when_it_came(eeg_s, end):
    """The stamps of a fast replay begin minutes in the past."""
    trials, lag_s = whole(), 230.0
    told = trials.add("markers", replace(marker(100), readable_s=lag_s))
    for now_s in np.arange(0, eeg_s, 0.02) + lag_s:
        told += trials.due(now_s)
    told += trials.add("eeg", replace(eeg(0, 300), readable_s=lag_s + eeg_s))
    told += trials.due(lag_s + eeg_s)
    assert [type(one) for one in told] == [Opened, end]


def test_a_reader_that_is_behind_calls_no_stream_silent():
    markers = range(500, 540)
    assert live(markers=markers, busy_s=0.4) == dict.fromkeys(markers, "")


@pytest.mark.parametrize("pauses", [[], [(9.0, 15.0)]])
def test_a_stream_that_is_silent_is_called_so_whether_the_reader_slept_or_not(pauses):
    ended = live(pauses, streams_s=10.0)
    assert [at for at, reason in ended.items() if not reason] == list(range(100, 1000, 100))
    assert {ended[at] for at in range(1000, 2200, 100)} == {"no_data"}
