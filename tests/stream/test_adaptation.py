"""The matrix takes a session's covariance to training's, from the past alone, and stays bounded."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.linalg import sqrtm

from hvf_core.problem import Problem
from stream.acquire.adaptation import Adaptation, AdaptationSettings, monge_map, write_state
from stream.acquire.preprocess import Preprocessing, PreprocessSettings, fit

N = 4
N_TIMES = 50


def is_one_sentence(problem):
    text = str(problem)
    return "\n" not in text and ". " not in text and ("; " in text or ": " in text)


def preprocessing(reference):
    names = tuple(f"E{i}" for i in range(len(reference)))
    choice = PreprocessSettings(
        channels=names, output_channels=names, rate_hz=250.0, tmin_s=0.0, tmax_s=0.196
    )
    return Preprocessing(choice, {"trial_covariance": reference})


def positive(seed, n=N, spread=0.4):
    """A symmetric positive definite matrix with eigenvalues around 1."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (basis * np.exp(rng.normal(0, spread, n))) @ basis.T


def trial_of(covariance, rng, n_times=N_TIMES):
    """A trial whose covariance over its samples is exactly the given one."""
    noise = rng.normal(size=(len(covariance), n_times))
    noise -= noise.mean(axis=1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(noise @ noise.T / n_times), noise)
    return np.linalg.cholesky(covariance) @ white


def adapted(reference, trials, **changes):
    adaptation = Adaptation(preprocessing(reference), AdaptationSettings(**changes))
    for number, trial in enumerate(trials):
        adaptation.add(float(number), trial)
    return adaptation


# --- the map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_map_is_the_symmetric_one_between_the_covariances(seed):
    live, reference = positive(seed, 7, 1.0), positive(seed + 100, 7, 1.0)
    found = monge_map(live, reference)
    root = np.real(sqrtm(live))
    middle = np.real(sqrtm(root @ reference @ root))
    np.testing.assert_allclose(found, np.linalg.solve(root, middle) @ np.linalg.inv(root))
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    np.testing.assert_allclose(found @ live @ found, reference)
    assert np.linalg.eigvalsh(found).min() > 0


def test_to_white_it_is_euclidean_alignment():
    live = positive(3)
    np.testing.assert_allclose(
        monge_map(live, np.eye(N)), np.linalg.inv(np.real(sqrtm(live))), atol=1e-12
    )


def test_it_moves_the_data_less_than_any_other_map():
    """The mean square of x - A x is least; other maps are A turned within the reference."""
    live, reference = positive(1), positive(2)
    root = np.real(sqrtm(reference))

    def moved(matrix):
        away = np.eye(N) - matrix
        return np.trace(away @ live @ away.T)

    best = moved(monge_map(live, reference))
    rng = np.random.default_rng(0)
    for _ in range(20):
        turn, _ = np.linalg.qr(rng.normal(size=(N, N)))
        other = root @ turn @ np.linalg.inv(root) @ monge_map(live, reference)
        np.testing.assert_allclose(other @ live @ other.T, reference)
        assert moved(other) > best


# --- the estimate --------------------------------------------------------------------------------


def test_before_any_trial_it_is_exactly_the_identity():
    np.testing.assert_array_equal(adapted(positive(0), []).matrix(0.0), np.eye(N))


def test_a_session_like_training_changes_nothing():
    reference, rng = positive(0), np.random.default_rng(0)
    adaptation = adapted(reference, [trial_of(reference, rng) for _ in range(30)])
    found = adaptation.matrix(math.inf)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.eye(N), atol=1e-6)


@pytest.mark.parametrize("n_trials", [1, 3, 50])
def test_the_estimate_is_training_counted_as_prior_trials_and_the_mean_of_the_trials(n_trials):
    reference, rng = positive(1), np.random.default_rng(1)
    trials = [rng.normal(size=(N, N_TIMES)) for _ in range(n_trials)]
    found = adapted(reference, trials, prior_trials=7.5).matrix(math.inf).astype(float)
    total = 7.5 * reference + sum(np.cov(trial, bias=True) for trial in trials)
    live = total / (7.5 + n_trials)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(found @ live @ found, reference, rtol=1e-3, atol=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_in_the_limit_a_symmetric_positive_mixing_is_undone(seed):
    reference, mixing = positive(seed), positive(seed + 1, spread=0.3)
    rng = np.random.default_rng(seed)
    trials = [mixing @ trial_of(reference, rng) for _ in range(12)]
    found = adapted(reference, trials, prior_trials=1e-6, max_gain=10).matrix(math.inf)
    np.testing.assert_allclose(found @ mixing, np.eye(N), atol=2e-3)


def test_the_mean_of_a_trial_is_no_part_of_it():
    reference, rng = positive(0), np.random.default_rng(0)
    trials = [trial_of(positive(5), rng) for _ in range(5)]
    shifted = [trial + rng.normal(0, 30, (N, 1)) for trial in trials]
    np.testing.assert_allclose(
        adapted(reference, shifted).matrix(math.inf),
        adapted(reference, trials).matrix(math.inf),
        atol=1e-6,
    )


def test_a_cap_whose_gains_have_moved_gives_the_trials_of_training():
    """From microvolts on: fitted to one recording, run on the same brain behind other gains."""
    rng = np.random.default_rng(0)
    choice = preprocessing(np.eye(N)).settings.model_copy(update={"whitening": "none"})
    transform = Preprocessing(choice).prepare(choice.channels, 250.0)
    mixing, gains = rng.normal(0, 5, (N, N)), np.array([0.6, 1.0, 1.5, 2.0], np.float32)
    streams = rng.normal(size=(60, transform.window.count, N)) @ mixing
    streams = streams.astype(np.float32)
    expected = np.stack([transform(stream) for stream in streams])
    adaptation = Adaptation(fit(choice, expected), AdaptationSettings(prior_trials=0.01))
    for number, stream in enumerate(streams):
        adaptation.add(float(number), transform(stream * gains))
    found = adaptation.matrix(math.inf) @ transform(streams[0] * gains)
    assert np.abs(transform(streams[0] * gains) - expected[0]).max() > 5
    np.testing.assert_allclose(found, expected[0], atol=0.1)


# --- only the past -------------------------------------------------------------------------------


def test_a_trial_counts_from_the_first_onset_after_its_last_sample():
    adaptation = Adaptation(preprocessing(np.eye(N)), AdaptationSettings())
    adaptation.add(1.0, trial_of(positive(5), np.random.default_rng(0)))
    np.testing.assert_array_equal(adaptation.matrix(0.5), np.eye(N))
    np.testing.assert_array_equal(adaptation.matrix(1.0), np.eye(N))
    assert adaptation.n_absorbed == 0
    assert not np.allclose(adaptation.matrix(np.nextafter(1.0, 2.0)), np.eye(N), atol=1e-3)
    assert adaptation.n_absorbed == 1


@given(
    seed=st.integers(0, 1000),
    starts=st.lists(st.integers(0, 200), min_size=1, max_size=12, unique=True),
    length=st.integers(1, 60),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_matrices_depend_on_stamps_alone(seed, starts, length, data):
    """Overlapping trials, handed over early or late, in any order: as all of the past at once."""
    rng = np.random.default_rng(seed)
    starts = sorted(starts)
    ends = [start + length for start in starts]
    trials = [trial_of(positive(seed + i), rng) for i in range(len(starts))]
    adaptation = Adaptation(preprocessing(np.eye(N)), AdaptationSettings())
    given_over = set()
    for number, onset in enumerate(starts):
        due = [i for i, end in enumerate(ends) if end < onset and i not in given_over]
        early = [i for i, end in enumerate(ends) if onset <= end < onset + 40]
        early = [i for i in early if i not in given_over]
        some = data.draw(st.lists(st.sampled_from(early), unique=True)) if early else []
        for i in data.draw(st.permutations(due + some)):
            adaptation.add(float(ends[i]), trials[i])
            given_over.add(i)
        past = [trials[i] for i, end in enumerate(ends) if end < onset]
        expected = adapted(np.eye(N), past).matrix(math.inf)
        np.testing.assert_array_equal(adaptation.matrix(float(onset)), expected, str(number))


@pytest.mark.parametrize("seed", range(3))
def test_trials_between_two_onsets_may_come_in_any_order(seed):
    rng = np.random.default_rng(seed)
    trials = [trial_of(positive(i), rng) * rng.choice([1, 1, 1, 2.2]) for i in range(60)]
    expected = adapted(np.eye(N), trials)
    found = adapted(np.eye(N), [])
    for i in rng.permutation(60):
        found.add(float(i), trials[i])
    np.testing.assert_array_equal(found.matrix(math.inf), expected.matrix(math.inf))
    assert found.n_outliers == expected.n_outliers > 0


def test_later_trials_leave_earlier_matrices_alone():
    rng = np.random.default_rng(0)
    adaptation = Adaptation(preprocessing(np.eye(N)), AdaptationSettings())
    matrices, copies = [], []
    for number in range(10):
        adaptation.add(number + 0.5, trial_of(positive(number), rng))
        matrices.append(adaptation.matrix(float(number + 1)))
        copies.append(matrices[-1].copy())
    np.testing.assert_array_equal(matrices, copies)
    assert len({matrix.tobytes() for matrix in matrices}) == 10


# --- what is not to be trusted -------------------------------------------------------------------


def test_a_monstrous_trial_is_counted_and_not_absorbed():
    reference, rng = positive(0), np.random.default_rng(0)
    trials = [trial_of(reference, rng) for _ in range(8)]
    blink = trials[3] + 100 * np.outer([1, 0, 0, 0], np.sin(np.linspace(0, 6, N_TIMES)))
    for place in (0, 3, 8):
        found = adapted(reference, [*trials[:place], blink, *trials[place:]])
        np.testing.assert_array_equal(
            found.matrix(math.inf), adapted(reference, trials).matrix(math.inf)
        )
        assert (found.n_absorbed, found.n_outliers) == (8, 1)


@pytest.mark.parametrize(("n_before", "within"), [(0, 6), (200, 17)])
def test_a_lasting_rise_of_power_is_followed_after_some_trials(n_before, within):
    reference, rng = positive(0), np.random.default_rng(0)
    trials = [trial_of(reference, rng) for _ in range(n_before)]
    trials += [3 * trial_of(reference, rng) for _ in range(40)]  # 9 times the power
    found = adapted(reference, trials)
    found.matrix(math.inf)
    assert 0 < found.n_outliers < within
    assert found.n_absorbed == n_before + 40 - found.n_outliers


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_and_leave_no_trace(value):
    adaptation = adapted(np.eye(N), [])
    trial = np.ones((N, N_TIMES), np.float32)
    trial[2, 3] = value
    with pytest.raises(Problem, match=r"ends at 1\.500 s holds values that are not") as caught:
        adaptation.add(1.5, trial)
    assert is_one_sentence(caught.value)
    np.testing.assert_array_equal(adaptation.matrix(math.inf), np.eye(N))


@pytest.mark.parametrize("shape", [(N + 1, N_TIMES), (N,), (N, 0)])
def test_a_trial_of_another_shape_is_a_mistake_of_the_program(shape):
    with pytest.raises(ValueError, match="expected"):
        adapted(np.eye(N), []).add(0.0, np.zeros(shape))


def test_a_channel_that_has_gone_flat_is_not_blown_up():
    reference, rng = positive(0), np.random.default_rng(0)
    trials = [trial_of(reference, rng) for _ in range(400)]
    for trial in trials:
        trial[1] = 0.0
    found = adapted(reference, trials, max_gain=3.0).matrix(math.inf)
    assert np.linalg.norm(found, 2) < 3.0 + 1e-5
    bold = adapted(reference, trials, max_gain=1e9, prior_trials=1e-9).matrix(math.inf)
    assert np.isfinite(bold).all()
    assert np.linalg.norm(bold, 2) < 300


@pytest.mark.parametrize("reference", [np.diag([1.0, 2.0, 0.0, 1.0]), np.eye(N) - 0.25])
def test_a_direction_that_training_and_session_lack_stays_as_it_is(reference):
    """A flat channel, or the average reference: both covariances are singular."""
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(reference)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    trials = [root @ trial_of(np.eye(N), rng) for _ in range(100)]
    same = adapted(reference, trials, prior_trials=0.1, max_gain=1e3).matrix(math.inf)
    np.testing.assert_allclose(same, np.eye(N), atol=1e-4)
    louder = [1.5 * trial for trial in trials]
    found = adapted(reference, louder, prior_trials=1e-6, max_gain=1e3).matrix(math.inf)
    np.testing.assert_allclose(found @ louder[0], trials[0], atol=2e-3)


def test_a_noisy_electrode_is_turned_down_however_far():
    reference, rng = np.eye(N), np.random.default_rng(0)
    gains = np.diag([1.0, 1.0, 30.0, 1.0])
    trials = [gains @ trial_of(reference, rng) for _ in range(60)]
    found = adapted(reference, trials, prior_trials=0.01).matrix(math.inf)
    np.testing.assert_allclose(found @ gains, np.eye(N), atol=0.01)


# --- rest ----------------------------------------------------------------------------------------


def test_a_session_starts_from_its_rest():
    reference, rng = positive(0), np.random.default_rng(0)
    rested, seen = positive(1, spread=0.2), positive(2, spread=0.2)
    choice = AdaptationSettings(prior_trials=10, rest_trials=30)
    windows = (trial_of(rested, rng) for _ in range(90))
    adaptation = Adaptation.from_rest(preprocessing(reference), windows, choice)
    for n, live in [
        (0, (10 * reference + 30 * rested) / 40),
        (20, (10 * reference + 30 * rested + 20 * seen) / 60),
    ]:
        for i in range(n):
            adaptation.add(float(i), trial_of(seen, rng))
        found = adaptation.matrix(100.0).astype(float)
        np.testing.assert_allclose(found @ live @ found, reference, rtol=1e-3, atol=1e-4)


def test_a_short_rest_counts_for_what_it_is():
    rng = np.random.default_rng(0)
    trials = [trial_of(positive(1), rng) for _ in range(5)]
    found = Adaptation.from_rest(preprocessing(np.eye(N)), trials, AdaptationSettings())
    expected = adapted(np.eye(N), trials).matrix(math.inf)
    np.testing.assert_allclose(found.matrix(0.0), expected, atol=1e-6)


def test_a_rest_without_a_window_is_refused():
    with pytest.raises(Problem, match="no window of the resting recording") as caught:
        Adaptation.from_rest(preprocessing(np.eye(N)), [], AdaptationSettings())
    assert is_one_sentence(caught.value)


# --- kept ----------------------------------------------------------------------------------------


def test_what_is_saved_is_the_state_and_no_view_of_what_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    adaptation = adapted(np.eye(N), [trial_of(positive(1), rng) for _ in range(3)])
    adaptation.matrix(math.inf)
    adaptation.add(7.0, trial_of(positive(2), rng))
    state = adaptation.state()
    path = tmp_path / "adaptation.safetensors"
    write_state(path, adaptation.state())
    adaptation.add(9.0, trial_of(positive(3), rng))
    adaptation.matrix(math.inf)
    saved = load_file(path)
    assert saved.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, saved[name])
    assert (saved["weight"].tolist(), saved["pending_last_stamp_s"].tolist()) == ([3.0], [7.0])
    assert [path.name for path in tmp_path.iterdir()] == ["adaptation.safetensors"]


@pytest.mark.parametrize("n_before", [0, 1, 4, 40])
def test_one_that_goes_on_from_what_was_kept_gives_what_it_would_have_given(n_before, tmp_path):
    """A reader that dies and is started again adapts as if it had lived."""
    rng, reference = np.random.default_rng(n_before), positive(99)
    trials = [trial_of(positive(seed), rng) for seed in range(50)]
    trials[7] *= 50  # an outlier
    lived = adapted(reference, [])
    again = lived
    for number, trial in enumerate(trials):
        if number == n_before:
            write_state(tmp_path / "a.safetensors", lived.state())
            again = adapted(reference, [])
            again.go_on_from(load_file(tmp_path / "a.safetensors"))
        onset_s = number - 1.5 + 0.3 * (number % 3)  # one or two are pending
        for one in {id(lived): lived, id(again): again}.values():
            one.add(float(number), trial)
        np.testing.assert_array_equal(lived.matrix(onset_s), again.matrix(onset_s))
    assert (lived.n_absorbed, lived.n_outliers) == (again.n_absorbed, again.n_outliers)
    for name, array in lived.state().items():
        np.testing.assert_array_equal(array, again.state()[name])


def test_a_bundle_without_a_trial_covariance_cannot_be_adapted():
    choice = preprocessing(np.eye(N)).settings
    with pytest.raises(Problem, match="the bundle holds no trial covariance") as caught:
        Adaptation(Preprocessing(choice), AdaptationSettings())
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("reference", [np.eye(N + 1), np.full((N, N), np.nan), np.zeros((N, N))])
def test_a_trial_covariance_that_is_none_is_refused(reference):
    choice = preprocessing(np.eye(N)).settings
    broken = Preprocessing(choice, {"trial_covariance": reference})
    with pytest.raises(Problem, match=r"expected \(4, 4\) finite values"):
        Adaptation(broken, AdaptationSettings())


@pytest.mark.parametrize("changes", [{"prior_trials": 0}, {"max_gain": 0.5}, {"speed": 1}])
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match="validation error"):
        AdaptationSettings(**changes)
