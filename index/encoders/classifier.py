"""Image encoders that are a small classifier: its penultimate layer says what is seen."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from hvf_core.specs import Frozen
from index.encoders.parts import Parts, squared
from index.encoders.spec import EncoderSpec


class SemanticNetConfig(Frozen):
    """What a weights file must say about its network; it is stored in the file's metadata."""

    size_px: int
    widths: tuple[int, ...]
    dim: int
    heads: dict[str, int]  # attribute -> number of its classes


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class SemanticNet(nn.Module):
    """Convolutions that halve the picture once per width, then one linear layer per attribute.

    The last batch norm has no scale of its own: over the training images every feature has mean 0
    and variance 1, so that embeddings of unrelated images are close to orthogonal.
    """

    def __init__(self, config: SemanticNetConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for before, width in zip((3, *config.widths[:-1]), config.widths, strict=True):
            first = not layers
            layers += [
                nn.Conv2d(before, width, 5 if first else 3, 2, 2 if first else 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            if not first:  # at full size a residual block would cost more than all the others
                layers.append(_Residual(width))
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.neck = nn.Sequential(
            nn.Linear(config.widths[-1], config.dim), nn.BatchNorm1d(config.dim, affine=False)
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(config.dim, classes) for name, classes in config.heads.items()}
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (n, 3, size_px, size_px) in 0..1 to features (n, dim)."""
        return self.neck(self.body(images * 2 - 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (n, 3, size_px, size_px) in 0..1 to logits (n, classes) per attribute."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}


def load_classifier(file: str | Path) -> SemanticNet:
    """The network in a .safetensors file; raises as the file is missing or bad."""
    with safe_open(file, framework="pt") as opened:
        config = SemanticNetConfig.model_validate_json((opened.metadata() or {}).get("config", ""))
        weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    network = SemanticNet(config)
    network.load_state_dict(weights)
    return network


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises as `load_classifier` does."""
    network = load_classifier(spec.source)
    size_px = network.config.size_px
    return Parts(network, lambda image: squared(image, size_px), network.features)
