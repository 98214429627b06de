"""Samples as they arrive, from an inlet or a recording."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

StreamKind = Literal["eeg", "markers"]
RESULTS = "Results"
"""The type of the streams in which a session tells its answers, and of their recording."""


@dataclass(frozen=True)
class Chunk:
    """Samples as they arrived, on the sender's clock.

    Attributes:
        raw_s: stamps as sent, (n,).
        samples: (n, channels); rows of strings for a text stream.
        offset_s: what the raw stamps need added to be on the reader's clock.
        readable_s: when the chunk could be read, on the reader's clock.
        unscaled: the samples as they were sent, where `samples` are in another unit.
    """

    raw_s: np.ndarray
    samples: np.ndarray
    offset_s: float
    readable_s: float
    unscaled: np.ndarray | None = None

    @property
    def sent(self) -> np.ndarray:
        """The samples as they were sent, (n, channels)."""
        return self.samples if self.unscaled is None else self.unscaled
