"""Opens the search of a gallery: which kind, and what it passes over."""

from collections.abc import Callable

import numpy as np

from hvf_core.problem import Problem
from index.gallery import Gallery
from index.search.base import Search
from index.search.flat import Flat

GPU, GPU_HALF = "faiss-gpu", "faiss-gpu-half"
KINDS = ("auto", "exact", GPU, GPU_HALF)
"""What a person may ask for."""


def open_search(
    gallery: Gallery, kind: str, say: Callable[[str], None], among: np.ndarray | None = None
) -> Search:
    """The search of a gallery.

    Args:
        gallery: what is searched, without the images that were removed from it.
        kind: one of `KINDS`.
        say: hears, in a sentence each, what a person should know of it.
        among: the rows of a subset, int64; None for all.

    Raises:
        Problem: there is no such kind, or none of the images counts.
    """
    if kind not in KINDS:
        raise Problem(f"there is no search '{kind}': give one of {', '.join(KINDS)}")
    rows = None if among is None else np.unique(among)
    if rows is not None and not len(rows):
        raise Problem("none of the gallery's images is to be searched: name some of them")
    if kind in (GPU, GPU_HALF):
        from index.search.gpu import open_gpu  # it imports torch

        try:
            return open_gpu(gallery.embeddings, rows, half=kind == GPU_HALF)
        except Problem as problem:
            say(f"the CPU searches in place of {kind}, as exactly: {problem}")
    return Flat(gallery.embeddings, rows)
