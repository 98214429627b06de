"""What a training of a Fusion Prior will take, measured on a few images before it begins."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch

from decoder.painting.base import DiffusionBase
from hvf_core.hub.load import as_size
from hvf_core.problem import Problem
from offline_train.data.features import Encoded
from offline_train.prior.batches import Latents
from offline_train.prior.settings import PriorSettings
from offline_train.prior.training import Adapter, PriorProgress, train_prior

N_TRIED = 32
"""Images that are encoded, and learnt from, to see how long that takes."""
_STEPS = 4  # the first of which is slow
_COPIES = 8
"""Of what is learnt, on disk: a state has the weights, their mean and two moments, and for a moment
there are two states."""
T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """What a few steps of a training took."""

    step_s: float
    states_bytes: int
    """Of the states that are kept to go on from."""
    memory: str


@dataclass(frozen=True)
class Estimate:
    """What is ahead of a training; nothing of what is there already."""

    n_images: int
    features_s: float
    features_bytes: int
    latents_s: float
    """Of those that are not kept yet."""
    latents_bytes: int
    latent_s: float
    """Of a single image."""
    tried: Tried

    def keeps_latents(self, settings: PriorSettings, cache: Path) -> bool:
        """Whether they are to be kept, as the settings say and the disk has room.

        Raises:
            Problem: it has too little for what is to be kept.
        """
        free = _free(cache)
        least = self.features_bytes + self.tried.states_bytes
        most = least + self.latents_bytes
        keeps = settings.latents == "cached" or (settings.latents == "auto" and most <= free)
        if (need := most if keeps else least) > free:
            others = ", latents" if keeps else ""
            way_out = ", or make latents as they are needed (--latents streamed)" if keeps else ""
            raise Problem(
                f"'{cache}' needs {as_size(need)} for features{others} and the training's state, "
                f"and {as_size(free)} are free: name another disk with --cache{way_out}"
            )
        return keeps

    def sentence(self, settings: PriorSettings, cache: Path, keeps_latents: bool) -> str:
        """All of it, for a person."""
        encode_s, step_s, n_bytes = self.features_s, self.tried.step_s, self.features_bytes
        if keeps_latents:
            encode_s, n_bytes = encode_s + self.latents_s, n_bytes + self.latents_bytes
        else:
            step_s += self.latent_s * settings.batch_size
        return (
            f"{self.n_images} images: about {_lasting(encode_s)} to encode what is new, "
            f"{_lasting(step_s * settings.steps)} for {settings.steps} steps of "
            f"{settings.batch_size} images, {as_size(n_bytes + self.tried.states_bytes)} more in "
            f"'{cache}' ({as_size(_free(cache))} are free), and {self.tried.memory}"
        )


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What something gives, and the seconds that it took."""
    began_s = time.monotonic()
    return work(), time.monotonic() - began_s


def try_steps(
    latents: Latents,
    features: Encoded,
    base: DiffusionBase,
    settings: PriorSettings,
    start_from: Adapter | None = None,
) -> Tried:
    """Trains for a few steps, and forgets it: as all processes of a training have to.

    Args:
        latents: of the images of `features`, all of which are learnt from.
        start_from: as of `train_prior`, which refuses what does not fit.
    """
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    ends_s: list[float] = []

    def note(progress: PriorProgress) -> None:
        ends_s.append(time.monotonic())

    few = {"steps": _STEPS, "n_samples": 0, "log_every": 1}
    how = settings.model_copy(update=few)
    tried = train_prior(latents, features, base, how, note, start_from=start_from)
    step_s = float(np.diff(ends_s).min()) if ends_s else 0.0  # only the first process is told
    n_weights = sum(p.numel() for p in tried.networks.parameters())
    memory = f"{as_size(psutil.Process().memory_info().rss)} of memory"
    if on_gpu:
        memory = f"{as_size(torch.cuda.max_memory_allocated())} of each GPU's memory"
        torch.cuda.empty_cache()
    return Tried(step_s, _COPIES * 4 * n_weights, memory)


def _free(cache: Path) -> int:
    there = next(place for place in (cache, *cache.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free


def _lasting(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
