"""What an untrained session paints with: a base, a prior on it, a bundle for it, and a gallery."""

from pathlib import Path

import mne
import numpy as np

from decoder.brain.mbp import MBP
from decoder.bundle import BrainEncoderRecord, HVFRecord
from decoder.hvf import HVF
from index.gallery import Gallery, save_gallery
from tests.tiny_bundle import TOY, hvf_of, tiny_bundle, tiny_preprocessing

CHANNELS = ("Fz", "Cz", "Pz", "Oz")
ENCODERS = TOY
DIM, HIDDEN = 8, 8
TMAX_S = 0.19
RATE_HZ = 100
STIMULI = ("a", "b", "c", "d")


def write_models(folder: Path, dim: int = DIM) -> Path:
    """`base`, `prior`, `bundle` and `gallery`, which fit each other, in a folder; returns it."""
    import torch

    from tests.tiny_sdxl import write_tiny_base  # diffusers takes seconds, and recordings need none

    torch.manual_seed(0)
    write_tiny_base(folder / "base")
    hvf = hvf_of(ENCODERS, dim, HIDDEN)
    write_prior(folder / "prior", hvf, dim)
    space = write_bundle(folder / "bundle", hvf, dim)
    eye = np.eye(dim, dtype=np.float32)[: len(STIMULI)]
    pictures = [np.full((32, 48, 3), 60 * n, np.uint8) for n in range(len(STIMULI))]
    gallery = Gallery(STIMULI, STIMULI, eye, space, ENCODERS, "test")
    save_gallery(folder / "gallery", gallery, pictures)
    return folder


def write_prior(folder: Path, hvf: HVF, dim: int, **more: object) -> None:
    from decoder.painting.prior import PriorManifest, make_projector, save_prior
    from tests.tiny_sdxl import WIDTH, tiny_adapter, tiny_unet

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
    brain = MBP(len(CHANNELS), 20, dim, HIDDEN)
    format = tiny_preprocessing(CHANNELS, RATE_HZ, TMAX_S)
    record = BrainEncoderRecord(hidden=HIDDEN)
    return tiny_bundle(folder, brain, hvf, **format, brain_encoder=record).manifest.space


def write_recording(path: Path, stimuli: str, soa_s: float = 0.5) -> Path:
    """A recording of noise in which a stimulus is shown for every letter; returns its path."""
    n = round((len(stimuli) * soa_s + 2) * RATE_HZ)
    samples = np.random.default_rng(0).standard_normal((len(CHANNELS), n)) * 1e-5
    raw = mne.io.RawArray(samples, mne.create_info(CHANNELS, RATE_HZ, "eeg"), verbose="ERROR")
    onsets_s = [1 + soa_s * i for i in range(len(stimuli))]
    raw.set_annotations(mne.Annotations(onsets_s, [0] * len(stimuli), list(stimuli)))
    raw.save(path, overwrite=True, verbose="ERROR")
    return path
