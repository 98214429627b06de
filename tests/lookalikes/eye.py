"""Images in which there is to be seen what the made-up brain answers, and an eye that sees it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from index.encoders.parts import Parts, squared
from index.encoders.spec import EncoderSpec
from tests.lookalikes.brain import seen_in

EYE = "tests.lookalikes.eye:eye:8px"


def eye(spec: EncoderSpec) -> Parts:
    """The colours of the upper and the lower half."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten())

    def prepare(image: NDArray[np.uint8]) -> Tensor:
        return 8 * (squared(image, 8) - 0.5)

    return Parts(network, prepare, network)


def write_seen(folder: Path, shown: Mapping[str, str]) -> Path:
    """An image for each id, in which there is to be seen what is in another one, or in itself."""
    folder.mkdir()
    for name, image in shown.items():
        colours = np.clip(128 + 32 * seen_in(image).reshape(3, 2), 0, 255).round().astype(np.uint8)
        pixels = np.repeat(colours.T[:, None], 4, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder
