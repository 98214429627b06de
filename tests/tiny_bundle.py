"""An untrained bundle of a few channels, for tests that need one and not what it has learnt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np

from decoder.brain.base import BrainEncoder
from decoder.brain.mbp import MBP
from decoder.brain.registry import save_networks
from decoder.bundle import BrainEncoderRecord, Bundle, ImageEncoderRecord
from decoder.hvf import HVF
from index.gallery import Gallery, save_gallery
from stream.acquire.preprocess import PreprocessSettings

CHANNELS = ("Fz", "Cz", "Pz", "Oz")
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
    defaults = tiny_preprocessing(CHANNELS, 100, 0.19) | {
        "brain_encoder": BrainEncoderRecord(hidden=8),
        "image_encoders": TOY,
        "logit_scale": 2.0,
    }
    told = defaults | told
    brain = brain or MBP(4, 20, 8, 8)
    hvf = hvf or hvf_of(told["image_encoders"], brain.dim)
    return save_networks(directory, brain, hvf, arrays or {}, **told)


def tiny_models(folder: Path) -> Path:
    """Writes the `bundle` and a `gallery` of eight images that fits it; returns the folder."""
    manifest = tiny_bundle(folder / "bundle").manifest
    eye, rows = np.eye(8, dtype=np.float32), tuple("abcdefgh")
    save_gallery(folder / "gallery", Gallery(rows, rows, eye, manifest.space, TOY, "test"))
    return folder


def tiny_recording(folder: Path) -> Path:
    """Two images of that gallery and an unknown one are shown, in the channels of the bundle."""
    samples = np.random.default_rng(0).standard_normal((4, 500)) * 1e-5
    raw = mne.io.RawArray(samples, mne.create_info(CHANNELS, 100, "eeg"), verbose="ERROR")
    raw.set_annotations(mne.Annotations([1, 2, 3], [0, 0, 0], ["a", "who", "b"]))
    raw.save(folder / "toy_raw.fif", verbose="ERROR")
    return folder / "toy_raw.fif"
