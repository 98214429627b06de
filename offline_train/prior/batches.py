"""Batches of a Fusion Prior's training: images, noise, and how much of it, drawn by step."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from decoder.painting.base import DiffusionBase
from hvf_core.problem import Problem
from offline_train.data.features import Encoded, Features
from offline_train.prior.settings import PriorSettings

_AHEAD = 2
"""Steps that are drawn while one is computed."""
Seen = Features | Encoded
"""What image encoders see in images: in memory, or read from disk as it is needed."""


def n_learnt(n_images: int, settings: PriorSettings) -> int:
    """How many images are learnt from, as the last ones are only looked at.

    Raises:
        Problem: none.
    """
    if n_images <= settings.n_samples:
        raise Problem(
            f"{n_images} images, of which {settings.n_samples} are only looked at, leave nothing "
            "to learn from: give more images, or fewer --samples"
        )
    return n_images - settings.n_samples


class Latents(Protocol):
    """Latents (images, 4, side, side) in memory, on disk, or made when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: NDArray[np.intp], /) -> np.ndarray: ...


@dataclass(frozen=True)
class Part:
    """The inputs of `PriorNetworks.forward`, and what it should find."""

    seen: tuple[Any, ...]
    noise: Tensor


class Draws:
    """What each step is made of: images, noise, and how much of it."""

    def __init__(
        self,
        latents: Latents,
        features: Seen,
        base: DiffusionBase,
        settings: PriorSettings,
        accelerator: Accelerator,
    ) -> None:
        self._latents, self._features, self._settings = latents, features, settings
        self._rank, self._n_ranks = accelerator.process_index, accelerator.num_processes
        self._device = accelerator.device
        self._n_images = n_learnt(len(features.items), settings)
        self._signal_shares = base.scheduler.alphas_cumprod.float().to(self._device)
        n_parts = self._n_ranks * settings.parts
        if settings.batch_size % n_parts:
            raise Problem(
                f"a batch of {settings.batch_size} images cannot be shared by {self._n_ranks} "
                f"processes in {settings.parts} parts each: give a multiple of {n_parts} as "
                "--batch-size"
            )
        n = settings.batch_size // n_parts
        side = latents.shape[-1] * 8
        sizes = torch.tensor([[side, side, 0, 0, side, side]], device=self._device)
        self._condition = {
            "text_embeds": base.pooled_prompt_embeds.expand(n, -1).contiguous(),
            "time_ids": sizes.expand(n, -1).to(base.dtype),
        }
        self._epoch, self._order = -1, np.empty(0, np.intp)

    def ahead(self, steps: range) -> Generator[list[Part], None, None]:
        """What `of` gives for each step, of which a thread makes the next ones meanwhile."""
        thread = ThreadPoolExecutor(1, initializer=self._enter_thread)
        waiting = deque[Future[list[Part]]]()
        try:
            for step in steps:
                waiting.append(thread.submit(self.of, step))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)

    def _enter_thread(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # which every thread has of its own

    def of(self, step: int) -> list[Part]:
        """This process's share of a step, in parts."""
        settings = self._settings
        rows = self._rows(step)
        rng = torch.Generator().manual_seed(seed_of_step(settings.seed, step))
        # All of the batch in every process, so that it does not matter how many there are.
        noise = torch.randn(len(rows), *self._latents.shape[1:], generator=rng)
        times = torch.randint(len(self._signal_shares), (len(rows),), generator=rng)
        dropped = torch.rand(len(rows), generator=rng) < settings.dropped
        share = len(rows) // self._n_ranks
        of_part = np.split(np.arange(self._rank * share, (self._rank + 1) * share), settings.parts)
        return [self._drawn(rows[i], noise[i], times[i], dropped[i]) for i in of_part]

    def _drawn(self, rows: np.ndarray, noise: Tensor, times: Tensor, dropped: Tensor) -> Part:
        clean = torch.from_numpy(np.asarray(self._latents[rows], np.float32))
        embeddings = {n: torch.from_numpy(x) for n, x in self._features.at(rows).items()}
        clean, noise, times, dropped = map(self._sent, (clean, noise, times, dropped))
        embeddings = {name: self._sent(x) for name, x in embeddings.items()}
        kept = self._signal_shares[times].view(-1, 1, 1, 1)
        # Ho et al., NeurIPS 2020, equation 4.
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        return Part((noisy, times, embeddings, dropped, self._condition), noise)

    def _sent(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()  # or else the host waits for the copy
        return tensor.to(self._device, non_blocking=True)

    def _rows(self, step: int) -> np.ndarray:
        """Images of a step: an epoch has each once, and the next goes on where it ends."""
        first = step * self._settings.batch_size
        wanted = np.arange(first, first + self._settings.batch_size)
        rows = np.empty(len(wanted), np.intp)
        for epoch in np.unique(wanted // self._n_images):
            here = wanted // self._n_images == epoch
            rows[here] = self._order_of(int(epoch))[wanted[here] % self._n_images]
        return rows

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.arange(self._n_images)
            if self._settings.shuffle:
                np.random.default_rng([self._settings.seed, epoch]).shuffle(self._order)
        return self._order


def seed_of_step(seed: int, step: int) -> int:
    """A seed for what is drawn in one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
