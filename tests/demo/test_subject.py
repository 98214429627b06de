"""The simulated subject: a recording that looks like EEG, and answers to what is shown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import legendre
from scipy import ndimage, signal
from scipy.spatial.distance import pdist

from demo.head import CHANNELS, dipole_potential, electrode_directions, head_of
from demo.subject import SLOPE, TRIAL_VARIANCE_SHARE, SimulatedSubject, SubjectSettings
from hvf_core.problem import Problem

ATTRIBUTES = {"shape": "star", "material": "wood", "colour": "red", "place": "desert"}
QUIET = SubjectSettings(noise_uv=0, alpha_uv=0, sensor_uv=0, drift_uv=0, line_uv=0, blink_uv=0)
BACKGROUND = SubjectSettings(alpha_uv=0, drift_uv=0, line_uv=0, blinks_per_minute=0)


def an_image(seed: int) -> np.ndarray:
    """Smooth blobs of colour, uint8 (128, 128, 3)."""
    noise = np.random.RandomState(seed).standard_normal((128, 128, 3))
    smooth = ndimage.gaussian_filter(noise, (14, 14, 0), mode="wrap")
    return np.clip(128 + 55 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def with_(base: SubjectSettings, **changes: float) -> SubjectSettings:
    return SubjectSettings(**{**vars(base), **changes})


def spectrum(eeg: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and density (frequencies, channels) in uV^2 / Hz, 0.5 Hz apart."""
    return signal.welch(eeg, rate_hz, nperseg=int(2 * rate_hz), axis=0)


def near(freqs_hz: np.ndarray, centre_hz: float) -> np.ndarray:
    return np.abs(freqs_hz - centre_hz) <= 1


# The head


def test_electrodes_lie_where_their_names_say() -> None:
    where = dict(zip(CHANNELS, electrode_directions(), strict=False))
    assert len(CHANNELS) == len(set(CHANNELS)) == 63
    assert all(name.startswith(("P", "O")) for name in CHANNELS[-17:])
    assert where["Oz"][1] < -0.8 < 0.8 < where["AFz"][1]
    assert where["T7"][0] < -0.9 < 0.9 < where["T8"][0]
    assert where["Cz"][2] > 0.9
    np.testing.assert_allclose(np.linalg.norm(electrode_directions(), axis=1), 1)


@pytest.mark.parametrize("eccentricity", [0.2, 0.52, 0.8])
def test_the_dipole_potential_is_its_legendre_series(eccentricity: float) -> None:
    """Frank (1952): radial sum of (2n+1) f^(n-1) P_n, tangential with -P_n' sin / n for P_n."""
    angle = np.linspace(0.05, 3.1, 40)
    electrodes = np.column_stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)])
    order = np.arange(1, 250)
    terms = (2 * order + 1) * eccentricity ** (order - 1.0)
    radial = legendre.legval(np.cos(angle), np.r_[0, terms])
    slope = legendre.legval(np.cos(angle), legendre.legder(np.r_[0, terms / order]))
    position = np.array([[0, 0, eccentricity]] * 2)
    moments = np.array([[0, 0, 1.0], [1.0, 0, 0]])
    expected = np.column_stack([radial, np.sin(angle) * slope])
    potential = dipole_potential(position, moments, electrodes)
    np.testing.assert_allclose(potential, expected, rtol=1e-9, atol=1e-9)


def test_people_see_alike_and_their_channels_tell_it_otherwise() -> None:
    def evoked(**who: int) -> np.ndarray:
        subject = SimulatedSubject(SubjectSettings(**who), 1)
        words = [{**ATTRIBUTES, "shape": f"word{i}"} for i in range(8)]
        return np.array([subject.evoked(an_image(i), word).ravel() for i, word in enumerate(words)])

    usual, person, other_brain = evoked(), evoked(person=6), evoked(seed=9)
    np.testing.assert_array_equal(person, evoked(person=6))
    likeness = np.corrcoef([pdist(one) for one in (usual, person, other_brain)])[0]
    assert likeness[1] > 0.6 > likeness[2] + 0.2
    changes = [(one - one.mean(axis=0)).ravel() for one in (usual, person)]
    assert 0.4 < np.corrcoef(changes)[0, 1] < 0.9


def test_a_persons_gains_are_those_of_all_that_a_channel_records() -> None:
    eeg = SimulatedSubject(with_(QUIET, sensor_uv=1.0, person=3), 1).read(5000)
    np.testing.assert_allclose(eeg.std(axis=0), head_of(3).gains, rtol=0.05)
    assert 0.1 < np.log(head_of(3).gains).std() < 0.3


# The recording as a stream of samples


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=12), st.sampled_from([50.0, 250.0, 333.0])
)
def test_chunks_of_any_size_hold_the_same_samples(sizes: list[int], rate_hz: float) -> None:
    evoked = np.random.default_rng(0).standard_normal((63, 99)).astype(np.float32)

    def recording() -> SimulatedSubject:
        subject = SimulatedSubject(SubjectSettings(rate_hz=rate_hz), recording_seed=3)
        for onset in (0, 17, 60, 400):
            subject.present(onset, evoked)
        return subject

    whole, parts = recording(), recording()
    chunks = [parts.read(size) for size in sizes]
    assert [len(chunk) for chunk in chunks] == sizes
    assert parts.next_sample == sum(sizes)
    np.testing.assert_array_equal(whole.read(sum(sizes)), np.concatenate(chunks))


def test_seeds_decide_everything() -> None:
    def recording(recording_seed: int, **changes: float) -> np.ndarray:
        subject = SimulatedSubject(SubjectSettings(**changes), recording_seed)
        subject.present(20, subject.evoked(an_image(0), ATTRIBUTES))
        return subject.read(300)

    first = recording(1)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, recording(1))
    assert not np.allclose(first, recording(2))
    assert not np.allclose(first, recording(1, seed=5))


def test_subjects_answer_differently_and_recordings_of_one_alike() -> None:
    def evoked(seed: int, recording_seed: int) -> np.ndarray:
        subject = SimulatedSubject(SubjectSettings(seed=seed), recording_seed)
        return subject.evoked(an_image(0), ATTRIBUTES)

    np.testing.assert_array_equal(evoked(0, 1), evoked(0, 2))
    assert np.abs(evoked(0, 1) - evoked(1, 1)).max() > 0.5


@pytest.mark.parametrize("rate_hz", [49.9, 2001, 0, float("nan")])
def test_an_impossible_rate_is_refused(rate_hz: float) -> None:
    with pytest.raises(Problem, match="between 50 and 2000"):
        SubjectSettings(rate_hz=rate_hz)


# Presenting


def test_a_subject_of_amplitude_zero_records_as_if_nothing_was_shown() -> None:
    shown = SimulatedSubject(SubjectSettings(amplitude=0.0), 1)
    alone = SimulatedSubject(SubjectSettings(amplitude=0.0), 1)
    evoked = shown.evoked(an_image(0), ATTRIBUTES)
    assert not evoked.any()
    for onset in (0, 40, 80):
        shown.present(onset, evoked)
    np.testing.assert_array_equal(shown.read(500), alone.read(500))


def test_the_response_scales_with_the_amplitude() -> None:
    def evoked(amplitude: float) -> np.ndarray:
        subject = SimulatedSubject(SubjectSettings(amplitude=amplitude), 1)
        return subject.evoked(an_image(0), ATTRIBUTES)

    np.testing.assert_allclose(evoked(2.5), 2.5 * evoked(1.0), rtol=1e-6)


def test_the_response_begins_at_its_onset_and_dies_away() -> None:
    subject = SimulatedSubject(QUIET, 1)
    evoked = subject.evoked(an_image(0), ATTRIBUTES)
    subject.present(100, evoked)
    eeg = subject.read(500)
    size = np.abs(eeg).max(axis=1)
    assert size[:105].max() < 1e-3 * size.max() < size[115:250].min()
    assert size[100 + 225 :].max() < 1e-3 * size.max()
    shape = np.corrcoef(eeg[100 : 100 + evoked.shape[1]].ravel(), evoked.T.ravel())[0, 1]
    assert shape > 0.9


def test_overlapping_responses_add_up() -> None:
    def recording(first_onset: int, second_onset: int) -> np.ndarray:
        subject = SimulatedSubject(QUIET, 1)
        changed = {**ATTRIBUTES, "shape": "ring"}
        subject.present(first_onset, subject.evoked(an_image(0), ATTRIBUTES))
        subject.present(second_onset, subject.evoked(an_image(1), changed))
        return subject.read(300)

    after_the_end = 300
    apart = recording(10, after_the_end) + recording(after_the_end, 35)
    assert np.abs(recording(10, after_the_end)[60:100]).max() > 1
    np.testing.assert_allclose(recording(10, 35), apart, atol=1e-5)


def test_an_onset_in_the_past_is_refused() -> None:
    subject = SimulatedSubject(SubjectSettings(), 1)
    subject.read(100)
    evoked = np.zeros((63, 238), np.float32)
    subject.present(100, evoked)
    with pytest.raises(ValueError, match="onset_sample 99 is in the past"):
        subject.present(99, evoked)


@pytest.mark.slow
def test_presentations_vary_around_the_mean_response_by_the_stated_share() -> None:
    subject = SimulatedSubject(QUIET, 1)
    evoked = subject.evoked(an_image(0), ATTRIBUTES)
    trials = []
    for _ in range(800):
        subject.present(subject.next_sample, evoked)
        trials.append(subject.read(300)[: evoked.shape[1]].T)
    power = np.linalg.norm(trials, axis=(1, 2)) / np.linalg.norm(evoked)
    assert power.mean() == pytest.approx(1, abs=0.05)
    assert 1 - 1 / (power**2).mean() == pytest.approx(TRIAL_VARIANCE_SHARE, abs=0.05)
    mean = np.mean(trials, axis=0)
    assert np.corrcoef(mean.ravel(), evoked.ravel())[0, 1] > 0.99


# What is evoked


def test_the_response_does_not_depend_on_the_rate() -> None:
    def evoked(rate_hz: float) -> np.ndarray:
        subject = SimulatedSubject(SubjectSettings(rate_hz=rate_hz), 1)
        return subject.evoked(an_image(0), ATTRIBUTES)

    coarse, fine = evoked(250), evoked(1000)
    assert coarse.shape == (63, 238)
    np.testing.assert_allclose(fine[:, ::4][:, :237], coarse[:, :237], atol=1e-5)


@pytest.mark.slow
def test_pixels_speak_early_and_occipitally_and_attributes_later() -> None:
    subject = SimulatedSubject(SubjectSettings(), 1)
    words = [f"word{i}" for i in range(30)]
    by_pixels = np.std([subject.evoked(an_image(i), ATTRIBUTES) for i in range(30)], axis=0)
    by_words = np.std(
        [subject.evoked(an_image(0), {**ATTRIBUTES, "shape": word}) for word in words], axis=0
    )
    times_s = np.arange(by_pixels.shape[1]) / 250

    def centre_s(effect: np.ndarray) -> float:
        return float((effect.sum(axis=0) * times_s).sum() / effect.sum())

    assert 0.08 < centre_s(by_pixels) < 0.22 < centre_s(by_words) < 0.6
    assert CHANNELS[by_pixels.max(axis=1).argmax()] in {"O1", "Oz", "O2", "PO7", "POz", "PO8"}
    frontal = [i for i, name in enumerate(CHANNELS) if name.startswith(("Fp", "AF"))]
    for effect in (by_pixels, by_words):
        assert effect[frontal].max() < 0.5 * effect[-17:].max()


def test_pairs_of_attributes_add_something_of_their_own_that_is_weaker() -> None:
    subject = SimulatedSubject(SubjectSettings(), 1)

    def evoked(shape: str, colour: str) -> np.ndarray:
        return subject.evoked(an_image(0), {**ATTRIBUTES, "shape": shape, "colour": colour})

    main_effect = evoked("ring", "red") - evoked("star", "red")
    interaction = main_effect - (evoked("ring", "blue") - evoked("star", "blue"))
    assert 0 < np.linalg.norm(interaction) < np.linalg.norm(main_effect)


def test_an_image_in_the_left_field_is_seen_on_the_right() -> None:
    subject = SimulatedSubject(SubjectSettings(), 1)
    grey = np.full((128, 128, 3), 158, np.uint8)

    def effect(side: slice) -> np.ndarray:
        changes = []
        for seed in range(20):
            image = grey.copy()
            image[:, side] = an_image(seed)[:, side]
            changes.append(subject.evoked(image, ATTRIBUTES))
        return np.std(changes, axis=0).max(axis=1)

    left_field, right_field = effect(slice(0, 50)), effect(slice(78, 128))
    o1, o2 = CHANNELS.index("PO7"), CHANNELS.index("PO8")
    assert left_field[o2] / left_field[o1] > right_field[o2] / right_field[o1]


def test_image_size_hardly_matters() -> None:
    subject = SimulatedSubject(SubjectSettings(), 1)
    small = an_image(0)
    large = small.repeat(3, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(
        subject.evoked(large, ATTRIBUTES), subject.evoked(small, ATTRIBUTES), atol=1e-4
    )


def test_a_brain_stays_the_same_for_ever() -> None:
    """Shipped decoders were trained on it: a change here means that they must be trained anew."""
    evoked = SimulatedSubject(SubjectSettings(), 1).evoked(an_image(0), ATTRIBUTES)
    signature = (evoked / np.abs(evoked).max())[[46, 50, 61], :][:, [25, 42, 60, 100]]
    known = [  # P7, Pz, Oz at 100, 168, 240, 400 ms
        [-0.2256, -0.5169, 0.1919, -0.1959],
        [-0.1547, -0.0363, 0.1260, 0.5175],
        [-0.7805, 0.1770, 0.5818, -0.2320],
    ]
    np.testing.assert_allclose(signature, known, atol=2e-3)


# What goes on in any case


def test_the_background_falls_off_as_a_power_of_the_frequency() -> None:
    eeg = SimulatedSubject(with_(BACKGROUND, sensor_uv=0), 1).read(250 * 120)
    freqs_hz, density = spectrum(eeg, 250)
    band = (freqs_hz >= 1) & (freqs_hz <= 40)
    slope = np.polyfit(np.log(freqs_hz[band]), np.log(density[band].mean(axis=1)), 1)[0]
    assert -slope == pytest.approx(SLOPE, abs=0.15)


@pytest.mark.slow
def test_the_background_is_as_dense_at_every_rate() -> None:
    def density(rate_hz: float) -> float:
        eeg = SimulatedSubject(with_(BACKGROUND, rate_hz=rate_hz), 1).read(int(rate_hz * 40))
        freqs_hz, power = spectrum(eeg, rate_hz)
        return float(power[(freqs_hz >= 4) & (freqs_hz <= 30)].mean())

    assert density(1000) == pytest.approx(density(250), rel=0.1)


def test_background_and_rhythms_have_the_size_of_real_eeg() -> None:
    eeg = SimulatedSubject(with_(SubjectSettings(), blinks_per_minute=0), 1).read(250 * 120)
    highpass = signal.butter(2, 0.3, "high", fs=250, output="sos")
    rms = signal.sosfiltfilt(highpass, eeg, axis=0).std(axis=0)
    assert 8 < np.median(rms) < 20
    assert rms.min() > 3
    assert rms.max() < 30


def test_neighbours_see_much_of_the_same() -> None:
    eeg = SimulatedSubject(BACKGROUND, 1).read(250 * 60)
    correlation = np.corrcoef(eeg.T)

    def between(a: str, b: str) -> float:
        return correlation[CHANNELS.index(a), CHANNELS.index(b)]

    assert between("O1", "Oz") > 0.7
    assert between("O1", "Oz") > between("O1", "P4") > between("O1", "FT8")
    assert np.linalg.matrix_rank(np.cov(eeg.T)) == 63


def test_alpha_is_a_posterior_peak_that_waxes_and_wanes() -> None:
    eeg = SimulatedSubject(with_(BACKGROUND, alpha_uv=7.0), 1).read(250 * 120)
    freqs_hz, density = spectrum(eeg, 250)
    band = (freqs_hz > 6) & (freqs_hz < 14)
    oz, afz = CHANNELS.index("Oz"), CHANNELS.index("AFz")
    assert freqs_hz[band][density[band, oz].argmax()] == pytest.approx(10, abs=0.5)
    peak = density[near(freqs_hz, 10)].mean(axis=0)
    around = density[near(freqs_hz, 6) | near(freqs_hz, 15)].mean(axis=0)
    assert peak[oz] > 4 * around[oz]
    assert peak[oz] > 4 * peak[afz]
    narrow = signal.butter(2, [8, 12], "band", fs=250, output="sos")
    envelope = np.abs(signal.hilbert(signal.sosfiltfilt(narrow, eeg[:, oz])))
    assert envelope.std() > 0.3 * envelope.mean()


@pytest.mark.parametrize(("line_hz", "rate_hz"), [(50, 250), (60, 250), (50, 400)])
def test_mains_are_a_sharp_peak(line_hz: float, rate_hz: int) -> None:
    subject = SimulatedSubject(SubjectSettings(line_hz=line_hz, rate_hz=rate_hz), 1)
    freqs_hz, density = spectrum(subject.read(30 * rate_hz), rate_hz)
    density = density.mean(axis=1)
    assert density[freqs_hz == line_hz] > 5 * density[near(freqs_hz, line_hz - 4)].max()


def test_mains_beyond_half_the_rate_are_not_folded_back() -> None:
    with_line, without = (
        SimulatedSubject(SubjectSettings(rate_hz=90, line_uv=line_uv), 1).read(900)
        for line_uv in (20.0, 0.0)
    )
    np.testing.assert_array_equal(with_line, without)


@pytest.mark.slow
def test_blinks_come_at_their_rate_and_from_the_eyes() -> None:
    minutes = 4
    eeg = SimulatedSubject(with_(QUIET, blink_uv=200.0), 1).read(250 * 60 * minutes)
    left, oz = np.abs(eeg[:, 0]), np.abs(eeg[:, CHANNELS.index("Oz")])
    peaks, found = signal.find_peaks(left, height=80)
    assert len(peaks) == pytest.approx(10 * minutes, rel=0.3)
    assert np.median(found["peak_heights"]) == pytest.approx(200, rel=0.25)
    assert CHANNELS[np.abs(eeg).max(axis=0).argmax()] in {"Fp1", "Fp2", "AF7", "AF8"}
    assert oz.max() < 0.6 * left.max()


@pytest.mark.slow
def test_electrodes_drift_slowly_from_zero() -> None:
    eeg = SimulatedSubject(with_(QUIET, drift_uv=12.0), 1).read(250 * 300)
    assert np.abs(eeg[0]).max() < 3
    assert eeg[250 * 60 :].std() == pytest.approx(12, rel=0.3)
    assert np.diff(eeg, axis=0).std() < 0.7
