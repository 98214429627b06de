"""Exact search: every image of the gallery is looked at, each time."""

from importlib.metadata import PackageNotFoundError, distribution

import faiss
import numpy as np

from hvf_core.problem import Problem


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


class Dense:
    """Cosines that are all there; see `index.search.base.Scores`.

    Args:
        cosines: float32 (n_gallery,).

    Raises:
        Problem: one of them is not finite.
    """

    def __init__(self, cosines: np.ndarray) -> None:
        if not np.isfinite(cosines).all():
            raise Problem(
                "an embedding holds values that are not finite: the bundle's weights are damaged"
            )
        self._cosines = cosines

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(self._cosines)
        k = min(k, n)
        lowest = np.partition(self._cosines, n - k)[n - k]
        rows = np.flatnonzero(self._cosines >= lowest)[::-1]  # more than k where some are equal
        rows = rows[np.argsort(-self._cosines[rows], kind="stable")[:k]]
        return rows, self._cosines[rows]

    def log_sum_exp(self, factor: float) -> float:
        logits = np.multiply(self._cosines, factor, dtype=np.float64)
        highest = logits.max()
        return float(highest + np.log(np.exp(logits - highest).sum()))

    def of(self, rows: int | np.ndarray) -> np.ndarray:
        return self._cosines[rows]

    def place_of(self, row: int) -> int:
        cosine = self._cosines[row]
        n_before = np.count_nonzero(self._cosines > cosine)
        return int(1 + n_before + np.count_nonzero(self._cosines[row + 1 :] == cosine))


class Flat:
    """All cosines of an embedding, on one thread; see `index.search.base.Search`.

    FAISS's kernel runs over the gallery where it lies, be it a memory-mapped file: nothing is
    copied. Beside a FAISS index that returns all images it takes 0.4 of the time for 200 and 0.6
    for 16,540 images, with the same cosines to the bit, and equal images get equal ones, which
    a matrix product by BLAS does not promise. FAISS and torch each bring an OpenMP runtime: a
    process that uses both imports torch first.

    Args:
        embeddings: float32 (n, dim), L2-normalised, as a gallery holds them.
    """

    exact = True

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)

    def scores(self, vector: np.ndarray) -> Dense:
        query = of_unit_length(vector, self._embeddings.shape[1])
        return Dense(inner_products(query, self._embeddings))


def of_unit_length(vector: np.ndarray, dim: int) -> np.ndarray:
    """An embedding as galleries hold them, float32 (dim,).

    Raises:
        Problem: it is not finite, or all zero.
        ValueError: it has another width.
    """
    if vector.shape != (dim,):
        raise ValueError(f"an embedding of shape {vector.shape}, the gallery has width {dim}")
    query = vector.astype(np.float32, casting="same_kind")
    length = np.sqrt(np.dot(query, query))
    if not np.isfinite(length) or not length:
        raise Problem(
            "an embedding holds values that are not finite, or only zeros: "
            "the trial's EEG or the bundle's weights are damaged"
        )
    query /= length
    return query


def inner_products(query: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Of float32 (dim,) with each row of float32 (n, dim), which is contiguous: float32 (n,)."""
    n, dim = embeddings.shape
    products = np.empty(n, np.float32)
    places = map(faiss.swig_ptr, (products, query, embeddings))
    faiss.fvec_inner_products_ny(*places, dim, n)  # type: ignore[attr-defined] # not in its types
    return products
