"""Do the marker stream and the trigger channel tell the same story? By how much do they differ?"""

from collections import deque
from dataclasses import dataclass

import numpy as np

_APART_S = 0.2  # markers and triggers further apart than this are not the same event


@dataclass(frozen=True)
class Agreement:
    """Offsets are marker minus trigger, in milliseconds; None where nothing matched."""

    matched: int
    offset_mean_ms: float | None
    offset_sd_ms: float | None
    without_marker: int
    """Triggers to which no marker came."""
    without_trigger: int
    """Markers to which no trigger came."""


class CrossCheck:
    """Matches two sequences of stamps as they come, each stamp with the nearest free one.

    Stamps are on the reader's clock. What comes late still finds its partner: an event counts as
    missed only when the other sequence is past it.
    """

    def __init__(self) -> None:
        self._markers: deque[float] = deque()
        self._triggers: deque[float] = deque()
        self._offsets_s: list[float] = []

    def marker(self, stamp_s: float) -> None:
        self._match(stamp_s, self._markers, self._triggers, sign=1.0)

    def trigger(self, stamp_s: float) -> None:
        self._match(stamp_s, self._triggers, self._markers, sign=-1.0)

    def agreement(self) -> Agreement:
        """What has been found so far; events without partner count as missed."""
        offsets_ms = np.array(self._offsets_s) * 1e3
        n = len(offsets_ms)
        return Agreement(
            matched=n,
            offset_mean_ms=float(offsets_ms.mean()) if n else None,
            offset_sd_ms=float(offsets_ms.std(ddof=1)) if n > 1 else None,
            without_marker=len(self._triggers),
            without_trigger=len(self._markers),
        )

    def _match(self, stamp_s: float, own: deque[float], others: deque[float], sign: float) -> None:
        nearest = min(others, key=lambda other_s: abs(other_s - stamp_s), default=None)
        if nearest is None or abs(nearest - stamp_s) > _APART_S:
            own.append(stamp_s)
            return
        others.remove(nearest)
        self._offsets_s.append(sign * (stamp_s - nearest))
