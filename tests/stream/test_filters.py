"""Filters on the stream are SciPy's on the whole of it, at any chunking, and do not ring."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from hvf_core.problem import Problem
from stream.acquire.acquisition import Acquisition
from stream.acquire.filters import FilterSettings, StreamFilter
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.trials import Cutting, Trial
from stream.sources.cut_recording import cut_trials
from stream.sources.recording import RecordedMarker, Recording
from stream.sources.virtual_time import play

RATE_HZ = 250.0
HIGHPASS = FilterSettings(kind="highpass", freq_hz=0.5, order=2)
LOWPASS = FilterSettings(kind="lowpass", freq_hz=40.0)
NOTCH = FilterSettings(kind="notch", freq_hz=50.0)
ALL = (HIGHPASS, LOWPASS, NOTCH)
UNBROKEN = np.array([], np.intp)


def make_eeg(n=1000, n_channels=3, seed=0):
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 1, (n, n_channels)), axis=0)
    return (drift + rng.normal(0, 20, (n, n_channels)) + 10_000).astype(np.float32)


def in_chunks(filters, samples, chunk_sizes, breaks=(), columns=None):
    columns = range(samples.shape[1]) if columns is None else columns
    stream_filter, parts, start = StreamFilter(filters, RATE_HZ, columns), [], 0
    for size in [*chunk_sizes, len(samples)]:
        stop = min(start + size, len(samples))
        inside = [at - start for at in sorted(breaks) if start <= at < stop]
        parts.append(stream_filter(samples[start:stop], np.array(inside, np.intp)))
        start = stop
    return np.concatenate(parts)


SOME_FILTERS = st.lists(st.sampled_from(ALL), min_size=1, max_size=3).map(tuple)
CHUNK_SIZES = st.lists(st.integers(0, 120), max_size=30)


@settings(max_examples=60, deadline=None)
@given(SOME_FILTERS, CHUNK_SIZES, st.sets(st.integers(0, 299), max_size=4))
def test_any_chunking_gives_the_same_bits(filters, chunk_sizes, breaks):
    samples = make_eeg(300)
    at_once = in_chunks(filters, samples, [], breaks)
    assert at_once.dtype == np.float32
    np.testing.assert_array_equal(in_chunks(filters, samples, chunk_sizes, breaks), at_once)


@pytest.mark.parametrize("filters", [(HIGHPASS,), (LOWPASS,), (NOTCH,), ALL])
def test_it_is_scipy_on_the_whole(filters):
    samples = make_eeg()
    expected = samples.astype(np.float64)
    first = expected[0].copy()
    for one in filters:
        sos = {
            "highpass": signal.butter(2, 0.5, "highpass", output="sos", fs=RATE_HZ),
            "lowpass": signal.butter(4, 40.0, "lowpass", output="sos", fs=RATE_HZ),
            "notch": signal.tf2sos(*signal.iirnotch(50.0, 30.0, RATE_HZ)),
        }[one.kind]
        rest = signal.sosfilt_zi(sos)[:, :, None] * first
        expected, _ = signal.sosfilt(sos, expected, axis=0, zi=rest)
        first = first * (0.0 if one.kind == "highpass" else 1.0)
    got = in_chunks(filters, samples, [100, 1, 300])
    np.testing.assert_allclose(got, expected, rtol=2e-7, atol=1e-4)  # float32 of 10,000 uV


@pytest.mark.parametrize("filters", [(HIGHPASS,), (LOWPASS,), (NOTCH,), ALL])
def test_an_offset_does_not_ring(filters):
    offset_uv = np.array([10_000.0, -10_000.0, 0.0])
    samples = np.tile(offset_uv, (500, 1)).astype(np.float32)
    passed_uv = 0 * offset_uv if HIGHPASS in filters else offset_uv
    got = in_chunks(filters, samples, [50, 50])
    np.testing.assert_allclose(got, np.tile(passed_uv, (500, 1)), atol=2e-3)


def test_after_missing_samples_it_starts_again_from_the_new_level():
    before, after = make_eeg(400, seed=1), make_eeg(400, seed=2) + np.float32(5000)
    got = in_chunks(ALL, np.concatenate([before, after]), [150, 260], breaks=[400])
    np.testing.assert_array_equal(got[:400], in_chunks(ALL, before, []))
    np.testing.assert_array_equal(got[400:], in_chunks(ALL, after, []))


def gain(one, freq_hz):
    """Amplitude of what is left of a sine of 100 uV after 8 s."""
    times_s = np.arange(2500) / RATE_HZ
    sine = 100 * np.sin(2 * np.pi * freq_hz * times_s)[:, None]
    return np.abs(in_chunks((one,), sine.astype(np.float32), [])[2000:]).max() / 100


@pytest.mark.parametrize("filters", [(LOWPASS,), ALL, (LOWPASS, LOWPASS)])
@pytest.mark.parametrize("rate_hz", [250.0, 1000.0])
def test_the_delay_that_is_told_is_that_of_a_burst_at_10_hz(filters, rate_hz):
    times_s = np.arange(0, 8, 1 / rate_hz)
    burst = np.exp(-(((times_s - 4) / 0.4) ** 2)) * np.sin(2 * np.pi * 10 * times_s)
    stream_filter = StreamFilter(filters, rate_hz, [0])
    late = stream_filter(burst[:, None].astype(np.float32), UNBROKEN)[:, 0]
    middle_s = [np.average(times_s, weights=np.abs(signal.hilbert(x)) ** 2) for x in (burst, late)]
    assert middle_s[1] - middle_s[0] == pytest.approx(stream_filter.delay_s, abs=1e-3)


def test_the_notch_takes_50_hz_and_leaves_the_eeg():
    assert gain(NOTCH, 50.0) < 1e-3
    for freq_hz in (5.0, 10.0, 40.0):
        assert gain(NOTCH, freq_hz) == pytest.approx(1.0, abs=0.01)


def test_edges_are_where_butterworth_has_them():
    assert gain(LOWPASS, 40.0) == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert gain(LOWPASS, 80.0) < 0.05
    assert gain(LOWPASS, 10.0) == pytest.approx(1.0, abs=0.01)
    edge = FilterSettings(kind="highpass", freq_hz=5.0)
    assert gain(edge, 5.0) == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert gain(edge, 1.0) < 0.01


def test_it_is_causal():
    samples = make_eeg()
    changed = samples.copy()
    changed[600:] += 1000
    np.testing.assert_array_equal(
        in_chunks(ALL, changed, [])[:600], in_chunks(ALL, samples, [])[:600]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_after_a_value_that_is_not_finite_it_starts_again(value):
    samples = make_eeg()
    samples[[100, 299, 300], 1] = value
    at_once = in_chunks(ALL, samples, [])
    for size in (1, 100, 300):
        np.testing.assert_array_equal(in_chunks(ALL, samples, [size] * (1000 // size)), at_once)
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(at_once[:, 1])), [100, 299, 300])
    np.testing.assert_array_equal(at_once[301:, 1], in_chunks(ALL, samples[301:], [])[:, 1])


def test_a_channel_that_is_never_finite_spoils_no_other():
    """Rejection looks at the channels that are used; here one that is not used spoils them."""
    samples = make_eeg()
    samples[:, 1] = np.nan
    got = in_chunks(ALL, samples, [300], columns=[0, 2])
    np.testing.assert_array_equal(got[:, [0, 2]], in_chunks(ALL, make_eeg(), [])[:, [0, 2]])


@pytest.mark.parametrize("freq_hz", [125.0, 200.0])
@pytest.mark.parametrize("kind", ["highpass", "lowpass", "notch"])
def test_a_frequency_that_the_stream_does_not_hold_is_a_problem(kind, freq_hz):
    one = FilterSettings(kind=kind, freq_hz=freq_hz)
    preprocessing = Preprocessing(make_settings((one,)))
    for refuse in (
        lambda: StreamFilter((one,), RATE_HZ, (0,)),
        lambda: preprocessing.prepare(("Cz", "Pz"), RATE_HZ),
    ):
        with pytest.raises(
            Problem, match=f"a {kind} at {freq_hz:g} Hz needs a rate above"
        ) as caught:
            refuse()
        text = str(caught.value)
        assert "the stream has 250 Hz" in text
        assert "\n" not in text
        assert ". " not in text


@pytest.mark.parametrize(
    "changes", [{"freq_hz": 0}, {"freq_hz": -1}, {"order": 0}, {"quality": 0}, {"kind": "bandpass"}]
)
def test_filters_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match="validation error"):
        FilterSettings(**({"kind": "lowpass", "freq_hz": 40.0} | changes))


# --- through the preprocessing, offline and live -------------------------------------------------


def make_settings(filters):
    return PreprocessSettings(
        channels=("Cz", "Pz"),
        output_channels=("Pz", "Cz"),
        rate_hz=RATE_HZ,
        tmin_s=0.0,
        tmax_s=0.4,
        filters=filters,
        whitening="none",
    )


def make_recording():
    """Eight seconds with a loss of 0.6 s, and onsets four times a second."""
    numbers = np.setdiff1d(np.arange(2000), np.arange(1000, 1150))
    onsets_s = 20.3 + 0.25 * np.arange(28)
    return Recording(
        *(Path("made.xdf"), "made", ("Fz", "Cz", "Pz"), ("microvolts",) * 3, RATE_HZ),
        stamps_s=20 + numbers / RATE_HZ,
        samples=make_eeg(2000)[numbers],
        markers=tuple(RecordedMarker(s, f"s{k}") for k, s in enumerate(onsets_s.tolist())),
    )


def live(recording, preprocessing, chunk_samples):
    transform = preprocessing.prepare(recording.channels, RATE_HZ)
    cutting = Cutting(transform.window, RATE_HZ)
    acquisition = Acquisition(3, cutting, stream_filter=transform.stream_filter)
    trials = {}
    for stream, chunk in play(recording, chunk_samples):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            acquisition.add_markers(chunk)
        for one in acquisition.due(chunk.readable_s):
            if isinstance(one, Trial):
                trials[one.event.stimulus] = transform(one.samples)
    return trials


def test_trials_are_the_same_offline_and_live_at_any_chunk_size():
    recording, preprocessing = make_recording(), Preprocessing(make_settings(ALL))
    offline = {
        one.trial.event.stimulus: one.array
        for one in cut_trials(recording, TrialPlan(preprocessing))
        if isinstance(one, Slice)
    }
    assert 20 <= len(offline) < 28  # some lie across the loss
    for chunk_samples in (1, 7, 64, 333, 2000):
        trials = live(recording, preprocessing, chunk_samples)
        assert list(trials) == list(offline)
        for stimulus, trial in trials.items():
            np.testing.assert_array_equal(trial, offline[stimulus])


def test_trials_are_cut_from_the_filtered_stream():
    recording = make_recording()
    preprocessing = Preprocessing(make_settings(ALL))
    trials = live(recording, preprocessing, 64)
    filtered = in_chunks(ALL, recording.samples, [], breaks=[1000])
    for k in (2, 10, 20):
        row = int(np.argmin(np.abs(recording.stamps_s - recording.markers[k].stamp_s)))
        level = filtered[row - 50 : row + 1].mean(axis=0, dtype=np.float64)
        expected = (filtered[row : row + 101] - level)[:, [2, 1]].T
        np.testing.assert_allclose(trials[f"s{k}"], expected, atol=1e-3)
    unfiltered = live(recording, Preprocessing(make_settings(())), 64)
    assert np.abs(unfiltered["s2"] - trials["s2"]).max() > 5


def test_no_filter_is_no_filter():
    transform = Preprocessing(make_settings(())).prepare(("Cz", "Pz"), RATE_HZ)
    assert transform.stream_filter is None
