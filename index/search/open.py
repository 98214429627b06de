"""Opens the search of a gallery: which kind, and what it passes over."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.gallery import Gallery
from index.search.base import Search
from index.search.flat import Flat
from index.search.kinds import AUTO, EXACT, GPU, GPU_HALF, GPU_IVF, MAKE, NAMES, OF_GPU_IVF

if TYPE_CHECKING:
    from index.search.approximate import Approximate
    from index.search.stored import SearchManifest

MANY = 20_000
"""From so many images on exact search takes milliseconds, and a person is told so."""
MOST_COUNT = 0.9
"""Of an index's images: where fewer count, its figures, which are of all of them, say little."""
SOON_MS = 5.0
"""Exact search that takes no longer is then taken."""
MB_PER_MS = 10
"""What one thread reads of embeddings on common machines."""


def open_search(
    gallery: Gallery,
    kind: str,
    say: Callable[[str], None],
    among: np.ndarray | None = None,
    *,
    on_gpu: bool = True,
) -> Search:
    """The search of a gallery.

    Args:
        gallery: what is searched, without the images that were removed from it.
        kind: one of `NAMES`; for many images `auto` takes the GPU; else the index that lies beside
            the gallery, where that was measured to be good enough and most of what it holds counts;
            and exact search on the CPU elsewhere.
        say: hears, in a sentence each, what a person should know of it.
        among: the rows of a subset, int64; None for all.
        on_gpu: whether `auto` may take one.

    Raises:
        Problem: there is no such kind, or no index of it, or none of the images counts.
    """
    if kind not in NAMES:
        raise Problem(f"there is no search '{kind}': give one of {', '.join(NAMES)}")
    rows = _counted(gallery, among)
    n = gallery.n_rows if rows is None else len(rows)
    if (kind in (GPU, GPU_HALF) or (kind == AUTO and on_gpu and n >= MANY)) and (
        there := _on_gpu(gallery, kind, say, rows)
    ):
        return there
    if kind not in (EXACT, GPU, GPU_HALF) and (indexed := _indexed(gallery, kind, say, rows, n)):
        return indexed
    if n >= MANY:
        read_mb = n * gallery.embeddings.shape[1] * 4 / 1e6
        say(
            f"{n} images are searched exactly: each answer reads {read_mb:,.0f} MB, which takes "
            f"some {read_mb / MB_PER_MS:,.0f} ms"
        )
    return Flat(gallery.embeddings, rows)


def _on_gpu(
    gallery: Gallery, kind: str, say: Callable[[str], None], rows: NDArray[np.int64] | None
) -> Search | None:
    """Exactly, on the GPU; None where the CPU has to, which `auto` need not be told without one."""
    from index.search import gpu  # it imports torch

    if kind == AUTO and gpu.why_not():
        return None
    why_not = ""
    for one in (GPU, GPU_HALF) if kind == AUTO else (kind,):
        try:
            return gpu.open_gpu(gallery.embeddings, rows, half=one == GPU_HALF)
        except Problem as problem:
            why_not = str(problem)
    say(f"the CPU searches in place of the GPU: {why_not}")
    return None


def _counted(gallery: Gallery, among: np.ndarray | None) -> NDArray[np.int64] | None:
    """The rows that count, rising; None where all do."""
    if among is None:
        return gallery.rows if len(gallery.removed) else None
    rows = np.setdiff1d(np.asarray(among, np.int64), gallery.removed)
    if not len(rows):
        raise Problem("none of the gallery's images is to be searched: name some of them")
    return rows


def _indexed(
    gallery: Gallery,
    kind: str,
    say: Callable[[str], None],
    rows: NDArray[np.int64] | None,
    n: int,
) -> Search | None:
    """By the index that lies beside the gallery; None where exact search is to be taken."""
    from index.search import stored  # which takes a while: most galleries have no index

    on_gpu = kind == GPU_IVF
    kind = OF_GPU_IVF if on_gpu else kind
    try:
        kept = stored.read_search(gallery)
        if kept is None or kept.chosen.kind != kind != AUTO:
            if kind == AUTO:
                return None
            has = f"an index of kind '{kept.chosen.kind}'" if kept else "no index"
            raise Problem(
                f"the gallery has {has}, not '{kind}': make it with `python -m offline_train "
                f"gallery index {gallery.folder} --kind {kind}`"
            )
        why_not = _why_not(kept, kind, gallery, rows, n)
        if why_not is None:
            search = stored.load_search(gallery, kept, rows)
            if on_gpu:
                _move(search, say)
            counts, exact_ms = (
                _n_indexed(kept, gallery, rows, n),
                kept.tried[0].p50_ms / kept.n_rows,
            )
            if exact_ms * (n - counts) > kept.chosen.p50_ms:
                say(
                    f"{n - counts} images were added since the index was made, and take longer "
                    f"than the index: {MAKE}"
                )
            if counts < MOST_COUNT * kept.n_rows:
                say(
                    f"of the {kept.n_rows} images of the index {counts} count: how good it is was "
                    "measured with all of them"
                )
            return search
    except Problem as problem:
        if kind != AUTO:
            raise
        why_not = str(problem)
    if why_not:
        say(f"{why_not}; meanwhile the gallery is searched exactly")
    return None


def _move(search: "Approximate", say: Callable[[str], None]) -> None:
    from index.search.gpu import GpuIndex  # it imports torch

    try:
        search.move(GpuIndex)
        search.kind = GPU_IVF
    except Problem as problem:
        say(f"the CPU searches in place of the GPU: {problem}")


def _why_not(
    kept: "SearchManifest", kind: str, gallery: Gallery, rows: NDArray[np.int64] | None, n: int
) -> str | None:
    """Why an index is not to be used, empty where that need not be said; None where it is to be."""
    chosen, exact = kept.chosen, kept.tried[0]
    if chosen.kind == EXACT:
        return ""
    n_indexed = _n_indexed(kept, gallery, rows, n)
    exact_ms = exact.p50_ms / kept.n_rows
    least = MOST_COUNT if kind == AUTO and exact_ms * n <= SOON_MS else 0.5
    if n_indexed < least * kept.n_rows:  # it was measured with all of them
        return f"of the {kept.n_rows} images of the index {n_indexed} count"
    if kind == AUTO and not chosen.good:
        return (
            f"the index '{chosen.kind}' is not good enough (recall@5 {chosen.recall_5:.3f}, log p "
            f"±{chosen.log_p_error:.3f}, measured with {chosen.queries} queries)"
        )
    if kind == AUTO and chosen.p50_ms > exact_ms * n_indexed:
        return f"the index '{chosen.kind}' takes longer than looking at its {n_indexed} images"
    return None


def _n_indexed(
    kept: "SearchManifest", gallery: Gallery, rows: NDArray[np.int64] | None, n: int
) -> int:
    """How many of an index's rows count."""
    n_added = gallery.n_rows - kept.n_rows
    return n - n_added if rows is None else int(rows.searchsorted(kept.n_rows))
