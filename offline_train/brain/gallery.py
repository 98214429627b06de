"""Makes a gallery: the HVF's embeddings of images, with their names."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from decoder.bundle import Bundle
from decoder.hvf import load_hvf
from index.gallery import Gallery
from offline_train.data.features import Features

BATCH = 1024
"""Images fused at a time."""


def build_gallery(
    ids: Sequence[str],
    labels: Sequence[str],
    features: Features,
    bundle: Bundle,
    created_by: str,
) -> Gallery:
    """Fuses images' features into a gallery by a bundle's HVF.

    Args:
        ids: images, in the order of the gallery's rows.
        labels: name of each image, for people.
        features: of these images, and perhaps of others.

    Raises:
        Problem: when an image has no features, or an id comes twice.
    """
    embeddings = features.select(ids).embeddings
    hvf, fused = load_hvf(bundle), []
    with torch.inference_mode():
        for start in range(0, len(ids), BATCH):
            batch = {k: torch.from_numpy(x[start : start + BATCH]) for k, x in embeddings.items()}
            fused.append(functional.normalize(hvf(batch), dim=1).numpy())
    return Gallery(
        ids=tuple(ids),
        labels=tuple(labels),
        embeddings=np.concatenate(fused),
        space=bundle.manifest.space,
        image_encoders=features.encoders,
        created_by=created_by,
    )
