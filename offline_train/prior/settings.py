"""How a Fusion Prior is trained: settings and presets, as data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PriorSettings(BaseModel):
    """The defaults are the paper's text (HVF, ICLR 2026); presets name what differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100_000, ge=1)
    batch_size: int = Field(32, ge=1)
    """Images of a step, over all GPUs."""
    parts: int = Field(1, ge=1)
    """A GPU's share of a batch is computed in this many parts, one after the other, and each step
    is the same but for rounding: for GPUs with little memory."""
    recompute: bool = False
    """Computes what lies inside of the UNet again in the backward pass, in place of keeping it:
    half of the memory for a third more time."""
    lr: float = Field(1e-4, ge=0)
    """Constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    grad_clip: float | None = Field(1.0, gt=0)
    """Largest norm of all gradients together. The released code means to clip and does not: its
    parameters are an iterator that the optimiser has used up. None does as it does."""
    shuffle: bool = True
    """The released code reads the images in order."""
    dropped: float = Field(0.1, ge=0, le=1)
    """Share of the images whose condition is zeros, so that guidance knows what is without."""
    size_px: int | None = Field(None, ge=8)
    """Of the pictures that are learnt from; None: the base's. The paper's are 512."""
    dim: int = Field(1024, ge=1)
    """Width of z_f and z_c."""
    hvf_hidden: int = Field(4096, ge=1)
    projector_hidden: int = Field(4096, ge=1)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Of the mean of the weights that is kept as the result; 0 keeps the last weights, as the
    released code does."""
    precision: Literal["no", "bf16"] = "bf16"
    """What the UNet computes in; what is learnt stays in float32."""
    n_samples: int = Field(8, ge=0)
    """Images that are not learnt from, and painted from time to time to look at."""
    sample_every: int = Field(2000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between two states that are kept to go on from."""
    log_every: int = Field(50, ge=1)
    """Steps between two points of the curves; only then does the host wait for the GPU."""
    seed: int = Field(2025, ge=0)
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: a GPU where there is one."""


PRESETS = {
    "paper": PriorSettings(size_px=512),
    "released": PriorSettings(
        size_px=512, steps=40_000, grad_clip=None, shuffle=False, ema_decay=0.0
    ),
    "demo": PriorSettings(
        steps=1200,
        batch_size=64,
        lr=1e-3,
        dim=512,
        hvf_hidden=512,
        projector_hidden=1024,
        ema_decay=0.998,
        sample_every=500,
        checkpoint_every=250,
    ),
}
"""The paper's; what its released code does; and one for the demo's small base."""
