"""How a brain encoder and the HVF are trained: settings and presets, as data."""

import math
from typing import Literal

from decoder.brain.names import BrainEncoderName
from hvf_core.settings import Settings, setting


class TrainSettings(Settings):
    """How to train; the defaults are the paper's, but for what learns from all rows of an image.

    Where the paper (HVF, ICLR 2026) and the code that its authors released differ, a setting says
    what each does; `PAPER` and `RELEASED` are made of them.
    """

    encoder: BrainEncoderName = setting("mbp", option="--encoder")
    """The brain encoder."""
    # Not told where there are none: trainings of before keep the names that they had.
    encoder_weights: str | None = setting(
        None, option="--encoder-weights", exclude_if=lambda value: value is None
    )
    """Weights that an encoder of braindecode begins with: a folder, or OWNER/NAME on the hub."""
    loaded_lr_share: float = setting(0.2, ge=0, exclude_if=lambda value: value == 0.2)
    """Learning rate of such weights, as a share of `lr`. NeuralBench tunes them with 1e-4."""
    epochs: int = setting(25, option="--epochs", ge=1)
    """How often every stimulus is seen."""
    batch_size: int = setting(1024, option="--batch-size", ge=2)
    """Rows of a batch; the last batch of an epoch may be smaller."""
    repeats_per_row: int | None = setting(None, option="--average", ge=1)
    """Repeats of an item, by one subject, averaged into a row, drawn anew each epoch; none is all,
    1 is single trials."""
    rows_per_item: int | None = setting(1, ge=1)
    """Rows that an item of a subject gives to an epoch; none is as many as its repeats allow."""
    positives: Literal["image", "row"] = "image"
    """What a row is not pushed away from: all rows of its image in the batch, or itself alone.
    Paper and code: row, so that other subjects' and repeats' rows of an image count as wrong."""
    loss: Literal["symmetric", "one-way"] = "symmetric"
    """Whether rows find their images and images their rows, or rows alone find images."""
    fusion: Literal["sum", "gated", "given"] = setting("sum", option="--fusion")
    """How the HVF fuses encoders: by a sum, as in paper and code; by a sum of blocks of one length,
    with weights that are learnt; or not at all, where one encoder's embeddings, centred and scaled,
    are the targets."""
    # Not told where it is off: trainings of before keep the names that they had.
    blur_prior: bool = setting(False, option="--blur-prior", exclude_if=lambda value: not value)
    """Whether images are learnt less blurred where trials come near to them, and more where they do
    not (UBP, CVPR 2025); encoders have to see blurred images, as RN50:blur51 does."""
    lr: float = setting(5e-4, option="--lr", ge=0)
    """Learning rate at its peak; it falls to 0 along half a cosine."""
    warmup_steps: int = setting(10, ge=0)
    """Steps in which the learning rate climbs to its peak. Paper: 10. Code: 0."""
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
    """Of an HVF that is frozen. Paper: 0, as it is frozen. Code: 0.1, as it is left in training
    mode: what the brain is compared with is then noisy."""
    half_means: bool = False
    """Whether means of repeats are rounded to float16. Paper: does not say. Code: yes, as it
    averages in the numbers in which the data set is stored."""
    precision: Literal["float32", "bfloat16"] = setting("float32", option="--precision")
    """Of matrix products; weights and the optimiser are float32. Paper: does not say. Code:
    bfloat16."""
    prefix_share: float = setting(0.0, ge=0, le=1)
    """Share of the rows that show only a prefix of their trial, drawn anew each epoch, so that
    answers before the end of the window are good ones."""
    prefix_min_s: float = setting(0.1, ge=0)
    """Shortest prefix; the others are as likely up to the whole window."""
    logit_scale: float = math.log(1 / 0.07)
    """At the start; it is learnt."""
    hold_out: int | None = setting(None, option="--hold-out", ge=0)
    """Stimuli to calibrate on; none is a tenth, at most 200. Paper and code: 0, and the bundle is
    not calibrated."""
    subjects: Literal["together", "each", "leave-one-out"] = "together"
    """Whose trials a bundle learns from: those of all, one for each subject of its own, or one for
    each subject of all others'."""
    shape: tuple[int, int] | None = None
    """Channels and times that trials must have; none is any."""
    held_gb: float | None = setting(None, ge=0)
    """Trials that are held where the model is, in GB; more are read from the disk ahead of each
    step, which gives the same. None is half of what is free there, and at most 4 of the host's."""
    seed: int = setting(2025, option="--seed", ge=0)
    """Of all that is drawn."""
    device: Literal["auto", "cpu", "cuda"] = setting("auto", option="--device")
    """Where to train; a GPU where there is one."""


PAPER = TrainSettings(positives="row", hold_out=0)
"""Nothing is held out: 16,540 images are 425 steps."""
RELEASED = PAPER.model_copy(
    update={
        "warmup_steps": 0,
        "target_dropout": 0.1,
        "half_means": True,
        "precision": "bfloat16",
    }
)
"""The released code also takes, across subjects, the epoch that does best on the test images of the
subject left out. There is no setting for that: nothing is selected on test data here."""

EEG: tuple[int, int] = (17, 250)
"""THINGS-EEG2 of the visual channels at 250 Hz, 0 to 0.996 s."""
MEG: tuple[int, int] = (271, 201)
"""THINGS-MEG at 200 Hz, 0 to 1 s."""

PRESETS = {
    "live": TrainSettings(prefix_share=0.5),
    "paper": PAPER,
    "released": RELEASED,
    "hvf-eeg": PAPER.model_copy(update={"shape": EEG, "subjects": "each"}),
    "hvf-eeg-cross": PAPER.model_copy(update={"shape": EEG, "subjects": "leave-one-out"}),
    "hvf-meg": PAPER.model_copy(update={"shape": MEG, "subjects": "each"}),
    "hvf-meg-cross": PAPER.model_copy(update={"shape": MEG, "subjects": "leave-one-out"}),
    "arena": TrainSettings(
        fusion="given", dim=1536, repeats_per_row=1, rows_per_item=None, hold_out=0
    ),
    "demo": TrainSettings(batch_size=256, prefix_share=0.5),
}
"""The paper's with early answers for live sessions, which holds out and calibrates; the paper's; as
its code has it; the paper's on its data sets, within and across subjects; single trials against the
embeddings of DINOv2-giant (`--encoders neuralbench`), by which NeuralBench and its arena judge; and
for the demo's fewer images."""


def count_steps(n_rows: int, settings: TrainSettings) -> int:
    """Optimiser steps of a training on `n_rows` rows per epoch."""
    return settings.epochs * math.ceil(n_rows / settings.batch_size)


def learning_rate(step: int, n_steps: int, settings: TrainSettings) -> float:
    """Linear warm-up, then half a cosine down to 0; `step` counts from 0."""
    if step < settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / (n_steps - settings.warmup_steps)
    return settings.lr * (1 + math.cos(math.pi * done)) / 2
