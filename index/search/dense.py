"""Cosines that are all there, and what is asked of them; FAISS is not."""

import numpy as np

from hvf_core.problem import Problem

_FEW = 1000  # images that are sorted as fast as their best are found


class Dense:
    """Cosines that are all there; see `index.search.base.Scores`.

    Args:
        cosines: float32 (n,), of all of the gallery or of the rows that count.
        among: the rows that count, int64 (n,), rising; None for all.

    Raises:
        Problem: one of the cosines is not finite.
    """

    def __init__(self, cosines: np.ndarray, among: np.ndarray | None = None) -> None:
        if not np.isfinite(cosines).all():
            raise Problem(
                "an embedding holds values that are not finite: the bundle's weights are damaged"
            )
        self._cosines, self._among = cosines, among

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(self._cosines)
        k = min(k, n)
        if n < _FEW:  # two calls where the way below takes five
            best = n - 1 - np.argsort(-self._cosines[::-1], kind="stable")[:k]
        else:
            lowest = np.partition(self._cosines, n - k)[n - k]
            best = np.flatnonzero(self._cosines >= lowest)[::-1]  # more than k where some are equal
            best = best[np.argsort(-self._cosines[best], kind="stable")[:k]]
        return best if self._among is None else self._among[best], self._cosines[best]

    def log_sum_exp(self, factor: float) -> float:
        logits = np.multiply(self._cosines, factor, dtype=np.float64)
        highest = logits.max()
        return float(highest + np.log(np.exp(logits - highest).sum()))

    def of(self, rows: int | np.ndarray) -> np.ndarray:
        if self._among is None:
            return self._cosines[rows]
        places, counts = places_in(self._among, rows)
        return np.where(counts, self._cosines[places], np.float32(-np.inf))

    def place_of(self, row: int) -> int:
        at = row
        if self._among is not None:
            places, counts = places_in(self._among, row)
            if not counts:
                return 0
            at = int(places)
        cosine = self._cosines[at]
        return 1 + self.above(cosine) + int(np.count_nonzero(self._cosines[at + 1 :] == cosine))

    def above(self, cosine: float) -> int:
        """How many images have a higher cosine."""
        return int(np.count_nonzero(self._cosines > cosine))


def places_in(among: np.ndarray, rows: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rows stand among those that count, and whether they are there."""
    places = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return places, among[places] == rows
