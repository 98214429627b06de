"""How a brain encoder and the HVF are trained: settings and presets, as data."""

import math
from typing import Literal

from decoder.brain.names import BrainEncoderName
from hvf_core.settings import Settings, setting


class TrainSettings(Settings):
    """How to train; the defaults are the paper's (its text has a warm-up of 10, its code none)."""

    encoder: BrainEncoderName = setting("mbp", option="--encoder")
    """The brain encoder."""
    epochs: int = setting(25, option="--epochs", ge=1)
    """How often every stimulus is seen."""
    batch_size: int = setting(1024, option="--batch-size", ge=2)
    """Rows of a batch; the last batch of an epoch may be smaller."""
    repeats_per_row: int | None = setting(None, ge=1)
    """Repeats of an item that are averaged into one row, drawn anew each epoch; none is all."""
    rows_per_item: int | None = setting(1, ge=1)
    """Rows that an item gives to an epoch; none is as many as its repeats allow."""
    lr: float = setting(5e-4, option="--lr", ge=0)
    """Learning rate at its peak; it falls to 0 along half a cosine."""
    warmup_steps: int = setting(10, ge=0)
    """Steps in which the learning rate climbs to its peak."""
    weight_decay: float = setting(0.05, ge=0)
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.995)
    """Of AdamW."""
    grad_clip: float = setting(1.0, gt=0)
    """Largest norm of all gradients together."""
    dim: int = setting(1024, ge=1)
    """Width of the embedding."""
    hidden: int = setting(1024, ge=1)
    """Inner width of the residual blocks."""
    dropout: float = setting(0.1, ge=0, lt=1)
    """Of MBP and HVF; the other brain encoders have the rates of their papers."""
    target_dropout: float = setting(0.0, ge=0, lt=1)
    """Of an HVF that is frozen. The released code leaves it in training mode, with 0.1: what the
    brain is compared with is then noisy."""
    prefix_share: float = setting(0.0, ge=0, le=1)
    """Share of the rows that show only a prefix of their trial, drawn anew each epoch, so that
    answers before the end of the window are good ones."""
    prefix_min_s: float = setting(0.1, ge=0)
    """Shortest prefix; the others are as likely up to the whole window."""
    logit_scale: float = math.log(1 / 0.07)
    """At the start; it is learnt."""
    seed: int = setting(2025, option="--seed", ge=0)
    """Of all that is drawn."""
    device: Literal["auto", "cpu", "cuda"] = setting("auto", option="--device")
    """Where to train; a GPU where there is one."""


PRESETS = {
    "live": TrainSettings(prefix_share=0.5),
    "paper": TrainSettings(),
    "released": TrainSettings(warmup_steps=0, target_dropout=0.1),
    "demo": TrainSettings(batch_size=256, prefix_share=0.5),
}
"""The paper's with early answers for live sessions; the paper's; as its code has it; and for the
demo's fewer images."""
