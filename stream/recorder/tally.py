"""What has come of a stream: samples, seconds, its effective rate, gaps."""

import numpy as np

from hvf_core.text import counted
from stream.acquire.clock import StreamClock, is_time

_BACK_S = 1.0  # stamps that go back by more are of a clock that began anew
_BEHIND_S = 2.0  # what is under way, or sent in bursts, is not lacking


class Tally:
    """Counts by raw stamps; irregular streams (`rate_hz` 0) have neither rate nor gaps.

    Attributes:
        n_samples, n_gaps: so far; that a source was away is a gap.
    """

    def __init__(self, rate_hz: float):
        self.n_samples = self.n_gaps = 0
        self._nominal_hz = rate_hz
        self._clock = StreamClock(rate_hz) if rate_hz else None
        self._before_s, self._n_before = 0.0, 0  # of the parts before this one
        self._first_s: float | None = None  # of this part
        self._last_s, self._n = 0.0, 0

    def add(self, raw_s: np.ndarray) -> None:
        """Takes the stamps (n,) of samples that have come."""
        self.n_samples += len(raw_s)
        times_s = [stamp_s for stamp_s in (raw_s[0], raw_s[-1]) if is_time(stamp_s)]
        if not times_s:
            return
        if self._first_s is not None and times_s[0] < self._last_s - _BACK_S:
            self.part()
        if self._clock is not None:
            self.n_gaps += len(self._clock.map(raw_s, 0.0).breaks)
        self._first_s = times_s[0] if self._first_s is None else self._first_s
        self._last_s, self._n = times_s[-1], self._n + len(raw_s)

    def part(self) -> None:
        """Begins anew after its source was away: what lies between belongs to nothing."""
        if self._first_s is None:
            return
        self._before_s += self._last_s - self._first_s
        self._n_before += self._n - 1
        self._first_s, self._n = None, 0
        if self._clock is not None:
            self.n_gaps += 1
            self._clock = StreamClock(self._nominal_hz)

    @property
    def seconds(self) -> float:
        """From the first stamp to the last, without the time in which the source was away."""
        return self._before_s + (self._last_s - self._first_s if self._first_s is not None else 0.0)

    @property
    def rate_hz(self) -> float | None:
        """At which the samples came; None of irregular streams, and before there are some."""
        steps = self._n_before + max(0, self._n - 1)
        return steps / self.seconds if self._clock is not None and self.seconds > 0 else None

    def lack_s(self, elapsed_s: float) -> float:
        """Of what a regular stream should have by now, the part that did not come, in seconds.

        0 where that is too little to speak of. Where a sender was away, or is too slow, its stamps
        have no gap that would show it.

        Args:
            elapsed_s: since its first samples came.
        """
        lack_s = elapsed_s - self.seconds if self.rate_hz is not None else 0.0
        return lack_s if lack_s > _BEHIND_S else 0.0

    def told(self, elapsed_s: float = 0.0) -> str:
        """All of it in words, and what is lacking after so long."""
        if not self.n_samples:
            return "no samples"
        told = f"{self.n_samples:,} samples, {self.seconds:.1f} s"
        if self.rate_hz is None:
            return told
        gaps = counted(self.n_gaps, "gap") if self.n_gaps else "no gaps"
        told = f"{told}, {self.rate_hz:.2f} Hz, {gaps}"
        if not (lack_s := self.lack_s(elapsed_s)):
            return told
        return (
            f"{told}, but {lack_s:.1f} s of {elapsed_s:.1f} s are lacking: what sends it was away "
            "or too slow, and markers of that time have no EEG"
        )
