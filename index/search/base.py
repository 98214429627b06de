"""Search: the contract of everything that finds the images nearest to an embedding.

Engines differ in how, and in whether they look at the whole gallery; an answer says the latter.
"""

from typing import Protocol

import numpy as np


class Scores(Protocol):
    """The cosines of one embedding with the images of a gallery that count."""

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best k images, or all if they are fewer, of equal ones the higher row first.

        Returns:
            Rows, int64 (k,), and their cosines, float32 (k,).
        """

    def log_sum_exp(self, factor: float) -> float:
        """The logarithm of the sum of `exp(factor · cosine)` over the gallery.

        Where the search is not exact it is an estimate, as good as was measured (`search.json`).
        """

    def of(self, rows: int | np.ndarray) -> np.ndarray:
        """The cosines of given rows, float32; minus infinity for those that do not count."""

    def place_of(self, row: int) -> int:
        """Where a row stands, counted from 1; 0 where it does not count.

        Where the search is not exact and has passed the row over, it is an estimate, and never
        among the best: it is no answer.
        """


class Search(Protocol):
    """A gallery that is ready to be searched."""

    kind: str
    """What finds the images, as `--search` calls it."""
    exact: bool
    """Whether nothing of the gallery is passed over."""
    among: np.ndarray | None
    """The rows that count, int64, rising: those of a subset, without holes; None for all."""

    def scores(self, vector: np.ndarray) -> Scores:
        """Looks an embedding up.

        Args:
            vector: (dim,), of any length but zero.

        Raises:
            Problem: it is not finite, or all zero.
            ValueError: it has another width than the gallery.
        """
