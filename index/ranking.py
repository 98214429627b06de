"""From an embedding to an answer: the gallery ranked, with a probability for every image."""

from dataclasses import dataclass

import numpy as np

from decoder.bundle import BundleManifest
from decoder.calibration import Evidence, log_probabilities, log_softmax, temperature_of
from decoder.evidence import LogLikelihoods
from hvf_core.problem import Problem
from index.search.flat import Search


@dataclass(frozen=True)
class Ranking:
    """The whole gallery, the most probable image first."""

    rows: np.ndarray
    """Of the gallery, int64 (n,)."""
    scores: np.ndarray
    """Cosines, or with added evidence the sums of log-probabilities (n,)."""
    probabilities: np.ndarray
    """float64 (n,); they add up to 1."""
    n_repeats: int

    def rank_of(self, row: int) -> int:
        """The place of a row, counted from 1."""
        return int(np.flatnonzero(self.rows == row)[0]) + 1


class Ranker:
    """Ranks a gallery; with added evidence it keeps what earlier repeats of each group said.

    Args:
        embeddings: the gallery's, float32 (n, dim), L2-normalised.
        manifest: of the bundle that embeds; its calibration makes the probabilities.
        evidence: how repeats are put together.

    Raises:
        Problem: evidence is to be added, and the bundle has no calibration.
    """

    def __init__(self, embeddings: np.ndarray, manifest: BundleManifest, evidence: Evidence):
        self._search = Search(embeddings, k=len(embeddings))
        self._manifest = manifest
        self._added = evidence == "added"
        self._likelihoods: dict[str, LogLikelihoods] = {}
        self._temperatures: dict[tuple[Evidence, float, int], float] = {}
        self._temperature(evidence, manifest.tmax_s, 1)

    def rank(
        self,
        z: np.ndarray,
        cosines: np.ndarray | None,
        tmax_s: float,
        n_repeats: int,
    ) -> Ranking:
        """Ranks by an embedding of everything that is known, which is averaged evidence.

        Args:
            z: (dim,), of any length but zero.
            cosines: of all images, float32 (n,), where the engine gave them with the embedding.
            tmax_s: end of the window of the last repeat.
            n_repeats: in the embedding.

        Raises:
            Problem: the embedding holds values that are not finite, or only zeros.
        """
        rows, scores = self._sorted(z, cosines)
        temperature = self._temperature("mean", tmax_s, n_repeats)
        log_p = log_probabilities(scores, self._manifest.logit_scale, temperature)
        return Ranking(rows, scores, np.exp(log_p), n_repeats)

    def rank_added(
        self,
        z: np.ndarray,
        cosines: np.ndarray | None,
        tmax_s: float,
        group: str,
        trial: int,
        final: bool,
    ) -> Ranking:
        """Ranks by what a trial says alone, added to what the group's earlier repeats said.

        Args:
            z, cosines, tmax_s: as in `rank`, of this trial alone.
            group: whose repeat the trial is.
            trial: its number.
            final: it is whole, and counts as a repeat from now on.

        Raises:
            Problem: the embedding holds values that are not finite, or only zeros.
        """
        rows, scores = self._sorted(z, cosines)
        own = np.empty(len(rows))
        temperature = self._temperature("mean", tmax_s, 1)
        own[rows] = log_probabilities(scores, self._manifest.logit_scale, temperature)
        earlier = self._likelihoods.setdefault(group, LogLikelihoods(len(rows)))
        total, n_repeats = earlier.sum_with(trial, own)
        if final:
            earlier.add(trial, own)
        rows = _falling(total)
        log_p = log_softmax(total[rows], 1 / self._temperature("added", tmax_s, n_repeats))
        return Ranking(rows, total[rows], np.exp(log_p), n_repeats)

    def _sorted(self, z: np.ndarray, cosines: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if cosines is None:
            scores, rows = self._search.search(z)
            return rows[0], scores[0]
        if not np.isfinite(cosines).all():
            raise Problem(
                "an embedding holds values that are not finite: the bundle's weights are damaged"
            )
        rows = _falling(cosines)
        return rows, cosines[rows]

    def _temperature(self, evidence: Evidence, tmax_s: float, n_repeats: int) -> float:
        key = (evidence, tmax_s, n_repeats)
        if key not in self._temperatures:
            self._temperatures[key] = temperature_of(self._manifest.calibration, *key)
        return self._temperatures[key]


def _falling(scores: np.ndarray) -> np.ndarray:
    """Rows by falling score and, where scores are equal, by falling row, as `Search` gives them."""
    return len(scores) - 1 - np.argsort(-scores[::-1], kind="stable")
