"""Known offsets between markers and triggers are found, and what is missing on either side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acquire.watch.cross_check import CrossCheck

SOA_S = 0.8
RSVP_SOA_S = 0.1


def compare(triggers_s, markers_s, trigger_delays_s=0.02, marker_delays_s=0.0):
    """Stamps are told in the order in which they can be read, `delays` after them."""
    told = []
    for is_marker, stamps_s, delays_s in (
        (False, triggers_s, trigger_delays_s),
        (True, markers_s, marker_delays_s),
    ):
        stamps_s = np.asarray(stamps_s, float)
        readable_s = stamps_s + delays_s
        told += [(float(r), is_marker, float(s)) for r, s in zip(readable_s, stamps_s, strict=True)]
    check = CrossCheck()
    for _, is_marker, stamp_s in sorted(told):
        (check.markers_s if is_marker else check.triggers_s).append(stamp_s)
    return check.agreement()


def counts(agreement):
    return agreement.matched, agreement.without_marker, agreement.without_trigger


def test_before_anything_came_there_is_nothing_to_tell():
    agreement = CrossCheck().agreement()
    assert counts(agreement) == (0, 0, 0)
    assert agreement.offset_mean_ms is None
    assert agreement.offset_sd_ms is None


def test_one_pair_has_a_mean_and_no_sd():
    agreement = compare([50.0], [50.012])
    assert counts(agreement) == (1, 0, 0)
    assert agreement.offset_mean_ms == pytest.approx(12)
    assert agreement.offset_sd_ms is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.09, 0.09), min_size=2, max_size=40), st.data())
def test_mean_and_sd_are_those_of_marker_minus_trigger(offsets_s, data):
    """In any order of arrival, up to 10 s late."""
    triggers_s = 1000 + SOA_S * np.arange(len(offsets_s))
    n = len(offsets_s)
    delays_s = st.lists(st.floats(0, 10), min_size=n, max_size=n)
    agreement = compare(
        triggers_s, triggers_s + offsets_s, data.draw(delays_s), data.draw(delays_s)
    )
    assert counts(agreement) == (n, 0, 0)
    assert agreement.offset_mean_ms == pytest.approx(np.mean(offsets_s) * 1e3, abs=1e-6)
    assert agreement.offset_sd_ms == pytest.approx(np.std(offsets_s, ddof=1) * 1e3, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)), st.sampled_from([0, 0.05, 3]))
def test_what_is_missing_on_either_side_is_counted(no_trigger, no_marker, marker_delay_s):
    events_s = 1000 + SOA_S * np.arange(30)
    triggers_s = [s for k, s in enumerate(events_s) if k not in no_trigger]
    markers_s = [s + 0.03 for k, s in enumerate(events_s) if k not in no_marker]
    agreement = compare(triggers_s, markers_s, marker_delays_s=marker_delay_s)
    both = 30 - len(no_trigger | no_marker)
    assert counts(agreement) == (both, len(no_marker - no_trigger), len(no_trigger - no_marker))
    if both:
        assert agreement.offset_mean_ms == pytest.approx(30)


@pytest.mark.parametrize("offset_s", [-0.19, 0.19])
def test_events_up_to_a_fifth_of_a_second_apart_are_one(offset_s):
    agreement = compare([50.0, 51.0], [50 + offset_s, 51 + offset_s])
    assert counts(agreement) == (2, 0, 0)
    assert agreement.offset_mean_ms == pytest.approx(offset_s * 1e3)


@pytest.mark.parametrize("offset_s", [-0.21, 0.21])
def test_events_that_are_further_apart_are_two(offset_s):
    assert counts(compare([50.0, 51.0], [50 + offset_s, 51 + offset_s])) == (0, 2, 2)


@pytest.mark.parametrize("marker_delay_s", [0.0, 0.05, 5.0])
@pytest.mark.parametrize("offset_s", [-0.03, 0.0, 0.03])
def test_in_a_rapid_series_with_none_missing_each_finds_its_own(marker_delay_s, offset_s):
    triggers_s = 1000 + RSVP_SOA_S * np.arange(100)
    agreement = compare(triggers_s, triggers_s + offset_s, marker_delays_s=marker_delay_s)
    assert counts(agreement) == (100, 0, 0)
    assert agreement.offset_mean_ms == pytest.approx(offset_s * 1e3, abs=1e-6)
    assert agreement.offset_sd_ms == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("marker_delay_s", [0.0, 0.05, 5.0])
def test_in_a_rapid_series_one_missed_trigger_shifts_no_other(marker_delay_s):
    events_s = 1000 + RSVP_SOA_S * np.arange(100)
    triggers_s, markers_s = np.delete(events_s, 40), events_s + 0.005
    agreement = compare(triggers_s, markers_s, marker_delays_s=marker_delay_s)
    assert counts(agreement) == (99, 0, 1)
    assert agreement.offset_mean_ms == pytest.approx(5)
    assert agreement.offset_sd_ms == pytest.approx(0, abs=1e-6)
