"""How far the live stamps of a recording are from those that pyxdf would give it afterwards.

pyxdf fits one line through all clock offsets and smooths stamps over gaps of up to 2 s at 250 Hz;
both look into the future, so live and offline stamps differ by construction. This says by how much.
"""

from pathlib import Path

import numpy as np
import pyxdf

from stream.sources.recording import Recording
from stream.sources.xdf_writer import whole_chunks


def pyxdf_stamps(recording: Recording) -> np.ndarray | None:
    """pyxdf's stamps (n,) of a recording's samples, seconds; None if it is no XDF file."""
    if Path(recording.path).suffix.lower() != ".xdf":
        return None
    raw, mapped = (_load(recording.path, recording.name, is_mapped) for is_mapped in (False, True))
    first = int(np.searchsorted(raw, recording.stamps_s[0]))
    return mapped[first : first + len(recording.stamps_s)]


def _load(path: Path, name: str, is_mapped: bool) -> np.ndarray:
    streams, _ = pyxdf.load_xdf(
        whole_chunks(path),
        synchronize_clocks=is_mapped,
        handle_clock_resets=is_mapped,
        dejitter_timestamps=is_mapped,
    )
    stamps = [s["time_stamps"] for s in streams if s["info"]["name"][0] == name]
    return np.asarray(stamps[0], np.float64)
