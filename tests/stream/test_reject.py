"""Trials with artefacts are refused, by name of the channel, and the others keep their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.acquire.acquisition import Acquisition
from stream.acquire.chunk import Chunk
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import Rejection, RejectSettings
from stream.acquire.settings import PreprocessSettings
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Cutting, Drop, Trial, Window

CHANNELS = ("Fz", "Cz", "Pz", "EOG")
USED = (2, 0, 1)


def make_rejection(columns=USED, **limits):
    return Rejection(RejectSettings(**limits), columns, CHANNELS)


def make_trial(**values):
    """100 samples of alpha of 20 uV peak to peak; `values` replace whole channels."""
    alpha = 10 * np.sin(2 * np.pi * np.arange(100) / 25 + 0.1)
    return np.column_stack(
        [np.broadcast_to(values.get(name, alpha), 100) for name in CHANNELS]
    ).astype(np.float32)


def blink(uv):
    """`uv` from peak to peak, about an offset as amplifiers have it."""
    return 5000 + uv * np.hanning(100) / np.hanning(100).max()


def test_a_good_trial_is_taken():
    assert make_rejection(peak_to_peak_uv=100, flat_uv=1).why(make_trial()) is None


def test_without_limits_only_missing_values_are_refused():
    assert make_rejection().why(make_trial(Cz=blink(1e6), Pz=0.0)) is None


def test_peak_to_peak_names_the_worst_channel():
    rejection = make_rejection(peak_to_peak_uv=100)
    why = rejection.why(make_trial(Cz=blink(150), Pz=blink(300)))
    assert why == "Pz 300 uV peak to peak"
    assert rejection.why(make_trial(Cz=blink(150))) == "Cz 150 uV peak to peak"


def test_flat_names_the_flattest_channel():
    rejection = make_rejection(flat_uv=1)
    assert rejection.why(make_trial(Fz=blink(0.5), Cz=7.0)) == "Cz is flat (0 uV)"
    assert rejection.why(make_trial(Fz=blink(0.5))) == "Fz is flat (0.5 uV)"


def test_the_limits_themselves_are_allowed():
    square = np.resize([0, 100], 100)
    assert (
        make_rejection(peak_to_peak_uv=100, flat_uv=100).why(
            make_trial(Fz=square, Cz=square, Pz=square)
        )
        is None
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limits", [{}, {"peak_to_peak_uv": 100}, {"flat_uv": 1}])
@pytest.mark.parametrize("at", [0, 57, 99])
def test_a_value_that_is_not_finite_is_refused_at_any_limits(value, limits, at):
    channel = np.linspace(0, 20, 100)
    channel[at] = value
    why = make_rejection(**limits).why(make_trial(Cz=channel, Pz=blink(1000)))
    assert why == "Cz holds values that are not finite"
    assert make_rejection(**limits).why(make_trial(Cz=value)) == why


@pytest.mark.parametrize("spoilt", [np.nan, 0.0, blink(1e5)], ids=["nan", "flat", "huge"])
def test_only_the_channels_that_are_used_count(spoilt):
    limits = {"peak_to_peak_uv": 100, "flat_uv": 1}
    assert make_rejection(**limits).why(make_trial(EOG=spoilt)) is None
    assert make_rejection(columns=[0, 3], **limits).why(make_trial(EOG=spoilt)).startswith("EOG ")


@pytest.mark.parametrize(
    ("label", "kind"),
    [("Status", "eeg"), ("AUX1", ""), ("x", "AUX"), ("x", "ecg"), ("VEOG", "EEG")],
)
@pytest.mark.parametrize("has_bundle", [True, False])
def test_what_is_no_eeg_is_held_to_no_limits(label, kind, has_bundle):
    """Also where a bundle takes it; there its missing values reject nevertheless."""
    channels, kinds = ("Cz", label, "Pz"), ("eeg", kind, "eeg") if kind else ()
    settings = PreprocessSettings(
        channels=channels,
        output_channels=channels,
        rate_hz=100.0,
        tmin_s=0.0,
        tmax_s=0.5,
        baseline_s=None,
        whitening="none",
    )
    plan = TrialPlan(
        Preprocessing(settings) if has_bundle else None,
        (0.0, 0.5),
        reject=RejectSettings(peak_to_peak_uv=100, flat_uv=1),
    )
    rejection = TrialStream(channels, 100.0, plan, kinds=kinds).acquisition.cutter.rejection
    trial = make_trial()[:51, :3]
    for spoilt in (1e4 * np.arange(51), np.zeros(51)):
        trial[:, 1] = spoilt
        assert rejection.why(trial) is None
    trial[20, 1] = np.nan
    assert (rejection.why(trial) is not None) == has_bundle
    trial[:, 0] = 0
    assert rejection.why(trial).startswith(label if has_bundle else "Cz is flat")


@given(st.integers(0, 2**32 - 1), st.floats(1, 300), st.floats(0, 300))
def test_it_refuses_what_numpy_says(seed, high, low):
    rng = np.random.default_rng(seed)
    trial = (rng.normal(size=(100, 4)) * rng.uniform(0, 60, 4) + 1000).astype(np.float32)
    spans = np.ptp(trial[:, list(USED)], axis=0)
    why = make_rejection(peak_to_peak_uv=high, flat_uv=low).why(trial)
    assert (why is not None) == bool(spans.max() > high or spans.min() < low)


# --- on the way to trials ------------------------------------------------------------------------

RATE_HZ = 100.0
WINDOW = Window(0, 49)


def run(spoilt, onsets, chunk_samples):
    """Outcomes in their order: (number, "") or (number, reason), and how many came at once."""
    samples = np.tile(make_trial()[:, :3], (10, 1))
    samples[spoilt] = 1000
    rejection = Rejection(RejectSettings(peak_to_peak_uv=100), range(3), CHANNELS[:3])
    acquisition = Acquisition(3, Cutting(WINDOW, RATE_HZ))
    acquisition.cutter.rejection = rejection
    for onset in onsets:
        stamp_s = np.array([50 + onset / RATE_HZ])
        row = np.array([[f"s{onset}"]], object)
        acquisition.add_markers(Chunk(stamp_s, row, 0.0, float(stamp_s[0])))
    told, at_once = [], 0
    for start in range(0, len(samples), chunk_samples):
        part = samples[start : start + chunk_samples]
        raw_s = 50 + (start + np.arange(len(part))) / RATE_HZ
        acquisition.add_eeg(Chunk(raw_s, part, 0.0, float(raw_s[-1])))
        due = acquisition.due(float(raw_s[-1]))
        at_once = max(at_once, len(due))
        for one in due:
            told.append((one.number, one.reason if isinstance(one, Drop) else ""))
            if isinstance(one, Drop):
                assert one.detail.startswith("Fz ")
                assert one.detail.endswith(" uV peak to peak")
            else:
                assert one.event.stimulus == f"s{onsets[one.number - 1]}"
                first = round((one.first_stamp_s - 50) * RATE_HZ)
                assert first == onsets[one.number - 1]
                np.testing.assert_array_equal(one.samples, samples[first : first + 50])
    assert acquisition.cutter.next_end_s == np.inf
    return told, at_once


def test_of_three_trials_that_are_due_at_once_the_middle_one_is_rejected():
    told, at_once = run([320], [200, 300, 400], chunk_samples=1000)
    assert told == [(1, ""), (2, "rejected"), (3, "")]
    assert at_once == 3


@pytest.mark.parametrize("chunk_samples", [1, 13, 64, 1000])
def test_trials_that_overlap_stay_in_order_around_rejected_ones(chunk_samples):
    """SOA 100 ms, windows of 500 ms: one bad sample spoils the five trials that it belongs to."""
    onsets = list(range(100, 900, 10))
    told, _ = run([400, 605], onsets, chunk_samples)
    bad = [any(onset <= at < onset + 50 for at in (400, 605)) for onset in onsets]
    assert sum(bad) == 10
    expected = [(k, "rejected" if is_bad else "") for k, is_bad in enumerate(bad, 1)]
    assert told == expected


def test_a_rejected_trial_is_not_decided_before_its_window_has_ended():
    assert run([120], [100], chunk_samples=1)[0] == [(1, "rejected")]
    samples = np.full((30, 1), np.nan, np.float32)
    rejection = Rejection(RejectSettings(), [0], ["Cz"])
    acquisition = Acquisition(1, Cutting(WINDOW, RATE_HZ))
    acquisition.cutter.rejection = rejection
    acquisition.add_markers(Chunk(np.array([50.0]), np.array([["a"]], object), 0.0, 50.0))
    for start in (0, 30):
        raw_s = 50 + (start + np.arange(30)) / RATE_HZ
        acquisition.add_eeg(Chunk(raw_s, samples, 0.0, float(raw_s[-1])))
        due = acquisition.due(float(raw_s[-1]))
        assert [one.reason for one in due] == (["rejected"] if start else [])


@pytest.mark.slow
def test_5000_trials_at_soa_100_ms_with_rejected_ones_among_them():
    """None is lost, doubled or mislabelled: a trial's own values say which it is."""
    rate_hz, n_trials, soa = 250.0, 5000, 25
    window = Window(0, 250)
    onsets = 100 + soa * np.arange(n_trials)
    n_samples = onsets[-1] + 300
    samples = np.column_stack([np.arange(n_samples), np.zeros(n_samples)]).astype(np.float32)
    spikes = np.random.default_rng(2).choice(n_samples, 120, replace=False)
    samples[spikes, 1] = 500.0
    rejection = Rejection(RejectSettings(peak_to_peak_uv=100.0), [1], ["number", "Cz"])
    acquisition = Acquisition(2, Cutting(window, rate_hz, history_s=3.0))
    acquisition.cutter.rejection = rejection
    for onset in onsets:
        stamp_s = np.array([onset / rate_hz])
        acquisition.add_markers(Chunk(stamp_s, np.array([[f"s{onset}"]], object), 0.0, 0.0))
    seen = []
    for start in range(0, n_samples, 37):
        numbers = np.arange(start, min(start + 37, n_samples))
        now_s = numbers[-1] / rate_hz
        acquisition.add_eeg(Chunk(numbers / rate_hz, samples[numbers], 0.0, now_s))
        for outcome in acquisition.due(now_s):
            is_trial = isinstance(outcome, Trial)
            label = int(outcome.event.stimulus[1:])
            if is_trial:
                np.testing.assert_array_equal(outcome.samples[:, 0], label + np.arange(251))
            seen.append((outcome.number, label, is_trial))
    assert [number for number, _, _ in seen] == list(range(1, n_trials + 1))
    assert [label for _, label, _ in seen] == onsets.tolist()
    hit = [any(0 <= spike - onset <= 250 for spike in spikes) for onset in onsets]
    assert [not is_trial for _, _, is_trial in seen] == hit
    assert 500 < sum(hit) < 4000
