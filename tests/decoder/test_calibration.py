"""Temperatures are read between their entries, and probabilities are safe at any scale."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from decoder.calibration import Calibration, log_softmax, temperature_of
from hvf_core.problem import Problem

TABLE = Calibration(
    tmax_s=(0.1, 0.3, 0.9),
    repeats=(1, 4, 16),
    mean=((4.0, 2.0, 1.0), (2.0, 1.0, 0.5), (1.0, 0.5, 0.25)),
    added=((1.0, 3.0, 5.0), (1.0, 2.0, 3.0), (1.0, 1.5, 2.0)),
    n_items=40,
)
COSINES = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1, 1))


def test_entries_of_the_table_come_back():
    for i, tmax_s in enumerate(TABLE.tmax_s):
        for j, n in enumerate(TABLE.repeats):
            assert TABLE.temperature("mean", tmax_s, n) == pytest.approx(TABLE.mean[i][j])
            assert TABLE.temperature("added", tmax_s, n) == pytest.approx(TABLE.added[i][j])


def test_between_entries_it_is_geometric_in_the_logarithm_of_repeats():
    assert TABLE.temperature("mean", 0.2, 1) == pytest.approx(math.sqrt(4.0 * 2.0))
    assert TABLE.temperature("mean", 0.3, 2) == pytest.approx(math.sqrt(2.0 * 1.0))
    assert TABLE.temperature("mean", 0.2, 8) == pytest.approx((2.0 * 1.0 * 1.0 * 0.5) ** 0.25)


@given(st.floats(-1, 3), st.integers(1, 500))
def test_beyond_the_table_its_border_holds(tmax_s, n):
    within = min(max(tmax_s, 0.1), 0.9), min(n, 16)
    for evidence in ("mean", "added"):
        found = TABLE.temperature(evidence, tmax_s, n)
        assert found == pytest.approx(TABLE.temperature(evidence, *within))
        table = TABLE.mean if evidence == "mean" else TABLE.added
        assert np.min(table) * (1 - 1e-12) <= found <= np.max(table) * (1 + 1e-12)


def test_one_added_repeat_has_the_temperature_1_at_every_end():
    assert [TABLE.temperature("added", t, 1) for t in (0.0, 0.17, 0.5, 2.0)] == [1.0] * 4


def test_without_a_calibration_the_mean_has_1_and_nothing_is_added():
    assert temperature_of(None, "mean", 0.3, 4) == 1.0
    assert temperature_of(TABLE, "added", 0.3, 4) == pytest.approx(2.0)
    with pytest.raises(Problem, match="no calibration"):
        temperature_of(None, "added", 0.3, 4)


@given(COSINES, st.floats(0, 100))
def test_probabilities_are_a_plain_softmax(cosines, factor):
    plain = [math.exp(factor * cosine) for cosine in cosines]
    found = np.exp(log_softmax(cosines, factor))
    np.testing.assert_allclose(found, np.array(plain) / sum(plain), rtol=1e-9)


@given(COSINES, st.sampled_from([1e-6, 1e-2, 1.0, 1e6]))
def test_probabilities_are_finite_and_leave_the_order_at_any_temperature(cosines, temperature):
    before = cosines.copy()
    found = log_softmax(cosines, 100 / temperature)
    assert np.isfinite(found).all()
    assert np.exp(found).sum() == pytest.approx(1)
    order = np.argsort(cosines, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    np.testing.assert_array_equal(cosines, before)


def test_rows_are_normalised_each_on_its_own_and_float32_is_widened():
    cosines = np.random.default_rng(0).uniform(-1, 1, (3, 50)).astype(np.float32)
    found = log_softmax(cosines, 15.0)
    assert found.dtype == np.float64
    for row, one in zip(found, cosines, strict=True):
        np.testing.assert_allclose(row, log_softmax(one, 15.0), rtol=1e-12)


def test_a_sum_of_thousands_of_log_probabilities_is_normalised():
    total = 5000 * log_softmax(np.array([0.5, 0.1, -1.0]), 100)
    np.testing.assert_allclose(np.exp(log_softmax(total)), [1, 0, 0], atol=1e-12)


def test_a_calibration_comes_back_from_json():
    assert Calibration.model_validate_json(TABLE.model_dump_json()) == TABLE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tmax_s": (0.3, 0.1, 0.9)}, "does not rise"),
        ({"tmax_s": (0.1, 0.1, 0.9)}, "does not rise"),
        ({"tmax_s": (0.1, 0.3, math.nan)}, "not finite"),
        ({"tmax_s": (0.1, 0.3)}, "mean has not one"),
        ({"tmax_s": ()}, "at least 1 item"),
        ({"repeats": (2, 4, 16)}, "rise from 1"),
        ({"repeats": (1, 16, 4)}, "rise from 1"),
        ({"added": ((1.0, 3.0, 5.0),) * 2}, "added has not one"),
        ({"mean": ((1.0, 3.0),) * 3}, "mean has not one"),
        ({"mean": ((1.0, 3.0, 0.0),) * 3}, "not positive"),
        ({"mean": ((1.0, 3.0, math.nan),) * 3}, "not positive"),
        ({"added": ((1.0, 3.0, math.inf),) * 3}, "not positive"),
        ({"n_items": 1}, "greater than or equal to 2"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_table_that_is_none_is_refused(change, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Calibration.model_validate(TABLE.model_dump() | change)
