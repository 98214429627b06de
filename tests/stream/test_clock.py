"""The clock offset and the line of stamps, against series whose truth is known."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.acquire.clock import ClockOffset

PERIOD_S = 2.0


def believed(measured_s):
    offset = ClockOffset()
    return [offset.believe(one) for one in measured_s]


def test_a_drifting_offset_is_followed_one_measurement_later():
    measured_s = [5.0 + k * PERIOD_S * 50e-6 for k in range(20)]
    assert believed(measured_s)[3:] == measured_s[2:-1]


@given(
    st.integers(1, 40),
    st.floats(-1e6, 1e6).filter(lambda jump_s: abs(jump_s) > 1e-3),
    st.integers(0, 2**32 - 1),
)
def test_an_offset_that_jumps_once_is_not_believed(at, jump_s, seed):
    measured_s = 3.0 + np.random.default_rng(seed).normal(0, 1e-4, 50)
    measured_s[at] += jump_s
    assert np.abs(np.array(believed(measured_s)) - 3.0).max() < 1e-3


def test_an_offset_that_stays_elsewhere_is_believed_from_its_second_measurement_on():
    assert believed([3.0, 3.1, 3.2, 90.0, 90.1, 90.2])[3:] == [3.2, 90.0, 90.1]


def test_a_measurement_that_is_asked_for_twice_counts_once():
    assert believed([3.0, 3.1, 3.2, 90.0, 90.0, 90.0, 3.3])[-1] == 3.3
