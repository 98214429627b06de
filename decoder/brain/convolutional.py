"""Convolutional brain encoders, in the forms in which the paper compares them (HVF, ICLR 2026).

A trial is a picture of one plane, channels high and times wide. No convolution pads, so every
layer shortens the time axis. A convolution that a batch norm follows has no bias: the norm would
take it away. Weights start as torch sets them; NICE says where it differs.

Each net is made from the channels and the samples of a trial, the width of the embedding and one
dropout rate for all its layers. It raises Problem when trials have too few samples for it.
"""

from torch import Tensor, nn

from decoder.brain.base import BrainEncoder
from decoder.residual import ResLinear
from hvf_core.problem import Problem


class ConvolutionalEncoder(BrainEncoder):
    """Convolutions, then a linear map of all that they leave, then one residual block.

    Args:
        features: layers from (n, 1, n_channels, n_times) to (n, filters, 1, any number of times).
        n_channels, n_times, dim: as in `BrainEncoder`.
        dropout: of the residual block, in training only.

    Raises:
        Problem: when `features` leave nothing of so few samples.
    """

    def __init__(
        self, features: nn.Sequential, n_channels: int, n_times: int, dim: int, dropout: float
    ) -> None:
        super().__init__(n_channels, n_times, dim)
        needed = _times_needed(features)
        if n_times < needed:
            raise Problem(
                f"{type(self).__name__} needs trials of at least {needed} samples, these have "
                f"{n_times}: take a longer window, a higher rate or another brain encoder"
            )
        self.features = features
        self.project = nn.Linear(_filters(features) * _times_left(features, n_times), dim)
        self.head = ResLinear(dim, dropout)

    def embed(self, trials: Tensor) -> Tensor:
        return self.head(self.project(self.features(trials.unsqueeze(1)).flatten(1)))


class ShallowNet(ConvolutionalEncoder):
    """Filters over time, then over channels, then smoothing (Schirrmeister et al. 2017).

    ELU takes the place of the original's square and logarithm. Needs 75 samples.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.5
    ) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 40, (1, 25), bias=False),
            nn.Conv2d(40, 40, (n_channels, 1), bias=False),
            nn.BatchNorm2d(40),
            nn.ELU(),
            nn.AvgPool2d((1, 51), (1, 5)),
            nn.Dropout(dropout),
        )
        super().__init__(features, n_channels, n_times, dim, dropout)


class DeepNet(ConvolutionalEncoder):
    """Four blocks of ever more filters over ever longer times (Schirrmeister et al. 2017).

    Needs 151 samples.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.5
    ) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 25, (1, 10), bias=False),
            nn.Conv2d(25, 25, (n_channels, 1), bias=False),
            *_halve(25, dropout),
        )
        for width, wider in ((25, 50), (50, 100), (100, 200)):
            features.append(nn.Conv2d(width, wider, (1, 10), bias=False))
            features.extend(_halve(wider, dropout))
        super().__init__(features, n_channels, n_times, dim, dropout)


class EEGNet(ConvolutionalEncoder):
    """Few filters, hence few weights (Lawhern et al. 2018), with full convolutions.

    Needs 95 samples.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.5
    ) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 8, (1, 64), bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, (n_channels, 1), bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 2)),
            nn.Dropout(dropout),
            nn.Conv2d(16, 16, (1, 16), bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.Dropout(dropout),
        )
        super().__init__(features, n_channels, n_times, dim, dropout)


class NICE(ConvolutionalEncoder):
    """TSConv and its projection (NICE, ICLR 2024).

    Its weights start from N(0, 0.02) and those of its batch norms from N(1, 0.02), as in the
    authors' code. Needs 75 samples.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.5
    ) -> None:
        super().__init__(ts_conv(n_channels, dropout), n_channels, n_times, dim, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)


def ts_conv(n_channels: int, dropout: float) -> nn.Sequential:
    """NICE's convolutions: over time, smoothing, over channels, and a mix of the filters."""
    return nn.Sequential(
        nn.Conv2d(1, 40, (1, 25), bias=False),
        nn.AvgPool2d((1, 51), (1, 5)),
        nn.BatchNorm2d(40),
        nn.ELU(),
        nn.Conv2d(40, 40, (n_channels, 1), bias=False),
        nn.BatchNorm2d(40),
        nn.ELU(),
        nn.Dropout(dropout),
        nn.Conv2d(40, 40, 1),
    )


def _halve(filters: int, dropout: float) -> list[nn.Module]:
    """How each block of DeepNet ends."""
    return [nn.BatchNorm2d(filters), nn.ELU(), nn.MaxPool2d((1, 2)), nn.Dropout(dropout)]


def _steps(features: nn.Sequential) -> list[tuple[int, int]]:
    """Kernel and stride along time of every layer that has them."""
    kinds = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
    layers = [layer for layer in features if isinstance(layer, kinds)]
    return [(_along_time(layer.kernel_size), _along_time(layer.stride)) for layer in layers]


def _along_time(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[1]


def _times_left(features: nn.Sequential, n_times: int) -> int:
    for kernel, stride in _steps(features):
        n_times = (n_times - kernel) // stride + 1
    return n_times


def _times_needed(features: nn.Sequential) -> int:
    """The fewest samples of which one is left."""
    n_times = 1
    for kernel, stride in reversed(_steps(features)):
        n_times = (n_times - 1) * stride + kernel
    return n_times


def _filters(features: nn.Sequential) -> int:
    return [layer.out_channels for layer in features if isinstance(layer, nn.Conv2d)][-1]
