"""Streams whose sender was started again, in a recording: every stamp keeps its place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sources.recording import offsets_at
from stream.sources.xdf import on_one_clock


def recorded(stamps_s, offsets):
    return stamps_s + offsets_at(offsets, stamps_s)


@given(
    st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=4),
    st.floats(0.0, 100e-6),
    st.sampled_from([0.004, 0.7]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_stamps_that_begin_anew_are_followed_by_the_offsets(starts_s, drift, step_s, seed):
    """Each run of the sender lasts 30 s and then rests; its clock may begin anywhere below."""
    rng = np.random.default_rng(seed)
    stamps, taken, true, at_s, clock_s = [], [], [], 1e5, 5e5
    for start_s in starts_s:
        clock_s = min(start_s, clock_s - 40.0)  # back, by more than it ran
        run_s = np.arange(0, 30, step_s)
        offset_s = at_s - clock_s
        stamps.append(clock_s + run_s)
        true.append(at_s + run_s)
        times_s = np.arange(0, 30, 5) + rng.uniform(0, 1)
        taken += [(clock_s + t, offset_s + drift * t) for t in times_s.tolist()]
        at_s += 30 + rng.uniform(1, 100)
    stamps_s, offsets = on_one_clock(np.concatenate(stamps), *np.array(taken).T)
    assert (np.diff(stamps_s) > 0).all()
    assert [time_s for time_s, _ in offsets] == sorted(time_s for time_s, _ in offsets)
    np.testing.assert_allclose(recorded(stamps_s, offsets), np.concatenate(true), atol=5e-3)


def test_markers_of_the_second_run_only_are_of_the_second_clock():
    offsets = [(5000.0, -4900.0), (5015.0, -4900.0), (30.0, 100.0), (45.0, 100.0)]
    for stamps_s in ([31.0, 40.0], [5001.0, 5014.0], [5001.0, 31.0]):
        moved_s, one = on_one_clock(stamps_s, *np.array(offsets).T)
        expected = [s + (100.0 if s < 1000 else -4900.0) for s in stamps_s]
        np.testing.assert_allclose(recorded(moved_s, one), expected)


def test_markers_out_of_order_are_no_clock_that_begins_anew():
    stamps_s, offsets = on_one_clock([10.0, 5.0, 12.0], [0.0, 20.0], [1.0, 1.0])
    assert stamps_s.tolist() == [10.0, 5.0, 12.0]
    assert offsets == ((0.0, 1.0), (20.0, 1.0))


def test_an_offset_that_jumps_for_one_measurement_is_left_out():
    times_s = np.arange(0, 50, 5.0)
    offsets_s = 3.0 + times_s * 50e-6
    jumped_s = offsets_s.copy()
    jumped_s[4] += 0.2
    _, offsets = on_one_clock([1.0], times_s, jumped_s)
    assert offsets == tuple(zip(np.delete(times_s, 4), np.delete(offsets_s, 4), strict=True))
    stays_s = np.where(times_s > 20, offsets_s + 0.2, offsets_s)
    assert len(on_one_clock([1.0], times_s, stays_s)[1]) == len(times_s)


def test_a_stream_without_stamps_or_offsets_stays_as_it_is():
    stamps_s, offsets = on_one_clock([], [], [])
    assert (stamps_s.size, offsets) == (0, ())
    assert on_one_clock([1.0, 2.0], [], [])[0].tolist() == [1.0, 2.0]
