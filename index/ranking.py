"""From a question to an answer: the best images of a gallery, with honest probabilities."""

from functools import lru_cache

import numpy as np

from decoder.answer import Query, Ranked
from index.gallery import Gallery
from index.search.base import Search
from index.search.dense import Dense


class Ranker:
    """Ranks the images of a gallery, which `search` finds; see `decoder.answer.Ranker`."""

    def __init__(self, search: Search, gallery: Gallery) -> None:
        self._search = search
        self._row_of = lru_cache(gallery.row_of)  # a trial's answers ask for the same image

    def rank(
        self, query: Query, k: int, shown: str | None, cosines: np.ndarray | None = None
    ) -> Ranked:
        """The best k images, and the probability of each among all of the gallery.

        Args:
            query: what is asked.
            k: how many images.
            shown: id of the image that was shown, where it is known.
            cosines: of all images with the query, float32 (n_gallery,), where an engine gave them.

        Raises:
            Problem: the query holds values that are not finite, or only zeros.
        """
        scores = self._search.scores(query.vector) if cosines is None else self._of(cosines)
        rows, best = scores.top_k(k)
        factor = query.weight / query.temperature
        log_total = scores.log_sum_exp(factor)
        best = best.astype(np.float64)
        log_p = factor * best - log_total
        if not query.by_cosine:
            best = query.weight * best - scores.log_sum_exp(query.weight)
        row = self._row_of(shown)
        return Ranked(
            rows=rows,
            scores=best,
            log_p=log_p,
            log_total=log_total,
            n_repeats=query.n_repeats,
            rank_of_shown=scores.place_of(row) if row is not None else 0,
            exact=cosines is not None or self._search.exact,
        )

    def _of(self, cosines: np.ndarray) -> Dense:
        among = self._search.among
        return Dense(cosines if among is None else cosines[among], among)
