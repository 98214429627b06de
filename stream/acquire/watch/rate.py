"""The rate at which the samples of a stream come, against the one that it declares."""

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from hvf_core.text import counted
from stream.acquire.clock import is_time

_RATE_POINTS, _RATE_POINT_S = 900, 0.2  # three minutes of stamps
_RATE_AFTER_S = 4.0  # of stamps, a rate is told
_RATE_PAUSE_S = 2.0
_RATE_OFF = 0.004  # a crystal is off by a twentieth of that


class Flow(NamedTuple):
    """How samples come, by their stamps: on the screen, in the summary and in reports alike.

    Attributes:
        rate_hz: None before it can be told.
        drift_ppm: by how much the sample period is longer than declared; None where nobody knows,
            or where the stream runs at another rate than it declares.
        gaps: breaks in the stamps.
    """

    rate_hz: float | None = None
    drift_ppm: float | None = None
    gaps: int = 0

    def told(self) -> str:
        """As a person reads it; empty while there is nothing to tell."""
        parts = [] if self.rate_hz is None else [f"{self.rate_hz:.1f} Hz"]
        parts += [] if self.drift_ppm is None else [f"{self.drift_ppm:+z.0f} ppm"]
        parts += [counted(self.gaps, "gap")] if self.gaps else []
        return ", ".join(parts)


class RateWatch:
    """Finds out at which rate samples come, by a line through their raw stamps.

    The line's error is taken from what scatters about it: 8 standard deviations over its length,
    since one loss of h seconds in its middle tilts it by 6.

    Attributes:
        rate_hz: by the line that was drawn last; None before the first.
    """

    def __init__(self, rate_hz: float):
        self.rate_hz: float | None = None
        self._declared_hz = rate_hz
        self._n = 0
        self._numbers: deque[int] = deque(maxlen=_RATE_POINTS)
        self._stamps_s: deque[float] = deque(maxlen=_RATE_POINTS)
        self._next_s = -math.inf  # when the line is drawn again

    def add(self, n: int, newest_s: float) -> float | None:
        """Takes n samples, the last with this stamp; the rate where it is another one for sure."""
        self._n += n
        since_s = newest_s - self._stamps_s[-1] if self._stamps_s else math.inf
        if not is_time(newest_s) or 0 <= since_s < _RATE_POINT_S:
            return None
        if not abs(since_s) < _RATE_PAUSE_S:  # a pause, or another clock
            self._numbers.clear()
            self._stamps_s.clear()
            self._next_s = newest_s + _RATE_AFTER_S
        self._numbers.append(self._n)
        self._stamps_s.append(newest_s)
        if newest_s < self._next_s:
            return None
        self._next_s = newest_s + 1.0
        numbers, stamps_s = np.array(self._numbers), np.array(self._stamps_s)
        numbers, stamps_s = numbers - numbers.mean(), stamps_s - stamps_s[0]
        period_s = float(numbers @ stamps_s / (numbers @ numbers))
        scatter_s = float((stamps_s - stamps_s.mean() - period_s * numbers).std())
        if period_s <= 0:
            return None
        self.rate_hz = 1 / period_s
        off = abs(self.rate_hz / self._declared_hz - 1)
        return self.rate_hz if off > _RATE_OFF + 8 * scatter_s / stamps_s[-1] else None
