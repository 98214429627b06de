"""How much memory is kept by this project's own code: what else is installed keeps its own."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OWN = [
    tracemalloc.Filter(True, f"{ROOT}/*", all_frames=True),
    tracemalloc.Filter(False, "*/PIL/*"),  # which loses 60 bytes with every picture
]
_N_FRAMES = 8  # of what asked for the memory, which NumPy or Pillow then allocate


@contextmanager
def kept_memory() -> Iterator[Callable[[], int]]:
    """Counts from now on; the function returns how many bytes are held that this code asked for.

    Garbage is collected first: when that happens by itself depends on everything in the process.
    """
    tracemalloc.start(_N_FRAMES)
    try:
        yield _kept
    finally:
        tracemalloc.stop()


def _kept() -> int:
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces(_OWN)
    return sum(trace.size for trace in snapshot.traces)
