"""Raw LSL stamps of one stream to the reader's clock, and where samples are missing."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mapped:
    """Stamps on the reader's clock, seconds, and the positions that follow missing samples."""

    stamps_s: np.ndarray
    breaks: np.ndarray


class StreamClock:
    """Maps the raw stamps of one regular stream, chunk by chunk, at any chunk size.

    A step of more than `gap_periods` sample periods, or one that goes back, is a break: samples
    were lost or the sender's clock jumped, and no trial may span it.
    """

    def __init__(self, rate_hz: float, gap_periods: float = 1.5):
        self._gap_s = gap_periods / rate_hz
        self._last_raw_s = math.nan

    def map(self, raw_s: np.ndarray, offset_s: float) -> Mapped:
        """Maps stamps (n,), n > 0; `offset_s` is LSL's time correction, added to raw stamps."""
        steps = np.diff(raw_s, prepend=self._last_raw_s)
        breaks = np.flatnonzero((steps > self._gap_s) | (steps <= 0))
        self._last_raw_s = raw_s[-1]
        return Mapped(raw_s + offset_s, breaks)
