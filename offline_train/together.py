"""The processes that train together, as `accelerate launch` starts them; one alone is such a group.

Each computes its share of a batch. What they compute is gathered, so that every process has the
loss of the whole batch, and their gradients are averaged: the number of processes changes nothing
but rounding, what dropout draws, and the means of batch normalisation, which are of each share.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hvf_core.problem import Problem

if TYPE_CHECKING:
    from accelerate import PartialState

WAIT = timedelta(days=7)
"""For each other: the rest waits until the first has encoded all images."""
DeviceName = Literal["auto", "cpu", "cuda"]


def joined(cpu: bool) -> "PartialState":
    """This process among those that `accelerate launch`, or another launcher, has started.

    Raises:
        Problem: several were asked for, and this one is alone.
    """
    from accelerate import PartialState

    state = PartialState(cpu=cpu, timeout=WAIT)
    if state.num_processes == 1 and _are_several_asked():
        raise Problem(
            "`accelerate launch` was asked for several processes and has started one, as it does "
            "on CPUs: start them with `python -m torch.distributed.run --nproc-per-node N -m "
            "offline_train ...`, or ask for one, without MASTER_ADDR in the environment"
        )
    return state


def _are_several_asked() -> bool:
    """Whether the launcher of accelerate, which says so, or of torch was asked for several."""
    is_said = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys()
    return is_said or os.environ.get("WORLD_SIZE", "1") != "1"


@dataclass(frozen=True)
class Group:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    n: int = 1

    @classmethod
    def alone(cls, device: DeviceName) -> "Group":
        """One process, whatever has started it."""
        return cls(torch.device(_kind(device)))

    @classmethod
    def launched(cls, device: DeviceName) -> "Group":
        """All that `accelerate launch` has started; this process alone where it was started so.

        Raises:
            Problem: several were asked for, and it has started this one alone.
        """
        if not _are_several_asked():
            return cls.alone(device)
        state = joined(cpu=_kind(device) == "cpu")
        return cls(state.device, state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """What stands in this block is done by the first process before all others."""
        if self.n > 1 and not self.is_first:
            distributed.barrier()
        yield
        if self.n > 1 and self.is_first:
            distributed.barrier()

    def share(self, n: int) -> slice:
        """Which of `n` things are this process's to compute."""
        return slice(self.rank * n // self.n, (self.rank + 1) * n // self.n)

    def gathered(self, shares: Tensor, n: int) -> Tensor:
        """All `n` rows, of which this process has computed its share.

        Gradients flow back to the share, where every process computes the same of what it gets.
        """
        if self.n == 1:
            return shares
        whole: Tensor = _Gathered.apply(shares, self, n)  # type: ignore[no-untyped-call]
        return whole

    def average_gradients(self, model: nn.Module) -> None:
        """Makes the gradients of the whole loss, which each process has, of all their shares."""
        if self.n > 1:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.n

    def check_same(self, fact: str) -> None:
        """Refuses to train with processes that have found something else than this one."""
        if self.n == 1:
            return
        found: list[Any] = [None] * self.n
        distributed.all_gather_object(found, fact)
        if len({*found}) > 1:
            raise Problem(
                f"the {self.n} processes of this training do not see the same trials, features and "
                "states: start all of them with the same command, and give a --cache on a disk "
                "that all of them share"
            )


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, group: Group, n: int) -> Tensor:
        ctx.group, ctx.n, own = group, n, group.share(n)
        whole = functional.pad(shares, (0, 0, own.start, n - own.stop))
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Times as many as there are, for the mean that is taken of them afterwards.
        return ctx.group.n * gradient[ctx.group.share(ctx.n)], None, None


@contextmanager
def told_of_others(n_processes: int, checkpoints: Path | None) -> Iterator[None]:
    """Says it in one sentence where another process of a training has ended."""
    try:
        yield
    except RuntimeError as error:
        if n_processes == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        if not re.search("gloo|nccl|connection", str(error), re.IGNORECASE):
            raise
        raise Problem(
            f"another process of this training has ended ({str(error).splitlines()[0][:120]}): see "
            "what it says, then start all of them again, which goes on from the last state in "
            f"'{checkpoints}'"
        ) from None


def _kind(device: DeviceName) -> str:
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise Problem("there is no GPU that torch can use: give --device cpu, or auto")
    return "cuda" if has_gpu and device != "cpu" else "cpu"
