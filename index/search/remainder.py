"""The images that a search passed over: the sum of what they weigh, estimated from a few of them.

Of all images the sums of the embeddings and of their outer products are known, so the mean of the
cosines with any query and the mean of their squares are known too. A fixed sample says how
`exp(factor · cosine)` goes with these two, by least squares (a regression estimator): what is left
to chance is only what a parabola does not explain.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.search.dense import places_in
from index.search.flat import inner_products

SAMPLE = 4096
"""Images at most whose cosines are computed for it; at 512 numbers each they take 8 MB."""
MORE = 8 * SAMPLE
"""Of very many images where these say too little: a third of the error, without a look at all."""
LEAST, SHARE = 1024, 8
"""Of fewer images it is one in eight, but so many at least: finding them takes less time too."""
_RIDGE = 1e-12 * np.eye(3)  # keeps cosines that are all alike from being divided by
AT_ONCE = 8192
"""Embeddings that are read at a time."""


class Moments(NamedTuple):
    """Sums over embeddings, float64."""

    n: int
    first: NDArray[np.float64]
    """Of the embeddings, (dim,)."""
    second: NDArray[np.float64]
    """Of their outer products, (dim, dim)."""

    def without(self, other: "Moments") -> "Moments":
        """Of those that are not among the others."""
        return Moments(self.n - other.n, self.first - other.first, self.second - other.second)


def moments_of(embeddings: np.ndarray, rows: NDArray[np.int64] | None = None) -> Moments:
    """Of embeddings (n, dim), or of some rows of them."""
    dim = embeddings.shape[1]
    n, first, second = 0, np.zeros(dim), np.zeros((dim, dim))
    for part in _parts(embeddings, rows):
        n += len(part)
        first += part.sum(axis=0, dtype=np.float64)
        second += part.T @ part
    return Moments(n, first, second)


def _parts(embeddings: np.ndarray, rows: NDArray[np.int64] | None) -> Iterator[np.ndarray]:
    for start in range(0, len(embeddings) if rows is None else len(rows), AT_ONCE):
        stop = start + AT_ONCE
        yield embeddings[start:stop] if rows is None else embeddings[rows[start:stop]]


class Remainder:
    """What is known of the images that count, whatever the query.

    Args:
        embeddings: float32 (n, dim).
        rows: those that an index holds and that count, rising, more than a few.
        moments: of these rows.
        most: images whose cosines are computed for it.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        rows: NDArray[np.int64],
        moments: Moments,
        most: int = SAMPLE,
    ) -> None:
        n = min(most, max(LEAST, len(rows) // SHARE), len(rows))
        self._rows = np.sort(np.random.default_rng(0).choice(rows, n, replace=False))
        self._sample = np.ascontiguousarray(embeddings[self._rows])
        self._n, self._first = moments.n, moments.first
        self._second = np.ascontiguousarray(moments.second, np.float32)

    def of(self, query: np.ndarray, found: NDArray[np.int64], cosines: np.ndarray) -> "Rest":
        """What is left beside the images that were found, rising, with these cosines."""
        n = self._n - len(found)
        every = inner_products(query, self._sample).astype(np.float64)
        places, are_there = places_in(self._rows, found)
        sample = np.delete(every, places[are_there])
        if n <= 0 or not len(sample):
            return Rest(sample[:0], sample[:0], np.empty((3, 0)), n, 0.0)
        found_cosines = cosines.astype(np.float64)
        mean = (self._first @ query - found_cosines.sum()) / n
        squares = float(inner_products(query, self._second) @ query)
        square = (squares - (found_cosines**2).sum()) / n
        middle = sample.mean()
        off = sample - middle
        known = np.stack([np.ones_like(off), off, off * off])
        wanted = np.array([1.0, mean - middle, square - 2 * middle * mean + middle**2])
        products = known @ known.T + _RIDGE
        weights = n * np.linalg.solve(products, wanted) @ known
        return Rest(sample, np.maximum(weights, 0.0), known, n, found_cosines.min(initial=1))


class Rest(NamedTuple):
    """A few of the images that were passed over, and for how many of them each stands."""

    cosines: NDArray[np.float64]
    weights: NDArray[np.float64]
    known: NDArray[np.float64]
    """What their sums are known of, (3, n)."""
    n: int
    """How many were passed over."""
    below: float
    """No higher than the cosines that were found: theirs may be as high, if few are."""

    def above(self, cosine: float) -> int:
        """About how many of those that were passed over have a higher cosine."""
        return round(float(self.weights[self.cosines > cosine].sum()))

    def log_sum_exp(self, factor: float) -> tuple[float, float]:
        """The logarithms of their sum of `exp(factor · cosine)` and of its standard error.

        Both are minus infinity of none; of a few that the sample has none of the error is infinite.
        """
        if not self.weights.any():
            return -np.inf, np.inf if self.n > 0 else -np.inf
        logits = factor * self.cosines
        highest = max(logits.max(), factor * self.below)
        terms = np.exp(logits - highest)
        products = self.known @ self.known.T + _RIDGE
        left = terms - np.linalg.solve(products, self.known @ terms) @ self.known
        n = len(left)
        squares = left @ left + np.exp(2 * (factor * self.below - highest))  # one that it missed
        variance = squares / max(n - 3, 1) * max(1 / n - 1 / self.n, 0.0)
        error = self.n * np.sqrt(variance)
        with np.errstate(divide="ignore"):
            return float(highest + np.log(self.weights @ terms)), float(highest + np.log(error))
