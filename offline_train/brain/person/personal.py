"""A bundle for one person, made of a bundle of others by some minutes of trials.

In another head, and under another cap, the same sources reach the channels in another mixture. So
one matrix over the channels is put before a network that stays as it is, as the subject layer of
Défossez et al. (Nature Machine Intelligence, 2023). It is folded into the network's first map,
which is linear: a session loads and runs what it always does.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional

from decoder.brain.base import LinearInputEncoder
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import MANIFEST, PARTS, SEEN, Bundle, save_bundle
from hvf_core.artifact import refuse_taken
from hvf_core.problem import Problem
from hvf_core.provenance import provenance
from index.gallery import Gallery, check_space
from offline_train.brain.calibrate import fit_temperature
from offline_train.brain.person.adapt import ENOUGH, FEWEST
from offline_train.data.trial_set import ADAPTED, TrialSet
from offline_train.evaluate.answers import check_trials, embed, rows_of
from offline_train.evaluate.metrics import Estimate, estimated_rate
from offline_train.evaluate.retrieval import subjects_of
from offline_train.evaluate.seen import check_seen, memory_of
from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing, trial_covariance
from stream.acquire.settings import AdaptationSettings

PRIOR_SD = 0.1
"""Of each entry of the matrix about its start: a normal prior, which many trials outweigh."""
_STEPS, _FOLDS = 20, 5


@dataclass(frozen=True)
class Personal:
    """What was made, and what it is worth to trials of images that were left out of the fit."""

    bundle: Bundle
    n_trials: int
    n_items: int
    before: Estimate | None
    """Top-1 of a single trial among these images, by images; None where no labels were used."""
    after: Estimate | None


def personalise(
    directory: Path,
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery | None,
    command: str,
    on_fit: Callable[[int, int], None] = lambda done, total: None,
) -> Personal:
    """Fits the matrix, and the temperatures' factor where there are any, and writes a bundle.

    The matrix begins as the one that takes the covariance of these trials to that of training
    (`Adaptation`), which needs no labels. With labels it is the likeliest under its prior: each
    trial is classified among the images that were shown, by the bundle's own cosines. The new
    bundle takes the trials' covariance for that of its training, so that `--adapt` goes on from
    there, and remembers the trials as seen.

    Args:
        directory: where to, which must be free.
        trial_set: of one person, preprocessed as the bundle says, and new to it.
        gallery: has all images that were shown; None uses no labels.
        on_fit: told how many fits are done.

    Raises:
        Problem: the encoder begins with no linear map, trials, gallery and bundle do not belong
            together, the trials are too few, of several people, or were trained on.
    """
    refuse_taken(directory, MANIFEST, "a bundle")
    brain = _checked(bundle, trial_set, gallery)
    trials = np.ascontiguousarray(trial_set.data[trial_set.rows])
    start = _aligned(bundle, trials)
    matrix, factor = start, 1.0
    told: tuple[Estimate | None, Estimate | None] = (None, None)
    if gallery is not None:
        fits = _Fits(bundle, brain, trial_set, trials, gallery, on_fit)
        matrix, factor, told = fits.likeliest(start)
    parts = {part: dict(bundle.arrays(part)) for part in (*PARTS, SEEN)}
    parts["brain"]["project.weight"] = _folded(brain, matrix)
    covariance = np.mean([trial_covariance(trial) for trial in trials], axis=0)
    parts["preprocessing"]["trial_covariance"] = covariance.astype(np.float32)
    for name, new in memory_of(trial_set).items():
        parts[SEEN][name] = np.concatenate([parts[SEEN][name], new])
    manifest = bundle.manifest
    if (calibration := manifest.calibration) is not None and gallery is not None:
        mean = tuple(tuple(factor * value for value in row) for row in calibration.mean)
        n_items = len(trial_set.items)
        calibration = calibration.model_copy(update={"mean": mean, "n_items": n_items})
    fitted = _record(bundle, trial_set, gallery is not None, command)
    made = save_bundle(
        directory,
        manifest.model_copy(
            update={
                "calibration": calibration,
                "training": {**manifest.training, "personalised": fitted},
            }
        ),
        parts,
    )
    return Personal(made, len(trials), len(trial_set.items), *told)


@dataclass(frozen=True)
class _Fits:
    """Fits of the matrix to labelled trials, whole and by folds of images."""

    bundle: Bundle
    brain: LinearInputEncoder
    trial_set: TrialSet
    trials: np.ndarray
    gallery: Gallery
    on_fit: Callable[[int, int], None]

    def likeliest(self, start: np.ndarray) -> tuple[np.ndarray, float, tuple[Estimate, Estimate]]:
        """The matrix, a factor for temperatures, and top-1 of images left out: before, after."""
        right = np.empty(len(self.trials), np.int64)
        for item, own in enumerate(self.trial_set.repeats.values()):
            right[own] = item
        scores = np.empty((len(right), len(self.trial_set.items)))
        for fold in range(_FOLDS):
            self.on_fit(fold, _FOLDS + 1)
            out = right % _FOLDS == fold
            matrix = self._fit(start, self.trials[~out], right[~out])
            scores[out] = self._scores(matrix, self.trials[out])
        matrix = self._fit(start, self.trials, right)
        self.on_fit(_FOLDS + 1, _FOLDS + 1)
        as_it_was = self._scores(np.eye(len(start), dtype=np.float32), self.trials)
        told = (self._top1(as_it_was, right), self._top1(scores, right))
        return matrix, fit_temperature(scores, right), told

    def _fit(self, start: np.ndarray, trials: np.ndarray, right: np.ndarray) -> np.ndarray:
        shown, owner = np.unique(right, return_inverse=True)
        images = torch.from_numpy(self._images[shown])
        x, target = torch.from_numpy(trials), torch.from_numpy(owner)
        first = torch.from_numpy(start)
        change = torch.zeros_like(first, requires_grad=True)
        log_scale = torch.tensor(math.log(self._scale), requires_grad=True)
        descent = torch.optim.LBFGS(
            [change, log_scale], max_iter=_STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            descent.zero_grad()
            z = functional.normalize(self.brain((first + change) @ x), dim=1)
            of_data = functional.cross_entropy(log_scale.exp() * z @ images.T, target)
            of_prior = (change**2).sum() / (2 * PRIOR_SD**2 * len(x))
            total = of_data + of_prior
            total.backward()
            return total

        descent.step(loss)
        return (first + change).detach().numpy()

    def _scores(self, matrix: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Log-likelihoods but for a constant, as the bundle's calibration has them."""
        z = embed(self.brain, matrix @ trials)
        return self._scale * (z / np.linalg.norm(z, axis=1, keepdims=True)) @ self._images.T

    @property
    def _images(self) -> np.ndarray:
        return self.gallery.embeddings[rows_of(self.gallery, self.trial_set.items)]

    @property
    def _scale(self) -> float:
        manifest = self.bundle.manifest
        scale = math.exp(manifest.logit_scale)
        if manifest.calibration is None:
            return scale
        return scale / manifest.calibration.temperature("mean", manifest.tmax_s, 1)

    def _top1(self, scores: np.ndarray, right: np.ndarray) -> Estimate:
        """Mean over images of how often each comes first."""
        hits = scores.argmax(axis=1) == right
        by_image = [hits[own].mean() for own in self.trial_set.repeats.values()]
        return estimated_rate(np.array(by_image), np.random.default_rng(0))


def _checked(bundle: Bundle, trial_set: TrialSet, gallery: Gallery | None) -> LinearInputEncoder:
    """The network, where there is nothing against it."""
    brain = load_brain_encoder(bundle)
    if not isinstance(brain, LinearInputEncoder):
        raise Problem(
            f"the bundle's brain encoder is '{bundle.manifest.brain_encoder.name}', and only "
            "'mbp' and 'ubp' begin with a linear map that a person's can be folded into: train "
            "one of these, or follow the person with `live --adapt`"
        )
    check_trials(bundle, trial_set)
    if trial_set.format.provenance.get(ADAPTED) is not None:
        raise Problem(
            "the trials were prepared with `--adapt`, which has corrected for the person already: "
            "prepare them again with `prepare-test` without it"
        )
    if len(people := subjects_of(trial_set)) > 1:
        raise Problem(
            f"the trials are of {len(people)} people, {', '.join(people)}: give those of one"
        )
    if bundle.file(SEEN).name not in bundle.manifest.files:
        raise Problem(
            f"the bundle '{bundle.directory}' does not say what it was trained on, and could not "
            "be told from what it is fitted to: train it again with this version"
        )
    check_seen(bundle, trial_set, way_out="give trials of the person whom it is to decode")
    if len(trial_set) < FEWEST:
        raise Problem(f"{len(trial_set)} trials tell nothing of a person: record {FEWEST} at least")
    if gallery is not None:
        check_space(gallery, bundle.manifest)
        rows_of(gallery, trial_set.items)
        if len(trial_set.items) < ENOUGH:
            raise Problem(
                f"the trials are of {len(trial_set.items)} images, and labels tell something from "
                f"{ENOUGH} on: show more, or give no --gallery, and no labels are used"
            )
    return brain.requires_grad_(False)


def _aligned(bundle: Bundle, trials: np.ndarray) -> np.ndarray:
    """The matrix that takes the covariance of trials to that of training."""
    adaptation = Adaptation(Preprocessing.of(bundle), AdaptationSettings())
    for number, trial in enumerate(trials):
        adaptation.add(float(number), trial)
    return adaptation.matrix(np.inf)


def _folded(brain: LinearInputEncoder, matrix: np.ndarray) -> np.ndarray:
    """`project.weight` of the encoder that does to x what this one does to `matrix @ x`."""
    weight = brain.project.weight.numpy()
    by_channel = weight.reshape(len(weight), brain.n_channels, brain.n_times)
    return np.ascontiguousarray(np.einsum("dit,ij->djt", by_channel, matrix).reshape(weight.shape))


def _record(
    bundle: Bundle, trial_set: TrialSet, labelled: bool, command: str
) -> dict[str, JsonValue]:
    return {
        "of": bundle.manifest.files[bundle.file("brain").name],
        "trials_sha256": trial_set.checksum,
        "selection_sha256": hashlib.sha256(trial_set.rows.tobytes()).hexdigest(),
        "recording": trial_set.format.provenance,
        "n_trials": len(trial_set),
        "n_items": len(trial_set.items),
        "labels": labelled,
        "prior_sd": PRIOR_SD,
        **provenance(command, "torch", "numpy"),
    }
