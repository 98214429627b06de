"""Markers against triggers: do both tell the same story, and by how much do they differ?"""

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
    """Matches two sequences of stamps, each with the nearest of the other, whenever they came.

    Stamps are on the reader's clock. Two belong together where each is the other's nearest, so
    what is missing in one sequence shifts nothing in the rest.
    """

    def __init__(self) -> None:
        self.markers_s: list[float] = []
        self.triggers_s: list[float] = []

    def agreement(self) -> Agreement:
        """What has been found so far; events without partner count as missed."""
        markers, triggers = np.sort(self.markers_s), np.sort(self.triggers_s)
        offsets_ms = np.array([])
        if len(markers) and len(triggers):
            to_trigger, to_marker = _nearest(markers, triggers), _nearest(triggers, markers)
            offsets_s = markers - triggers[to_trigger]
            is_mutual = to_marker[to_trigger] == np.arange(len(markers))
            offsets_ms = 1e3 * offsets_s[is_mutual & (np.abs(offsets_s) <= _APART_S)]
        n = len(offsets_ms)
        return Agreement(
            matched=n,
            offset_mean_ms=float(offsets_ms.mean()) if n else None,
            offset_sd_ms=float(offsets_ms.std(ddof=1)) if n > 1 else None,
            without_marker=len(triggers) - n,
            without_trigger=len(markers) - n,
        )


def _nearest(stamps_s: np.ndarray, others_s: np.ndarray) -> np.ndarray:
    """For each stamp the position of the nearest of the others (the earlier of two), in order."""
    return np.searchsorted((others_s[1:] + others_s[:-1]) / 2, stamps_s)
