"""Exact search: every image of the gallery is looked at, each time."""

from importlib.metadata import PackageNotFoundError, distribution

import faiss
import numpy as np

from hvf_core.problem import Problem
from index.search.dense import Dense
from index.search.kinds import EXACT


def refuse_two_builds() -> None:
    """Refuses an environment with two builds of FAISS: both write the one module `faiss`.

    Raises:
        Problem: faiss-cpu and faiss-gpu are both installed.
    """
    try:
        distribution("faiss-cpu")
        distribution("faiss-gpu")
    except PackageNotFoundError:
        return
    raise Problem(
        "faiss-cpu and faiss-gpu are both installed and overwrite each other; run "
        "`pip uninstall faiss-cpu faiss-gpu`, then install the one you want"
    )


class Flat:
    """All cosines of an embedding, on one thread; see `index.search.base.Search`.

    FAISS's kernel runs over the gallery where it lies, be it a memory-mapped file: nothing is
    copied. Beside a FAISS index that returns all images it takes 0.4 of the time for 200 and 0.6
    for 16,540 images, with the same cosines to the bit, and equal images get equal ones, which
    a matrix product by BLAS does not promise. FAISS and torch each bring an OpenMP runtime: a
    process that uses both imports torch first.

    Args:
        embeddings: float32 (n, dim), L2-normalised, as a gallery holds them.
        among: the rows that count, rising; None for all.
    """

    kind, exact = EXACT, True

    def __init__(self, embeddings: np.ndarray, among: np.ndarray | None = None) -> None:
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.among = among

    def scores(self, vector: np.ndarray) -> Dense:
        query = of_unit_length(vector, self._embeddings.shape[1])
        return Dense(inner_products(query, self._embeddings, self.among), self.among)


def of_unit_length(vector: np.ndarray, dim: int) -> np.ndarray:
    """An embedding as galleries hold them, float32 (dim,).

    Raises:
        Problem: it is not finite, or all zero.
        ValueError: it has another width.
    """
    if vector.shape != (dim,):
        raise ValueError(f"an embedding of shape {vector.shape}, the gallery has width {dim}")
    largest = np.abs(vector).max()
    if not np.isfinite(largest) or not largest:
        raise Problem(
            "an embedding holds values that are not finite, or only zeros: "
            "the trial's EEG or the bundle's weights are damaged"
        )
    scaled = np.ldexp(vector, -np.frexp(largest)[1])  # to the bit, and no square is too small
    query = scaled.astype(np.float32, casting="same_kind")
    query /= np.sqrt(np.dot(query, query))
    return query


def inner_products(
    query: np.ndarray, embeddings: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """Of float32 (dim,) with rows of float32 (n, dim), which is contiguous: float32 (n_rows,).

    `rows`, int64 and contiguous, are all where None. The same pair gives the same bits either way.
    """
    n, dim = len(embeddings) if rows is None else len(rows), embeddings.shape[1]
    products = np.empty(n, np.float32)
    places = [faiss.swig_ptr(array) for array in (products, query, embeddings)]
    if rows is None:
        faiss.fvec_inner_products_ny(*places, dim, n)  # type: ignore[attr-defined] # not in its types
    else:
        faiss.fvec_inner_products_by_idx(*places, faiss.swig_ptr(rows), dim, 1, n)  # type: ignore[attr-defined]
    return products
