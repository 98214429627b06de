"""The ring against a plain list of all samples that were ever appended."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.acquire.ring import Ring

N_CHANNELS = 2


class ListRing:
    """Everything that was appended, and the part that a ring of this capacity still holds."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.stamps_s, self.samples, self.breaks, self.readable_s = [], [], [], []

    @property
    def oldest(self):
        return max(0, len(self.stamps_s) - self.capacity)

    def append(self, stamps_s, samples, breaks, readable_s):
        self.breaks += [len(self.stamps_s) + at for at in breaks]
        self.stamps_s += list(stamps_s)
        self.samples += list(samples)
        self.readable_s += [readable_s] * len(stamps_s)


@st.composite
def filled(draw):
    """A ring and its oracle after the same chunks; some chunks are larger than the ring."""
    capacity = draw(st.integers(1, 25))
    ring, oracle = Ring(capacity, N_CHANNELS), ListRing(capacity)
    for k, size in enumerate(draw(st.lists(st.integers(1, 60), min_size=1, max_size=8))):
        numbers = len(oracle.stamps_s) + np.arange(size)
        breaks = sorted(draw(st.sets(st.integers(0, size - 1), max_size=3)))
        samples = (numbers[:, None] * N_CHANNELS + np.arange(N_CHANNELS)).astype(np.float32)
        chunk = (100 + numbers / 8, samples, np.array(breaks, int), float(k))
        ring.append(*chunk)
        oracle.append(*chunk)
    return ring, oracle


@given(filled(), st.data())
def test_every_held_window_reads_as_it_was_written(pair, data):
    ring, oracle = pair
    assert (ring.next, ring.oldest) == (len(oracle.stamps_s), oracle.oldest)
    assert ring.newest_stamp_s == oracle.stamps_s[-1]
    first = data.draw(st.integers(ring.oldest, ring.next - 1))
    count = data.draw(st.integers(1, ring.next - first))
    held = slice(first, first + count)
    np.testing.assert_array_equal(ring.view(first, count), oracle.samples[held])
    np.testing.assert_array_equal(ring.stamps_s(first, count), oracle.stamps_s[held])
    assert ring.readable_s(first) == oracle.readable_s[first]
    inside = [number for number in oracle.breaks if first < number < first + count]
    assert ring.broken(first, count) == bool(inside)


@given(filled(), st.integers(-50, 60), st.integers(1, 60))
def test_a_window_that_is_not_held_is_refused(pair, offset, count):
    ring, _ = pair
    first = ring.oldest + offset
    if first >= ring.oldest and first + count <= ring.next:
        return
    with pytest.raises(IndexError, match=f"only {ring.oldest} to {ring.next - 1} are held"):
        ring.view(first, count)


@given(filled(), st.floats(-5, 70))
def test_nearest_is_the_sample_with_the_smallest_distance(pair, after_s):
    ring, oracle = pair
    stamp_s = 100 + after_s
    distances_s = np.abs(np.array(oracle.stamps_s[oracle.oldest :]) - stamp_s)
    assert ring.nearest(stamp_s) == oracle.oldest + int(np.argmin(distances_s))


def test_of_two_samples_that_are_as_near_the_earlier_one_counts():
    ring = Ring(10, 1)
    ring.append(np.array([0.0, 1.0, 2.0]), np.zeros((3, 1)), np.array([], int), 0.0)
    assert ring.nearest(0.5) == 0
    assert ring.nearest(1.5) == 1


def test_a_view_copies_nothing_also_across_the_end_of_the_ring():
    ring = Ring(8, 1)
    for start in range(0, 21, 3):
        numbers = np.arange(start, start + 3)
        ring.append(numbers / 1.0, numbers[:, None], np.array([], int), 0.0)
    one, other = ring.view(13, 5), ring.view(14, 5)
    assert np.shares_memory(one, other)
    assert one.flags.c_contiguous
    np.testing.assert_array_equal(other[:, 0], np.arange(14, 19))


def test_an_empty_ring_holds_nothing():
    ring = Ring(8, 1)
    assert (ring.next, ring.oldest, ring.newest_stamp_s) == (0, 0, -np.inf)
    assert not ring.broken(0, 8)
    with pytest.raises(IndexError):
        ring.view(0, 1)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf, 1e300])
def test_it_knows_from_where_on_all_values_are_finite(hole: float) -> None:
    ring, none = Ring(10, 3), np.array([], np.intp)
    for number in range(25):
        samples = np.ones((2, 3))
        if number in (2, 7):
            samples[1, 2] = hole
        stamps_s = (2 * number + np.arange(2)) / 100
        ring.append(stamps_s, samples, none, 0.0)
        for first in range(ring.oldest, ring.next):
            is_finite = np.isfinite(ring.view(first, ring.next - first)).all()
            assert is_finite or not ring.is_finite_from(first)
    assert ring.is_finite_from(16)
    assert not ring.is_finite_from(15)
