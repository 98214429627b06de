"""What repeats say together is the mean of their EEG, or the sum of what each of them says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.evidence import LogLikelihoods, Repeats, known_mean

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


# --- the mean ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(0, SHAPE[0]))
def test_each_trial_counts_once_however_often_and_in_whatever_order_it_comes(numbers, n_parts):
    repeats, going_on = Repeats(*SHAPE), trial_of(99)
    for i, number in enumerate(numbers):
        repeats.add(number, trial_of(number))
        seen = set(numbers[: i + 1])
        assert repeats.n == len(seen)
        assert [number in repeats for number in range(14)] == [n in seen for n in range(14)]
        expected = np.mean([trial_of(n) for n in seen], axis=0, dtype=np.float64)
        np.testing.assert_allclose(repeats.mean(), expected, rtol=1e-12)
    mean = repeats.mean_with(going_on, n_parts)
    np.testing.assert_allclose(mean, slow_mean(set(numbers), going_on, n_parts), rtol=1e-12)
    assert mean.dtype == np.float64


@given(st.integers(1, 6), st.integers(0, SHAPE[0]))
def test_the_mean_of_whole_trials_is_the_same(n_trials, n_times):
    """`known_mean` on (channels, times), as training takes it, is what `Repeats` adds up live."""
    trials = np.stack([trial_of(number).T for number in range(n_trials)])
    repeats = Repeats(*SHAPE)
    for number in range(n_trials - 1):
        repeats.add(number, trials[number].T)
    live = repeats.mean_with(trials[-1].T, n_times)
    offline = known_mean(trials, n_times)
    assert offline.dtype == np.float32
    np.testing.assert_allclose(offline, live.T, rtol=1e-6)
    np.testing.assert_allclose(
        offline.T, slow_mean(range(n_trials - 1), trials[-1].T, n_times), rtol=1e-6
    )


def test_what_lies_behind_the_mark_is_not_looked_at():
    repeats, going_on = Repeats(*SHAPE), trial_of(2)
    repeats.add(1, trial_of(1))
    expected = repeats.mean_with(going_on, 2)
    going_on[2:] = np.nan
    np.testing.assert_array_equal(repeats.mean_with(going_on, 2), expected)
    trials = np.stack([trial_of(1).T, going_on.T])
    assert np.isfinite(known_mean(trials, 2)).all()
    assert not known_mean(trials[1:], 2)[:, 2:].any()


def test_asking_changes_nothing_and_neither_does_what_is_done_to_the_answer():
    repeats, first = Repeats(*SHAPE), trial_of(1)
    repeats.add(1, first)
    for mean in (repeats.mean(), repeats.mean_with(trial_of(2), 3)):
        mean += 1e6
    first += 1e6
    assert repeats.n == 1
    np.testing.assert_array_equal(repeats.mean(), trial_of(1))
    np.testing.assert_array_equal(Repeats(*SHAPE).mean_with(trial_of(2), 5), trial_of(2))


def test_noise_falls_with_the_root_of_the_number_of_trials():
    repeats = Repeats(20, 100)
    for number in range(100):
        repeats.add(number, trial_of(number, (20, 100)))
    assert repeats.mean().mean() == pytest.approx(20, abs=0.1)
    assert repeats.mean().std() == pytest.approx(1.0, rel=0.05)  # 10 / √100


def test_a_thousand_trials_lose_no_precision():
    repeats = Repeats(1, 1)
    for number in range(1000):
        repeats.add(number, np.full((1, 1), 1e4 + 0.5, np.float32))
    assert np.float32(repeats.mean()[0, 0]) == np.float32(1e4 + 0.5)


# --- the sum -------------------------------------------------------------------------------------


def says(number, n_gallery=7):
    return np.log(np.random.default_rng(number).dirichlet(np.ones(n_gallery)))


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=25))
def test_log_likelihoods_add_and_only_finished_trials_stay(acts):
    evidence, finished = LogLikelihoods(7), []
    for number, final in acts:
        total, n = evidence.sum_with(number, says(number))
        within = sorted({*finished, number})
        np.testing.assert_allclose(total, sum(says(one) for one in within), rtol=1e-12)
        assert n == len(within)
        if final:
            evidence.add(number, says(number))
            finished = within
        assert evidence.n == len(finished)


def test_the_first_word_of_a_finished_trial_stands():
    """A provisional answer to a trial that comes again is not better than its final one was."""
    evidence = LogLikelihoods(7)
    evidence.add(1, says(1))
    evidence.add(1, says(2))
    total, n = evidence.sum_with(1, says(3))
    np.testing.assert_array_equal(total, says(1))
    assert n == 1
