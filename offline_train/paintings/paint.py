"""Paints the images of a trial set in every condition, as settings ask for it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from decoder.painting.base import DiffusionBase
from decoder.painting.prior import Prior
from decoder.painting.sampler import Sampler, SamplerSettings
from index.encoders.parts import square_picture
from offline_train.paintings.scores import Paintings, paint_conditions
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
    batches: list[int] = []

    def tell(n: int) -> None:
        batches.append(n)
        progress(sum(batches), settings.samples * len(seen) * len(conditions))

    painted = paint_conditions(
        conditions,
        prior,
        sampler,
        seed=settings.seed,
        n_samples=settings.samples,
        rescale=not settings.keep_length,
        skip_projector=settings.skip_projector,
        progress=tell,
    )
    facts = settings.model_dump(include={"seed", "samples", "skip_projector", "keep_length"})
    facts |= {"base": base.spec.name, "space": prior.manifest.space}
    facts |= {"steps": sampler.steps, "size_px": sampler.size_px}
    facts["guidance"] = base.spec.guidance if settings.guidance is None else settings.guidance
    return Paintings(np.stack(seen), painted), facts
