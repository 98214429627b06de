"""Steps of a denoising, and what one begins with; they can be named without torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hvf_core.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Start:
    """What painting begins from, in place of noise."""

    latents: "Tensor"
    """(n, 4, h, w) as the UNet sees them: of a picture, or the estimate of an earlier step."""
    strength: float
    """Share of the steps that are taken, with as much noise added first; 1 keeps nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise Problem(
                f"a strength of {self.strength} is no share of the steps: give one from 0 to 1"
            )


@dataclass(frozen=True)
class Step:
    """A denoising step that was taken."""

    index: int
    """Counted from 0."""
    n_steps: int
    estimate: "Tensor"
    """Clean latents (n, 4, h, w): what the picture would be if it were finished now."""
    _preview: Callable[["Tensor"], np.ndarray | None] = field(repr=False)

    def preview(self) -> np.ndarray | None:
        """The estimate to look at, uint8 (n, height, width, 3); None where none is wanted."""
        return self._preview(self.estimate)
