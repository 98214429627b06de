"""Samples as they arrive, from an inlet or a recording."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

StreamKind = Literal["eeg", "markers"]
SampleFormat = Literal["float32", "double64", "int32"]
"""As which the samples of a stream are kept, as LSL calls it."""


@dataclass(frozen=True)
class Chunk:
    """Samples as they arrived, on the sender's clock.

    Attributes:
        raw_s: stamps as sent, (n,).
        samples: (n, channels); rows of strings for a text stream.
        offset_s: what the raw stamps need added to be on the reader's clock.
        readable_s: when the chunk could be read, on the reader's clock.
    """

    raw_s: np.ndarray
    samples: np.ndarray
    offset_s: float
    readable_s: float
