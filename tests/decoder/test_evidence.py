"""What repeats say together is the mean of their EEG, or the sum of what each of them says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.calibration import Calibration
from decoder.evidence import AddedLikelihoods, AveragedEEG, Repeats, Weights, known_mean

SHAPE = (5, 3)


def trial_of(number, shape=SHAPE):
    return np.random.default_rng(number).normal(20, 10, shape).astype(np.float32)


def slow_mean(finished, going_on, n_parts):
    """Part by part, over whichever repeats have it."""
    mean = np.zeros(SHAPE)
    for part in range(SHAPE[0]):
        there = [trial_of(number)[part] for number in finished]
        if part < n_parts:
            there.append(going_on[part])
        if there:
            mean[part] = np.mean(there, axis=0, dtype=np.float64)
    return mean


def averaged(shape=SHAPE) -> AveragedEEG:
    return AveragedEEG(Weights("mean", 2.0, None), Repeats(shape, 2**20, pytest.fail))


# --- the mean ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=30), st.integers(0, SHAPE[0]))
def test_each_trial_counts_once_however_often_and_in_whatever_order_it_comes(numbers, n_parts):
    evidence, going_on = averaged(), trial_of(99)
    for i, number in enumerate(numbers):
        evidence.finish(number, "g", trial_of(number), None)
        seen = set(numbers[: i + 1])
        known = evidence.known(number, "g", going_on, n_parts)
        assert evidence.query(number, "g", z_of(number), 0.9).n_repeats == len(seen)
        expected = np.mean([trial_of(n) for n in seen], axis=0, dtype=np.float64)
        np.testing.assert_allclose(known, expected, rtol=1e-12)
    known = evidence.known(99, "g", going_on, n_parts)
    assert evidence.query(99, "g", z_of(99), 0.9).n_repeats == len(set(numbers)) + 1
    np.testing.assert_allclose(known, slow_mean(set(numbers), going_on, n_parts), rtol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, SHAPE[0]))
def test_the_mean_of_whole_trials_is_the_same(n_trials, n_times):
    """`known_mean` on (channels, times), as training takes it, is what is added up live."""
    trials = np.stack([trial_of(number).T for number in range(n_trials)])
    evidence = averaged()
    for number in range(n_trials - 1):
        evidence.finish(number, "g", trials[number].T, None)
    live = evidence.known(99, "g", trials[-1].T, n_times)
    offline = known_mean(trials, n_times)
    assert offline.dtype == np.float32
    np.testing.assert_allclose(offline, live.T, rtol=1e-6)
    np.testing.assert_allclose(
        offline.T, slow_mean(range(n_trials - 1), trials[-1].T, n_times), rtol=1e-6
    )


def test_what_lies_behind_the_mark_is_not_looked_at():
    evidence, going_on = averaged(), trial_of(2)
    evidence.finish(1, "g", trial_of(1), None)
    expected = evidence.known(2, "g", going_on, 2).copy()
    going_on[2:] = np.nan
    np.testing.assert_array_equal(evidence.known(2, "g", going_on, 2), expected)
    trials = np.stack([trial_of(1).T, going_on.T])
    assert np.isfinite(known_mean(trials, 2)).all()
    assert not known_mean(trials[1:], 2)[:, 2:].any()


def test_asking_changes_nothing_and_neither_does_what_is_done_to_the_answer():
    evidence, first = averaged(), trial_of(1)
    evidence.finish(1, "g", first, None)
    for trial in (1, 2):
        known = evidence.known(trial, "g", trial_of(trial), 3)
        known += 1e6
    first += 1e6
    np.testing.assert_array_equal(evidence.known(1, "g", first, 5), trial_of(1))
    np.testing.assert_array_equal(averaged().known(2, "g", trial_of(2), 5), trial_of(2))


def test_noise_falls_with_the_root_of_the_number_of_trials():
    evidence = averaged((20, 100))
    for number in range(100):
        evidence.finish(number, "g", trial_of(number, (20, 100)), None)
    mean = evidence.known(0, "g", trial_of(0, (20, 100)), 20)
    assert mean.mean() == pytest.approx(20, abs=0.1)
    assert mean.std() == pytest.approx(1.0, rel=0.05)  # 10 / √100


def test_a_thousand_trials_lose_no_precision():
    evidence, shown = averaged((1, 1)), np.full((1, 1), 1e4 + 0.5, np.float32)
    for number in range(1000):
        evidence.finish(number, "g", shown, None)
    assert np.float32(evidence.known(0, "g", shown, 1)[0, 0]) == np.float32(1e4 + 0.5)


# --- the sum -------------------------------------------------------------------------------------

TABLE = Calibration(
    tmax_s=(0.2, 0.9),
    repeats=(1, 4),
    mean=((4.0, 2.0), (2.0, 1.4)),
    added=((1.0, 3.0), (1.2, 2.0)),
    n_items=40,
)
WEIGHTS = Weights("added", 2.0, TABLE)


def z_of(number):
    z = np.random.default_rng(number).standard_normal(7).astype(np.float32)
    return z / np.linalg.norm(z)


def added() -> AddedLikelihoods:
    return AddedLikelihoods(WEIGHTS, Repeats((7,), 2**20, pytest.fail), SHAPE, 0.9)


def test_an_embedding_weighs_what_the_calibration_of_one_trial_says():
    for tmax_s in (0.2, 0.5, 0.9):
        temperature = TABLE.temperature("mean", tmax_s, 1)
        assert WEIGHTS.of_one(tmax_s) == pytest.approx(np.exp(2.0) / temperature)
        assert WEIGHTS.temperature(tmax_s, 3) == TABLE.temperature("added", tmax_s, 3)
    assert Weights("mean", 2.0, TABLE).of_one(0.2) == pytest.approx(np.exp(2.0))
    assert Weights("mean", 2.0, TABLE).temperature(0.2, 3) == TABLE.temperature("mean", 0.2, 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=25))
def test_log_likelihoods_add_and_only_finished_trials_stay(acts):
    evidence, finished = added(), []
    for number, final in acts:
        tmax_s = 0.9 if final or number in finished else 0.2
        query = evidence.query(number, "g", z_of(number), tmax_s)
        terms = [(one, 0.9) for one in finished if one != number] + [(number, tmax_s)]
        expected = sum(WEIGHTS.of_one(t) * z_of(one).astype(np.float64) for one, t in terms)
        np.testing.assert_allclose(query.vector, expected, atol=1e-12)
        assert query.weight == pytest.approx(np.linalg.norm(expected))
        assert query.n_repeats == len(terms)
        assert query.temperature == TABLE.temperature("added", tmax_s, len(terms))
        if final:
            evidence.finish(number, "g", None, z_of(number))
            finished = sorted({*finished, number})


def test_the_first_word_of_a_finished_trial_stands():
    """A provisional answer to a trial that comes again is not better than its final one was."""
    evidence = added()
    evidence.finish(1, "g", None, z_of(1))
    evidence.finish(1, "g", None, z_of(2))
    query = evidence.query(1, "g", z_of(3), 0.2)
    np.testing.assert_allclose(query.vector, WEIGHTS.of_one(0.9) * z_of(1), rtol=1e-6)
    assert query.n_repeats == 1


def test_each_repeat_is_embedded_alone():
    evidence = added()
    evidence.finish(1, "g", trial_of(1), z_of(1))
    known = evidence.known(2, "g", trial_of(2), 3)
    np.testing.assert_array_equal(known, slow_mean([], trial_of(2), 3))


# --- how much is kept ----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40))
def test_the_group_asked_for_longest_ago_is_forgotten_first(acts):
    said, forgotten = [], []
    repeats, used = Repeats((2,), 3 * 2 * 8 + 7, said.append), []
    for trial, (group, adds) in enumerate(acts):
        if adds:
            repeats.add(trial, group, np.ones(2))
        else:
            repeats.of(group)
        if adds or group in used:
            used = [*(one for one in used if one != group), group]
        if len(used) > 3:
            forgotten.append(used.pop(0))
    assert [group for group in "abcdef" if repeats.of(group)[1]] == sorted(used)
    assert len(said) == min(1, len(forgotten))
    assert all(f"as of {forgotten[0]!r}" in sentence for sentence in said)


def test_a_group_that_was_forgotten_begins_anew():
    repeats = Repeats((2,), 2 * 2 * 8, [].append)
    for trial, group in enumerate("aabbc"):
        repeats.add(trial, group, np.ones(2))
    assert [len(repeats.of(group)[1]) for group in "abc"] == [0, 2, 1]
    repeats.forget("b")
    repeats.forget("never seen")
    assert [len(repeats.of(group)[1]) for group in "abc"] == [0, 0, 1]
    np.testing.assert_array_equal(repeats.of("b")[0], np.zeros(2))
