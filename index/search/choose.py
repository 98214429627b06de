"""Choosing a kind of search by what it finds, measured on queries; `measure` says how.

Half of the queries chooses, and asks for a margin; the other half says how good what was chosen is,
of it alone, and can only refuse it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.approximate import Approximate
from index.search.flat import Flat
from index.search.kinds import EXACT, KINDS, Kind
from index.search.measure import MARGIN, Figures, Queries, Truth, measured, truth_of
from index.search.remainder import AT_ONCE, Moments

CANDIDATES = (3000, 1000, 200)
"""How many images an index may be asked for; what suffices is found from above."""
_TRAINED_ON = 65_536
_TIMED = 100  # exact searches, which may take long
_CHOOSE = 400  # queries, as many settings are tried

Half = tuple[Queries, Truth]


@dataclass(frozen=True)
class Chosen:
    """What was chosen, the best of each kind that was tried, and the index, where there is one.

    What was chosen has its figures by queries that did not choose it, the others by those that did.
    """

    figures: Figures
    tried: tuple[Figures, ...]
    index: faiss.Index | None


@dataclass(frozen=True)
class Rows:
    """What is searched.

    Args:
        embeddings: float32 (n, dim), L2-normalised.
        counted: the rows that count, rising.
        moments: of all rows.
    """

    embeddings: np.ndarray
    counted: NDArray[np.int64]
    moments: Moments

    @property
    def among(self) -> NDArray[np.int64] | None:
        """The rows that count, where not all do."""
        return None if len(self.counted) == len(self.embeddings) else self.counted


@dataclass(frozen=True)
class _Index:
    """An index that is to be measured."""

    name: str
    index: faiss.Index
    build_s: float
    rows: Rows

    def figures(self, effort: float, n_candidates: int, half: Half) -> Figures:
        rows = self.rows
        search = Approximate(
            rows.embeddings, self.index, effort, n_candidates, rows.moments, rows.among
        )
        found = measured(search, self.name, *half)
        known = {"effort": effort, "n_candidates": n_candidates, "build_s": self.build_s}
        return found.model_copy(update=known)

    def best(self, kind: Kind, half: Half) -> Figures:
        """The least effort that is good with the fewest candidates; of none, what finds most."""
        bad: list[Figures] = []
        for effort in kind.efforts:
            good: list[Figures] = []
            for n_candidates in CANDIDATES:
                figures = self.figures(effort, n_candidates, half)
                clear = figures.within(MARGIN)
                (good if clear else bad).append(figures)
                if not clear:
                    break
            if good:
                return good[-1]
        return max(bad, key=lambda figures: figures.recall_5)


def choose(
    rows: Rows, queries: Queries, kinds: Sequence[str], tell: Callable[[str], None]
) -> Chosen:
    """The fastest search that is good, or the exact one where none is; of one kind, its best.

    Args:
        rows: what is searched.
        queries: what is asked.
        kinds: what is tried, of `KINDS`.
        tell: hears what is going on.
    """
    tell("exact search")
    truth = truth_of(rows.embeddings, rows.counted, queries)
    own = np.arange(len(queries.vectors)) // (1 + len(queries.weaker))  # which one it was made of
    chooses, reports, timed = (
        (queries.part(which), truth.part(which))
        for which in (own % 2 == 0, own % 2 == 1, np.arange(len(own)) < _TIMED)
    )
    few = np.arange(len(chooses[0].vectors)) < _CHOOSE
    chooses = chooses[0].part(few), chooses[1].part(few)
    exact = measured(Flat(rows.embeddings, rows.among), EXACT, *timed)
    tried = [exact]
    fastest: tuple[Figures, _Index] | None = None
    for name in kinds:
        tell(f"building {name}")
        began = time.perf_counter()
        index = built(rows.embeddings, KINDS[name])
        candidate = _Index(name, index, time.perf_counter() - began, rows)
        tell(f"measuring {name}")
        found = candidate.best(KINDS[name], chooses)
        tried.append(found)
        least_ms = fastest[0].p50_ms if fastest else exact.p50_ms
        if len(kinds) == 1 or (found.within(MARGIN) and found.p50_ms < least_ms):
            fastest = found, candidate
    if fastest is None:
        return Chosen(exact, tuple(tried), None)
    found, candidate = fastest
    figures = candidate.figures(found.effort, found.n_candidates, reports)
    tried[tried.index(found)] = figures
    taken = len(kinds) == 1 or figures.good
    return Chosen(figures if taken else exact, tuple(tried), candidate.index if taken else None)


def built(embeddings: np.ndarray, kind: Kind) -> faiss.Index:
    """An index of all rows of float32 (n, dim); always the same one."""
    n, dim = embeddings.shape
    n_lists = max(1, min(2 ** round(np.log2(np.sqrt(n))), n // 39))  # as k-means wants 39 of each
    drawn = np.random.default_rng(0).choice(n, min(n, _TRAINED_ON), replace=False)
    sample = np.ascontiguousarray(embeddings[np.sort(drawn)])
    dims = min(kind.dims or dim, dim)
    factory = kind.factory.format(dims=dims, lists=n_lists)
    index = faiss.index_factory(dims, factory, faiss.METRIC_INNER_PRODUCT)
    if kind.dims:
        components = faiss.PCAMatrix(dim, dims, 0, True)  # turned, so that none outweighs another
        components.train(sample)
        components.have_bias = False  # inner products of what is centred are in another order
        index = faiss.IndexPreTransform(components, index)
    index.train(sample)
    for start in range(0, n, AT_ONCE):
        index.add(np.ascontiguousarray(embeddings[start : start + AT_ONCE]))
    return index
