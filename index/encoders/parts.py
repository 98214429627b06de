"""The parts that every kind of image encoder is made of, and pictures made square for them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Parts(NamedTuple):
    """What loading an encoder gives."""

    network: nn.Module
    prepare: Callable[[NDArray[np.uint8]], Tensor]
    """Of one RGB image."""
    embed: Callable[[Tensor], Tensor]
    """Of a batch of those."""
    settings: Mapping[str, object] = MappingProxyType({})
    """What decides the embeddings and is not in the weights, where it is not as usual for the kind:
    the checksum covers it."""


def squared(image: NDArray[np.uint8], size_px: int) -> Tensor:
    """An RGB image as (3, size_px, size_px) in 0..1: shorter side resized, middle cut out."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float().div_(255)
    height, width = tensor.shape[2:]
    scale = size_px / min(height, width)
    size = (max(size_px, round(height * scale)), max(size_px, round(width * scale)))
    if size != (height, width):
        tensor = nn.functional.interpolate(tensor, size, mode="bilinear", antialias=True)
    top, left = (size[0] - size_px) // 2, (size[1] - size_px) // 2
    return tensor[0, :, top : top + size_px, left : left + size_px]


def square_picture(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """The same as a picture to look at, (size_px, size_px, 3)."""
    return (squared(image, size_px) * 255).round().byte().permute(1, 2, 0).numpy()
