"""An untrained bundle of a few channels, for tests that need one and not what it has learnt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decoder.brain.base import BrainEncoder
from decoder.brain.mbp import MBP
from decoder.brain.registry import save_networks
from decoder.bundle import BrainEncoderRecord, Bundle, ImageEncoderRecord
from decoder.hvf import HVF
from stream.acquire.preprocess import PreprocessSettings

TOY = (ImageEncoderRecord(name="toy", dim=3, checksum="none"),)


def hvf_of(encoders: Sequence[ImageEncoderRecord], dim: int = 8, hidden: int = 8) -> HVF:
    """An untrained HVF of image encoders."""
    return HVF({encoder.name: encoder.dim for encoder in encoders}, dim, hidden)


def tiny_preprocessing(channels: tuple[str, ...], rate_hz: float, tmax_s: float) -> dict[str, Any]:
    """The fields of a bundle's manifest for trials that nothing is done to, from 0 s on."""
    settings = PreprocessSettings(
        channels=channels,
        output_channels=channels,
        rate_hz=rate_hz,
        tmin_s=0,
        tmax_s=tmax_s,
        whitening="none",
    )
    return {
        "channels": channels,
        "rate_hz": rate_hz,
        "tmin_s": 0,
        "tmax_s": tmax_s,
        "preprocessing": settings.model_dump(mode="json"),
    }


def tiny_bundle(
    directory: Path,
    brain: BrainEncoder | None = None,
    hvf: HVF | None = None,
    arrays: dict[str, np.ndarray] | None = None,
    **told: Any,
) -> Bundle:
    """Writes a bundle of networks as they are; by default MBP of four channels at 100 Hz.

    Args:
        directory: where to.
        brain: the brain encoder, 8 wide by default.
        hvf: of the image encoders, by default that of one toy encoder.
        arrays: of the preprocessing.
        told: fields of the manifest that are to be others.
    """
    defaults = tiny_preprocessing(("Fz", "Cz", "Pz", "Oz"), 100, 0.19) | {
        "brain_encoder": BrainEncoderRecord(hidden=8),
        "image_encoders": TOY,
        "logit_scale": 2.0,
    }
    told = defaults | told
    brain = brain or MBP(4, 20, 8, 8)
    hvf = hvf or hvf_of(told["image_encoders"], brain.dim)
    return save_networks(directory, brain, hvf, arrays or {}, **told)
