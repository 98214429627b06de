"""What some minutes of trials tell of today: the cap's covariance, and how sure answers may be.

What is said of it is cross-validated: each trial is judged by what was fitted without its image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.calibration import log_softmax
from hvf_core.numbers import wilson
from hvf_core.problem import Problem
from index.gallery import Gallery, check_space
from offline_train.brain.calibrate import fit_temperature
from offline_train.evaluate.answers import embed
from stream.acquire.adaptation import Adaptation
from stream.acquire.adapted import Compared
from stream.acquire.preprocess import Preprocessing, trial_covariance
from stream.acquire.settings import AdaptationSettings

FEWEST = 10
"""Trials: a covariance of fewer is chance."""
ENOUGH = 20
"""Images that were seen: a temperature is not fitted to fewer."""
_FOLDS, _DRAWS = 5, 1000
_MOST_TIMES = 30.0
"""The EEG of training, or as much less: half the way, in powers of ten, from a unit to the next."""


@dataclass(frozen=True)
class Today:
    """What was fitted to all trials, and what it is worth."""

    state: Mapping[str, np.ndarray]
    """Of an `Adaptation` that has seen them."""
    temperature: float | None
    """By which the bundle's temperatures are multiplied; None: too few images, or no calibration
    to begin with, or answers that are chance."""
    is_chance: bool
    """Answers tell nothing apart: even with a temperature fitted, the right image is not likelier
    than one among equals, beyond chance."""
    n_labelled: int
    """Trials of images of the gallery."""
    compared: tuple[Compared, ...]


def fit_today(
    bundle: Bundle,
    gallery: Gallery | None,
    trials: np.ndarray,
    stimuli: Sequence[str],
    settings: AdaptationSettings,
    seed: int = 0,
) -> Today:
    """Fits what a session may begin with.

    Args:
        gallery: by which trials are labelled; None, or a gallery without their stimuli: they
            tell the covariance alone.
        trials: float32 (n, output channels, times), preprocessed, and not adapted.
        stimuli: what was shown, (n,).
        seed: of the bootstrap.

    Raises:
        Problem: there are too few trials, or they are no EEG by their size; the bundle has no
            covariance to adapt to, or the gallery is of another space.
    """
    if len(trials) < FEWEST:
        raise Problem(
            f"{len(trials)} trials could be cut, and {FEWEST} at least are needed: record for "
            "longer, or look at the markers with `doctor`"
        )
    preprocessing, rng = Preprocessing.of(bundle), np.random.default_rng(seed)
    folds = _folds(stimuli)
    adapted = np.empty_like(trials)
    for fold in range(folds.max() + 1):
        matrix = _learnt(preprocessing, settings, trials[folds != fold]).matrix(np.inf)
        adapted[folds == fold] = matrix @ trials[folds == fold]
    _refuse_size(preprocessing, trials)
    compared = [_distance(preprocessing, trials, adapted)]
    temperature, is_chance, n_labelled = None, False, 0
    if gallery is not None:
        check_space(gallery, bundle.manifest)
        rows = [gallery.row_of(stimulus) for stimulus in stimuli]
        known = np.array([row is not None for row in rows])
        n_labelled = int(known.sum())
        if len({*np.array(stimuli)[known]}) > 1:
            right = np.array([row for row in rows if row is not None])
            shown = _Shown(bundle, gallery, right, folds[known], rng)
            temperature = shown.temperature(adapted[known])
            answers = shown.compare(trials[known], adapted[known])
            # The likeliest temperature is then its bound, as it makes all images alike.
            is_chance = temperature is not None and answers[-1].after[1] <= -math.log(
                len(gallery.rows)
            )
            if is_chance:  # what was fitted is left out, and with it what is said of it
                temperature = None
                answers.pop()
            compared += answers
    whole = _learnt(preprocessing, settings, trials)
    whole.matrix(np.inf)
    return Today(whole.state(), temperature, is_chance, n_labelled, tuple(compared))


def _folds(stimuli: Sequence[str]) -> np.ndarray:
    """The fold of each trial, (n,): all of an image are in one, where there are images enough."""
    numbers = {stimulus: number for number, stimulus in enumerate(dict.fromkeys(stimuli))}
    if len(numbers) < _FOLDS:
        return np.arange(len(stimuli)) % _FOLDS
    return np.array([numbers[stimulus] for stimulus in stimuli]) % _FOLDS


def _learnt(
    preprocessing: Preprocessing, settings: AdaptationSettings, trials: np.ndarray
) -> Adaptation:
    adaptation = Adaptation(preprocessing, settings)
    for number, trial in enumerate(trials):
        adaptation.add(float(number), trial)
    return adaptation


def _refuse_size(preprocessing: Preprocessing, trials: np.ndarray) -> None:
    usual = np.trace(preprocessing.arrays["trial_covariance"])
    times = math.sqrt(np.median(trials.var(axis=2, dtype=float).sum(axis=1)) / usual)
    if not 1 / _MOST_TIMES < times < _MOST_TIMES:
        raise Problem(
            f"trials are {times:.3g} times as large as those of training, which no EEG is that "
            f"comes in its unit (at most {_MOST_TIMES:g} times, or as much less): look at the "
            "amplifier and its unit with `doctor`"
        )


def _distance(preprocessing: Preprocessing, trials: np.ndarray, adapted: np.ndarray) -> Compared:
    """How far the mean covariance is from that of training, by its size.

    Intervals are the jackknife's: a bootstrap moves each draw further away.
    """
    wanted, n = preprocessing.arrays["trial_covariance"].ravel(), len(trials)
    found = []
    for some in (trials, adapted):
        each = np.array([trial_covariance(trial).ravel() for trial in some])
        means = np.vstack([each.mean(axis=0), (each.sum(axis=0) - each) / (n - 1)])
        found.append(np.linalg.norm(means - wanted, axis=1) / np.linalg.norm(wanted))

    def told(values: np.ndarray) -> tuple[float, float, float]:
        half = 1.96 * math.sqrt(n - 1) * float(values[1:].std())
        return float(values[0]), float(values[0]) - half, float(values[0]) + half

    before, after = found
    return Compared(
        what="distance of the covariance from that of training",
        n=n,
        before=told(before),
        after=told(after),
        difference=told(after - before),
    )


@dataclass(frozen=True)
class _Shown:
    """Trials of which it is known what was seen, looked up one by one."""

    bundle: Bundle
    gallery: Gallery
    right: np.ndarray
    """Rows of the gallery, (n,)."""
    folds: np.ndarray
    rng: np.random.Generator

    def compare(self, trials: np.ndarray, adapted: np.ndarray) -> list[Compared]:
        scores = [self._scores(trials), self._scores(adapted)]
        ranks = [self._rank(one) for one in scores]
        found = {f"top-{k}": [rank < k for rank in ranks] for k in (1, 5)}
        if self.bundle.manifest.calibration is not None:
            given = np.arange(len(self.right)), self._at
            told = [log_softmax(scores[0])[given]]
            factors = np.ones(len(self.right))
            for fold in np.unique(self.folds) if self._has_enough else ():
                others = self.folds != fold
                factors[~others] = fit_temperature(scores[1][others], self._at[others])
            told.append(log_softmax(scores[1] / factors[:, None])[given])
            found["log-probability of the right image"] = told
        n, images = len(self.right), np.unique(self.right, return_inverse=True)[1]
        # Images are drawn anew, with all of their trials.
        drawn = self.rng.multinomial(images.max() + 1, self._equal(images), _DRAWS)
        times = np.vstack([np.ones(n), drawn[:, images]])
        times = times / times.sum(axis=1, keepdims=True)
        return [
            _compared(what, n, images.max() + 1, *(times @ np.asarray(v, float) for v in values))
            for what, values in found.items()
        ]

    def temperature(self, adapted: np.ndarray) -> float | None:
        """Fitted to all of them, or None."""
        if self.bundle.manifest.calibration is None or not self._has_enough:
            return None
        return fit_temperature(self._scores(adapted), self._at)

    @staticmethod
    def _equal(images: np.ndarray) -> np.ndarray:
        n_images = images.max() + 1
        return np.full(n_images, 1 / n_images)

    @property
    def _has_enough(self) -> bool:
        return len(np.unique(self.right)) >= ENOUGH

    @property
    def _at(self) -> np.ndarray:
        """Where the right images are among those that the gallery has now."""
        return np.searchsorted(self.gallery.rows, self.right)

    def _rank(self, scores: np.ndarray) -> np.ndarray:
        own = scores[np.arange(len(scores)), self._at]
        return (scores > own[:, None]).sum(axis=1)

    def _scores(self, trials: np.ndarray) -> np.ndarray:
        """Log-likelihoods but for a constant, as the bundle's calibration has them."""
        manifest = self.bundle.manifest
        z = embed(load_brain_encoder(self.bundle), trials)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        scale = math.exp(manifest.logit_scale)
        if manifest.calibration is not None:
            scale /= manifest.calibration.temperature("mean", manifest.tmax_s, 1)
        return scale * (z @ self.gallery.embeddings[self.gallery.rows].T)


def _compared(what: str, n: int, n_images: int, before: np.ndarray, after: np.ndarray) -> Compared:
    """Of values of which the first is that of all trials, and the others are bootstrapped.

    Where all trials are alike no draw of a share differs: how far it may be off all the same is
    Wilson's to say, over images.
    """
    _, unseen = wilson(0.0, n_images)

    def told(values: np.ndarray, least: float) -> tuple[float, float, float]:
        low, high = map(float, np.percentile(values[1:], [2.5, 97.5]))
        if what.startswith("top-") and np.ptp(values) < 1e-9:
            low, high = max(least, low - unseen), min(1.0, high + unseen)
        return float(values[0]), low, high

    return Compared(
        what=what,
        n=n,
        before=told(before, 0.0),
        after=told(after, 0.0),
        difference=told(after - before, -1.0),
    )
