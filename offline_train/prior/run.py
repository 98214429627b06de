"""A training of a Fusion Prior that goes on: step after step, and its state between two of them."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from hvf_core.problem import Problem
from offline_train.checkpoint import load_checkpoint, save_checkpoint, state_file
from offline_train.prior.batches import Part
from offline_train.prior.networks import PriorNetworks
from offline_train.prior.settings import PriorSettings

# Once offline_train.prior.networks has made it importable.
from diffusers.training_utils import EMAModel  # isort: skip


class Run:
    """Networks that learn, the running means of their weights, and how far they are.

    Args:
        networks: on the accelerator's device.
        settings: how they learn.
        accelerator: of the processes that learn together.
        checkpoint_dir: where the state is kept, if it is; one that is there goes on.
        training: names this one among those that are kept there.

    Attributes:
        history: step, and means since the entry before: of the loss, and of the gradients' norm.

    Raises:
        Problem: the state that is kept is damaged, or further on than is asked for.
    """

    def __init__(
        self,
        networks: PriorNetworks,
        settings: PriorSettings,
        accelerator: Accelerator,
        checkpoint_dir: Path | None,
        training: str,
    ) -> None:
        self._networks, self._settings, self._accelerator = networks, settings, accelerator
        self._checkpoint_dir, self._training = checkpoint_dir, training
        self._parameters = list(networks.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            settings.lr,
            settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._average = EMAModel(self._parameters, settings.ema_decay, foreach=True)
        names = dict(networks.named_parameters())
        self._means = dict(zip(names, self._average.shadow_params, strict=True))
        self.history: list[dict[str, float]] = []
        if checkpoint_dir is not None:
            self._go_on(checkpoint_dir)
        self._average.optimization_step = self.n_noted
        self._model = accelerator.prepare(networks)
        self._sums = torch.zeros(2, device=accelerator.device)  # of losses and gradients' norms

    @property
    def n_noted(self) -> int:
        """How many steps the history tells of."""
        return int(self.history[-1]["step"]) if self.history else 0

    def _go_on(self, checkpoint_dir: Path) -> None:
        state = (checkpoint_dir, self._training)
        self.history = load_checkpoint(*state, self._networks, self._optimizer, self._means)
        if self.n_noted > self._settings.steps:
            raise Problem(
                f"this training is {self.n_noted} steps far, and {self._settings.steps} are asked "
                f"for: give --steps {self.n_noted} or more, or begin anew by deleting its state, "
                f"'{state_file(*state)}'"
            )

    def learn(self, drawn: Sequence[Part]) -> None:
        """A step, on this process's parts of a batch; the host does not wait for the GPU."""
        settings, device = self._settings, self._accelerator.device
        self._optimizer.zero_grad()
        for i, part in enumerate(drawn):
            is_last = i == len(drawn) - 1
            alone = self._accelerator.no_sync(self._model)
            with contextlib.nullcontext() if is_last else alone:
                with torch.autocast(device.type, torch.bfloat16, settings.precision == "bf16"):
                    guess = self._model(*part.seen)
                error = functional.mse_loss(guess.float(), part.noise) / len(drawn)
                error.backward()
            self._sums[0] += error.detach()
        clip = math.inf if settings.grad_clip is None else settings.grad_clip
        self._sums[1] += nn.utils.clip_grad_norm_(self._parameters, clip)
        self._optimizer.step()
        self._average.step(self._parameters)

    def note(self, done: int) -> tuple[float, float]:
        """Enters into the history how the steps since the entry before went, up to `done`.

        It is the only time that the host waits for the GPU.

        Returns:
            Means of the loss and of the gradients' norm, over all processes.

        Raises:
            Problem: the loss is no longer finite.
        """
        n_steps = done - self.n_noted
        loss, norm = (self._accelerator.reduce(self._sums, "mean") / n_steps).tolist()
        self._sums.zero_()
        if not math.isfinite(loss):
            raise Problem(
                f"the loss is {loss} at step {done}, the training diverged: lower the "
                f"learning rate from {self._settings.lr}"
            )
        self.history.append({"step": done, "loss": loss, "gradient_norm": norm})
        return loss, norm

    def save(self) -> None:
        """Writes the state as it was noted last, where it is kept."""
        if self._checkpoint_dir is None:
            return
        state = (self._checkpoint_dir, self._training)
        networks, optimizer = self._networks, self._optimizer
        save_checkpoint(*state, networks, optimizer, self.history, self._means)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[PriorNetworks]:
        """The networks with the means of their weights, to be looked at until the block ends."""
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        yield self._networks
        self._average.restore(self._parameters)
        self._networks.use()

    def finish(self) -> PriorNetworks:
        """The networks with the means of their weights, on the CPU and in evaluation mode."""
        self._average.copy_to(self._parameters)
        return self._networks.cpu().eval()
