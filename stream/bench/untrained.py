"""Untrained models for benchmarks: what they answer means nothing, how long they take does."""

from pathlib import Path

import numpy as np

from decoder.bundle import BrainEncoderRecord, Bundle, ImageEncoderRecord
from index.gallery import Gallery, save_gallery
from stream.acquire.settings import PreprocessSettings


def untrained_bundle(directory: Path, settings: PreprocessSettings, dim: int) -> Bundle:
    """A bundle with an untrained MBP of this width; a whitener changes nothing."""
    from decoder.brain.mbp import MBP  # here: torch takes seconds
    from decoder.brain.registry import save_networks
    from decoder.hvf import HVF

    brain = MBP(len(settings.output_channels), settings.n_times, dim, dim)
    whitens = settings.whitening == "mvnn"
    return save_networks(
        directory,
        brain,
        HVF({"toy": 3}, dim, 8),
        {"whitener": np.eye(len(settings.channels))} if whitens else {},
        channels=settings.output_channels,
        rate_hz=settings.rate_hz,
        tmin_s=settings.tmin_s,
        tmax_s=settings.tmax_s,
        preprocessing=settings.model_dump(mode="json"),
        brain_encoder=BrainEncoderRecord(hidden=dim),
        image_encoders=(ImageEncoderRecord(name="toy", dim=3, checksum="none"),),
        logit_scale=2.0,
    )


def random_gallery(directory: Path, bundle: Bundle, n_images: int) -> None:
    """A gallery of random embeddings without pictures, which a bundle can answer from."""
    manifest = bundle.manifest
    z = np.random.default_rng(0).standard_normal((n_images, manifest.embedding_dim))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    ids = tuple(map(str, range(n_images)))
    gallery = Gallery(ids, ids, z, manifest.space, manifest.image_encoders, "benchmark")
    save_gallery(directory, gallery)
