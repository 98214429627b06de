"""What cannot be trained is refused, before images are read and encoded for it."""

from collections.abc import Sequence

import torch

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import Problem, needed
from offline_train.brain.rows import Rows
from offline_train.brain.settings import TrainSettings, count_steps, learning_rate
from offline_train.data.trial_set import TrialSet
from offline_train.together import Group


def check_trainable(
    trial_set: TrialSet,
    settings: TrainSettings,
    n_encoders: int,
    has_prior: bool = False,
    n_processes: int = 1,
) -> int:
    """Refuses trials and settings of which no training can come, as far as features do not matter.

    Args:
        trial_set: what is learnt from.
        n_encoders: of images.
        has_prior: whether the HVF is that of a Fusion Prior.
        n_processes: that share the batches.

    Returns:
        How many steps the training has.

    Raises:
        Problem: the trials are of another shape, of one stimulus alone, or of too few repeats; the
            fusion does not go with the encoders or the prior; or there are more processes than rows
            in a batch.
    """
    _check_shape(trial_set, settings)
    if len(trial_set.items) < 2:
        raise Problem(
            f"the trial set has only the stimulus {trial_set.items[0]!r}: "
            "training tells stimuli apart and needs at least two"
        )
    if settings.fusion != "sum" and has_prior:
        raise Problem(
            f"the HVF of a prior stays as it is, the fusion is to be '{settings.fusion}': leave "
            "one of both out"
        )
    if settings.fusion == "given" and n_encoders > 1:
        raise Problem(
            "targets are to be the embeddings as they are given, and these are of "
            f"{n_encoders} encoders: give one, or another fusion"
        )
    if settings.batch_size < n_processes:
        raise Problem(
            f"a batch of {settings.batch_size} rows cannot be shared by {n_processes} processes: "
            "give a larger --batch-size, or start fewer of them"
        )
    return count_steps(Rows(trial_set, settings, Group(torch.device("cpu"))).n, settings)


def check_widths(
    encoders: Sequence[ImageEncoderRecord], settings: TrainSettings, hvf_dim: int | None = None
) -> None:
    """Refuses encoders or an HVF of another width than the settings, before any image is seen.

    Args:
        hvf_dim: numbers of an embedding of a Fusion Prior's HVF.

    Raises:
        Problem: they give other than `settings.dim` numbers.
    """
    if settings.fusion == "given" and (found := encoders[0]).dim != settings.dim:
        raise Problem(
            f"targets are to be the embeddings as they are given, and '{found.name}' gives "
            f"{found.dim} numbers, the settings ask for {settings.dim}: give another encoder, or "
            f"--set dim={found.dim}"
        )
    if hvf_dim not in (None, settings.dim):
        raise Problem(
            f"the prior's HVF gives embeddings of {hvf_dim} numbers, the settings ask for "
            f"{settings.dim}: leave dim out, which is then the prior's"
        )


def climb(n_steps: int, settings: TrainSettings) -> str:
    """What is to be said of a training that ends before its learning rate is at its peak."""
    if n_steps > settings.warmup_steps:
        return ""
    reached = max(learning_rate(step, n_steps, settings) for step in range(n_steps))
    return (
        f"the learning rate climbs for {settings.warmup_steps} steps, the training has {n_steps}: "
        f"it reaches {reached:g} of {settings.lr:g}{', and nothing is learnt' * (not reached)}; "
        "give more --epochs, a smaller --batch-size, or --set warmup_steps=0"
    )


def whole_batch(n_steps: int, settings: TrainSettings) -> str:
    """What is to be said of a training whose epochs are one step each, as all fits into a batch.

    On the demo's simulated subject 200 pictures, each seen four times, gave 1.3 % top-1 so, and 7.3
    from single trials in batches of 64 (docs/first_session.md).
    """
    if n_steps > settings.epochs or settings.batch_size <= 64:
        return ""
    return (
        f"all of it fits into one batch of {settings.batch_size}, so that the training has no more "
        f"than {n_steps} steps: of so few trials `--every-trial --batch-size 64` learns more"
    )


def _check_shape(trial_set: TrialSet, settings: TrainSettings) -> None:
    found = (len(trial_set.format.channels), trial_set.format.n_times)
    if settings.shape not in (None, found):
        (n_channels, n_times), wanted = found, needed(settings.shape)
        raise Problem(
            f"the trials have {n_channels} channels and {n_times} times, the settings ask for "
            f"{wanted[0]} and {wanted[1]}: prepare them so, or take a preset for any data, such as "
            "paper"
        )
