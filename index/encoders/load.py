"""Frozen image encoders, loaded: images of any size to one float32 vector each.

The vector is always the same for the same image and weights. It is not normalised: the fusion's
linear maps take it as it comes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pickle import UnpicklingError
from pkgutil import resolve_name

import numpy as np
import torch
from huggingface_hub.errors import HTTPError
from numpy.typing import NDArray
from torch import Tensor

from decoder.weights import weights_sha256
from hvf_core.hub.load import from_hub
from hvf_core.problem import Problem
from hvf_core.specs import loading
from index.encoders.blur import behind_blur
from index.encoders.parts import Parts
from index.encoders.published import on_hub, to_fetch
from index.encoders.spec import LOADERS, PRESETS, EncoderSpec

BATCH = 32
"""Images embedded at once."""
_FAULTS = (UnpicklingError, HTTPError)
_N_NUMBERS = 64
_ROUNDING = 5e-4  # relative to the largest; hardware that rounds more only costs encoding again


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder."""

    spec: EncoderSpec
    checksum: str
    """The SHA-256 of its weights, whatever file they came from, and of what else is known to decide
    its numbers: layer, pooling, preparation, type."""
    fingerprint: tuple[float, ...]
    """Some numbers of what it gives for one picture: a checksum cannot know all that decides it."""
    _parts: Parts = field(repr=False)
    _device: torch.device = field(repr=False)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """An RGB image (h, w, 3) of any size as the network takes it, which is small."""
        return self._parts.prepare(_checked(image))

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Embeds what `prepare` gave, all at once, as (n, dim)."""
        dtype = getattr(torch, self.spec.dtype)
        embedded = self._parts.embed(torch.stack(list(prepared)).to(self._device, dtype))
        return embedded.float().cpu().numpy()

    def encode(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], batch: int = BATCH
    ) -> NDArray[np.float32]:
        """Embeds RGB images, (n, h, w, 3) or a list of (h, w, 3) of any sizes, as (n, dim)."""
        out = np.empty((len(images), self.spec.dim), np.float32)
        for first in range(0, len(images), batch):
            part = [self.prepare(image) for image in images[first : first + batch]]
            out[first : first + batch] = self.embed(part)
        return out


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise Problem(
            f"an image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
            "(height, width, 3): convert it to RGB"
        )
    return image


def load_encoders(specs: Sequence[EncoderSpec], device: str = "cpu") -> list[ImageEncoder]:
    """Loads several; where a preset's are not here, what to fetch is said for all of it."""
    presets = (name for name, preset in PRESETS.items() if preset.encoders == tuple(specs))
    preset = next(presets, None)
    return [load_encoder(spec, device, preset) for spec in specs]


def load_encoder(spec: EncoderSpec, device: str = "cpu", preset: str | None = None) -> ImageEncoder:
    """Loads an encoder's weights, from a file or through its hub's own cache.

    Args:
        preset: that it was asked for with.

    Returns:
        The encoder; its spec says how many numbers it gives, and of how many pixels.

    Raises:
        Problem: they cannot be had, are damaged, or do not give `spec.dim` numbers.
    """
    if spec.path and not spec.path.exists():
        raise Problem(
            f"weights of image encoder '{spec.name}' are not at {spec.source}: "
            "put them there or correct 'source' in its spec"
        )
    what, load = f"image encoder '{spec.name}'", partial(resolve_name(LOADERS[spec.kind]), spec)
    with loading(what, spec.source, "fetch it again, or correct its spec", *_FAULTS):
        parts: Parts = from_hub(what, *to_fetch(spec, preset), load) if on_hub(spec) else load()
    if spec.blur_px is not None:
        parts = behind_blur(parts, spec.blur_px)
    where, dtype = torch.device(device), getattr(torch, spec.dtype)
    parts.network.eval().requires_grad_(False)
    parts.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if any(tensor.dtype is not dtype for tensor in parts.network.parameters()):
        parts.network.to(dtype)  # a VAE of diffusers warns where there is nothing to do
    settings = json.dumps(parts.settings, sort_keys=True) if parts.settings else ""
    checksum = weights_sha256(parts.network, settings)
    size_px = spec.size_px or parts.prepare(np.zeros((64, 64, 3), np.uint8)).shape[-1]
    spec = spec.model_copy(update={"size_px": size_px})
    vector = _tried_out(ImageEncoder(spec, checksum, (), parts, where))
    chosen = np.linspace(0, len(vector) - 1, min(len(vector), _N_NUMBERS)).astype(int)
    spec = spec.model_copy(update={"dim": len(vector)})
    return ImageEncoder(spec, checksum, tuple(vector[chosen].tolist()), parts, where)


def same_encoder(fingerprint: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two of the same weights give the same embeddings, but for rounding."""
    ours, theirs = np.array(fingerprint), np.array(other)
    if ours.shape != theirs.shape:
        return False
    return bool((np.abs(ours - theirs) <= _ROUNDING * np.abs(ours).max()).all())


def _tried_out(encoder: ImageEncoder) -> NDArray[np.float32]:
    """What it gives for a picture of hard edges, neither square nor of the network's size."""
    spec = encoder.spec
    colours = (np.arange(9 * 12 * 3) * 101 % 256).astype(np.uint8).reshape(9, 12, 3)
    edge_px = spec.size_px // 6 + 1
    vectors = encoder.embed([encoder.prepare(colours.repeat(edge_px, 0).repeat(edge_px, 1))])
    n = vectors.size
    if vectors.shape != (1, spec.dim or n):
        raise Problem(
            f"image encoder '{spec.name}' gives {n} numbers per image, its spec says "
            f"{spec.dim}: correct 'dim' or 'source'"
        )
    if not np.isfinite(vectors).all():
        raise Problem(
            f"image encoder '{spec.name}' gives numbers that are not finite, so its weights "
            f"'{spec.source}' are damaged: fetch them again"
        )
    return vectors[0]
