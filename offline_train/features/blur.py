"""UBP's uncertainty-aware blur prior (CVPR 2025): how blurred each image is learnt."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hvf_core.problem import Problem
from index.encoders.spec import EncoderSpec
from offline_train.data.features import Features

STEP_PX = 6
"""By which less and more blur differ from the usual one: 45, 51 and 57, as published."""
_USUAL = 1
"""The number of the usual blur; less is 0, more is 2."""
_NEWEST = 0.3
_TAIL = 1.959964  # standard deviations: 95 % of a normal distribution lie within
Specs = tuple[EncoderSpec, ...]


def blurs_of(specs: Specs, prior: bool) -> list[Specs]:
    """The encoders of each of the features that a training needs, the usual ones first.

    Those of less and of more blur come after them, where it has a blur prior.

    Raises:
        Problem: then encoders have to see blurred images, and one does not.
    """
    if not prior:
        return [specs]
    for spec in specs:
        if spec.blur_px is None or spec.blur_px < STEP_PX + 3:
            raise Problem(
                f"the blur prior needs encoders that see blurred images, and '{spec.name}' has a "
                f"blur of {spec.blur_px or 0} pixels: say one of {STEP_PX + 3} or more behind "
                "each, such as RN50:blur51"
            )
    return [specs, *(tuple(_blurred(one, by) for one in specs) for by in (-STEP_PX, STEP_PX))]


def _blurred(spec: EncoderSpec, by_px: int) -> EncoderSpec:
    return spec.model_copy(update={"blur_px": (spec.blur_px or 0) + by_px})


def features_by_blur(blurs: Sequence[Specs], see: Callable[[Specs], Features]) -> Features:
    """The features of images at each of `blurs_of`."""
    usual, *others = map(see, blurs)
    return replace(usual, blurs=tuple(others)) if others else usual


def by_level(features: Features) -> dict[str, np.ndarray]:
    """Their embeddings (3, items, dim) by the encoder's name: of less blur, of the usual, of more.

    Raises:
        Problem: they are of one blur only.
    """
    if len(features.blurs) != 2:
        raise Problem(
            "the blur prior needs features of three blurs, and these are of one: leave --labels "
            "out, or leave out the blur prior"
        )
    levels = (features.blurs[0], features, features.blurs[1])
    return {
        name: np.stack([one.embeddings[name] for one in levels]) for name in features.embeddings
    }


class BlurPrior(nn.Module):
    """Which of three blurs each of `n` images is learnt with, by how its trials have been answered.

    An image whose trials come unusually near to it is learnt with less blur, one from which they
    stay unusually far with more; all begin with the usual one. The similarity of an image runs on
    from epoch to epoch, and begins with 1 as in the authors' code.
    """

    similarity: Tensor
    level: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("similarity", torch.ones(n))
        self.register_buffer("level", torch.full((n,), _USUAL))

    @torch.no_grad()
    def learn(
        self, brain: Tensor, images: Tensor, owner: Tensor, shown: Tensor, logit_scale: Tensor
    ) -> None:
        """Takes a batch into account; the next epoch sees its images as that asks for.

        Args:
            brain, images, owner, logit_scale: as of `infonce`.
            shown: int64 (images,), the number of each image among all.
        """
        own = functional.cosine_similarity(brain.float(), images.float()[owner])
        items, place = shown.unique(return_inverse=True)
        place = place[owner]
        summed = torch.zeros(len(items), device=own.device).index_add_(0, place, own)
        now = logit_scale.exp() * summed / torch.bincount(place, minlength=len(items))
        running = _NEWEST * now + (1 - _NEWEST) * self.similarity[items]
        mean, far = running.mean(), _TAIL * running.std()
        self.similarity[items] = running
        self.level[items] = _USUAL + (now < mean - far).long() - (now > mean + far).long()
