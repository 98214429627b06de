"""How a Fusion Prior is trained: settings and presets, as data."""

from typing import Literal

from hvf_core.settings import Settings, setting


class PriorSettings(Settings):
    """The defaults are the paper's text (HVF, ICLR 2026); presets name what differs."""

    steps: int = setting(100_000, option="--steps", ge=1)
    """Of the optimiser."""
    batch_size: int = setting(32, option="--batch-size", ge=1)
    """Images of a step, over all GPUs."""
    parts: int = setting(1, option="--parts", ge=1)
    """Of a GPU's share of a batch, computed one after the other, to save memory. Each step is the
    same but for rounding."""
    recompute: bool = setting(False, option="--recompute")
    """Compute what lies inside of the UNet again in the backward pass, in place of keeping it:
    half of the memory for a third more time."""
    lr: float = setting(1e-4, option="--lr", ge=0)
    """Learning rate, which stays as it is."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = setting(0.01, ge=0)
    """Of AdamW."""
    grad_clip: float | None = setting(1.0, gt=0)
    """Largest norm of all gradients together. The released code means to clip and does not: its
    parameters are an iterator that the optimiser has used up. None does as it does."""
    shuffle: bool = True
    """Draw the images in a random order. The released code reads them as they come."""
    dropped: float = setting(0.1, ge=0, le=1)
    """Share of the images whose condition is zeros, so that guidance knows what is without."""
    size_px: int | None = setting(None, option="--size", ge=8)
    """Of the pictures that are learnt from; the base's by default. The paper's are 512."""
    latents: Literal["auto", "cached", "streamed"] = setting("auto", option="--latents")
    """Encode all images first and keep that on disk, or those of each step while the one before is
    computed, which takes the GPU a third longer at 512 px; auto keeps them where there is room."""
    dim: int = setting(1024, option="--dim", ge=1)
    """Width of z_f and z_c."""
    hvf_hidden: int = setting(4096, ge=1)
    """Inner width of the HVF's residual block."""
    projector_hidden: int = setting(4096, ge=1)
    """Inner width of the projector."""
    ema_decay: float = setting(0.9999, ge=0, lt=1)
    """Of the mean of the weights that is kept as the result; 0 keeps the last weights, as the
    released code does."""
    precision: Literal["no", "bf16"] = setting("bf16", option="--precision")
    """What the UNet computes in; what is learnt stays in float32."""
    n_samples: int = setting(8, option="--samples", ge=0)
    """Images that are not learnt from, and painted from time to time to look at."""
    sample_every: int = setting(2000, ge=1)
    """Steps between two looks at them."""
    checkpoint_every: int = setting(1000, ge=1)
    """Steps between two states that are kept to go on from."""
    log_every: int = setting(50, ge=1)
    """Steps between two points of the curves; only then does the host wait for the GPU."""
    seed: int = setting(2025, option="--seed", ge=0)
    """Of all that is drawn."""
    device: Literal["auto", "cpu"] = setting("auto", option="--device")
    """Where to train; a GPU where there is one."""


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
