"""Approximate search: an index names the best images, and their cosines are computed exactly."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.search.base import Scores
from index.search.dense import Dense, places_in
from index.search.flat import Flat, inner_products, of_unit_length
from index.search.remainder import MORE, SAMPLE, SHARE, Moments, Remainder, Rest, moments_of

_faiss: Any = faiss  # whose type hints know other arguments than it takes
_LOG_TRUSTED = np.log(0.025)
"""Of the standard error that a total may have beside it: half of `measure.LOG_P_ERROR`."""
FEWEST = 50
"""Where an index names no more images, as of few that count, all are looked at."""


class Index(Protocol):
    """What is asked of an index, be it FAISS's own."""

    ntotal: int

    def search(
        self, queries: np.ndarray, k: int, *, params: faiss.SearchParameters
    ) -> tuple[np.ndarray, np.ndarray]: ...


class Approximate:
    """Looks at the images that an index of FAISS names; see `index.search.base.Search`.

    Their cosines are computed from the embeddings where these lie, be it a memory-mapped file, so
    the order of those that were found is right, and equal ones are in the order of `Flat`. One
    thread; several may search at once.

    Args:
        embeddings: float32 (n, dim), L2-normalised. Those of rows beyond the index, which were
            added after it was made, are all looked at.
        index: of the first rows, by inner product; what is not FAISS's knows itself how to search.
        effort: share of its lists to look into, or the width of a graph's beam.
        n_candidates: how many images it is asked for.
        moments: of the rows that it holds.
        among: the rows that count, rising; None for all. Enough of them should be in the index for
            an index to be of use.
    """

    exact = False
    kind = "index"

    def __init__(
        self,
        embeddings: np.ndarray,
        index: Index,
        effort: float,
        n_candidates: int,
        moments: Moments,
        among: NDArray[np.int64] | None = None,
    ) -> None:
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.among, self.n_candidates = among, n_candidates
        self.n_counted = len(embeddings) if among is None else len(among)
        self._index = index
        n_indexed = index.ntotal
        rows = np.arange(len(embeddings)) if among is None else among
        self._added = np.ascontiguousarray(rows[rows.searchsorted(n_indexed) :])
        counted = rows[: len(rows) - len(self._added)]
        if len(counted) < n_indexed:
            self._bits = np.packbits(np.isin(np.arange(n_indexed), counted), bitorder="little")
            selector = _faiss.IDSelectorBitmap(self._bits)
            others = np.setdiff1d(np.arange(n_indexed), counted, assume_unique=True)
            fewer = len(others) < len(counted)  # which are read, whichever they are
            read = moments_of(embeddings, others if fewer else counted)
            moments = moments.without(read) if fewer else read
        else:
            selector = None
        self._asked = parameters(index, effort, selector)
        samples = (SAMPLE, MORE) if len(counted) >= SHARE * MORE else (SAMPLE,)
        self._remainders = [Remainder(embeddings, counted, moments, most) for most in samples]

    def scores(self, vector: np.ndarray) -> Scores:
        query = of_unit_length(vector, self._embeddings.shape[1])
        faiss.omp_set_num_threads(1)  # which is this thread's alone; a query is too small for two
        _, named = self._index.search(query[None], self.n_candidates, params=self._asked)
        found = np.sort(named[0][named[0] >= 0])
        if len(found) < min(self.n_candidates, FEWEST):
            return self.exactly(query)
        cosines = inner_products(query, self._embeddings, found)
        rests = (remainder.of(query, found, cosines) for remainder in self._remainders)
        if not len(self._added):
            return Found(query, found, cosines, rests, self)
        added = inner_products(query, self._embeddings, self._added)
        rows = np.append(found, self._added)
        return Found(query, rows, np.append(cosines, added), rests, self)

    def move(self, to: Callable[[Any], Index]) -> None:
        """Asks the index elsewhere from now on: what `to` gives finds the same.

        Raises:
            Problem: it cannot be searched there.
        """
        nothing = np.zeros((1, self._embeddings.shape[1]), np.float32)
        try:
            moved = to(self._index)
            moved.search(nothing, self.n_candidates, params=self._asked)
        except RuntimeError as error:
            raise Problem(
                f"the index can not be searched there ({str(error).splitlines()[0]}): give another "
                "--search"
            ) from None
        self._index = moved

    def exactly(self, query: np.ndarray) -> Dense:
        """All cosines, as for more images than an index was asked for."""
        return Flat(self._embeddings, self.among).scores(query)

    def of(self, query: np.ndarray, rows: int | np.ndarray) -> np.ndarray:
        """The cosines of given rows, minus infinity where they do not count."""
        wanted = np.atleast_1d(np.asarray(rows, np.int64))
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self._embeddings):
            raise IndexError(f"rows {rows} of a gallery of {len(self._embeddings)}")
        cosines = inner_products(query, self._embeddings, np.ascontiguousarray(wanted))
        if self.among is not None:
            cosines[~places_in(self.among, wanted)[1]] = -np.inf
        return cosines.reshape(np.shape(rows))


class Found:
    """The cosines of the images that were found, and what the rest weighs; see `Scores`."""

    def __init__(
        self,
        query: np.ndarray,
        rows: NDArray[np.int64],
        cosines: np.ndarray,
        rests: Iterator[Rest],
        search: Approximate,
    ) -> None:
        self._query, self._search, self._n = query, search, len(rows)
        self._rest, self._larger = next(rests), rests
        self._known = Dense(cosines, rows)

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        every = k <= self._n or self._n == self._search.n_counted
        return (self._known if every else self._exact).top_k(k)

    def log_sum_exp(self, factor: float) -> float:
        """Of all images where what the others weigh cannot be told well enough from a few."""
        known = self._known.log_sum_exp(factor)
        while True:
            rest, log_error = self._rest.log_sum_exp(factor)
            total = float(np.logaddexp(known, rest))
            if log_error <= total + _LOG_TRUSTED:
                return total
            if (larger := next(self._larger, None)) is None:
                return self._exact.log_sum_exp(factor)
            self._rest = larger

    @cached_property
    def _exact(self) -> Dense:
        return self._search.exactly(self._query)

    def of(self, rows: int | np.ndarray) -> np.ndarray:
        return self._search.of(self._query, rows)

    def place_of(self, row: int) -> int:
        cosine = float(self.of(row))
        place = self._known.place_of(row)
        if place or cosine == -np.inf:
            return place
        before = self._known.above(cosine) + self._rest.above(cosine)
        return min(1 + max(before, self._search.n_candidates), self._search.n_counted)


def parameters(
    index: Index, effort: float, selector: faiss.IDSelector | None = None
) -> faiss.SearchParameters:
    """How an index is searched, and for which rows."""
    if not isinstance(index, faiss.Index):
        return _faiss.SearchParameters(sel=selector)
    inner: Any = index
    if transforms := isinstance(index, faiss.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
    asked: Any
    if isinstance(inner, faiss.IndexHNSW):
        asked = _faiss.SearchParametersHNSW(sel=selector, efSearch=round(effort))
    else:
        n_lists = max(1, round(effort * inner.nlist))
        asked = _faiss.SearchParametersIVF(sel=selector, nprobe=n_lists)
    return _faiss.SearchParametersPreTransform(index_params=asked) if transforms else asked
