"""The clock offset and the line of stamps, against series whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.acquire.clock import ClockOffset, StreamClock
from stream.acquire.watch.rate import RateWatch

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


# --- stamps that are none ------------------------------------------------------------------------

RATE_HZ = 250.0
ODD = [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e9, -1e9, 0.0, 1000.0]


def mapped(raw_s, size):
    clock, stamps_s, breaks = StreamClock(RATE_HZ), [], []
    for start in range(0, len(raw_s), size):
        one = clock.map(raw_s[start : start + size], 0.0)
        breaks += (len(stamps_s) + one.breaks).tolist()
        stamps_s += one.stamps_s.tolist()
    return np.array(stamps_s), breaks


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_stamp_beside_a_loss_shifts_nothing_after_it(odd):
    for beside in range(-3, 12):
        true_s = 5e6 + np.delete(np.arange(2000), np.arange(1000, 1025)) / RATE_HZ
        raw_s = true_s.copy()
        raw_s[1000 + beside] = odd
        stamps_s, breaks = mapped(raw_s, 5)
        assert any(abs(one - 1000) <= 13 for one in breaks)
        assert np.abs(stamps_s - true_s[: len(stamps_s)])[1020:].max() < 0.5 / RATE_HZ


def test_samples_before_the_first_stamp_are_counted_back_from_it():
    raw_s = np.concatenate([[np.nan] * 3, 7.0 + np.arange(3, 20) / RATE_HZ])
    stamps_s, _ = mapped(raw_s, 2)
    np.testing.assert_allclose(stamps_s, 7.0 + np.arange(20) / RATE_HZ)


def test_an_offset_that_moves_by_more_than_its_error_is_a_break():
    clock, stamps_s = StreamClock(RATE_HZ), np.arange(500) / RATE_HZ
    assert not clock.map(stamps_s[:250], 10.0).breaks.size
    assert not clock.map(stamps_s[250:260], 10.001).breaks.size
    assert clock.map(stamps_s[260:], 12.0).breaks.tolist() == [0]


# --- bursts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [2048.0, 16_000.0])
def test_bursts_of_many_samples_are_right(rate_hz):
    size = round(0.2 * rate_hz)
    true_s = np.arange(10 * size) / rate_hz
    mapped = StreamClock(rate_hz).map(np.repeat(true_s[size - 1 :: size], size), 0.0)
    assert not mapped.breaks.size
    assert np.abs(mapped.stamps_s - true_s[: len(mapped.stamps_s)]).max() < 0.5 / rate_hz


# --- the rate ------------------------------------------------------------------------------------


def rate_found(real_hz, stamps, *, lost=(), n_s=120, size=5):
    """After how many seconds, and at which rate, a stream of 250 Hz is known to be another."""
    rng = np.random.default_rng(7)
    numbers = np.delete(np.arange(int(n_s * real_hz)), lost)
    true_s = 900.0 + numbers / real_hz
    if stamps == "bursts":  # of 48 ms
        true_s = 900.0 + (numbers // 12 * 12 + 11) / real_hz
    raw_s = true_s + (rng.exponential(2e-3, len(numbers)) if stamps != "exact" else 0)
    watch = RateWatch(RATE_HZ)
    for start in range(0, len(raw_s), size):
        part = raw_s[start : start + size]
        if (found := watch.add(len(part), float(part[-1]))) is not None:
            return float(part[-1]) - 900.0, found
    return None


@pytest.mark.parametrize("stamps", ["exact", "jitter", "bursts"])
@pytest.mark.parametrize("percent", [-25, -20, -5, -2, -1, -0.6, 0.6, 1, 2, 2.4, 10, 25])
def test_a_rate_that_is_not_the_declared_one_is_found(percent, stamps):
    real_hz = RATE_HZ * (1 + percent / 100)
    after_s, found_hz = rate_found(real_hz, stamps)
    assert after_s < (6.0 if stamps == "exact" or abs(percent) >= 5 else 120.0)
    assert abs(found_hz / real_hz - 1) < 4e-3


@pytest.mark.parametrize("stamps", ["exact", "jitter", "bursts"])
@pytest.mark.parametrize("ppm", [-200, 0, 200])
def test_drift_jitter_and_a_loss_are_no_other_rate(ppm, stamps):
    real_hz = RATE_HZ * (1 + ppm * 1e-6)
    assert rate_found(real_hz, stamps) is None
    for n_lost in (25, 250, 2500):
        assert rate_found(real_hz, stamps, lost=np.arange(3000, 3000 + n_lost)) is None


def test_stamps_that_are_no_time_are_no_other_rate():
    watch, stamps_s = RateWatch(RATE_HZ), 900.0 + np.arange(15_000) / RATE_HZ
    stamps_s[::977] = np.nan
    stamps_s[500::1201] = 1e9
    stamps_s[600::1201] = -5.0
    assert all(watch.add(1, stamp_s) is None for stamp_s in stamps_s.tolist())
