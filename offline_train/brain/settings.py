"""How a brain encoder and the HVF are trained: settings and presets, as data."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from decoder.bundle import BrainEncoderName


class TrainSettings(BaseModel):
    """How to train; the defaults are the paper's (its text has a warm-up of 10, its code none)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(25, ge=1)
    batch_size: int = Field(1024, ge=2)
    """Rows of a batch; the last batch of an epoch may be smaller."""
    repeats_per_row: int | None = Field(None, ge=1)
    """Repeats of an item that are averaged into one row, drawn anew each epoch; None = all."""
    rows_per_item: int | None = Field(1, ge=1)
    """Rows that an item gives to an epoch; None = as many as its repeats allow."""
    lr: float = Field(5e-4, ge=0)
    """At its peak; it falls to 0 along half a cosine."""
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.995)
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of all gradients together."""
    dim: int = Field(1024, ge=1)
    """Width of the embedding."""
    hidden: int = Field(1024, ge=1)
    """Inner width of the residual blocks."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of MBP and HVF; the other brain encoders have the rates of their papers."""
    target_dropout: float = Field(0.0, ge=0, lt=1)
    """Of an HVF that is frozen. The released code leaves it in training mode, with 0.1: what the
    brain is compared with is then noisy."""
    encoder: BrainEncoderName = "mbp"
    prefix_share: float = Field(0.0, ge=0, le=1)
    """Share of the rows that show only a prefix of their trial, drawn anew each epoch, so that
    answers before the end of the window are good ones."""
    prefix_min_s: float = Field(0.1, ge=0)
    """Shortest prefix; the others are as likely up to the whole window."""
    logit_scale: float = math.log(1 / 0.07)
    """At the start; it is learnt."""
    seed: int = Field(2025, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where there is one."""


PRESETS = {
    "live": TrainSettings(prefix_share=0.5),
    "paper": TrainSettings(),
    "released": TrainSettings(warmup_steps=0, target_dropout=0.1),
    "demo": TrainSettings(batch_size=256, prefix_share=0.5),
}
"""The paper's with early answers for live sessions; the paper's; as its code has it; and for the
demo's fewer images."""
