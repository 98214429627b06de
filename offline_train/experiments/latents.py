"""What a VAE's latents tell: with their places, without them, or with the places mixed up."""

import zlib
from collections.abc import Sequence

import numpy as np

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import Problem
from index.encoders.spec import EncoderSpec
from offline_train.checkpoint import identify
from offline_train.data.features import Features
from offline_train.experiments.settings import Latents

_CHANNELS = 4
"""Of the latents of Stable Diffusion's VAEs."""


def with_latents(features: Features, specs: Sequence[EncoderSpec], how: Latents) -> Features:
    """Features in which those of VAEs are as an experiment asks.

    `pooled` keeps the 4 means over all places. `shuffled` keeps all numbers and moves the places of
    each image by an order of its own: one order for all would be undone by the linear map.

    Raises:
        Problem: none of the encoders is a VAE.
    """
    if how == "flat":
        return features
    names = names_of(specs, how)
    encoders, embeddings = list[ImageEncoderRecord](), dict[str, np.ndarray]()
    for encoder in features.encoders:
        found = features.embeddings[encoder.name]
        if (name := names[encoder.name]) != encoder.name:
            latents = found.reshape(len(found), _CHANNELS, -1)
            made = latents.mean(axis=2) if how == "pooled" else _shuffled(latents, features.items)
            found = made.reshape(len(found), -1)
            checksum = identify([encoder.checksum, how])
            encoder = ImageEncoderRecord(name=name, dim=found.shape[1], checksum=checksum)
        encoders.append(encoder)
        embeddings[encoder.name] = found
    return Features(features.items, tuple(encoders), embeddings)


def names_of(specs: Sequence[EncoderSpec], how: Latents) -> dict[str, str]:
    """What image encoders are called whose latents are as asked, by the names that they have.

    Raises:
        Problem: they are to be changed, and none of the encoders is a VAE.
    """
    vaes = {spec.name for spec in specs if spec.kind == "diffusers-vae"}
    if how != "flat" and not vaes:
        raise Problem(
            f"the latents are to be {how}, and none of the encoders "
            f"{', '.join(spec.name for spec in specs)} is a VAE: leave `latents` out"
        )
    change = "" if how == "flat" else f"-{how}"
    return {spec.name: spec.name + change * (spec.name in vaes) for spec in specs}


def _shuffled(latents: np.ndarray, items: Sequence[str]) -> np.ndarray:
    """(images, channels, places) with the places of each image in an order that its id decides."""
    orders = [np.random.default_rng(zlib.crc32(item.encode())) for item in items]
    moved = [
        one[:, rng.permutation(one.shape[1])] for one, rng in zip(latents, orders, strict=True)
    ]
    return np.stack(moved)
