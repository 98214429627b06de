"""The last seconds of a stream, in time, so that any window of them is one contiguous view."""

import math
from collections import deque

import numpy as np


class Ring:
    """A preallocated ring of samples that are numbered from 0 on, with their stamps.

    Every sample is written twice, `capacity` apart, so every window that is still held is a plain
    slice: cutting a trial copies nothing. A view is good until its samples are overwritten.
    """

    def __init__(self, capacity: int, n_channels: int):
        self.capacity = capacity
        self.next = 0  # number of the next sample
        self._samples = np.zeros((2 * capacity, n_channels), np.float32)
        self._stamps_s = np.zeros(2 * capacity, np.float64)
        self._readable_s = np.zeros(2 * capacity, np.float64)
        self._breaks: deque[int] = deque()  # numbers of samples that follow missing ones
        self._newest_hole = -1  # number of the newest sample with a value that is not finite
        self._increasing_from = 0  # the first sample since the sender's clock last went back

    @property
    def oldest(self) -> int:
        """Number of the oldest sample that is still held."""
        return max(0, self.next - self.capacity)

    @property
    def newest_stamp_s(self) -> float:
        """Stamp of the newest sample; minus infinity before the first."""
        return self._stamps_s[(self.next - 1) % self.capacity] if self.next else -np.inf

    def append(
        self, stamps_s: np.ndarray, samples: np.ndarray, breaks: np.ndarray, readable_s: float
    ) -> None:
        """Adds (n, channels) samples; `breaks` are positions in them, see `StreamClock.map`."""
        for position in breaks.tolist():
            before_s = stamps_s[position - 1] if position else self.newest_stamp_s
            if stamps_s[position] <= before_s:
                self._increasing_from = self.next + position
            self._breaks.append(self.next + position)
        samples = samples.astype(np.float32, copy=False)  # in which large ones are infinite
        if not math.isfinite(samples.sum()):  # a sum is, where every value is
            self._newest_hole = self.next + len(samples) - 1
        start = 0
        while start < len(stamps_s):  # in parts that end where the ring does
            at = self.next % self.capacity
            part = slice(start, start + self.capacity - at)
            count = len(stamps_s[part])
            for copy in (at, at + self.capacity):
                self._stamps_s[copy : copy + count] = stamps_s[part]
                self._samples[copy : copy + count] = samples[part]
                self._readable_s[copy : copy + count] = readable_s
            self.next += count
            start += count
        while self._breaks and self._breaks[0] <= self.oldest:
            self._breaks.popleft()

    def view(self, first: int, count: int) -> np.ndarray:
        """Samples first .. first+count-1 as a (count, channels) view."""
        at = self._held(first, count)
        return self._samples[at : at + count]

    def stamps_s(self, first: int, count: int) -> np.ndarray:
        at = self._held(first, count)
        return self._stamps_s[at : at + count]

    def readable_s(self, number: int) -> float:
        """When the sample became readable, on the reader's clock."""
        return float(self._readable_s[self._held(number, 1)])

    def _held(self, first: int, count: int) -> int:
        if first < self.oldest or first + count > self.next:
            held = f"{self.oldest} to {self.next - 1}"
            raise IndexError(f"samples {first} to {first + count - 1}: only {held} are held")
        return first % self.capacity

    def broken(self, first: int, count: int) -> bool:
        """Whether samples are missing between the first and the last of a window."""
        return any(first < number < first + count for number in self._breaks)

    def is_finite_from(self, first: int) -> bool:
        """Whether all values are finite from this sample on; some may be where it says no."""
        return self._newest_hole < first

    def nearest(self, stamp_s: float) -> int:
        """Number of the held sample whose stamp is nearest to `stamp_s` (the earlier of two).

        Stamps before the oldest or after the newest sample give those. Samples from before the
        sender's clock went back are not looked at: their stamps mean another time.
        """
        first = max(self.oldest, self._increasing_from)
        count = self.next - first
        stamps_s = self.stamps_s(first, count)
        after = int(np.searchsorted(stamps_s, stamp_s))
        if after == 0:
            return first
        if after == count:
            return self.next - 1
        earlier = stamp_s - stamps_s[after - 1] <= stamps_s[after] - stamp_s
        return first + after - int(earlier)
