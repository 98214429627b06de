"""Frozen image encoders, loaded: images of any size to one float32 vector each.

The vector is always the same for the same image and weights. It is not normalised: the fusion's
linear maps take it as it comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name

import numpy as np
import torch
from numpy.typing import NDArray

from decoder.weights import weights_sha256
from hvf_core.problem import Problem
from hvf_core.specs import loading
from index.encoders.parts import Parts
from index.encoders.spec import LOADERS, EncoderSpec


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder; `checksum` is the SHA-256 of its weights, whatever file they came from."""

    spec: EncoderSpec
    checksum: str
    _parts: Parts = field(repr=False)
    _device: torch.device = field(repr=False)

    @torch.inference_mode()
    def encode(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], batch: int = 32
    ) -> NDArray[np.float32]:
        """Embeds RGB images, (n, h, w, 3) or a list of (h, w, 3) of any sizes, as (n, dim)."""
        out = np.empty((len(images), self.spec.dim), np.float32)
        for first in range(0, len(images), batch):
            part = [self._parts.prepare(_checked(image)) for image in images[first : first + batch]]
            embedded = self._parts.embed(torch.stack(part).to(self._device))
            out[first : first + batch] = embedded.float().cpu().numpy()
        return out


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise Problem(
            f"an image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
            "(height, width, 3): convert it to RGB"
        )
    return image


def load_encoder(spec: EncoderSpec, device: str = "cpu") -> ImageEncoder:
    """Loads an encoder's weights, from a file or through its hub's own cache.

    Raises Problem if they cannot be had, are damaged, or do not give `spec.dim` numbers.
    """
    if spec.path and not spec.path.exists():
        raise Problem(
            f"weights of image encoder '{spec.name}' are not at {spec.source}: "
            "put them there or correct 'source' in its spec"
        )
    way_out = "connect to the network once, or set 'source' to a local copy"
    way_out = "fetch the file again" if spec.path else way_out
    with loading(f"image encoder '{spec.name}'", spec.source, way_out):
        parts = resolve_name(LOADERS[spec.kind])(spec)
    parts.network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    encoder = ImageEncoder(spec, weights_sha256(parts.network), parts, torch.device(device))
    _try_out(encoder)
    return encoder


def _try_out(encoder: ImageEncoder) -> None:
    spec = encoder.spec
    blank = np.full((spec.size_px, spec.size_px, 3), 128, np.uint8)
    with torch.inference_mode():
        vector = encoder._parts.embed(encoder._parts.prepare(blank)[None].to(encoder._device))
    if vector.shape != (1, spec.dim):
        raise Problem(
            f"image encoder '{spec.name}' gives {vector.numel()} numbers per image, its spec says "
            f"{spec.dim}: correct 'dim' or 'source'"
        )
    if not vector.isfinite().all():
        raise Problem(
            f"image encoder '{spec.name}' gives numbers that are not finite, so its weights "
            f"'{spec.source}' are damaged: fetch them again"
        )
