"""Every marker ends as exactly one trial or one drop, and a trial holds the samples it should."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import SentMarker, Session, arrivals, arrived, check_trial, reasons, run

from hvf_core.problem import Problem
from stream.acquire.acquisition import Acquisition
from stream.acquire.chunk import Chunk
from stream.acquire.clock import StreamClock
from stream.acquire.markers import Event, Marker, MarkerReader, MarkerRule
from stream.acquire.ring import Ring
from stream.acquire.trials import Cutting, Trial, TrialCutter, Window

KNOWN = ("a", "b", "c")
PATIENT = {"history_s": 30.0, "no_data_after_s": 30.0, "is_known": KNOWN.__contains__}


# --- any session against the oracle --------------------------------------------------------------

WARM_UP = 700  # samples without a loss, from which the clock learns how much the stamps scatter


@st.composite
def sessions(draw, max_delay_s=3.0):
    """Sessions with losses, drift, jitter, and markers that come late, twice, or out of place."""
    rate_hz = draw(st.sampled_from([100.0, 250.0, 512.0, 1000.0]))
    first = draw(st.integers(-60, 10))
    window = Window(first, draw(st.integers(max(first, 1) + 1, 130)))
    numbers = np.arange(draw(st.integers(1, WARM_UP + 600)))
    lost = draw(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 90)), max_size=4))
    for start, count in lost:
        numbers = np.setdiff1d(numbers, WARM_UP + np.arange(start, start + count))
    period_s = (1 + draw(st.integers(-200, 200)) * 1e-6) / rate_hz
    jitter = draw(st.sampled_from([0.0, 0.05]))
    shift = np.random.default_rng(draw(st.integers(0, 9))).uniform(-jitter, jitter, len(numbers))
    start_s = draw(st.sampled_from([0.0, 1234.5678, 98765.4]))
    off_grid = 0.49 - 2 * jitter
    place = st.tuples(
        st.integers(-30, 60) | st.integers(WARM_UP - 60, WARM_UP + 660),
        st.floats(-off_grid, off_grid),
    )
    delay = st.one_of(st.just(0.0), st.floats(0.0, max_delay_s))
    text = st.sampled_from([*KNOWN, "unknown"])
    markers = [
        SentMarker(start_s + (at + off) * period_s, name, delay_s)
        for (at, off), name, delay_s in draw(st.lists(st.tuples(place, text, delay), max_size=12))
    ]
    for i in draw(st.lists(st.integers(0, 11), max_size=3)):
        if i < len(markers):
            markers.append(replace(markers[i], delay_s=draw(delay)))
    eeg_offset_s = draw(st.sampled_from([0.0, -3.25, 0.004]))
    return Session(
        rate_hz,
        window,
        numbers,
        start_s + (numbers + shift) * period_s - eeg_offset_s,
        tuple(markers),
        eeg_offset_s=eeg_offset_s,
        marker_offset_s=draw(st.sampled_from([0.0, 7.5])),
    )


chunkings = st.lists(st.integers(1, 200), min_size=1, max_size=5)


def check_books(session, outcomes):
    """One outcome for each marker, with the number of its arrival; onset order at each moment."""
    markers = arrived(session)
    assert sorted(outcome.number for outcome in outcomes) == list(range(1, len(markers) + 1))
    for outcome in outcomes:
        marker = markers[outcome.number - 1]
        assert outcome.event.stimulus == marker.text
        assert outcome.event.onset_s == pytest.approx(marker.onset_s, abs=1e-9)
    decided = [o for o in outcomes if o.reason not in ("duplicate", "unknown_stimulus")]
    keys = [(outcome.step, outcome.event.onset_s) for outcome in decided]
    assert keys == sorted(keys)


def first_reason(session, number):
    """Why a marker opens no trial; empty where it opens one."""
    offset_s = session.marker_offset_s  # markers may be nearer than stamps of its size can tell
    markers = [(m.onset_s - offset_s + offset_s, m.text) for m in arrived(session)]
    if markers[number - 1] in markers[: number - 1]:
        return "duplicate"
    return "" if markers[number - 1][1] in KNOWN else "unknown_stimulus"


@settings(max_examples=150, deadline=None)
@given(sessions(), chunkings, chunkings)
def test_trials_do_not_depend_on_the_chunks_of_the_eeg(session, chunk_sizes, others):
    one = {outcome.number: outcome for outcome in run(session, chunk_sizes, **PATIENT)}
    for other in run(session, others, **PATIENT):
        same = one.pop(other.number)
        assert same.reason == other.reason
        assert same.event == other.event
        if same.trial is not None:
            np.testing.assert_array_equal(same.samples, other.samples)
            assert same.trial.residual_s == other.trial.residual_s
    assert not one


@settings(max_examples=150, deadline=None)
@given(sessions(), chunkings)
def test_a_trial_comes_with_the_arrival_that_completes_it(session, chunk_sizes):
    """Neither before its marker or last sample, nor with any later chunk."""
    readable_s = [chunk.readable_s for _, chunk in arrivals(session, chunk_sizes)]
    steps = sample_steps(session, chunk_sizes)
    marker_steps = [i for i, entry in enumerate(arrivals(session, chunk_sizes)) if is_marker(entry)]
    for outcome in run(session, chunk_sizes, **PATIENT):
        if outcome.trial is not None:
            last = int(np.argmin(np.abs(session.stamps_s - outcome.trial.last_stamp_s)))
            step = max(steps[last], marker_steps[outcome.number - 1])
            assert outcome.step == step
            assert outcome.trial.readable_s == readable_s[step]


@settings(max_examples=100, deadline=None)
@given(sessions(max_delay_s=0.0), chunkings)
def test_trials_come_in_onset_order_where_markers_come_in_time(session, chunk_sizes):
    onsets_s = [o.event.onset_s for o in run(session, chunk_sizes, **PATIENT) if o.trial]
    assert onsets_s == sorted(onsets_s)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(sessions(), chunkings, st.floats(0.0, 1.0))
def test_a_small_ring_loses_only_what_comes_too_late(session, chunk_sizes, history_s):
    outcomes = run(session, chunk_sizes, **(PATIENT | {"history_s": history_s}))
    check_books(session, outcomes)
    reach = max(session.window.last, 0) - min(session.window.first, 0) + 1  # with the onset
    capacity = int(history_s * session.rate_hz) + reach
    steps = np.array(sample_steps(session, chunk_sizes))
    marker_steps = [i for i, entry in enumerate(arrivals(session, chunk_sizes)) if is_marker(entry)]
    for outcome in outcomes:
        at_once = first_reason(session, outcome.number)
        if at_once:
            assert outcome.reason == at_once
            continue
        acceptable = reasons(session, outcome.event.onset_s)
        if acceptable:
            assert outcome.reason in {*acceptable, "late"}
            continue
        onset_s = outcome.event.onset_s
        ranked = np.sort(np.abs(session.stamps_s - onset_s))[:2]
        if len(ranked) == 2 and ranked[1] - ranked[0] < 1e-9:
            continue  # halfway between two samples: either may be the onset
        onset = int(np.argmin(np.abs(session.stamps_s - onset_s)))
        first, last = onset + session.window.first, onset + session.window.last
        decided = max(steps[last], marker_steps[outcome.number - 1])
        n_delivered = int((steps <= decided).sum())
        late = min(first, onset) < n_delivered - capacity  # the onset sample is looked up too
        assert outcome.reason == ("late" if late else "")
        if outcome.trial is not None:
            check_trial(session, outcome)


def sample_steps(session, chunk_sizes):
    """With which arrival each sample comes."""
    return [
        step
        for step, (stream, chunk) in enumerate(arrivals(session, chunk_sizes))
        if stream == "eeg"
        for _ in chunk.raw_s
    ]


def is_marker(entry):
    return entry[0] == "markers"


def test_a_loss_between_the_onset_and_a_window_that_begins_later_shifts_nothing():
    """Five samples are lost 0.1 s after onset; the window from 0.2 s on is whole."""
    numbers = np.delete(np.arange(1200), np.arange(1010, 1015))
    session = Session(100.0, Window(20, 40), numbers, numbers / 100, (SentMarker(10.0, "a"),))
    (outcome,) = run(session, [10], **PATIENT)
    if outcome.trial is not None:  # to drop it would be right as well
        assert outcome.samples[0, 0] == 1020 * session.n_channels


def test_the_history_is_kept_for_a_window_that_begins_after_onset():
    numbers = np.arange(1200)
    markers = (SentMarker(9.0, "a", delay_s=2.3),)
    session = Session(100.0, Window(50, 60), numbers, numbers / 100, markers)
    (outcome,) = run(session, [10], **(PATIENT | {"history_s": 2.0}))
    assert outcome.reason == ""


# --- rapid serial presentation -------------------------------------------------------------------


@pytest.mark.slow
def test_5000_trials_at_soa_100_ms_are_cut_once_each_and_in_order():
    """The ring holds 2.2 s of the 503; duplicates and unknown ones are strewn in."""
    rate_hz, n_trials = 250.0, 5000
    rng = np.random.default_rng(1)
    stamps_s = np.arange(round((n_trials * 0.1 + 3) * rate_hz)) / rate_hz
    onsets_s = 1 + 0.1 * np.arange(n_trials) + rng.uniform(-0.004, 0.004, n_trials)
    markers = [
        SentMarker(float(onset_s), f"stim/{i % 200}", float(rng.uniform(0, 0.05)))
        for i, onset_s in enumerate(onsets_s)
    ]
    twice = [replace(markers[i], delay_s=0.09) for i in range(0, n_trials, 100)]
    unknown = [replace(markers[i], text="blink") for i in range(50, n_trials, 100)]
    session = Session(
        *(rate_hz, Window.of(-0.2, 1.0, rate_hz), np.arange(len(stamps_s)), stamps_s),
        markers=(*markers, *twice, *unknown),
    )
    known = {f"stim/{i}" for i in range(200)}
    outcomes = run(session, [17, 3, 40], history_s=1.0, is_known=known.__contains__)
    trials = [outcome for outcome in outcomes if outcome.trial is not None]
    assert [outcome.event.stimulus for outcome in trials] == [marker.text for marker in markers]
    np.testing.assert_allclose([o.event.onset_s for o in trials], onsets_s, atol=1e-9)
    for outcome in trials:
        check_trial(session, outcome)
    dropped = Counter(outcome.reason for outcome in outcomes if outcome.trial is None)
    assert dropped == {"duplicate": 50, "unknown_stimulus": 50}
    residuals = np.array([outcome.trial.residual_s for outcome in trials]) * rate_hz
    assert abs(residuals.mean()) < 0.05  # samples: no bias in the alignment


# --- silence -------------------------------------------------------------------------------------


def eeg(first, last, rate_hz=100.0, readable_s=None, late_s=0.0):
    """A chunk of the samples first .. last of one channel; `late_s` is how far its stamps lag."""
    numbers = np.arange(first, last + 1)
    stamps_s = numbers / rate_hz
    at_s = stamps_s[-1] + late_s if readable_s is None else readable_s
    return Chunk(stamps_s, numbers[:, None].astype(np.float32), 0.0, float(at_s))


def markers(*onsets_s, text="a", readable_s=None):
    rows = np.array([[text]] * len(onsets_s), object)
    return Chunk(np.array(onsets_s), rows, 0.0, readable_s or onsets_s[-1])


def test_a_marker_without_a_stream_is_given_up_after_a_stated_wait():
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0, no_data_after_s=2.0))
    acquisition.add_markers(markers(10.0))
    assert acquisition.due(12.49) == []
    (drop,) = acquisition.due(12.51)
    assert drop.reason == "no_data"
    assert acquisition.cutter.next_end_s == np.inf


@pytest.mark.parametrize("late_s", [0.0, 500.0])
def test_a_stream_that_falls_silent_is_waited_for_by_its_own_time(late_s):
    """Stamps that lag behind the clock, as in a fast replay, are no silence."""
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0, no_data_after_s=2.0))
    acquisition.add_eeg(eeg(0, 100, late_s=late_s))
    acquisition.add_markers(markers(0.9, readable_s=1.0 + late_s))
    assert acquisition.due(0.9 + 2.49 + late_s) == []
    (drop,) = acquisition.due(0.9 + 2.51 + late_s)
    assert (drop.reason, drop.number) == ("no_data", 1)


def test_a_stream_that_returns_in_time_with_all_its_samples_gives_the_trial():
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0, no_data_after_s=2.0))
    acquisition.add_eeg(eeg(0, 100))
    acquisition.add_markers(markers(0.9))
    assert acquisition.due(3.0) == []
    acquisition.add_eeg(eeg(101, 200, readable_s=3.1))
    (trial,) = acquisition.due(3.1)
    np.testing.assert_array_equal(trial.samples[:, 0], np.arange(90, 141))
    assert trial.readable_s == 3.1


def test_what_is_open_at_the_end_is_dropped_with_the_reason_given():
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0, first_number=7))
    acquisition.add_markers(markers(0.2, 0.1))
    drops = acquisition.end("shutdown", "stopped")
    assert [(drop.number, drop.event.onset_s, drop.reason) for drop in drops] == [
        (8, 0.1, "shutdown"),
        (7, 0.2, "shutdown"),
    ]
    assert acquisition.end("shutdown", "stopped") == []


def test_a_trial_is_a_view_of_the_ring():
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0))
    acquisition.add_markers(markers(0.2, 0.3))
    acquisition.add_eeg(eeg(0, 120))
    one, other = acquisition.due(1.2)
    assert np.shares_memory(one.samples, other.samples)


# --- clock ---------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(WARM_UP, 1200), st.integers(1, 500)), max_size=3),
    st.sets(st.integers(1, 1199), max_size=20),
    st.integers(-150, 150),
)
@settings(max_examples=50, deadline=None)
def test_the_clock_finds_losses_at_any_chunk_size_and_rate_error(lost, cuts, ppm):
    numbers = np.arange(1200)
    for start, count in lost:
        numbers = np.setdiff1d(numbers, np.arange(start, start + count))
    numbers = np.concatenate([numbers, 1200 + np.arange(30)])  # so that no doubt is left at the end
    raw_s = 50 + numbers / 250 * (1 + ppm * 1e-6)
    clock, found, mapped_s = StreamClock(250.0), [], []
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw_s)), len(raw_s)]
    for start, stop in pairwise(edges):
        mapped = clock.map(raw_s[start:stop], 1.5)
        found += (len(mapped_s) + mapped.breaks).tolist()
        mapped_s += mapped.stamps_s.tolist()
    assert found == (1 + np.flatnonzero(np.diff(numbers) > 1)).tolist()
    np.testing.assert_allclose(mapped_s, raw_s + 1.5, atol=0.05 / 250)


@pytest.mark.parametrize("jump_s", [-5.0, -0.1, -0.004])
def test_a_clock_that_goes_back_is_a_break(jump_s):
    clock = StreamClock(250.0)
    clock.map(np.arange(WARM_UP) / 250, 0.0)
    after_s = WARM_UP / 250 + jump_s + np.arange(30) / 250
    assert clock.map(after_s, 0.0).breaks.tolist() == [0]


@pytest.mark.parametrize("lost", [1, 10, 50, 100, 200])
def test_a_sample_that_is_lost_soon_after_the_start_is_noticed(lost):
    raw_s = np.delete(np.arange(1000), lost) / 250
    assert StreamClock(250.0).map(raw_s, 0.0).breaks.size


def test_late_stamps_are_no_loss():
    """1 ms late on average, exponentially distributed, at 250 Hz for two minutes; none is lost."""
    rng = np.random.default_rng(0)
    raw_s = np.maximum.accumulate(np.arange(30_000) / 250 + rng.exponential(1e-3, 30_000))
    mapped = StreamClock(250.0).map(raw_s, 0.0)
    assert not mapped.breaks.size
    assert (np.diff(mapped.stamps_s) > 0).all()


def test_the_nearest_sample_is_found_when_the_clock_offset_is_measured_anew():
    """Offsets wander by fractions of a sample; the onset is still aligned to half a sample."""
    acquisition = Acquisition(1, Cutting(Window(-20, 100), 1000.0))
    rng = np.random.default_rng(3)
    for start in range(0, 2000, 20):
        numbers = np.arange(start, start + 20)
        offset_s = float(rng.uniform(-2e-4, 2e-4))
        samples = numbers[:, None].astype(np.float32)
        acquisition.add_eeg(Chunk(numbers / 1000, samples, offset_s, numbers[-1] / 1000))
    for onset_s in rng.uniform(0.1, 1.8, 50).round(3):
        acquisition.add_markers(markers(onset_s, text=str(onset_s), readable_s=2.0))
    trials = acquisition.due(2.0)
    assert len(trials) >= 45
    for trial in trials:
        assert abs(trial.samples[20, 0] - trial.event.onset_s * 1000) < 1
        assert abs(trial.residual_s) <= 0.5e-3 * (1 + 1e-3)


# --- markers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "stimulus"),
    [
        (r"(?s)^.+$", "two\nlines", "two\nlines"),
        (r"(?s)^.+$", "", None),
        (r"^stim/(?P<id>.+)$", "stim/Käse", "Käse"),
        (r"^stim/(?P<id>.+)$", "response", None),
        (r"square|rt", "square", "square"),
        (r"\d+", "S 12", "12"),
    ],
)
def test_a_rule_names_the_stimulus(pattern, text, stimulus):
    event = MarkerReader(MarkerRule(stimulus=pattern)).read(Marker(1.5, text, 2.0))
    assert (event and event.stimulus) == stimulus


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(Problem, match=r"the marker pattern '\(' is no regular expression"):
        MarkerRule(stimulus="(")


def test_presentations_are_counted_and_other_texts_are_passed_over():
    reader = MarkerReader(MarkerRule(stimulus=r"^s(?P<id>\d)$"))
    texts = ("s1", "s2", "go", "s1", "s1")
    events = [reader.read(Marker(float(at), text, 9.0)) for at, text in enumerate(texts)]
    assert [e and (e.stimulus, e.group, e.repeat) for e in events] == [
        ("1", "1", 1),
        ("2", "2", 1),
        None,
        ("1", "1", 2),
        ("1", "1", 3),
    ]


def test_markers_that_name_no_stimulus_open_no_trial():
    acquisition = Acquisition(
        1, Cutting(Window(0, 5), 100.0), marker_rule=MarkerRule(stimulus="^s")
    )
    assert acquisition.add_markers(markers(0.1, text="response")) == []
    (opened,) = acquisition.add_markers(markers(0.2, text="s1"))
    assert (opened.number, opened.event.onset_s) == (1, 0.2)


def test_two_stimuli_with_one_stamp_are_two_trials():
    acquisition = Acquisition(1, Cutting(Window(0, 5), 100.0))
    acquisition.add_markers(markers(0.2, text="left"))
    acquisition.add_markers(markers(0.2, text="right"))
    acquisition.add_eeg(eeg(0, 60))
    assert [trial.event.stimulus for trial in acquisition.due(0.6)] == ["left", "right"]


def test_an_integer_marker_is_read_as_its_digits():
    acquisition = Acquisition(1, Cutting(Window(0, 5), 100.0))
    chunk = Chunk(np.array([0.1]), np.array([[17]], np.int32), 0.0, 0.1)
    assert acquisition.add_markers(chunk)[0].event.stimulus == "17"


def test_a_marker_that_comes_twice_is_one_presentation():
    acquisition = Acquisition(1, Cutting(Window(0, 5), 100.0))
    told = [acquisition.add_markers(markers(onset_s)) for onset_s in (0.1, 0.1, 0.2)]
    assert [len(of_one) for of_one in told] == [1, 2, 1]
    assert told[1][1].reason == "duplicate"
    assert told[2][0].event.repeat == 2


def test_after_a_clock_that_went_back_a_trial_is_cut_from_the_new_samples():
    """5 s of stamps come twice; a marker that was sent after the jump means the second ones."""
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0))
    acquisition.add_eeg(eeg(0, 999))
    numbers = np.arange(1000, 1200)
    samples = numbers[:, None].astype(np.float32)
    acquisition.add_eeg(Chunk(numbers / 100 - 5, samples, 0.0, 12.0))
    acquisition.add_markers(markers(6.0, readable_s=12.0))
    (outcome,) = acquisition.due(12.0)
    assert outcome.samples[0, 0] == 1100


# --- parts of trials that are still going on -----------------------------------------------------


def parts_and_outcomes(session, chunk_sizes, stops):
    """By number: each part with its step and a copy of its samples; and every outcome."""
    cutting = Cutting(session.window, session.rate_hz, stops=tuple(stops), **PATIENT)
    acquisition = Acquisition(session.n_channels, cutting)
    parts, ends = {}, {}
    for step, (stream, chunk) in enumerate(arrivals(session, chunk_sizes)):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            acquisition.add_markers(chunk)
        decided = acquisition.due(chunk.readable_s)
        are_parts = [isinstance(one, Trial) and not one.is_whole for one in decided]
        assert are_parts == sorted(are_parts)  # what has ended comes first
        for one, is_part in zip(decided, are_parts, strict=True):
            assert one.number not in ends
            if is_part:
                entries = parts.setdefault(one.number, [])
                entries.append((step, one, one.samples.copy()))
            else:
                samples = one.samples.copy() if isinstance(one, Trial) else None
                ends[one.number] = (one, samples)
    return parts, ends


stops_asked = st.sets(st.integers(1, 200), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(sessions(), chunkings, stops_asked)
def test_parts_are_beginnings_of_their_trial_at_rising_stops(session, chunk_sizes, stops):
    readable_s = [chunk.readable_s for _, chunk in arrivals(session, chunk_sizes)]
    steps = sample_steps(session, chunk_sizes)
    marker_steps = [i for i, entry in enumerate(arrivals(session, chunk_sizes)) if is_marker(entry)]
    parts, ends = parts_and_outcomes(session, chunk_sizes, sorted(stops))
    for number, entries in parts.items():
        lengths = [len(samples) for _, _, samples in entries]
        assert lengths == sorted(set(lengths))
        assert set(lengths) <= {stop for stop in stops if stop < session.window.count}
        whole, whole_samples = ends.get(number, (None, None))
        for step, part, samples in entries:
            numbers = samples[:, 0] / session.n_channels
            assert (np.diff(numbers) == 1).all()  # no sample is missing in it
            np.testing.assert_array_equal(samples, session.samples(numbers))
            assert abs(part.residual_s) <= 0.525 / session.rate_hz
            last = int(np.searchsorted(session.numbers, numbers[-1]))
            there = max(steps[last], marker_steps[number - 1])
            assert step >= there
            assert part.readable_s == readable_s[there]
            assert part.last_stamp_s == pytest.approx(session.stamps_s[last], abs=1e-9)
            if isinstance(whole, Trial):
                np.testing.assert_array_equal(samples, whole_samples[: len(samples)])
                assert part.residual_s == whole.residual_s
                assert part.event == whole.event


@settings(max_examples=80, deadline=None)
@given(sessions(), chunkings, stops_asked)
def test_parts_change_nothing_about_how_trials_end(session, chunk_sizes, stops):
    _, ends = parts_and_outcomes(session, chunk_sizes, sorted(stops))
    for other in run(session, chunk_sizes, **PATIENT):
        if other.number in ends:
            one, samples = ends[other.number]
            assert getattr(one, "reason", "") == other.reason
            if other.trial is not None:
                np.testing.assert_array_equal(samples, other.samples)
        else:  # at the end of the session, or when the marker was read
            assert other.reason in ("no_data", "duplicate", "unknown_stimulus")


def test_every_stop_is_handed_out_once_and_several_at_once_as_the_furthest():
    acquisition = Acquisition(1, Cutting(Window(-10, 50), 100.0, stops=(20, 30, 35, 61, 70)))
    acquisition.add_eeg(eeg(0, 99))
    acquisition.add_markers(markers(1.0))
    got = []
    for first, last in [(100, 100), (101, 108), (109, 109), (110, 124), (125, 149), (150, 150)]:
        acquisition.add_eeg(eeg(first, last))
        got.append([len(one.samples) for one in acquisition.due(last / 100)])
        assert acquisition.due(last / 100) == []  # nothing has come since
    assert got == [[], [], [20], [35], [], [61]]


def test_a_part_is_a_view_of_the_ring():
    acquisition = Acquisition(1, Cutting(Window(0, 50), 100.0, stops=(10, 30)))
    acquisition.add_markers(markers(0.2, 0.3))
    acquisition.add_eeg(eeg(0, 62))
    one, other = acquisition.due(0.62)
    assert [len(part.samples) for part in (one, other)] == [30, 30]
    assert np.shares_memory(one.samples, other.samples)


def test_before_the_onset_is_known_no_part_is_handed_out():
    """The window begins 0.5 s before onset; up to half a sample past onset the onset may move."""
    acquisition = Acquisition(1, Cutting(Window(-50, 50), 100.0, stops=(10, 40)))
    acquisition.add_eeg(eeg(0, 95))
    acquisition.add_markers(markers(1.0))
    got = []
    for number in range(96, 103):
        acquisition.add_eeg(eeg(number, number))
        got.append([len(part.samples) for part in acquisition.due(number / 100)])
    assert got == [[], [], [], [], [], [40], []]


def test_what_is_missing_between_the_onset_and_a_later_window_ends_its_parts():
    numbers = np.delete(np.arange(1200), np.arange(1010, 1015))
    session = Session(100.0, Window(20, 60), numbers, numbers / 100, (SentMarker(10.0, "a"),))
    parts, ends = parts_and_outcomes(session, [10], [5, 15, 30])
    assert parts == {}
    assert ends[1][0].reason == "gap"


@pytest.mark.parametrize("first", [-5, 0, 5])
@pytest.mark.parametrize("onset_s", [10.02, 10.07])
def test_an_onset_among_missing_samples_has_no_parts(first, onset_s):
    """Its nearest sample is far off, though nothing is missing from there on."""
    numbers = np.delete(np.arange(1200), np.arange(1000, 1010))
    session = Session(100.0, Window(first, 60), numbers, numbers / 100, (SentMarker(onset_s, "a"),))
    parts, ends = parts_and_outcomes(session, [7], [5, 30])
    assert parts == {}
    assert ends[1][0].reason == "gap"


# --- when somebody waits for a sample ------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    first=st.integers(-30, 20),
    count=st.integers(2, 60),
    urgent=st.sets(st.integers(1, 60), max_size=4),
    onsets=st.lists(st.integers(0, 900), max_size=5),
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=12),
)
def test_the_next_sample_that_somebody_waits_for(first, count, urgent, onsets, chunks):
    """Slowly: of every open trial the earliest end that has not come, or its last one."""
    rate_hz = 128.0  # and onsets in halves of a sample: no rounding
    window = Window(first, first + count - 1)
    urgent = {rows for rows in urgent if rows < count}
    ring = Ring(2000, 1)
    cutter = TrialCutter(ring, Cutting(window, rate_hz, no_data_after_s=1e9, urgent=tuple(urgent)))
    open_s = {}
    for onset in onsets:
        event = Event(onset / 2 / rate_hz, "a", "a", 1, 0.0)
        open_s[cutter.open(event)[0].number] = event.onset_s
    assert cutter.next_end_s == slow_next_end_s(window, urgent, rate_hz, open_s, -np.inf)
    for n in chunks:
        numbers = np.arange(ring.next, ring.next + n)
        samples = numbers[:, None].astype(np.float32)
        ring.append(numbers / rate_hz, samples, np.array([], int), 0.0)
        for outcome in cutter.due(0.0):
            del open_s[outcome.number]
        newest_s = ring.newest_stamp_s
        assert cutter.next_end_s == slow_next_end_s(window, urgent, rate_hz, open_s, newest_s)


def slow_next_end_s(window, urgent, rate_hz, open_s, newest_s):
    found = [np.inf]
    for onset_s in open_s.values():
        ends_s = [onset_s + (window.first + rows - 1) / rate_hz for rows in {*urgent, window.count}]
        to_come = [end_s for end_s in ends_s if end_s > newest_s]
        found.append(min(to_come) if to_come else max(ends_s))
    return min(found)
