"""How far brain embeddings are from the image embeddings that a Fusion Prior was trained on.

The contrastive loss compares directions only, so that nothing ties their lengths together. What
becomes of it is seen in the image tokens, which are all that the diffusion model gets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.painting.prior import Prior
from decoder.painting.sampler import N_TOKENS
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet


@dataclass(frozen=True)
class GapRow:
    """What embeddings of one kind are like; means over the images."""

    name: str
    length: float
    """L2 norm, before any rule."""
    length_sd: float
    """Standard deviation."""
    cosine: float
    """With the embedding of the image that was seen."""
    tokens_as_they_are: float
    """Cosine with the tokens of the image's own embedding, if the length is left as it is."""
    tokens_of_unit_length: float
    """The same of embeddings of the length 1, as live ones are."""
    tokens_by_rule: float
    """The same by the rule of `Prior.condition`."""


@torch.inference_mode()
def measure_gap(
    bundle: Bundle, prior: Prior, trial_set: TrialSet, features: Features
) -> list[GapRow]:
    """Compares the embeddings of single trials, and of all repeats of an image, with the image's.

    Args:
        bundle: trained against the prior's HVF.
        prior: what is painted with.
        trial_set: trials that the bundle has not seen.
        features: of their images.

    Returns:
        A row for the images themselves, one for single trials, one for means of all repeats.
    """
    items, groups = trial_set.draw_repeats(None, np.random.default_rng(0))
    shown = features.select([trial_set.items[item] for item in items])
    z_f = prior.hvf({name: torch.from_numpy(x) for name, x in shown.embeddings.items()})
    encoder = load_brain_encoder(bundle)
    rows = [_compared("images", z_f, z_f, prior)]
    for n in sorted({1, min(len(group) for group in groups)}):
        trials = trial_set.mean([group[:n] for group in groups])
        z_b = encoder(torch.from_numpy(trials))
        name = "brain, 1 repeat" if n == 1 else f"brain, {n} repeats"
        rows.append(_compared(name, z_b, z_f, prior))
    return rows


def cells(row: GapRow) -> Iterator[str]:
    """A row as a person reads it."""
    yield row.name
    yield f"{row.length:.3g} ± {row.length_sd:.2g}"
    yield f"{row.cosine:.3f}"
    for cosine in (row.tokens_as_they_are, row.tokens_of_unit_length, row.tokens_by_rule):
        yield f"{cosine:.3f}"


def _compared(name: str, z: Tensor, z_f: Tensor, prior: Prior) -> GapRow:
    theirs = _tokens(prior, prior.condition(z_f, rescale=False))

    def like_theirs(z: Tensor, rescale: bool) -> float:
        tokens = _tokens(prior, prior.condition(z, rescale=rescale))
        return float(functional.cosine_similarity(tokens, theirs).mean())

    lengths = torch.linalg.vector_norm(z, dim=1)
    return GapRow(
        name=name,
        length=float(lengths.mean()),
        length_sd=float(lengths.std(correction=0)),
        cosine=float(functional.cosine_similarity(z, z_f).mean()),
        tokens_as_they_are=like_theirs(z, rescale=False),
        tokens_of_unit_length=like_theirs(functional.normalize(z), rescale=False),
        tokens_by_rule=like_theirs(z, rescale=True),
    )


def _tokens(prior: Prior, z_c: Tensor) -> Tensor:
    """What the UNet attends to, (n, tokens * width)."""
    weights = prior.adapter["image_proj"]
    tokens = functional.linear(z_c, weights["proj.weight"], weights["proj.bias"])
    tokens = tokens.unflatten(1, (N_TOKENS, -1))
    width = tokens.shape[-1:]
    return functional.layer_norm(
        tokens, width, weights["norm.weight"], weights["norm.bias"]
    ).flatten(1)
