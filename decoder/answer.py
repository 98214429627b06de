"""Answers: what a gallery is asked about a trial, and what is said of it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Query:
    """An image's log-likelihood is, but for a constant, `weight · cosine(vector, image)`."""

    vector: np.ndarray
    """(dim,), of any length but zero."""
    weight: float
    temperature: float
    """Log-likelihoods are divided by it before the softmax."""
    n_repeats: int
    by_cosine: bool
    """Scores are cosines, else log-likelihoods."""


@dataclass(frozen=True)
class Ranked:
    """The best images of a gallery, the most probable first; of equal ones, that in the higher row.

    `scores` are cosines, or log-likelihoods over all repeats that add up to 1 in the gallery.
    """

    rows: np.ndarray
    """Of the gallery, int64 (k,)."""
    scores: np.ndarray
    """(k,), falling."""
    log_p: np.ndarray
    """Natural logarithms of the probabilities, float64 (k,)."""
    log_total: float
    """Of the whole gallery, estimated where it is not `exact`: an image has
    `log_p = weight · cosine / temperature - log_total`."""
    n_repeats: int
    rank_of_shown: int
    """The place of the image that was shown, counted from 1; 0 where it is not in the gallery.

    About that, and behind the best, where it was passed over: it is no answer.
    """
    exact: bool
    """The whole gallery was looked at."""


@dataclass(frozen=True)
class Answer:
    """What is said of a trial at an end of its window."""

    tmax_s: float
    provisional: bool
    ranked: Ranked
    abstain: bool
    """The first image is less probable than an answer must be."""
    embedding: np.ndarray
    """Of what is known, unit-length float32 (dim,)."""
    embedded_s: float
    searched_s: float
    """When both were done, on the clock of the decoder's host."""


class Ranker(Protocol):
    """Looks queries up in a gallery; see `index.ranking.Ranker`."""

    def rank(
        self, query: Query, k: int, shown: str | None, cosines: np.ndarray | None = None
    ) -> Ranked: ...
