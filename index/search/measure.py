"""Measuring a search beside the exact one: what it finds, and how right its probabilities are."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from hvf_core.specs import Frozen
from index.search.base import Search
from index.search.remainder import AT_ONCE

RECALL, REGRET, LOG_P_ERROR = 0.99, 0.001, 0.05
"""Least of the best five that are found, most that is lost of their mean cosine, and most error
(root of the mean square) of the logarithm of the best image's probability."""
MARGIN = 0.5
"""What of these bounds a search may use up on queries that choose it, or that were simulated."""
TIMES = (1, 3, 10)
"""Probabilities are right at the factors of the queries and at so many times these: evidence of
more repeats weighs more."""
WEAKER = (0.7, 0.4)
"""Cosines of the queries that are made of given ones with these: another person's may be weaker."""
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
    weaker: tuple[float, ...] = ()
    """Cosines with given ones of those that were made of each of them, and follow it."""

    def with_weaker(self, embeddings: np.ndarray, rows: NDArray[np.int64]) -> "Queries":
        """Each of them and, after it, the same with noise that lies where images differ."""
        rng = np.random.default_rng(1)
        noise = [_noise(self.vectors, embeddings, rows, rng) for _ in WEAKER]
        weaker = [_mixed(self.vectors, *one) for one in zip(noise, WEAKER, strict=True)]
        n = 1 + len(WEAKER)
        vectors = np.stack([self.vectors, *weaker], axis=1).reshape(-1, self.vectors.shape[1])
        return Queries(vectors, np.repeat(self.factors, n), self.source, WEAKER)

    def part(self, which: slice | NDArray[np.bool_]) -> "Queries":
        """Some of them."""
        return Queries(self.vectors[which], self.factors[which], self.source, self.weaker)


class Figures(Frozen):
    """How one kind of search did, beside the exact one; errors are the largest of all factors."""

    model_config = ConfigDict(allow_inf_nan=False)

    kind: str
    effort: float = Field(0.0, ge=0)
    """Share of the lists that is looked into, or the width of a graph's beam."""
    n_candidates: int = Field(0, ge=0)
    """Images whose cosines are computed."""
    n_queries: int = Field(gt=0)
    queries: Literal["brain", "simulated"]
    weaker: tuple[float, ...] = ()
    """Of so large a part of the given queries' strength are those that were made of each."""
    times: tuple[float, ...] = TIMES
    """At so many times the factors of the queries was measured how right probabilities are."""
    recall_1: float = Field(ge=0, le=1)
    recall_5: float = Field(ge=0, le=1)
    regret: float = Field(ge=0)
    """Mean cosine of the best five, less that of the five that were found."""
    log_p_error: float = Field(ge=0)
    """Of the logarithm of the best image's probability, root of the mean square."""
    log_p_error_most: float = Field(ge=0)
    p_error: float = Field(ge=0)
    """Of the best image's probability, mean: the calibration error that is added is no larger."""
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    build_s: float = Field(0.0, ge=0)

    @property
    def good(self) -> bool:
        """Whether `auto` may take it: of simulated queries with a margin too."""
        return self.within(1.0 if self.queries == "brain" else MARGIN)

    def within(self, part: float) -> bool:
        """Whether it uses up no more than a part of what the bounds allow."""
        return (
            1 - self.recall_5 <= part * (1 - RECALL) + 1e-9
            and self.regret <= part * REGRET
            and self.log_p_error <= part * LOG_P_ERROR
        )


@dataclass(frozen=True)
class Truth:
    """What exact search says of queries."""

    best: NDArray[np.float32]
    """Cosines of the best five, falling, (n, 5) or fewer."""
    log_totals: NDArray[np.float64]
    """(n, len(TIMES)), at each of the factors."""

    def part(self, which: slice | NDArray[np.bool_]) -> "Truth":
        """That of some of the queries."""
        return Truth(self.best[which], self.log_totals[which])


def simulated_queries(
    embeddings: np.ndarray, rows: NDArray[np.int64], factor: float, n: int = 1000
) -> Queries:
    """Image embeddings with noise that lies where images differ from each other."""
    rng = np.random.default_rng(0)
    images = embeddings[rng.choice(rows, n)]
    vectors = _mixed(images, _noise(images, embeddings, rows, rng), SIMULATED_COSINE)
    return Queries(vectors, np.full(n, factor), "simulated")


def _noise(
    vectors: np.ndarray, embeddings: np.ndarray, rows: NDArray[np.int64], rng: np.random.Generator
) -> np.ndarray:
    """At right angles to vectors (n, dim), where images differ from each other, of length one."""
    others = embeddings[np.sort(rng.choice(rows, min(len(rows), _MIXED), replace=False))]
    drawn = rng.standard_normal((len(vectors), len(others)), np.float32)
    noise = drawn @ (others - others.mean(axis=0))
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-6)
    return np.asarray(noise)


def _mixed(vectors: np.ndarray, noise: np.ndarray, cosine: float) -> NDArray[np.float32]:
    mixed = np.float32(cosine) * vectors + np.float32(np.sqrt(1 - cosine**2)) * noise
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return mixed.astype(np.float32)


def truth_of(embeddings: np.ndarray, rows: NDArray[np.int64], queries: Queries) -> Truth:
    """The best cosines and the totals, over these rows."""
    n = len(queries.vectors)
    best = np.empty((n, 0), np.float32)
    totals = np.full((n, len(TIMES)), -np.inf)
    for start in range(0, len(rows), AT_ONCE):
        cosines = queries.vectors @ embeddings[rows[start : start + AT_ONCE]].T
        for at, times in enumerate(TIMES):
            logits = cosines * (times * queries.factors).astype(np.float32)[:, None]
            logits -= (highest := logits.max(axis=1, keepdims=True))
            sums = np.exp(logits, out=logits).sum(axis=1, dtype=np.float64)
            totals[:, at] = np.logaddexp(totals[:, at], highest[:, 0] + np.log(sums))
        cosines.partition(max(cosines.shape[1] - _BEST, 0))
        best = np.sort(np.concatenate([best, cosines[:, -_BEST:]], axis=1))[:, : -_BEST - 1 : -1]
    return Truth(best, totals)


def measured(search: Search, kind: str, queries: Queries, truth: Truth) -> Figures:
    """Asks a search one query after the other."""
    found = np.full((len(queries.vectors), truth.best.shape[1]), -1.0, np.float32)
    totals, took_s = np.empty(truth.log_totals.shape), np.empty(len(found))
    for i, (vector, factor) in enumerate(zip(queries.vectors, queries.factors, strict=True)):
        began = time.perf_counter()
        scores = search.scores(vector)
        cosines = scores.top_k(_BEST)[1]
        totals[i, 0] = scores.log_sum_exp(factor)
        took_s[i] = time.perf_counter() - began
        totals[i, 1:] = [scores.log_sum_exp(times * factor) for times in TIMES[1:]]
        found[i, : len(cosines)] = cosines
    right = found >= truth.best[:, -1:] - 1e-6  # by value: equal images stand for each other
    of_first = found[:, 0] >= truth.best[:, 0] - 1e-6
    factors = queries.factors[:, None] * TIMES
    log_p = factors * found[:, :1] - totals
    true_log_p = factors * truth.best[:, :1] - truth.log_totals
    return Figures(
        kind=kind,
        n_queries=len(found),
        queries=queries.source,
        weaker=queries.weaker,
        recall_1=float(of_first.mean()),
        recall_5=float(right.mean()),
        regret=max(0.0, float((truth.best.mean(axis=1) - found.mean(axis=1)).mean())),
        log_p_error=float(np.sqrt(((log_p - true_log_p) ** 2).mean(axis=0).max())),
        log_p_error_most=float(np.abs(log_p - true_log_p).max()),
        p_error=float(np.abs(np.exp(log_p) - np.exp(true_log_p)).mean(axis=0).max()),
        p50_ms=float(np.median(took_s) * 1e3),
        p99_ms=float(np.quantile(took_s, 0.99) * 1e3),
    )
