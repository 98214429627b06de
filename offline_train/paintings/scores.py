"""How much of an image is in what is painted of it: from the image itself, from the brain, from
another brain's trial.

The ceiling paints z_f, the image's own embedding; the floor paints the brain's embedding of another
image. All conditions paint with the same seeds, so that their differences are paired.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.painting.prior import Prior, check_bundle
from hvf_core.problem import Problem
from hvf_core.provenance import versions
from hvf_core.specs import Frozen
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import check_trials, draw_in_order, embed
from offline_train.evaluate.metrics import Estimate, estimated_mean
from offline_train.evaluate.seen import Seen, told
from offline_train.paintings.metrics import (
    PAIRS,
    PIXEL_SCORES,
    correlation_distance,
    pixel_correlation,
    resized,
    structural_similarities,
    two_way,
)
from offline_train.paintings.nets import FeatureNet
from offline_train.paintings.spec import FeatureNetSpec

CEILING, FLOOR = "image", "another"
"""Painted from the image's own embedding, and from the brain's of another image."""
_PACKAGES = ("torch", "torchvision", "open-clip-torch", "diffusers", "scikit-image")


class Difference(Frozen):
    """How much better one condition is than the next by a two-way metric, paired by image."""

    metric: str
    better: str
    worse: str
    difference: Estimate
    separate: bool
    """Whether the interval lies above 0."""


class PaintingScores(Frozen):
    """Scores by condition and metric."""

    n_images: int
    n_samples: int
    """Paintings of each image in each condition; their scores are averaged."""
    conditions: tuple[str, ...]
    """From the ceiling to the floor."""
    scores: dict[str, dict[str, Estimate]]
    differences: tuple[Difference, ...]
    nets: tuple[FeatureNetSpec, ...]
    """Whose features were compared."""
    definitions: dict[str, str] = Field(default_factory=dict)
    """What each score is, exactly."""
    settings: dict[str, bool | int | float | str]
    versions: dict[str, str]
    seen: Seen | None = None
    """How much of the trials the bundle was trained on; None where it does not say."""

    @property
    def items(self) -> str:
        """What titles say of what was painted, such as `200 held-out stimuli`."""
        return told(self.seen, self.n_images)


@dataclass(frozen=True)
class Paintings:
    """What was painted, by condition from the ceiling down, beside what was seen."""

    seen: np.ndarray
    """uint8 (images, height, width, 3)."""
    samples: Mapping[str, np.ndarray]
    """uint8 (samples, images, size, size, 3)."""


def conditions_of(
    bundle: Bundle,
    prior: Prior,
    trial_set: TrialSet,
    features: Features,
    repeats: Sequence[int],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Embeddings to paint, (images, dim) by the name of the condition, from the ceiling down.

    Args:
        bundle: trained against the prior's HVF.
        prior: what paints.
        trial_set: trials that the bundle has not seen; its items are the images.
        features: of the images.
        repeats: numbers of trials whose EEG is averaged.
        seed: of the draws.

    Raises:
        Problem: the bundle is of another space, trials are too few or of another preprocessing.
    """
    check_bundle(prior, bundle.manifest)
    check_trials(bundle, trial_set)
    if len(trial_set.items) < 3:
        raise Problem(
            f"the trial set has {len(trial_set.items)} images: two-way identification needs at "
            "least three"
        )
    shown = features.select(trial_set.items)
    with torch.inference_mode():
        z_f = prior.hvf({name: torch.from_numpy(x) for name, x in shown.embeddings.items()})
    found = {CEILING: z_f.numpy()}
    brain = load_brain_encoder(bundle)
    for n in sorted(repeats, reverse=True):
        rng = np.random.default_rng([seed, n])
        found[brain_name(n)] = embed(brain, trial_set.mean(draw_in_order(trial_set, n, rng)))
    most = found[brain_name(max(repeats))]
    found[FLOOR] = most[derangement(len(most), np.random.default_rng(seed))]
    return found


def brain_name(n_repeats: int) -> str:
    """Name of the condition that paints from so many repeats."""
    return f"brain, {n_repeats} repeat" + "s" * (n_repeats != 1)


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of n > 1 in which nothing is at its own place."""
    order = rng.permutation(n)
    shifted = np.empty(n, np.intp)
    shifted[order] = np.roll(order, 1)  # along one random cycle
    return shifted


def score(
    paintings: Paintings,
    nets: Sequence[FeatureNet],
    settings: Mapping[str, bool | int | float | str],
    more: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    of_training: Seen | None = None,
) -> PaintingScores:
    """Scores paintings by pixels and by the features of networks.

    As in the paper every sample is scored by itself, against all images, and the scores of an
    image's samples are averaged.

    Args:
        paintings: seen and painted.
        nets: whose features are compared.
        settings: how it was painted, to be found in the result.
        more: further scores, by name: from paintings, uint8 (images, size, size, 3), to (images,).
        of_training: how much of the trials is, as `check_seen` says.
    """
    conditions = tuple(paintings.samples)
    size_px = paintings.samples[conditions[0]].shape[2]
    seen = _as_pictures(paintings.seen, size_px)
    metrics: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "PixCorr": lambda painted: pixel_correlation(seen, painted),
        "SSIM": lambda painted: structural_similarities(seen, painted),
    }
    metrics |= {net.spec.name: _compared_with(seen, net) for net in nets} | dict(more or {})
    per_image = {
        name: {
            metric: np.mean([of(painted) for painted in samples], axis=0)
            for metric, of in metrics.items()
        }
        for name, samples in paintings.samples.items()
    }
    return PaintingScores(
        n_images=len(seen),
        n_samples=len(paintings.samples[conditions[0]]),
        conditions=conditions,
        scores={
            name: {metric: _score(values) for metric, values in found.items()}
            for name, found in per_image.items()
        },
        differences=tuple(
            _difference(net.spec.name, better, worse, per_image)
            for net in nets
            if net.spec.score == "two_way"
            for better, worse in itertools.pairwise(conditions)
        ),
        nets=tuple(net.spec for net in nets),
        definitions=PIXEL_SCORES | {net.spec.name: _definition(net.spec) for net in nets},
        settings=dict(settings),
        versions=versions(*_PACKAGES),
        seen=of_training,
    )


def _compared_with(seen: np.ndarray, net: FeatureNet) -> Callable[[np.ndarray], np.ndarray]:
    compare = two_way if net.spec.score == "two_way" else correlation_distance
    of_seen = net.features(seen)
    return lambda painted: compare(of_seen, net.features(painted))


def _definition(spec: FeatureNetSpec) -> str:
    network = " ".join(filter(None, (spec.kind, spec.architecture, spec.source)))
    what = f"{spec.layer or 'the output'} of {network}"
    return f"{what} at {spec.size_px} px (bilinear, antialiased); {PAIRS[spec.score]}"


def _as_pictures(pictures: np.ndarray, size_px: int) -> np.ndarray:
    return (resized(pictures, size_px) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _score(values: np.ndarray) -> Estimate:
    return estimated_mean(values, np.random.default_rng(0))


def _difference(
    metric: str, better: str, worse: str, per_image: Mapping[str, Mapping[str, np.ndarray]]
) -> Difference:
    difference = _score(per_image[better][metric] - per_image[worse][metric])
    return Difference(
        metric=metric,
        better=better,
        worse=worse,
        difference=difference,
        separate=difference.low > 0,
    )
