"""Measuring a search beside the exact one: what it finds, and how right its probabilities are."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hvf_core.specs import Frozen
from index.search.base import Search
from index.search.remainder import AT_ONCE

RECALL, REGRET, LOG_P_ERROR = 0.99, 0.001, 0.05
"""Least of the best five that are found, most that is lost of their mean cosine, and most error
(root of the mean square) of the logarithm of the best image's probability."""
SIMULATED_COSINE = 0.35
"""Of a simulated query with its image: brain embeddings of single trials lie about so far away."""
_BEST = 5
_MIXED = 1024  # images whose differences make the noise


@dataclass(frozen=True)
class Queries:
    """Embeddings that a gallery is asked about."""

    vectors: NDArray[np.float32]
    """(n, dim), of unit length."""
    factors: NDArray[np.float64]
    """(n,): an image's log-likelihood is `factor · cosine`."""
    source: Literal["brain", "simulated"]

    def part(self, which: slice) -> "Queries":
        """Some of them."""
        return Queries(self.vectors[which], self.factors[which], self.source)


class Figures(Frozen):
    """How one kind of search did, beside the exact one, on queries that did not choose it."""

    kind: str
    effort: float = 0.0
    """Share of the lists that is looked into, or the width of a graph's beam."""
    n_candidates: int = 0
    """Images whose cosines are computed."""
    n_queries: int = Field(gt=0)
    queries: Literal["brain", "simulated"]
    recall_1: float
    recall_5: float
    regret: float
    """Mean cosine of the best five, less that of the five that were found."""
    log_p_error: float
    """Of the logarithm of the best image's probability, root of the mean square."""
    log_p_error_most: float
    p_error: float
    """Of the best image's probability, mean: the calibration error that is added is no larger."""
    p50_ms: float
    p99_ms: float
    build_s: float = 0.0

    @property
    def good(self) -> bool:
        """Whether `auto` may take it."""
        return self.recall_5 >= RECALL and self.regret <= REGRET and self.log_p_error <= LOG_P_ERROR


@dataclass(frozen=True)
class Truth:
    """What exact search says of queries."""

    best: NDArray[np.float32]
    """Cosines of the best five, falling, (n, 5) or fewer."""
    log_totals: NDArray[np.float64]

    def part(self, which: slice) -> "Truth":
        """That of some of the queries."""
        return Truth(self.best[which], self.log_totals[which])


def simulated_queries(
    embeddings: np.ndarray, rows: NDArray[np.int64], factor: float, n: int = 1000
) -> Queries:
    """Image embeddings with noise that lies where images differ from each other."""
    rng = np.random.default_rng(0)
    images = embeddings[rng.choice(rows, n)]
    others = embeddings[np.sort(rng.choice(rows, min(len(rows), _MIXED), replace=False))]
    noise = rng.standard_normal((n, len(others)), np.float32) @ (others - others.mean(axis=0))
    noise -= (noise * images).sum(axis=1, keepdims=True) * images
    noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-6)
    side = np.sqrt(1 - SIMULATED_COSINE**2)
    vectors = np.float32(SIMULATED_COSINE) * images + np.float32(side) * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Queries(vectors.astype(np.float32), np.full(n, factor), "simulated")


def truth_of(embeddings: np.ndarray, rows: NDArray[np.int64], queries: Queries) -> Truth:
    """The best cosines and the totals, over these rows."""
    n = len(queries.vectors)
    best = np.empty((n, 0), np.float32)
    totals = np.full(n, -np.inf)
    factors = queries.factors[:, None].astype(np.float32)
    for start in range(0, len(rows), AT_ONCE):
        cosines = queries.vectors @ embeddings[rows[start : start + AT_ONCE]].T
        logits = cosines * factors
        logits -= (highest := logits.max(axis=1, keepdims=True))
        sums = np.exp(logits, out=logits).sum(axis=1, dtype=np.float64)
        totals = np.logaddexp(totals, highest[:, 0] + np.log(sums))
        cosines.partition(max(cosines.shape[1] - _BEST, 0))
        best = np.sort(np.concatenate([best, cosines[:, -_BEST:]], axis=1))[:, : -_BEST - 1 : -1]
    return Truth(best, totals)


def measured(search: Search, kind: str, queries: Queries, truth: Truth) -> Figures:
    """Asks a search one query after the other."""
    found = np.full((len(queries.vectors), truth.best.shape[1]), -1.0, np.float32)
    totals, took_s = np.empty(len(found)), np.empty(len(found))
    for i, (vector, factor) in enumerate(zip(queries.vectors, queries.factors, strict=True)):
        began = time.perf_counter()
        scores = search.scores(vector)
        cosines = scores.top_k(_BEST)[1]
        totals[i] = scores.log_sum_exp(factor)
        took_s[i] = time.perf_counter() - began
        found[i, : len(cosines)] = cosines
    right = found >= truth.best[:, -1:] - 1e-6  # by value: equal images stand for each other
    of_first = found[:, 0] >= truth.best[:, 0] - 1e-6
    log_p = queries.factors * found[:, 0] - totals
    true_log_p = queries.factors * truth.best[:, 0] - truth.log_totals
    return Figures(
        kind=kind,
        n_queries=len(found),
        queries=queries.source,
        recall_1=float(of_first.mean()),
        recall_5=float(right.mean()),
        regret=max(0.0, float((truth.best.mean(axis=1) - found.mean(axis=1)).mean())),
        log_p_error=float(np.sqrt(np.mean((log_p - true_log_p) ** 2))),
        log_p_error_most=float(np.abs(log_p - true_log_p).max()),
        p_error=float(np.abs(np.exp(log_p) - np.exp(true_log_p)).mean()),
        p50_ms=float(np.median(took_s) * 1e3),
        p99_ms=float(np.quantile(took_s, 0.99) * 1e3),
    )
