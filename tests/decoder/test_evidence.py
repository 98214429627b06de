"""The mean over repeats is the mean, and a trial that comes again changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.evidence import RepeatMean


def trial_of(number, shape=(3, 5)):
    return np.random.default_rng(number).normal(20, 10, shape).astype(np.float32)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30))
def test_each_trial_counts_once_however_often_and_in_whatever_order_it_comes(numbers):
    evidence = RepeatMean()
    for i, number in enumerate(numbers):
        mean = evidence.add(number, trial_of(number))
        seen = set(numbers[: i + 1])
        assert evidence.n == len(seen)
        expected = np.mean([trial_of(n) for n in seen], axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        assert mean.dtype == np.float32


def test_one_trial_is_its_own_mean_to_the_bit():
    np.testing.assert_array_equal(RepeatMean().add(1, trial_of(1)), trial_of(1))


def test_neither_what_came_in_nor_what_went_out_is_changed_later():
    evidence, first = RepeatMean(), trial_of(1)
    mean = evidence.add(1, first)
    evidence.add(2, trial_of(2))
    np.testing.assert_array_equal(first, trial_of(1))
    np.testing.assert_array_equal(mean, trial_of(1))


def test_noise_falls_with_the_root_of_the_number_of_trials():
    evidence = RepeatMean()
    for number in range(100):
        mean = evidence.add(number, trial_of(number, (20, 100)))
    assert mean.mean() == pytest.approx(20, abs=0.1)
    assert mean.std() == pytest.approx(1.0, rel=0.05)  # 10 / √100


def test_a_thousand_trials_lose_no_precision():
    evidence = RepeatMean()
    for number in range(1000):
        mean = evidence.add(number, np.full((1, 1), 1e4 + 0.5, np.float32))
    assert mean[0, 0] == np.float32(1e4 + 0.5)
