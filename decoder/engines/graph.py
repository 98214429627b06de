"""The graph that runs for one trial at a time: static, of unit length, and in half precision.

Everything here exports to ONNX without dynamic axes and without branches on data.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


class UnitLength(nn.Module):
    """A network whose embeddings have the L2 norm 1, so that inner products are cosines.

    An embedding of zeros becomes NaN, as does one that holds NaN: the caller sees both.

    Args:
        network: from (1, ...) to (1, dim).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """From (1, ...) to (z,), where z is (1, dim)."""
        z = self.network(x)
        return (z / torch.linalg.vector_norm(z, dim=-1, keepdim=True),)


class Scored(nn.Module):
    """Embeds and searches in one pass: the cosines of all images come with the embedding.

    Args:
        unit: makes the embedding.
        gallery: float32 (n, dim), L2-normalised.
    """

    gallery: Tensor

    def __init__(self, unit: UnitLength, gallery: Tensor) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("gallery", gallery)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From (1, ...) to z (1, dim) and cosines (1, n)."""
        (z,) = self.unit(x)
        return z, functional.linear(z, self.gallery)


def in_half(network: nn.Module) -> nn.Module:
    """A copy whose linear maps and convolutions run in float16, and all else in float32.

    For one trial at a time a network takes as long as its weights take to be read, and nearly all
    weights are in those layers. Norms, sums, softmax and cosines stay in float32, where they can
    neither overflow nor lose small differences; so do input and output. TensorRT 11 takes the
    precision from the graph alone, hence it is written here and not set as an option.
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) in _WEIGHTED:
                setattr(module, name, _Half(child))
    return network


class _Half(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.half()).float()
