"""Finds the images of a gallery that are nearest to a decoded embedding."""

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


class Search:
    """Exact search by cosine, on one thread.

    FAISS and torch each bring an OpenMP runtime: a process that uses both imports torch first.
    One thread is the fastest for one query at a time up to some 20,000 images, and on shared cores
    a second one spins and makes it several times slower; the setting holds for the whole process.

    Equal scores are ordered by falling row; where not all of them fit into k, those in the lower
    rows are kept (FAISS's own rules, the same at every call).

    Args:
        embeddings: float32 (n, dim), L2-normalised, as a gallery holds them.
        k: how many images are returned; no more than the gallery has.
    """

    def __init__(self, embeddings: np.ndarray, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}, at least one image must be asked for")
        faiss.omp_set_num_threads(1)
        n, self.dim = embeddings.shape
        self.k = min(k, n)
        self._index = faiss.IndexFlatIP(self.dim)
        self._index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
        self._query = np.empty((1, self.dim), np.float32)  # for one trial at a time: the hot path

    def search(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks the gallery for each embedding.

        Args:
            z: (dim,) or (n, dim), of any length but zero; it is normalised here.

        Returns:
            Cosines, float32 (n, k), the highest first; and the gallery's rows, int64 (n, k).

        Raises:
            Problem: when an embedding is not finite or all zero.
            ValueError: when it has another width than the gallery.
        """
        if z.shape[-1] != self.dim or z.ndim > 2:
            raise ValueError(f"embeddings of shape {z.shape}, the gallery has width {self.dim}")
        if z.size == self.dim:
            query = self._query
            np.copyto(query[0], z.reshape(self.dim), casting="same_kind")
            lengths = np.sqrt(np.dot(query[0], query[0]))
        else:
            query = z.astype(np.float32)
            lengths = np.linalg.norm(query, axis=1, keepdims=True)
        # The sum over the lengths is NaN or infinite as soon as one value of one trial is.
        if not np.isfinite(lengths.sum()) or not lengths.all():
            raise Problem(
                "an embedding holds values that are not finite, or only zeros: "
                "the trial's EEG or the bundle's weights are damaged"
            )
        np.divide(query, lengths, out=query)
        return self._index.search(query, self.k)
