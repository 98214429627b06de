"""Slices of a trial put together are the trial, whatever chunks the stream comes in."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from oracle import SentMarker, Session, arrivals

from stream.acquire.adaptation import Adaptation, AdaptationSettings
from stream.acquire.chunk import Chunk
from stream.acquire.markers import Event
from stream.acquire.preprocess import Preprocessing, PreprocessSettings, TrialTransform, fit
from stream.acquire.slices import Slice, Slicer
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial

CAP = ("Fp1", "Fz", "Cz", "Pz", "Oz", "EOG")
CHANNELS = ("Oz", "Pz", "Cz", "Fz")
OUTPUTS = ("Fz", "Oz", "Pz")
WARM_UP = 700  # samples without a loss, from which the clock learns how much the stamps scatter
NOISE = np.random.default_rng(0).normal(0, 20, (6000, len(CAP))).astype(np.float32)
NOISE += np.linspace(-300, 300, len(CAP), dtype=np.float32)
ROUNDING = {"rtol": 0, "atol": 1e-3}  # float32 of 300 µV, whitened


class NoiseSession(Session):
    def samples(self, numbers):
        return NOISE[numbers]


@dataclass
class Sent:
    """What went out of one trial, each slice with its step, and how it ended."""

    slices: list[tuple[int, Slice]] = field(default_factory=list)
    end: str = "open"

    @property
    def array(self):
        return together([slice_ for _, slice_ in self.slices])

    @property
    def n_times(self):
        return stop_of(self.slices[-1][1]) if self.slices else 0


def stop_of(slice_):
    return slice_.first + slice_.array.shape[1] - slice_.corrects


def together(slices):
    """What somebody has who adds up what he is sent."""
    sums = np.zeros((len(OUTPUTS), stop_of(slices[-1])))
    for slice_ in slices:
        sums[:, slice_.first - slice_.corrects : stop_of(slice_)] += slice_.array
    return sums


@dataclass
class Prepared:
    """In the place of a preprocessing, where its transform of the stream is at hand."""

    transform: TrialTransform

    def prepare(self, channels, rate_hz):
        return self.transform


def stream_of(transform, rate_hz, marks, adaptation=None, history_s=5.0):
    plan = TrialPlan(
        Prepared(transform), marks=tuple(marks), history_s=history_s, no_data_after_s=30.0
    )
    return TrialStream(CAP, rate_hz, plan, adaptation)


def sent(session, chunk_sizes, transform, marks, adaptation=None):
    """The reader's loop; by stimulus."""
    trials = stream_of(transform, session.rate_hz, marks, adaptation)
    by_stimulus = defaultdict(Sent)
    for step, (stream, chunk) in enumerate(arrivals(session, chunk_sizes)):
        trials.add(stream, chunk)
        for told in trials.due(chunk.readable_s):
            if isinstance(told, Slice):
                by_stimulus[told.trial.event.stimulus].slices.append((step, told))
            else:
                one = by_stimulus[told.event.stimulus]
                one.end = told.reason if isinstance(told, Drop) else "whole"
    return by_stimulus


def prepared(rate_hz=1000.0, seed=1, **changes):
    defaults = {
        "channels": CHANNELS,
        "output_channels": OUTPUTS,
        "rate_hz": 250.0,
        "tmin_s": 0.0,
        "tmax_s": 0.396,
        "whitening": "none",
    }
    rng = np.random.default_rng(seed)
    whitener = np.eye(len(CHANNELS)) + 0.2 * rng.normal(size=(len(CHANNELS), len(CHANNELS)))
    arrays = {"whitener": whitener, "scale": rng.uniform(0.5, 2, len(OUTPUTS))}
    return Preprocessing(PreprocessSettings(**(defaults | changes)), arrays).prepare(CAP, rate_hz)


any_settings = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "tmin_s": st.sampled_from([-0.1, 0.0, 0.052]),
        "tmax_s": st.sampled_from([0.1, 0.248, 0.4]),
        "baseline_s": st.sampled_from(
            [None, (-0.2, 0.0), (-0.104, -0.05), (0.0, 0.08), (-0.05, 0.3), (0.1, 0.5)]
        ),
        "reference": st.sampled_from(["none", "average", "Pz"]),
        "whitening": st.sampled_from(["none", "mvnn"]),
        "scaling": st.sampled_from(["none", "robust"]),
    }
)
chunkings = st.lists(st.integers(1, 250), min_size=1, max_size=5)


def session_of(transform, rate_hz, numbers, presented):
    """`presented`: for each trial the onset's sample, how far off it the onset is, and a delay."""
    markers = tuple(
        SentMarker((at + off) / rate_hz, f"{i}/{at}", delay_s)
        for i, (at, off, delay_s) in enumerate(presented)
    )
    stamps_s = numbers / rate_hz
    return NoiseSession(rate_hz, transform.window, numbers, stamps_s, markers, len(CAP))


@st.composite
def cases(draw, losses=False):
    """A transform, marks, and a session whose markers come in time, late, and close together."""
    rate_hz = draw(st.sampled_from([250.0, 500.0, 512.0, 1000.0]))
    transform = prepared(rate_hz, **draw(any_settings))
    marks = draw(st.sets(st.integers(1, transform.n_times - 1), max_size=4))
    numbers = np.arange(WARM_UP + draw(st.integers(300, 1400)))
    if losses:
        lost = draw(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 40)), max_size=3))
        for start, count in lost:
            numbers = np.setdiff1d(numbers, WARM_UP + np.arange(start, start + count))
    place = st.sampled_from(numbers[(numbers >= WARM_UP) & (numbers < WARM_UP + 800)].tolist())
    delay_s = st.just(0.0) | st.floats(0.0, 1.0)
    one = st.tuples(place, st.floats(-0.45, 0.45), delay_s)
    presented = draw(st.lists(one, min_size=1, max_size=4))
    return transform, sorted(marks), session_of(transform, rate_hz, numbers, presented)


def onset_of(stimulus):
    return int(stimulus.split("/")[1])


def steps_of(session, chunk_sizes):
    """With which arrival each sample comes, by its number, and each marker."""
    of_samples, of_markers, at = {}, {}, 0
    for step, (stream, chunk) in enumerate(arrivals(session, chunk_sizes)):
        if stream == "markers":
            of_markers[chunk.samples[0, 0]] = step
            continue
        n = len(chunk.raw_s)
        of_samples |= dict.fromkeys(session.numbers[at : at + n].tolist(), step)
        at += n
    return of_samples, of_markers


def whole(transform, stimulus):
    first = onset_of(stimulus) + transform.window.first
    return transform(NOISE[first : first + transform.window.count])


def known(transform, stimulus, one):
    """What can be said of a trial from the samples that there were with its last slice."""
    first, n_rows = (
        onset_of(stimulus) + transform.window.first,
        len(one.slices[-1][1].trial.samples),
    )
    return transform.part(NOISE[first : first + n_rows], 0, one.n_times)


def check_order(one, transform):
    """Every time once, in order, at most one slice at a moment; `final` once, at the end."""
    at = 0
    for _, slice_ in one.slices:
        assert slice_.first == at
        assert slice_.array.dtype == np.float32
        assert slice_.array.shape[0] == len(OUTPUTS)
        assert stop_of(slice_) > at
        at = stop_of(slice_)
    steps = [step for step, _ in one.slices]
    assert steps == sorted(set(steps))
    finals = [slice_.final for _, slice_ in one.slices]
    assert finals == [False] * (len(finals) - (one.end == "whole")) + [True] * (one.end == "whole")
    assert (at == transform.n_times) == (one.end == "whole")


def check_moments(one, stimulus, transform, marks, steps):
    """No slice before its samples are there, and none of a mark later than that."""
    of_samples, of_markers = steps
    first = onset_of(stimulus) + transform.window.first

    def there(n_times):
        """The step with which the last sample that the first times need is there."""
        known = of_samples[onset_of(stimulus) + 1]  # that the onset's sample is the nearest
        rows = transform.rows_at(n_times) if n_times in marks else transform.rows_for(n_times)
        return max(known, of_markers[stimulus], of_samples[first + rows - 1])

    for step, slice_ in one.slices:
        assert step >= there(stop_of(slice_))
    for mark in marks:
        if mark <= one.n_times:
            holds = [step for step, slice_ in one.slices if slice_.first < mark <= stop_of(slice_)]
            assert holds == [there(mark)]


@pytest.mark.slow
@settings(max_examples=70, deadline=None)
@given(cases(), chunkings)
def test_the_slices_of_a_trial_put_together_are_the_trial(case, chunk_sizes):
    transform, marks, session = case
    by_stimulus, steps = (
        sent(session, chunk_sizes, transform, marks),
        steps_of(session, chunk_sizes),
    )
    for marker in session.markers:
        one = by_stimulus[marker.text]
        complete = onset_of(marker.text) + transform.window.last <= session.numbers[-1]
        assert one.end == ("whole" if complete else "open")
        check_order(one, transform)
        check_moments(one, marker.text, transform, marks, steps)
        if one.slices:
            np.testing.assert_allclose(one.array, known(transform, marker.text, one), **ROUNDING)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cases(losses=True), chunkings)
def test_nothing_of_a_trial_goes_out_after_a_gap(case, chunk_sizes):
    transform, marks, session = case
    here = set(session.numbers.tolist())
    by_stimulus = sent(session, chunk_sizes, transform, marks)
    for marker in session.markers:
        one, onset = by_stimulus[marker.text], onset_of(marker.text)
        window = transform.window
        wanted = range(min(onset, onset + window.first), onset + max(window.last, 0) + 1)
        missing = [at for at in wanted if at not in here and at <= session.numbers[-1]]
        check_order(one, transform)
        if not missing:
            continue
        assert one.end in ("gap", "open")
        for _, slice_ in one.slices:
            assert onset + window.first + len(slice_.trial.samples) <= missing[0]
        if one.slices:
            np.testing.assert_allclose(one.array, known(transform, marker.text, one), **ROUNDING)


@pytest.mark.parametrize("chunk_sizes", [[1], [10_000], [1, 249]])
@pytest.mark.parametrize("rate_hz", [250.0, 512.0, 1000.0])
@pytest.mark.parametrize("baseline_s", [None, (-0.2, 0.0)])
def test_single_samples_and_one_huge_chunk(chunk_sizes, rate_hz, baseline_s):
    transform = prepared(rate_hz, baseline_s=baseline_s, reference="average", whitening="mvnn")
    marks = [25, 50, 51]
    presented = [(WARM_UP + 100 + 30 * i, 0.1 * i, 0.0) for i in range(3)]
    session = session_of(transform, rate_hz, np.arange(WARM_UP + 800), presented)
    by_stimulus, steps = (
        sent(session, chunk_sizes, transform, marks),
        steps_of(session, chunk_sizes),
    )
    for stimulus, one in by_stimulus.items():
        check_order(one, transform)
        check_moments(one, stimulus, transform, marks, steps)
        np.testing.assert_allclose(one.array, whole(transform, stimulus), **ROUNDING)
        if chunk_sizes == [1]:
            ends = {stop_of(slice_) for _, slice_ in one.slices}
            assert ends.issuperset(marks)
        if chunk_sizes == [10_000]:
            assert len(one.slices) == 1
    assert len(by_stimulus) == 3


def test_rapid_presentation_disturbs_no_trial():
    """30 trials at an SOA of 50 ms, 8 of them open at a time: each as if it were alone."""
    transform = prepared(baseline_s=(-0.2, 0.0))
    presented = [(WARM_UP + 50 * i, 0.3, 0.0) for i in range(30)]
    numbers = np.arange(WARM_UP + 30 * 50 + 600)
    everything = sent(
        session_of(transform, 1000.0, numbers, presented), [13, 4], transform, [25, 60]
    )
    assert len(everything) == 30
    for stimulus, one in everything.items():
        check_order(one, transform)
        assert len(one.slices) >= 5
        np.testing.assert_allclose(one.array, whole(transform, stimulus), **ROUNDING)


@pytest.mark.parametrize(
    ("late_s", "n_first"), [(0.0, None), (0.155, 25), (0.26, 60), (0.39, 90), (0.45, 100)]
)
def test_a_late_marker_gives_one_slice_to_the_furthest_stop(late_s, n_first):
    """At 250 Hz without a baseline, single samples: what was passed long ago is one slice."""
    transform = prepared(250.0, baseline_s=None)
    session = session_of(transform, 250.0, np.arange(WARM_UP + 300), [(WARM_UP, 0.0, late_s)])
    (one,) = sent(session, [1], transform, [10, 30, 60]).values()
    check_order(one, transform)
    check_moments(one, f"0/{WARM_UP}", transform, [10, 30, 60], steps_of(session, [1]))
    np.testing.assert_allclose(one.array, whole(transform, f"0/{WARM_UP}"), **ROUNDING)
    if n_first is not None:
        n = one.slices[0][1].array.shape[1]
        assert n_first <= n <= late_s * 250 + 1


def test_a_slice_comes_at_least_every_tenth_of_a_second_and_a_small_one_at_last():
    transform = prepared(1000.0, baseline_s=None)
    session = session_of(transform, 1000.0, np.arange(WARM_UP + 600), [(WARM_UP, 0.0, 0.0)])
    (one,) = sent(session, [1], transform, []).values()
    sizes = [slice_.array.shape[1] for _, slice_ in one.slices]
    assert max(sizes) <= 25
    assert sizes[-1] <= 10


def test_a_baseline_behind_the_window_keeps_everything_back_until_it_is_there():
    transform = prepared(250.0, baseline_s=(0.3, 0.5))
    session = session_of(transform, 250.0, np.arange(WARM_UP + 300), [(WARM_UP, 0.0, 0.0)])
    (one,) = sent(session, [1], transform, [10, 30]).values()
    assert [slice_.array.shape[1] for _, slice_ in one.slices] == [transform.n_times]


# --- the slicer alone ----------------------------------------------------------------------------


def part_of(transform, number, rows, onset=WARM_UP):
    first = onset + transform.window.first
    event = Event(onset / 1000, "a", "a", 1, 0.0)
    samples, is_whole = NOISE[first : first + rows], rows == transform.window.count
    return Trial(number, event, *(0.0, 0.0, 0.0, 0.0), samples=samples, is_whole=is_whole)


def test_a_dropped_trial_leaves_nothing_behind():
    transform = prepared()
    slicer = Slicer(transform, [20])
    one, two = slicer.stops[:2]
    slicer.take(part_of(transform, 7, one))
    slicer.take(part_of(transform, 8, one))
    slicer.forget(7)
    slicer.forget(99)  # of which nothing was sent
    again = slicer.take(part_of(transform, 7, two, onset=WARM_UP + 300))
    assert again.first == again.corrects == 0
    n = again.array.shape[1]
    samples = part_of(transform, 7, two, onset=WARM_UP + 300).samples
    expected = transform.part(samples, 0, n)
    np.testing.assert_allclose(again.array, expected, **ROUNDING)
    assert slicer.take(part_of(transform, 8, two)).first > 0  # the other one goes on


def test_a_whole_trial_leaves_nothing_behind():
    transform = prepared()
    slicer = Slicer(transform)
    slicer.take(part_of(transform, 7, slicer.stops[0]))
    assert slicer.take(part_of(transform, 7, transform.window.count)).final
    assert slicer.take(part_of(transform, 7, slicer.stops[0])).first == 0


@settings(max_examples=40, deadline=None)
@given(any_settings, st.sampled_from([250.0, 512.0, 1000.0]), st.data())
def test_stops_rise_and_every_mark_has_one_that_is_urgent(chosen, rate_hz, data):
    transform = prepared(rate_hz, **chosen)
    marks = data.draw(st.lists(st.integers(1, transform.n_times - 1), max_size=4, unique=True))
    slicer = Slicer(transform, sorted(marks))
    assert list(slicer.stops) == sorted(set(slicer.stops))
    assert all(0 < stop <= transform.window.count for stop in slicer.stops)
    assert sorted(slicer.urgent) == sorted(transform.rows_at(mark) for mark in marks)
    assert set(slicer.urgent) <= set(slicer.stops)


# --- adapted -------------------------------------------------------------------------------------


def fitted():
    trials = np.random.default_rng(5).normal(0, 10, (20, len(CHANNELS), 100))
    choice = PreprocessSettings(
        channels=CHANNELS,
        output_channels=OUTPUTS,
        rate_hz=250.0,
        tmin_s=0.0,
        tmax_s=0.396,
        whitening="mvnn",
    )
    return fit(choice, trials)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 900), st.floats(-0.45, 0.45)), min_size=1, max_size=5),
    chunkings,
    st.sets(st.integers(1, 99), max_size=3),
)
@example([(0, 0.0), (400, 0.4), (900, 0.0)], [1], {50})
@example([(0, 0.0), (400, 0.4), (900, 0.0)], [250], {50})
def test_all_of_a_trial_is_adapted_with_one_matrix_that_chunks_do_not_change(
    presented, chunk_sizes, marks
):
    """By hand: the trials that ended before an onset are known to its matrix, and no others."""
    preprocessing = fitted()
    transform = preprocessing.prepare(CAP, 500.0)
    presented = [(WARM_UP + at, off, 0.0) for at, off in presented]
    session = session_of(transform, 500.0, np.arange(WARM_UP + 1400), presented)
    adaptation = Adaptation(preprocessing, AdaptationSettings())
    by_stimulus = sent(session, chunk_sizes, transform, sorted(marks), adaptation)
    by_hand = Adaptation(preprocessing, AdaptationSettings())
    last = transform.window.last
    # Which of an end and an onset at the same moment comes first, rounding decides.
    ends_s = [(onset_of(stimulus) + last) / 500.0 for stimulus in by_stimulus]
    onsets_s = [marker.onset_s for marker in session.markers]
    assume(np.abs(np.subtract.outer(ends_s, onsets_s)).min(initial=1) > 1e-6)
    ended = sorted(by_stimulus, key=onset_of)
    for marker in sorted(session.markers, key=lambda marker: marker.onset_s):
        while ended and (onset_of(ended[0]) + last) / 500.0 < marker.onset_s:
            by_hand.add((onset_of(ended[0]) + last) / 500.0, whole(transform, ended.pop(0)))
        expected = by_hand.matrix(marker.onset_s) @ whole(transform, marker.text)
        check_order(by_stimulus[marker.text], transform)
        np.testing.assert_allclose(by_stimulus[marker.text].array, expected, **ROUNDING)


# --- a clock that goes back ----------------------------------------------------------------------


def test_a_clock_that_goes_back_mixes_no_old_slices_with_new_ones():
    """0.2 s into a trial 5 s of stamps come again: dropped, or all of it from one passage."""
    transform = prepared(250.0, baseline_s=None)
    trials = stream_of(transform, 250.0, [25], history_s=30.0)
    slices, final = [], None

    def take(numbers, shift_s=0.0):
        nonlocal final
        readable_s = numbers[-1] / 250
        trials.add("eeg", Chunk(numbers / 250 + shift_s, NOISE[numbers], 0.0, readable_s))
        for told in trials.due(readable_s):
            if isinstance(told, Slice):
                slices.append(told)
            elif isinstance(told, Trial):
                final = transform(told.samples)

    take(np.arange(1500))
    row = np.array([["a"]], object)
    trials.add("markers", Chunk(np.array([6.0]), row, 0.0, 6.0))
    for start in range(1500, 1550, 10):
        take(np.arange(start, start + 10))
    assert slices
    for start in range(1550, 3200, 10):
        take(np.arange(start, start + 10), shift_s=-5.0)
    if final is not None:
        np.testing.assert_allclose(together(slices), final, **ROUNDING)
