"""Brain encoders are made, a bundle's is loaded, and a trained one kept, here."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import JsonValue

from decoder.brain.base import BrainEncoder
from decoder.brain.names import BRAINDECODE, CLASSES, BrainEncoderName
from decoder.bundle import SEEN, Bundle, BundleManifest, HVFRecord, Part, save_bundle, space_of
from decoder.hvf import HVF
from decoder.weights import arrays_of, filled


def make_brain_encoder(
    name: BrainEncoderName,
    n_channels: int,
    n_times: int,
    dim: int,
    hidden: int,
    dropout: float | None = None,
    channels: Sequence[str] = (),
    rate_hz: float = 0.0,
    options: Mapping[str, JsonValue] = MappingProxyType({}),
) -> BrainEncoder:
    """Makes an untrained brain encoder.

    Args:
        name: which one.
        n_channels, n_times, dim: as in `BrainEncoder`.
        hidden: inner width of MBP's residual block; the others have the widths of their papers.
        dropout: in training only; None takes the rate of the encoder's own paper.
        channels, rate_hz, options: as in `OfBraindecode`, for its encoders alone.

    Raises:
        Problem: when a trial is too short for the encoder's convolutions, or an encoder of
            braindecode cannot be had, or does not take such trials.
    """
    if name in BRAINDECODE:
        from decoder.brain.of_braindecode import OfBraindecode

        return OfBraindecode(BRAINDECODE[name], channels, n_times, rate_hz, dim, options)
    own: dict[str, Any] = {"hidden": hidden} if name == "mbp" else {}
    if dropout is not None:
        own["dropout"] = dropout
    return resolve_name(CLASSES[name])(n_channels, n_times, dim, **own)


def load_brain_encoder(bundle: Bundle) -> BrainEncoder:
    """Builds a bundle's brain encoder, in evaluation mode.

    Raises:
        Problem: when the bundle's tensors are not those of its encoder, or its trials are too
            short for it.
    """
    manifest = bundle.manifest
    make = partial(
        make_brain_encoder,
        manifest.brain_encoder.name,
        n_channels=len(manifest.channels),
        n_times=manifest.n_times,
        dim=manifest.embedding_dim,
        hidden=manifest.brain_encoder.hidden,
        channels=manifest.channels,
        rate_hz=manifest.rate_hz,
        options=manifest.brain_encoder.options,
    )
    return filled(make, bundle.arrays("brain"), bundle.file("brain"))


def save_networks(
    directory: Path,
    brain: BrainEncoder,
    hvf: HVF,
    arrays: Mapping[str, np.ndarray],
    seen: Mapping[str, np.ndarray] | None = None,
    **told: Any,
) -> Bundle:
    """Writes networks as a bundle; one that was there is replaced.

    `arrays` are those of the preprocessing, `seen` what is to be remembered of the training's
    trials, `told` the fields of `BundleManifest` that the networks themselves do not tell.

    Raises:
        Problem: when a weight is not finite, or `directory` holds something else.
    """
    weights = arrays_of(hvf)
    manifest = BundleManifest(
        hvf=HVFRecord(hidden=hvf.hidden, gated=hvf.gates is not None),
        embedding_dim=hvf.dim,
        space=space_of(weights, told["image_encoders"]),
        **told,
    )
    parts: dict[Part, Mapping[str, np.ndarray]] = {
        "brain": arrays_of(brain),
        "hvf": weights,
        "preprocessing": arrays,
    }
    if seen is not None:
        parts[SEEN] = seen
    return save_bundle(directory, manifest, parts)
