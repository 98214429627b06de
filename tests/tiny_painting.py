"""What an untrained session paints with: a base, a prior on it, a bundle for it, and a gallery."""

from pathlib import Path

import mne
import numpy as np
import torch

from decoder.brain.mbp import MBP
from decoder.bundle import (
    BrainEncoderRecord,
    BundleManifest,
    HVFRecord,
    ImageEncoderRecord,
    save_bundle,
    space_of,
)
from decoder.hvf import HVF
from decoder.painting.prior import PriorManifest, make_projector, save_prior
from index.gallery import Gallery, save_gallery
from stream.acquire.preprocess import PreprocessSettings
from tests.tiny_sdxl import WIDTH, tiny_adapter, tiny_unet, write_tiny_base

CHANNELS = ("Fz", "Cz", "Pz", "Oz")
ENCODERS = (ImageEncoderRecord(name="toy", dim=3, checksum="none"),)
DIM, HIDDEN = 8, 8
TMAX_S = 0.19
RATE_HZ = 100
STIMULI = ("a", "b", "c", "d")


def write_models(folder: Path, dim: int = DIM) -> Path:
    """`base`, `prior`, `bundle` and `gallery`, which fit each other, in a folder; returns it."""
    torch.manual_seed(0)
    write_tiny_base(folder / "base")
    hvf = HVF({"toy": 3}, dim, HIDDEN)
    write_prior(folder / "prior", hvf, dim)
    space = write_bundle(folder / "bundle", hvf, dim)
    eye = np.eye(dim, dtype=np.float32)[: len(STIMULI)]
    pictures = [np.full((32, 48, 3), 60 * n, np.uint8) for n in range(len(STIMULI))]
    gallery = Gallery(STIMULI, STIMULI, eye, space, ENCODERS, "test")
    save_gallery(folder / "gallery", gallery, pictures)
    return folder


def write_prior(folder: Path, hvf: HVF, dim: int, **more: object) -> None:
    adapter = tiny_adapter(tiny_unet(), dim)
    told = {
        "embedding_dim": dim,
        "projector_hidden": HIDDEN,
        "hvf": HVFRecord(hidden=HIDDEN),
        "cross_attention_dim": WIDTH,
        "n_cross_attentions": len(adapter["ip_adapter"]) // 2,
        "family": "tiny",
        "base": "tiny",
        "image_encoders": ENCODERS,
        "space": "",
        "z_norm": 2.0,
    }
    manifest = PriorManifest(**(told | more))
    save_prior(folder, manifest, hvf, make_projector(dim, HIDDEN), adapter)


def write_bundle(folder: Path, hvf: HVF, dim: int) -> str:
    """An untrained bundle for this HVF; returns the name of its space."""
    settings = PreprocessSettings(
        channels=CHANNELS,
        output_channels=CHANNELS,
        rate_hz=RATE_HZ,
        tmin_s=0,
        tmax_s=TMAX_S,
        whitening="none",
    )
    brain = MBP(len(CHANNELS), 20, dim, HIDDEN)
    parts = {
        name: {key: tensor.numpy() for key, tensor in module.state_dict().items()}
        for name, module in (("brain", brain), ("hvf", hvf))
    }
    manifest = BundleManifest(
        channels=CHANNELS,
        rate_hz=RATE_HZ,
        tmin_s=0,
        tmax_s=TMAX_S,
        preprocessing=settings.model_dump(mode="json"),
        brain_encoder=BrainEncoderRecord(hidden=HIDDEN),
        image_encoders=ENCODERS,
        hvf=HVFRecord(hidden=HIDDEN),
        embedding_dim=dim,
        logit_scale=2.0,
        space=space_of(parts["hvf"], ENCODERS),
    )
    save_bundle(folder, manifest, parts | {"preprocessing": {}})
    return manifest.space


def write_recording(path: Path, stimuli: str, soa_s: float = 0.5) -> Path:
    """A recording of noise in which a stimulus is shown for every letter; returns its path."""
    n = round((len(stimuli) * soa_s + 2) * RATE_HZ)
    samples = np.random.default_rng(0).standard_normal((len(CHANNELS), n)) * 1e-5
    raw = mne.io.RawArray(samples, mne.create_info(CHANNELS, RATE_HZ, "eeg"), verbose="ERROR")
    onsets_s = [1 + soa_s * i for i in range(len(stimuli))]
    raw.set_annotations(mne.Annotations(onsets_s, [0] * len(stimuli), list(stimuli)))
    raw.save(path, overwrite=True, verbose="ERROR")
    return path
