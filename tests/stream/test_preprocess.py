"""The two small matrices do what MNE, NumPy and scikit-learn do step by step."""

from itertools import pairwise

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.filters import HALF_WIDTH
from stream.acquire.preprocess import Preprocessing, PreprocessSettings, fit
from stream.acquire.whitening import noise_covariance, whitener

RATE_HZ = 250.0
CAP = ("Fp1", "Fz", "Cz", "Pz", "Oz", "EOG")
CHANNELS = ("Oz", "Pz", "Cz", "Fz")


def make_settings(**changes):
    defaults = {
        "channels": CHANNELS,
        "output_channels": CHANNELS,
        "rate_hz": RATE_HZ,
        "tmin_s": 0.0,
        "tmax_s": 0.996,
        "whitening": "none",
    }
    return PreprocessSettings(**(defaults | changes))


def is_one_sentence(problem):
    text = str(problem)
    return "\n" not in text and ". " not in text and "; " in text


# --- at the rate of the model --------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["none", "average"])
@pytest.mark.parametrize("baseline_s", [None, (-0.2, 0.0), (-0.101, -0.0499), (0.0, 0.3)])
@pytest.mark.parametrize("tmin_s", [-0.2, 0.0])
def test_trials_are_those_of_mne(reference, baseline_s, tmin_s):
    rng = np.random.default_rng(4)
    samples_uv = (rng.normal(0, 20, (2000, len(CAP))) + rng.uniform(-500, 500, len(CAP))).astype(
        np.float32
    )
    onsets = np.array([300, 301, 777, 1500])
    raw = mne.io.RawArray(samples_uv.T * 1e-6, mne.create_info(list(CAP), RATE_HZ, "eeg"))
    events = np.column_stack([onsets, np.zeros(4, int), np.ones(4, int)])
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1.0, baseline=baseline_s, preload=True)
    epochs.pick(list(CHANNELS)).reorder_channels(list(CHANNELS))
    if reference == "average":
        epochs.set_eeg_reference("average")
    expected_uv = epochs.crop(tmin_s, 0.996).get_data() * 1e6
    choice = make_settings(reference=reference, baseline_s=baseline_s, tmin_s=tmin_s)
    transform = Preprocessing(choice).prepare(CAP, RATE_HZ)
    for onset, expected in zip(onsets, expected_uv, strict=True):
        window = transform.window
        got = transform(samples_uv[onset + window.first : onset + window.last + 1])
        assert got.dtype == np.float32
        assert got.shape == (len(CHANNELS), choice.n_times)
        np.testing.assert_allclose(got, expected, atol=3e-4)  # float32 of 500 uV


def plain(choice, arrays, samples, channels, window):
    """Step by step, in float64, at the rate of the model."""
    trial = {name: samples[:, channels.index(name)].astype(float) for name in choice.channels}
    times_s = np.arange(window.first, window.last + 1) / choice.rate_hz
    if choice.baseline_s is not None:
        low, high = choice.baseline_s
        inside = (times_s >= low - 1e-6) & (times_s <= high + 1e-6)
        trial = {name: values - values[inside].mean() for name, values in trial.items()}
    stacked = np.array(list(trial.values()))
    if choice.reference == "average":
        stacked = stacked - stacked.mean(axis=0)
    if choice.whitening == "mvnn":
        stacked = arrays["whitener"] @ stacked
    rows = [choice.channels.index(name) for name in choice.output_channels]
    stacked = stacked[rows][:, (times_s > choice.tmin_s - 1e-6) & (times_s < choice.tmax_s + 1e-6)]
    return stacked / arrays["scale"][:, None] if choice.scaling == "robust" else stacked


@st.composite
def choices(draw):
    cap = tuple(draw(st.permutations(CAP)))
    channels = tuple(draw(st.permutations(CAP)))[: draw(st.integers(2, len(CAP)))]
    first, count = draw(st.integers(-40, 20)), draw(st.integers(2, 60))
    start, length = draw(st.integers(-40, 20)), draw(st.integers(0, 30))
    choice = make_settings(
        channels=channels,
        output_channels=channels[: draw(st.integers(1, len(channels)))][::-1],
        tmin_s=first / RATE_HZ,
        tmax_s=(first + count) / RATE_HZ,
        baseline_s=draw(
            st.sampled_from([None, (start / RATE_HZ, (start + length) / RATE_HZ), (-0.2, 0.0)])
        ),
        reference=draw(st.sampled_from(["none", "average"])),
        whitening=draw(st.sampled_from(["none", "mvnn"])),
        scaling=draw(st.sampled_from(["none", "robust"])),
    )
    return cap, choice


@settings(max_examples=150, deadline=None)
@given(choices(), st.integers(0, 99))
def test_any_settings_are_the_steps_one_after_another(drawn, seed):
    cap, choice = drawn
    rng = np.random.default_rng(seed)
    n, n_out = len(choice.channels), len(choice.output_channels)
    arrays = {"whitener": rng.normal(size=(n, n)), "scale": rng.uniform(0.5, 20, n_out)}
    transform = Preprocessing(choice, arrays).prepare(cap, RATE_HZ)
    samples = rng.normal(0, 20, (transform.window.count, len(cap))).astype(np.float32)
    before = samples.copy()
    expected = plain(choice, arrays, samples, cap, transform.window)
    np.testing.assert_allclose(transform(samples), expected, atol=1e-3)
    np.testing.assert_array_equal(samples, before)  # it is a view of the ring


def test_a_trial_of_another_shape_is_refused():
    transform = Preprocessing(make_settings()).prepare(CAP, RATE_HZ)
    with pytest.raises(ValueError, match=r"a trial of shape \(10, 6\), expected \(300, 6\)"):
        transform(np.zeros((10, 6), np.float32))


# --- resampling ----------------------------------------------------------------------------------

FASTER = [300.0, 500.0, 512.0, 1000.0, 2048.0]
KERNELS = ["one_sided", "two_sided"]


def resampled(rate_hz, signal, **changes):
    """What becomes of a function of time, per channel; and the times of the result."""
    choice = make_settings(**({"baseline_s": None} | changes))
    transform = Preprocessing(choice).prepare(CHANNELS, rate_hz)
    times_s = np.arange(transform.window.first, transform.window.last + 1) / rate_hz
    samples = np.column_stack([signal(times_s)] * len(CHANNELS)).astype(np.float32)
    return transform(samples), choice.tmin_s + np.arange(choice.n_times) / choice.rate_hz


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rate_hz", FASTER)
def test_sines_below_40_hz_stay_within_half_a_percent_and_in_phase(rate_hz, kernel):
    rng = np.random.default_rng(2)
    frequencies_hz, phases = rng.uniform(0.5, 40, 12), rng.uniform(0, 2 * np.pi, 12)

    def signal(times_s):
        return np.sin(2 * np.pi * frequencies_hz[:, None] * times_s + phases[:, None]).sum(axis=0)

    got, times_s = resampled(rate_hz, signal, kernel=kernel)
    known = slice(0, -HALF_WIDTH if kernel == "one_sided" else None)  # the last ones are estimates
    assert np.abs(got - signal(times_s))[:, known].max() < 0.005 * len(frequencies_hz)
    for frequency_hz in (1, 10, 20, 40):
        got, times_s = resampled(
            rate_hz, lambda t, f=frequency_hz: np.sin(2 * np.pi * f * t), kernel=kernel
        )
        error = np.abs(got - np.sin(2 * np.pi * frequency_hz * times_s))
        assert error[:, known].max() < 0.005


@pytest.mark.parametrize(
    ("rate_hz", "percent"), [(300.0, 20), (500.0, 10), (512.0, 11), (1000.0, 2.7), (2048.0, 2)]
)
def test_the_last_samples_are_near_what_later_ones_would_make_of_them(rate_hz, percent):
    """Of 1/f noise up to 120 Hz; a kernel that is cut off at tmax misses by 14 to 28 %."""
    rng = np.random.default_rng(4)
    hz = np.fft.rfftfreq(1 << 16, 1 / rate_hz)
    amplitudes = np.where((hz >= 0.5) & (hz <= 120), np.maximum(hz, 0.5) ** -0.5, 0)
    noise = np.fft.irfft(amplitudes * np.exp(2j * np.pi * rng.random(hz.size)))
    errors, powers = [], []
    choices = [make_settings(baseline_s=None, kernel=kernel) for kernel in KERNELS]
    early, late = [Preprocessing(choice).prepare(CHANNELS, rate_hz) for choice in choices]
    assert early.window.last == round(0.996 * rate_hz) < late.window.last
    for start in range(0, len(noise) - late.window.count, late.window.count // 4):
        samples = np.column_stack([noise[start : start + late.window.count]] * len(CHANNELS))
        samples = samples.astype(np.float32)
        got, expected = early(samples[: early.window.count]), late(samples)
        np.testing.assert_allclose(got[:, :-HALF_WIDTH], expected[:, :-HALF_WIDTH], atol=1e-6)
        errors.append((got - expected)[0, -HALF_WIDTH:])
        powers.append(expected[0, -HALF_WIDTH:])
    assert np.std(errors) / np.std(powers) < percent / 100


@pytest.mark.parametrize("rate_hz", FASTER)
def test_a_constant_stays_that_constant(rate_hz):
    got, _ = resampled(rate_hz, lambda times_s: np.full_like(times_s, 1000.0))
    np.testing.assert_allclose(got, 1000.0, rtol=1e-6)


@pytest.mark.parametrize("rate_hz", [512.0, 1000.0, 2048.0])
def test_what_would_fold_into_the_eeg_is_45_db_down(rate_hz):
    """From 150 Hz on, which folds to 100 Hz and below; 210 to 290 Hz folds to below 40 Hz."""
    for frequency_hz in np.linspace(150, rate_hz / 2, 16, endpoint=False):
        got, _ = resampled(rate_hz, lambda t, f=frequency_hz: np.sin(2 * np.pi * f * t + 0.3))
        assert np.abs(got[:, :-HALF_WIDTH]).max() < 10 ** (-45 / 20)


@pytest.mark.parametrize("rate_hz", FASTER)
def test_the_window_of_a_faster_stream_is_as_wide_as_the_kernel_and_the_baseline(rate_hz):
    choice = make_settings(baseline_s=(-0.2, 0.0))
    window = Preprocessing(choice).prepare(CHANNELS, rate_hz).window
    assert window.first == -round(np.floor(0.2 * rate_hz))
    assert window.last == round(0.996 * rate_hz)
    waits = Preprocessing(choice.model_copy(update={"kernel": "two_sided"}))
    last = np.floor((0.996 + 0.016) * rate_hz + 1e-6)
    assert waits.prepare(CHANNELS, rate_hz).window.last == last


def test_baseline_and_resampling_together_leave_a_response_alone():
    """An offset goes, a response after the baseline stays."""

    def signal(times_s):
        response = 10 * np.exp(-(((times_s - 0.4) / 0.05) ** 2))
        return 300 + response

    got, times_s = resampled(1000.0, signal, baseline_s=(-0.2, 0.0), tmin_s=-0.2)
    np.testing.assert_allclose(got, np.tile(signal(times_s) - 300, (len(CHANNELS), 1)), atol=0.02)


@pytest.mark.parametrize("rate_hz", [249.9999, 250.0, 250.0001])
def test_a_rate_a_hair_beside_the_models_gives_as_many_samples(rate_hz):
    choice = make_settings(tmin_s=0.05, tmax_s=0.2, baseline_s=None)  # 12.5 samples, 50 samples
    transform = Preprocessing(choice).prepare(CAP, rate_hz)
    assert (transform.window.first, transform.window.last) == (12, 50)
    trial = np.zeros((transform.window.count, len(CAP)), np.float32)
    assert transform(trial).shape == (len(CHANNELS), choice.n_times)


def test_a_stream_of_the_model_rate_is_not_filtered():
    transform = Preprocessing(make_settings(baseline_s=None)).prepare(CHANNELS, RATE_HZ)
    samples = np.random.default_rng(0).normal(size=(250, 4)).astype(np.float32)
    np.testing.assert_array_equal(transform(samples), samples.T)


# --- whitening -----------------------------------------------------------------------------------


def noise(n_trials=40, n_times=200, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(0, 5, (len(CHANNELS), len(CHANNELS)))
    white = rng.normal(size=(n_trials, len(CHANNELS), n_times))
    return (mixing @ white).astype(np.float32), mixing @ mixing.T


@pytest.mark.parametrize("n_times", [3, 20, 250])
def test_the_noise_covariance_is_that_of_scikit_learn(n_times):
    from sklearn.discriminant_analysis import _cov  # here: it takes a second, of every worker

    trials, _ = noise(n_times=n_times)
    trials += np.arange(len(CHANNELS), dtype=np.float32)[:, None] * 10
    expected = np.mean([_cov(trial.T.astype(float), shrinkage="auto") for trial in trials], axis=0)
    np.testing.assert_allclose(noise_covariance(trials), expected, rtol=1e-6, atol=1e-8)


def test_the_noise_covariance_comes_near_the_true_one():
    trials, true = noise(n_trials=400, n_times=250)
    assert np.linalg.norm(noise_covariance(trials) - true) < 0.03 * np.linalg.norm(true)


def test_whitened_noise_has_unit_covariance():
    trials, _ = noise(n_trials=30, n_times=5000)  # so long that nothing is shrunk
    covariance = noise_covariance(trials)
    matrix = whitener(covariance)
    np.testing.assert_allclose(matrix @ covariance @ matrix, np.eye(len(CHANNELS)), atol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    white = np.einsum("ij,njt->nit", matrix, trials)
    found = np.cov(np.moveaxis(white, 1, 0).reshape(len(CHANNELS), -1))
    np.testing.assert_allclose(found, np.eye(len(CHANNELS)), atol=0.02)


def test_a_flat_channel_leaves_the_whitener_finite():
    trials, _ = noise()
    trials[:, 1] = 0.1
    matrix = whitener(noise_covariance(trials))
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() < 1e3


@pytest.mark.parametrize("shape", [(0, 4, 10), (4, 10)])
def test_no_trials_have_no_covariance(shape):
    with pytest.raises(ValueError, match=r"expected \(n, channels, times\) with n > 0"):
        noise_covariance(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_covariance(value):
    trials, _ = noise()
    trials[3, 2, 1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        noise_covariance(trials)


# --- fit and apply -------------------------------------------------------------------------------


def to_fit(settings: PreprocessSettings, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mixed noise of a cap, and its trials before what is fitted to them."""
    plain = {"output_channels": CHANNELS, "whitening": "none", "scaling": "none"}
    transform = Preprocessing(settings.model_copy(update=plain)).prepare(CAP, 1000.0)
    rng = np.random.default_rng(6)
    mixing = rng.normal(0, 5, (len(CAP), len(CAP)))
    streams = rng.normal(size=(n, transform.window.count, len(CAP))) @ mixing + 100
    streams = streams.astype(np.float32)
    return streams, np.stack([transform(stream) for stream in streams])


@pytest.mark.parametrize("reference", ["none", "average"])
def test_what_was_fitted_makes_the_training_trials_white_and_of_unit_scale(reference):
    output = ("Cz", "Oz")
    wanted = make_settings(
        output_channels=output, whitening="mvnn", scaling="robust", reference=reference
    )
    streams, trials = to_fit(wanted, 60)
    fitted = fit(wanted, trials)
    assert fitted.settings == wanted
    covariance = noise_covariance(trials)
    matrix = fitted.arrays["whitener"]
    np.testing.assert_allclose(matrix @ covariance @ matrix, np.eye(len(CHANNELS)), atol=1e-6)

    live = fitted.prepare(CAP[::-1], 1000.0)
    got = np.stack([live(np.ascontiguousarray(stream[:, ::-1])) for stream in streams])
    rows = [CHANNELS.index(name) for name in output]
    expected = np.einsum("ij,njt->nit", matrix, trials)[:, rows]
    expected /= fitted.arrays["scale"][:, None]
    np.testing.assert_allclose(got, expected, atol=2e-3)
    values = np.moveaxis(got, 1, 0).reshape(len(output), -1)
    centre = np.median(values, axis=1, keepdims=True)
    mad = np.median(np.abs(values - centre), axis=1)
    np.testing.assert_allclose(1.4826 * mad, 1, rtol=1e-3)


def test_the_whole_preprocessing_comes_back_from_json_and_arrays():
    """A bundle keeps the settings as JSON and the arrays as float64 tensors."""
    trials, _ = noise(n_times=250)
    fitted = fit(make_settings(whitening="mvnn", scaling="robust"), trials)
    read = PreprocessSettings.model_validate_json(fitted.settings.model_dump_json())
    again = Preprocessing(read, {name: array.copy() for name, array in fitted.arrays.items()})
    one, other = fitted.prepare(CAP, 512.0), again.prepare(CAP, 512.0)
    samples = np.random.default_rng(1).normal(size=(one.window.count, 6)).astype(np.float32)
    assert one.window == other.window
    np.testing.assert_array_equal(one(samples), other(samples))


def test_robust_scaling_is_not_moved_by_outliers():
    trials, _ = noise(n_trials=100)
    choice = make_settings(scaling="robust", tmax_s=199 / RATE_HZ)
    scale = fit(choice, trials).arrays["scale"]
    np.testing.assert_allclose(scale, trials.std(axis=(0, 2)), rtol=0.05)
    trials[::10, :, ::10] = 1e6
    np.testing.assert_allclose(fit(choice, trials).arrays["scale"], scale, rtol=0.05)


@pytest.mark.parametrize("whitening", ["none", "mvnn"])
@pytest.mark.parametrize("scaling", ["none", "robust"])
@pytest.mark.parametrize("reference", ["none", "average", "Pz"])
def test_the_trial_covariance_is_the_mean_of_what_comes_out(whitening, scaling, reference):
    choice = make_settings(
        output_channels=("Fz", "Oz"), whitening=whitening, scaling=scaling, reference=reference
    )
    streams, trials = to_fit(choice, 25)
    fitted = fit(choice, trials)
    live = fitted.prepare(CAP, 1000.0)
    expected = np.mean([np.cov(live(stream), bias=True) for stream in streams], axis=0)
    np.testing.assert_allclose(fitted.arrays["trial_covariance"], expected, rtol=1e-4, atol=1e-5)


def test_the_trial_covariance_is_of_all_trials_though_the_scale_is_of_some():
    trials, _ = noise(n_trials=1200, n_times=20)
    trials[1::2] *= 1.5
    fitted = fit(make_settings(scaling="robust"), trials)
    scaled = trials / fitted.arrays["scale"][:, None]
    expected = np.mean([np.cov(trial, bias=True) for trial in scaled], axis=0)
    np.testing.assert_allclose(fitted.arrays["trial_covariance"], expected, rtol=1e-4, atol=1e-5)


def test_a_monstrous_trial_is_no_part_of_the_trial_covariance():
    trials, _ = noise(n_times=250)
    expected = fit(make_settings(), trials).arrays["trial_covariance"]
    with_a_blink = np.concatenate([trials, 10 * trials[:1]])
    found = fit(make_settings(), with_a_blink).arrays["trial_covariance"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# --- refusals ------------------------------------------------------------------------------------


def test_a_stream_without_all_channels_is_refused():
    with pytest.raises(Problem, match="missing Oz; name those") as caught:
        Preprocessing(make_settings()).prepare(("Cz", "Pz", "fz"), RATE_HZ)
    assert is_one_sentence(caught.value)


def test_a_slower_stream_is_refused():
    with pytest.raises(Problem, match="runs at 128 Hz, the bundle needs at least 250 Hz") as caught:
        Preprocessing(make_settings()).prepare(CAP, 128.0)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"output_channels": ("Oz", "T7")},
        {"channels": ("Oz", "Oz"), "output_channels": ("Oz",)},
        {"rate_hz": 0.0},
        {"tmin_s": 1.0, "tmax_s": 1.0},
        {"surprise": 1},
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes):
    with pytest.raises(ValueError, match="validation error"):
        make_settings(**changes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("baseline_s", [(0.0, -0.2), (0.0012, 0.0018)])
def test_a_baseline_without_a_sample_is_refused(baseline_s):
    with pytest.raises((ValueError, Problem), match="baseline"):
        Preprocessing(make_settings(baseline_s=baseline_s)).prepare(CAP, RATE_HZ)


def test_a_dead_channel_that_nobody_uses_spoils_no_trial():
    transform = Preprocessing(make_settings()).prepare(CAP, RATE_HZ)
    unused = next(i for i in range(len(CAP)) if i not in transform.columns)
    samples = np.random.default_rng(0).normal(size=(transform.window.count, len(CAP)))
    samples = samples.astype(np.float32)
    expected = transform(samples)
    samples[:, unused] = np.nan
    np.testing.assert_array_equal(transform(samples), expected)


# --- parts of a trial that is still going on -----------------------------------------------------


PART_CHOICES = [
    {},
    {"baseline_s": None},
    {"baseline_s": None, "tmin_s": -0.1, "tmax_s": 0.2},
    {"baseline_s": (0.0, 0.3)},
    {"baseline_s": (0.5, 1.2)},
    {"tmin_s": 0.1, "reference": "average", "output_channels": ("Cz", "Oz")},
]


@pytest.mark.parametrize("choice", PART_CHOICES)
@pytest.mark.parametrize("rate_hz", [250.0, 500.0, 512.0, 1000.0])
def test_the_first_times_need_the_rows_that_they_say_and_no_others(choice, rate_hz):
    """What lies behind `rows_for` may be anything, and its last row is one that counts."""
    transform = Preprocessing(make_settings(**choice)).prepare(CAP, rate_hz)
    shape = (transform.window.count, len(CAP))
    samples = np.random.default_rng(1).normal(0, 20, shape).astype(np.float32)
    rows_before, n = 0, transform.n_times
    for n_times in sorted({1, 2, n // 3, n // 2, n - 1, n}):
        rows = transform.rows_for(n_times)
        assert rows_before <= rows <= transform.window.count
        rows_before = rows
        expected = transform.part(samples, 0, n_times)
        np.testing.assert_array_equal(transform.part(samples[:rows], 0, n_times), expected)
        other = samples.copy()
        other[rows:] = np.nan
        np.testing.assert_array_equal(transform.part(other, 0, n_times), expected)
        other = samples.copy()
        other[rows - 1] += 1e5
        assert not np.array_equal(transform.part(other, 0, n_times), expected)
    assert transform.rows_for(n) == transform.window.count


@pytest.mark.parametrize("rate_hz", [250.0, 512.0, 1000.0])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_parts_put_together_are_the_whole(rate_hz, data):
    choice = data.draw(st.sampled_from(PART_CHOICES))
    whitening = np.eye(len(CHANNELS)) + np.random.default_rng(2).normal(0, 0.2, (4, 4))
    chosen = make_settings(**choice, whitening="mvnn")
    transform = Preprocessing(chosen, {"whitener": whitening}).prepare(CAP, rate_hz)
    shape = (transform.window.count, len(CAP))
    samples = np.random.default_rng(3).normal(50, 20, shape).astype(np.float32)
    n = transform.n_times
    cuts = data.draw(st.sets(st.integers(1, n - 1), max_size=5))
    edges = [0, *sorted(cuts), n]
    parts = [
        transform.part(samples[: transform.rows_for(stop)], start, stop)
        for start, stop in pairwise(edges)
    ]
    assert all(part.dtype == np.float32 and part.flags.c_contiguous for part in parts)
    assert [part.shape[1] for part in parts] == np.diff(edges).tolist()
    np.testing.assert_allclose(np.concatenate(parts, axis=1), transform(samples), atol=2e-4)
