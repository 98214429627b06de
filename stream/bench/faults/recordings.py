"""What the recordings of a session lack of the samples that its source has sent."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream.sources.xdf_files import read_xdf

Span = tuple[float, float]
"""From when to when, on the clock of the source."""


@dataclass(frozen=True)
class Recorded:
    """What all recordings hold together.

    Attributes:
        n_lacking: samples that were sent between the first and the last one, and are in none.
        lacking: from when to when they were sent.
        n_twice: samples that are there more than once.
    """

    n_files: int
    n_samples: int
    n_lacking: int
    lacking: Sequence[Span]
    n_twice: int


def recorded(folder: Path, said: Iterable[str], absent: Iterable[Span]) -> Recorded:
    """Looks into the recordings of a session's folder.

    Args:
        said: lines of the source.
        absent: when no recorder, or no reader, was there.

    Raises:
        Problem: one of them cannot be read.
    """
    told = [json.loads(line) for line in said if line.startswith("[")]
    _, start_s, rate_hz = next(one for one in told if one[0] == "began")
    paths = sorted(folder.glob("recording*.xdf"))
    stamps_s = np.concatenate([read_xdf(path, None, None).stamps_s for path in paths])
    numbers = np.rint((stamps_s[np.isfinite(stamps_s)] - start_s) * rate_hz).astype(int)
    there = np.bincount(numbers)
    lacks = there == 0
    lacks[: numbers.min()] = False
    for first_s, last_s in [*absent, *((one[1], one[2]) for one in told if one[0] == "unsent")]:
        first, last = np.rint((np.array([first_s, last_s]) - start_s) * rate_hz).astype(int)
        lacks[max(0, first) : last + 1] = False
    edges = np.flatnonzero(np.diff(lacks, prepend=False, append=False)).reshape(-1, 2)
    spans = [(start_s + a / rate_hz, start_s + b / rate_hz) for a, b in edges.tolist()]
    return Recorded(len(paths), len(numbers), int(lacks.sum()), spans, int((there > 1).sum()))
