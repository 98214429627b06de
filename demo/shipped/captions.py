"""The words that the demo's diffusion model understands: what a picture shows, slot by slot.

SDXL learnt to paint from captions, and a Fusion Prior then speaks to it through the same
cross-attention. The demo's small UNet learns so as well: each slot of a caption, such as the
shape, is one token. As with SDXL only the empty caption is shipped, as two constant tensors.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from demo.stimuli import ATTRIBUTES, Stimulus

_SIDES = ("left", "middle", "right")
_HORIZONS = ("low", "middle", "high")
_LIGHTS = ("from the left", "from the right")
SLOTS = ATTRIBUTES | {"side": _SIDES, "horizon": _HORIZONS, "light": _LIGHTS}
UNSAID = 0
"""The number of a word that is left out; the others count from 1."""


def caption_of(stimulus: Stimulus) -> tuple[int, ...]:
    """The number of the word in each slot."""
    scene = stimulus.scene
    words = stimulus.attributes | {
        # Thirds of the ranges that scenes are drawn from.
        "side": _SIDES[int(np.digitize(scene.side, (-0.117, 0.117)))],
        "horizon": _HORIZONS[int(np.digitize(scene.horizon, (0.287, 0.353)))],
        "light": _LIGHTS[int(scene.light_azimuth_rad > 0)],
    }
    return tuple(1 + values.index(words[slot]) for slot, values in SLOTS.items())


def captions_of(listed: Sequence[Stimulus]) -> NDArray[np.int64]:
    """Captions of stimuli, (n, slots)."""
    return np.array([caption_of(stimulus) for stimulus in listed])


class CaptionEncoder(nn.Module):
    """A table of tokens for each slot, in the place of SDXL's two text encoders.

    Args:
        width: of a token, and of the pooled embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [1 + len(values) for values in SLOTS.values()]
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.pool = nn.Linear(width, width)

    def forward(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """From word numbers (n, slots) to tokens (n, slots, width) and pooled (n, width)."""
        tokens = torch.stack([t(captions[:, i]) for i, t in enumerate(self.tables)], dim=1)
        return tokens, self.pool(tokens.mean(dim=1))

    def empty(self) -> tuple[Tensor, Tensor]:
        """The empty caption: (1, slots, width) and (1, width)."""
        return self(torch.full((1, len(self.tables)), UNSAID))
