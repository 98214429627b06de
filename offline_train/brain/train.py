"""Trains a brain encoder and the HVF together: contrastive, a fixed number of epochs.

The recipe is the paper's (HVF, ICLR 2026). The last epoch is taken: nothing is selected.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from decoder.brain.base import BrainEncoder
from decoder.brain.registry import make_brain_encoder, save_networks
from decoder.bundle import BrainEncoderRecord, Bundle, BundleManifest, space_of
from decoder.hvf import HVF, hvf_as_given
from decoder.weights import arrays_of
from hvf_core.problem import Problem, needed
from hvf_core.provenance import provenance
from offline_train.brain.checks import check_trainable, check_widths
from offline_train.brain.loss import infonce
from offline_train.brain.pretrained import begin_with, by_rate, told, told_of, weights_of
from offline_train.brain.rows import Batch, Rows
from offline_train.brain.settings import TrainSettings, learning_rate
from offline_train.checkpoint import identify, load_checkpoint, save_checkpoint
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.seen import memory_of
from offline_train.features.blur import BlurPrior, by_level
from offline_train.together import Group


@dataclass(frozen=True)
class Progress:
    """Where a training is, after a step."""

    epoch: int
    step: int
    n_steps: int
    loss: float
    lr: float
    """With which this step was taken."""


@dataclass(frozen=True)
class TrainedModels:
    """What a training leaves, on the CPU and in evaluation mode."""

    brain: BrainEncoder
    hvf: HVF
    logit_scale: float
    history: list[dict[str, float]]
    """Mean loss, and logit scale at the end, of each epoch."""
    about_hvf: str
    """Whether it was trained as well, or frozen."""


class BrainAndImages(nn.Module):
    """All that is learnt: the brain encoder, the HVF and the scale of their cosines.

    An HVF that is given is frozen: it is no part of what is learnt.
    """

    def __init__(
        self,
        n_channels: int,
        n_times: int,
        dims: Mapping[str, int],
        settings: TrainSettings,
        frozen_hvf: HVF | None = None,
        n_images: int = 0,
        of_trials: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        widths = (settings.dim, settings.hidden)
        dropout = settings.dropout if settings.encoder == "mbp" else None
        self.brain = make_brain_encoder(
            settings.encoder, n_channels, n_times, *widths, dropout, **of_trials
        )
        gated = settings.fusion == "gated"
        learns = frozen_hvf is None
        self.hvf = HVF(dims, *widths, settings.dropout, gated) if learns else None
        self.logit_scale = nn.Parameter(torch.tensor(settings.logit_scale))
        self.one_way = settings.loss == "one-way"
        self.blur_prior = BlurPrior(n_images) if settings.blur_prior else None

    def forward(
        self, trials: Tensor, fused: Tensor, owner: Tensor, shown: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch; `owner` is the row in `fused` of each trial's image.

        A blur prior learns of it too; `shown` are then the numbers of these images among all.
        """
        return self.loss(self.brain(trials), fused, owner, shown)

    def loss(
        self, found: Tensor, fused: Tensor, owner: Tensor, shown: Tensor | None = None
    ) -> Tensor:
        """The same of trials that the brain encoder has embedded."""
        if self.blur_prior is not None:
            self.blur_prior.learn(found, fused, owner, needed(shown), self.logit_scale)
        return infonce(found, fused, owner, self.logit_scale, self.one_way)


def train(
    trial_set: TrialSet,
    features: Features,
    settings: TrainSettings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint_dir: Path | None = None,
    frozen_hvf: HVF | None = None,
    group: Group | None = None,
) -> TrainedModels:
    """Trains a brain encoder and HVF jointly with symmetric InfoNCE, or the former alone.

    The same inputs and settings give the same weights on a CPU with the same number of threads,
    also when the training is interrupted and goes on from its checkpoint. So do other numbers of
    processes, but for rounding and for what dropout draws.

    Args:
        features: of every stimulus in the trial set, and perhaps of others.
        on_progress: called after every step, in the first process.
        checkpoint_dir: where states of trainings are kept, after each epoch; one of the same data
            and settings that was interrupted goes on from there.
        frozen_hvf: trains the brain encoder against this HVF, which stays as it is: that of a
            Fusion Prior, so that what is decoded can be painted.
        group: the processes that train together, each of which calls this; by default this one
            trains alone.

    Raises:
        Problem: when `check_trainable` refuses, a stimulus has no features, the HVF has another
            width, the loss is no longer finite, or the checkpoint is damaged.
    """
    group = group or Group.alone(settings.device)
    n_encoders, has_prior = len(features.encoders), frozen_hvf is not None
    n_steps = check_trainable(trial_set, settings, n_encoders, has_prior, group.n)
    check_widths(features.encoders, settings, None if frozen_hvf is None else frozen_hvf.dim)
    if settings.fusion == "given":
        [encoder] = features.encoders
        frozen_hvf = hvf_as_given(encoder.name, encoder.dim)
    if features.items != trial_set.items:  # else a copy for nothing
        features = features.select(trial_set.items)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        run = _begun(trial_set, features, settings, frozen_hvf, group, n_steps)
        about_hvf = "trained"
        if frozen_hvf is not None:
            about_hvf = f"frozen, of the space {space_of(arrays_of(frozen_hvf), features.encoders)}"
        training = identify(_decisive(trial_set, features, settings) | {"hvf": about_hvf})
        history = []
        if checkpoint_dir is not None:
            history = load_checkpoint(checkpoint_dir, training, run.model, run.optimizer)
        group.check_same(f"{training}, {len(history)} epochs")
        rows = Rows(trial_set, settings, group)
        for epoch in range(len(history), settings.epochs):
            history.append(run.epoch(epoch, rows, on_progress))
            if checkpoint_dir is not None and group.is_first:
                save_checkpoint(checkpoint_dir, training, run.model, run.optimizer, history)
    model = run.model.cpu().eval()
    hvf = needed(model.hvf) if frozen_hvf is None else frozen_hvf
    return TrainedModels(model.brain, hvf, model.logit_scale.item(), history, about_hvf)


@dataclass(frozen=True)
class _Run:
    """A training that goes on, on the group's device."""

    model: BrainAndImages
    fuse: HVF
    """The model's own, or the one that stays as it is."""
    optimizer: torch.optim.AdamW
    images: Mapping[str, Tensor]
    """What each encoder sees in every image."""
    settings: TrainSettings
    group: Group
    n_steps: int
    """Of all epochs."""

    def epoch(
        self, number: int, rows: Rows, on_progress: Callable[[Progress], None]
    ) -> dict[str, float]:
        """Goes through all rows once, in an order that follows from the seed and the number.

        Raises:
            Problem: the loss is no longer finite.
        """
        # Seeds that follow from the epoch leave no generator's state to be kept.
        rng = np.random.default_rng([self.settings.seed, number])
        torch.manual_seed(int(rng.integers(2**63)) + self.group.rank)
        first, losses = number * self.n_steps // self.settings.epochs, []
        for step, batch in enumerate(rows.batches(rng), first + 1):
            lr = learning_rate(step - 1, self.n_steps, self.settings)
            losses.append(self._step(batch, lr))
            if not math.isfinite(losses[-1]):
                raise Problem(
                    f"the loss is {losses[-1]} at step {step}, the training diverged: "
                    f"lower lr from {self.settings.lr}, or look for broken trials"
                )
            if self.group.is_first:
                on_progress(Progress(number + 1, step, self.n_steps, losses[-1], lr))
        return {"loss": float(np.mean(losses)), "logit_scale": self.model.logit_scale.item()}

    def _step(self, batch: Batch, lr: float) -> float:
        """Learns from one batch, of which this process embeds its share; returns its loss."""
        model, group, settings = self.model, self.group, self.settings
        is_half = settings.precision == "bfloat16"
        with torch.autocast(group.device.type, torch.bfloat16, enabled=is_half):
            shown = batch.shown[group.share(len(batch.shown))]
            fused = self.fuse(_seen(self.images, shown, model.blur_prior))
            loss = model.loss(
                group.gathered(model.brain(batch.trials), len(batch.owner)),
                group.gathered(fused, len(batch.shown)),
                batch.owner,
                batch.shown,
            )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = parameters["share"] * lr
        loss.backward()
        group.average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()  # now, so that the next step has room
        return loss.item()


def _begun(
    trial_set: TrialSet,
    features: Features,
    settings: TrainSettings,
    frozen_hvf: HVF | None,
    group: Group,
    n_steps: int,
) -> _Run:
    """A training before its first step."""
    embeddings = by_level(features) if settings.blur_prior else features.embeddings
    images = {name: torch.from_numpy(x).to(group.device) for name, x in embeddings.items()}
    format, weights = trial_set.format, weights_of(settings, trial_set.format)
    model = BrainAndImages(
        len(format.channels),
        format.n_times,
        {encoder.name: encoder.dim for encoder in features.encoders},
        settings,
        frozen_hvf,
        len(features.items),
        told_of(format, weights),
    )
    begun = begin_with(model.brain, weights)
    model.to(group.device).train()
    fuse = needed(model.hvf) if frozen_hvf is None else _frozen(frozen_hvf, settings.target_dropout)
    optimizer = torch.optim.AdamW(
        by_rate(model, begun, settings.loaded_lr_share),
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return _Run(model, fuse.to(group.device), optimizer, images, settings, group, n_steps)


def _seen(
    images: Mapping[str, Tensor], shown: Tensor, blur_prior: BlurPrior | None
) -> dict[str, Tensor]:
    if blur_prior is None:
        return {name: array.index_select(0, shown) for name, array in images.items()}
    level = blur_prior.level[shown]
    return {name: array[level, shown] for name, array in images.items()}


def _frozen(hvf: HVF, dropout: float) -> HVF:
    """A copy that is not trained, and is disturbed by dropout of this rate alone."""
    copied = HVF(hvf.dims, hvf.dim, hvf.hidden, dropout).requires_grad_(False)
    copied.load_state_dict(hvf.state_dict())
    return copied


def make_bundle(
    directory: Path,
    models: TrainedModels,
    trial_set: TrialSet,
    features: Features,
    settings: TrainSettings,
    command: str,
) -> Bundle:
    """Writes what `train` made of these trials, features and settings, and where it comes from.

    A bundle that was there is replaced.

    Raises:
        Problem: when a weight is not finite, or `directory` holds something else.
    """
    format = trial_set.format
    training = _decisive(trial_set, features, settings) | {
        "hvf": models.about_hvf,
        "recording": format.provenance,
        "n_trials": len(trial_set),
        "n_items": len(trial_set.items),
        "final_loss": models.history[-1]["loss"],
        "encoder_weights": dict[str, JsonValue](models.hvf.shares),
        "checkpoint_rule": "last epoch",
        **provenance(command, "torch", "numpy"),
    }
    return save_networks(
        directory,
        models.brain,
        models.hvf,
        trial_set.preprocessing_arrays,
        memory_of(trial_set),
        **format.model_dump(exclude={"provenance"}),
        brain_encoder=BrainEncoderRecord(
            name=settings.encoder, hidden=settings.hidden, options=dict(models.brain.options)
        ),
        image_encoders=features.encoders,
        logit_scale=models.logit_scale,
        training=training,
    )


def is_of(
    bundle: BundleManifest, trial_set: TrialSet, features: Features, settings: TrainSettings
) -> bool:
    """Whether a bundle is what a training gives."""
    wanted = json.loads(json.dumps(_decisive(trial_set, features, settings)))
    return all(bundle.training.get(name) == value for name, value in wanted.items())


def _decisive(
    trial_set: TrialSet, features: Features, settings: TrainSettings
) -> dict[str, JsonValue]:
    """Everything that decides the result of a training."""
    whose = trial_set.table.get("subject")
    subjects: dict[str, JsonValue] = {}
    if whose is not None and len(np.unique(whose.codes)) > 1:  # no row mixes them
        subjects["subjects_sha256"] = hashlib.sha256(whose.codes.tobytes()).hexdigest()
    begun = weights_of(settings, trial_set.format)
    return (
        subjects
        | ({} if begun is None else {"brain_weights": told(begun)})
        | {
            "settings": to_jsonable_python(settings),
            "trials_sha256": trial_set.checksum,
            "selection_sha256": hashlib.sha256(trial_set.rows.tobytes()).hexdigest(),
            "stimuli_sha256": hashlib.sha256("\n".join(trial_set.stimuli).encode()).hexdigest(),
            "image_encoders": [encoder.model_dump() for encoder in features.encoders],
        }
    )
