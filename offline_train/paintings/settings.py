"""How paintings are made to be scored."""

from typing import Annotated

from pydantic import Field

from hvf_core.settings import Settings, setting


class PaintingsSettings(Settings):
    """What is painted of each image, and how."""

    repeats: tuple[Annotated[int, Field(ge=1)], ...] = setting((1, 4, 20), option="--repeats")
    """Numbers of trials to average."""
    samples: int = setting(1, option="--samples", ge=1)
    """Paintings of each image; the paper's are 10."""
    steps: int | None = setting(None, option="--steps", ge=1)
    """Denoising steps; as the diffusion model asks for by default."""
    guidance: float | None = setting(None, option="--guidance", ge=0)
    """Of the diffusion model; its own by default."""
    skip_projector: bool = setting(False, option="--skip-projector")
    """Paint as the paper's released code does."""
    seen: bool = setting(False, option="--seen")
    """Take trials that the bundle was trained on, and say so in all that comes of it."""
    seed: int = setting(0, option="--seed", ge=0)
    """Of the paintings and the draws of repeats."""
