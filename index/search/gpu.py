"""Exact search on a GPU: FAISS multiplies there, and the best are looked at again on the CPU.

FAISS's `GpuIndexFlatIP` gives 2,048 images at most, and holds a gallery for the one thread whose
resources it was made with: it knows neither the total over all images nor the place of the one that
was shown. The product inside it (`bfKnn` of all distances) knows both, of one tensor in which all
threads search.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch  # before FAISS, as each brings an OpenMP runtime
from torch import Tensor

# isort: split
import faiss
import numpy as np

from hvf_core.problem import Problem
from index.search.dense import Dense, places_in
from index.search.flat import inner_products, of_unit_length
from index.search.kinds import GPU, GPU_HALF

Product = Callable[[np.ndarray], Tensor]
"""From an embedding of unit length, float32 (dim,), to its cosines, float32 (n,), on any device."""

_TEMPORARY = 64 * 2**20
"""Bytes that FAISS may take for itself in each thread; 1.5 GiB where it is not told."""
_WHILE_ASKED = 40
"""Bytes for each image while a query is answered: cosines, their logits, what is compared."""
_MOST = 2048
"""Images that FAISS names on a GPU."""
_AT_ONCE = 2**16
"""Rows that go to the GPU in one piece."""


class GpuFlat:
    """All cosines of an embedding, from a device; see `index.search.base.Search`.

    The best images, their order and their cosines are those of `index.search.flat.Flat`, to the
    bit: all that rounding may have put into or out of the best is multiplied again, where the
    gallery lies. The others keep the device's rounding, which only the total and places beyond
    the best know.

    Args:
        embeddings: float32 (n, dim), L2-normalised, as a gallery holds them.
        product: the device's, with the rows that are searched.
        error: by how much its cosines may be wrong.
        among: the rows that are searched, rising, int64; all where it is None.
    """

    kind, exact = GPU, True

    def __init__(
        self,
        embeddings: np.ndarray,
        product: Product,
        error: float,
        among: np.ndarray | None = None,
    ) -> None:
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)
        self._product, self.among = product, among
        # Two cosines are compared, of which each may be wrong here and as `Flat` has it.
        self._margin = 2 * (error + rounding(embeddings.shape[1], half=False))

    def scores(self, vector: np.ndarray) -> "_Scores":
        query = of_unit_length(vector, self._embeddings.shape[1])
        return _Scores(self._embeddings, self.among, self._margin, query, self._product(query))


class _Scores:
    """See `GpuFlat`, and `index.search.base.Scores`."""

    def __init__(
        self,
        embeddings: np.ndarray,
        among: np.ndarray | None,
        margin: float,
        query: np.ndarray,
        cosines: Tensor,
    ) -> None:
        self._embeddings, self._among, self._margin = embeddings, among, margin
        self._query, self._cosines = query, cosines

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        lowest = self._cosines.topk(min(k, len(self._cosines))).values[-1]
        near = (self._cosines >= lowest - self._margin).nonzero()[:, 0]
        rows = near.cpu().numpy()
        rows = rows if self._among is None else self._among[rows]
        cosines = inner_products(self._query, self._embeddings, rows)
        # Put in their places, so that no image is more probable than all of them together.
        self._cosines[near] = torch.from_numpy(cosines).to(near.device)
        return Dense(cosines, rows).top_k(k)

    def log_sum_exp(self, factor: float) -> float:
        return float((self._cosines.double() * factor).logsumexp(0))

    def of(self, rows: int | np.ndarray) -> np.ndarray:
        wanted = np.array(rows, np.int64, ndmin=1)
        cosines = inner_products(self._query, self._embeddings, wanted)
        if self._among is not None:
            cosines[~places_in(self._among, wanted)[1]] = -np.inf
        return cosines.reshape(np.shape(rows))

    def place_of(self, row: int) -> int:
        if self._among is not None:
            place, counts = places_in(self._among, row)
            if not counts:
                return 0
            row = int(place)
        cosine = self._cosines[row]
        equal = (self._cosines[row + 1 :] == cosine).sum()
        return int(1 + (self._cosines > cosine).sum() + equal)


def rounding(dim: int, half: bool) -> float:
    """By how much a cosine of unit vectors may be wrong where products are added up in float32.

    In float16, both vectors are rounded first.
    """
    return dim * 2.0**-24 + (2.0**-10 if half else 0.0)


def open_gpu(
    embeddings: np.ndarray, among: np.ndarray | None = None, half: bool = False
) -> GpuFlat:
    """Copies a gallery to the GPU, in float32 or float16, to be searched there.

    Args:
        embeddings: float32 (n, dim), L2-normalised, as a gallery holds them.
        among: the rows that are searched, rising, int64; all where it is None.
        half: whether it lies there in float16.

    Raises:
        Problem: FAISS or torch see no GPU here, or it has not enough memory.
    """
    refuse_no_gpu()
    n, dim = len(embeddings) if among is None else len(among), embeddings.shape[1]
    needed = n * (dim * (2 if half else 4) + _WHILE_ASKED) + 2 * _TEMPORARY
    torch.cuda.empty_cache()  # which may hold what another gallery has left
    free, _ = torch.cuda.mem_get_info()
    if needed > free:
        smaller = "" if half else "give --search faiss-gpu-half, "
        raise Problem(
            f"the gallery needs {needed / 2**30:.1f} GiB on the GPU, of which {free / 2**30:.1f} "
            f"GiB are free: {smaller}end what else runs there, or search on the CPU"
        )
    there = torch.empty(n, dim, dtype=torch.float16 if half else torch.float32, device="cuda")
    for first in range(0, n, _AT_ONCE):
        piece = slice(first, first + _AT_ONCE)
        rows = embeddings[piece if among is None else among[piece]]
        there[piece] = torch.from_numpy(np.array(rows))
    search = GpuFlat(embeddings, _OnGpu(there), rounding(dim, half), among)
    search.kind = GPU_HALF if half else GPU
    return search


def refuse_no_gpu() -> None:
    """Raises a Problem where nothing can be searched on a GPU, which says why."""
    if why := why_not():
        raise Problem(why)


def why_not() -> str:
    """Why nothing can be searched on a GPU here; empty where it can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return (
            "FAISS is built for CPUs here: `pip uninstall faiss-cpu`, then "
            '`pip install -c constraints.txt -e ".[gpu]"`'
        )
    if not torch.cuda.is_available() or not faiss.get_num_gpus():
        return (
            f"torch sees {torch.cuda.device_count()} GPUs here and FAISS {faiss.get_num_gpus()}: "
            "`python run_realtime.py doctor` tells what is missing"
        )
    return ""


class GpuIndex:
    """An index on a GPU; see `index.search.approximate.Approximate`, which asks it.

    FAISS's resources are no two threads' at once: one thread waits for the other.

    Args:
        index: one that FAISS has a form of for GPUs: bytes or floats, not its fast scan of bits.
        move: gives one that finds the same.

    Raises:
        Problem: FAISS or torch see no GPU here.
    """

    def __init__(
        self, index: faiss.Index, move: Callable[[faiss.Index], faiss.Index] | None = None
    ) -> None:
        self.ntotal = index.ntotal
        self._moved = (move or self._to_gpu)(index)
        self._lock = threading.Lock()

    def _to_gpu(self, index: faiss.Index) -> faiss.Index:
        refuse_no_gpu()
        self._resources = _resources()  # kept as long as the index, which works with them
        return faiss.index_cpu_to_gpu(self._resources, torch.cuda.current_device(), index)

    def search(
        self, queries: np.ndarray, k: int, *, params: faiss.SearchParameters
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k of each of float32 (n, dim), at most 2,048: cosines and rows, each (n, k)."""
        with self._lock:
            return self._moved.search(queries, min(k, _MOST), params=params)


class _OnGpu:
    """FAISS's products with a tensor (n, dim) on a GPU.

    FAISS's resources are no two threads' at once: each thread makes its own, at its first query.
    """

    def __init__(self, gallery: Tensor) -> None:
        self._gallery = gallery
        self._own = threading.local()

    def __call__(self, query: np.ndarray) -> Tensor:
        if not hasattr(self._own, "product"):
            self._own.product = _OfOneThread(self._gallery)
        return self._own.product(query)


class _OfOneThread:
    def __init__(self, gallery: Tensor) -> None:
        self._gallery = gallery
        n, dim = gallery.shape
        self._query = torch.empty(1, dim, dtype=gallery.dtype, device=gallery.device)
        self._resources = _resources()
        wanted = faiss.GpuDistanceParams()
        wanted.use_cuvs = False  # which has no product without a search
        wanted.metric, wanted.k = faiss.METRIC_INNER_PRODUCT, -1  # -1: all of them, unsorted
        wanted.dims, wanted.numVectors, wanted.numQueries = dim, n, 1
        half = gallery.dtype == torch.float16
        wanted.vectorType = faiss.DistanceDataType_F16 if half else faiss.DistanceDataType_F32
        wanted.queryType = wanted.vectorType
        wanted.vectors, wanted.queries = _place(gallery), _place(self._query)
        wanted.device = gallery.device.index
        self._wanted = wanted

    def __call__(self, query: np.ndarray) -> Tensor:
        device = self._gallery.device
        self._query[0] = torch.from_numpy(query)
        cosines = torch.empty(len(self._gallery), device=device)
        self._wanted.outDistances = faiss.cast_integer_to_float_ptr(cosines.data_ptr())
        # In torch's order of work: after the query is there, before anything is made of it.
        stream = torch.cuda.current_stream(device).cuda_stream
        stream = faiss.cast_integer_to_cudastream_t(stream)  # type: ignore[attr-defined]
        self._resources.setDefaultStream(device.index, stream)
        faiss.bfKnn(self._resources, self._wanted)
        return cosines


def _resources() -> "faiss.StandardGpuResources":
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_TEMPORARY)
    resources.setPinnedMemory(0)  # for many queries from the host, of which there is one at a time
    return resources


def _place(tensor: Tensor) -> Any:
    return faiss.cast_integer_to_void_ptr(tensor.data_ptr())
