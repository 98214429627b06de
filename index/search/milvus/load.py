"""Loads a gallery into a collection of a Milvus server, and goes on where it was ended."""

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from hvf_core.problem import Problem
from hvf_core.provenance import command_line
from index.gallery import Gallery
from index.search.kinds import MILVUS
from index.search.measure import Figures, Queries, measured, truth_of
from index.search.milvus.indexes import INDEXES
from index.search.milvus.kept import (
    N_CANDIDATES,
    Provenance,
    provenance_of,
    read_provenance,
    refuse_foreign_rows,
    save_kept,
)
from index.search.milvus.search import named_by
from index.search.milvus.server import FIRST_S, FLUSH_S, Server
from index.search.remainder import moments_of

BATCH_BYTES = 8 * 2**20
"""Of embeddings that are sent together: a server takes 64 MB at most."""
_LOOK_S = 1.0


def load(
    gallery: Gallery, server: Server, collection: str, index: str, tell: Callable[[int, str], None]
) -> Provenance:
    """Writes a gallery's rows into a collection, those that are not there yet.

    Ended at any moment, or in a collection of the same gallery before it grew, it goes on after the
    last row of which all before it are there.

    Args:
        gallery: what is loaded, with rows that were removed, so that rows keep their numbers.
        server: where.
        collection: its name; it is made where it is not there.
        index: one of `INDEXES`; of a collection that is there it stays as it is.
        tell: hears how many rows are there, and what is going on.

    Returns:
        What the collection is made of.

    Raises:
        Problem: the collection is of another gallery, has rows that the gallery has not, or the
            server fails; what it has taken by then it keeps.
    """
    n, dim = gallery.n_rows, gallery.embeddings.shape[1]
    there = read_provenance(server, collection)
    whole = provenance_of(gallery, there.index if there else index, command_line(), n)
    if whole is None:
        raise Problem(f"the gallery '{gallery.folder}' has no blocks of rows: make it again")
    if there is None:
        made = INDEXES[index]
        server.create(collection, dim, whole.model_dump_json(), made.kind, made.build)
    else:
        refuse_foreign_rows(there, gallery, f"the collection '{collection}' at {server.uri}")
        if there.n_rows != n:
            server.say_of(collection, whole.model_dump_json())
        server.make_ready(collection, FLUSH_S)
    batch = max(1, BATCH_BYTES // (4 * dim))
    begins = _first_missing(server, collection, n, batch)
    for start in range(begins, n, batch):
        tell(start, "loading")
        part = np.ascontiguousarray(gallery.embeddings[start : start + batch])
        server.write(collection, start, part, anew=start == begins)
    tell(n, "writing to the server's disk")
    server.settle(collection)
    if INDEXES[whole.index].kind != "FLAT":  # which has nothing to be built
        _wait_for_index(server, collection, n, partial(tell, n))
    return whole


def _wait_for_index(server: Server, collection: str, n: int, tell: Callable[[str], None]) -> None:
    """Until all images are searched by it, or no more of them, as a server may leave out a few."""
    least, since_s = sys.maxsize, time.monotonic()
    while (left := server.n_unindexed(collection, n)) and time.monotonic() < since_s + FLUSH_S:
        if left < least:
            least, since_s = left, time.monotonic()
        tell(f"the server makes its index ready, {left} images left")
        time.sleep(_LOOK_S)


def _first_missing(server: Server, collection: str, n: int, batch: int) -> int:
    """The first row of the first batch that is not all there; n where all are."""
    if server.count(collection, n) == n:
        return n
    least, most = 0, n // batch  # all of the first `least` batches are there
    while least < most:
        middle = (least + most + 1) // 2
        if server.count(collection, middle * batch) == middle * batch:
            least = middle
        else:
            most = middle - 1
    return least * batch


def measure(
    gallery: Gallery,
    server: Server,
    collection: str,
    made_of: Provenance,
    queries: Queries,
    timeout_s: float = FIRST_S,
) -> Figures:
    """How good the search of a collection is, beside exact search; keeps it with the gallery.

    Raises:
        Problem: the server fails.
    """
    moments = moments_of(gallery.embeddings)
    search, _ = named_by(gallery, server, collection, made_of, moments, timeout_s)
    truth = truth_of(gallery.embeddings, gallery.rows, queries)
    figures = measured(search, MILVUS, queries, truth)
    figures = figures.model_copy(update={"n_candidates": N_CANDIDATES})
    save_kept(gallery, collection, made_of, figures, moments)
    return figures
