"""Paints the images of a trial set in every condition, as settings ask for it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from decoder.painting.base import DiffusionBase
from decoder.painting.prior import Prior
from decoder.painting.sampler import Sampler, SamplerSettings
from hvf_core.problem import needed
from index.encoders.parts import square_picture
from offline_train.paintings.scores import Paintings
from offline_train.paintings.settings import PaintingsSettings


def paint_trials(
    conditions: Mapping[str, np.ndarray],
    prior: Prior,
    base: DiffusionBase,
    items: Sequence[str],
    read: Callable[[str], np.ndarray],
    settings: PaintingsSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Paintings, dict[str, bool | int | float | str]]:
    """Paints, and tells how it was done.

    Args:
        conditions: embeddings to paint, of `conditions_of`.
        prior: what paints, on `base`, which it fits.
        items: ids of the images, in the order of the embeddings.
        read: gives an image, uint8 (height, width, 3), by its id.
        settings: how.
        progress: told how many of the paintings are done.

    Raises:
        Problem: an image cannot be read, or the settings ask for what the base cannot do.
    """
    how = SamplerSettings(steps=settings.steps, guidance=settings.guidance, preview="none")
    sampler = Sampler(base, prior.adapter, how)
    seen = [square_picture(read(item), sampler.size_px) for item in items]
    painted = paint_conditions(conditions, prior, sampler, settings, progress)
    facts = settings.model_dump(include={"seed", "samples", "skip_projector"})
    facts |= {"base": base.spec.name, "space": prior.manifest.space}
    facts |= {"steps": sampler.steps, "size_px": sampler.size_px}
    facts["guidance"] = base.spec.guidance if settings.guidance is None else settings.guidance
    return Paintings(np.stack(seen), painted), facts


def paint_conditions(
    conditions: Mapping[str, np.ndarray],
    prior: Prior,
    sampler: Sampler,
    settings: PaintingsSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Paints every embedding `samples` times; image i has the same seeds in all conditions.

    Returns:
        uint8 (samples, images, size, size, 3) by condition.
    """
    painted = {}
    done, total = 0, settings.samples * sum(map(len, conditions.values()))
    for name, embeddings in conditions.items():
        z = torch.from_numpy(embeddings).repeat(settings.samples, 1)
        z_c = prior.condition(z, skip_projector=settings.skip_projector)
        seeds = range(settings.seed, settings.seed + len(z_c))
        parts = []
        for first in range(0, len(z_c), batch):
            part = slice(first, first + batch)
            parts.append(needed(sampler.paint(z_c[part], seeds[part])))
            done += len(parts[-1])
            progress(done, total)
        pictures = np.concatenate(parts)
        painted[name] = pictures.reshape(settings.samples, len(embeddings), *pictures.shape[1:])
    return painted
