"""One run of a network: what is asked of every kind of engine, and what it makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from decoder.engines.cache import Say
from decoder.engines.choice import Precision
from decoder.engines.graph import in_half


class CannotRun(Exception):
    """Why an engine cannot run here, in a few words."""


@dataclass(frozen=True)
class Wanted:
    """What an engine is to run."""

    network: nn.Module
    """In float32, on the CPU, in evaluation mode."""
    shape: tuple[int, ...]
    """Of one input, without the batch axis."""
    precision: Precision
    cache: Path
    say: Say
    device: torch.device

    def graph(self) -> nn.Module:
        """The network in the precision that is wanted."""
        return in_half(self.network) if self.precision == "fp16" else self.network

    @torch.inference_mode()
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(output.shape) for output in self.network(torch.zeros(1, *self.shape)))


@dataclass(frozen=True)
class Pass:
    """Buffers on the host that stay where they are, and what reads the one and writes the others.

    The arrays are float32 and have a batch axis of 1.
    """

    x: np.ndarray
    outputs: tuple[np.ndarray, ...]
    run: Callable[[], None]
    alive: object
    """What `run` reaches only by its address, so that nothing else keeps it in memory."""


class GpuBuffers:
    """The input on the GPU, and pinned buffers on the host for it and for the outputs."""

    def __init__(self, wanted: Wanted) -> None:
        self.host_x = torch.zeros(1, *wanted.shape, pin_memory=True)
        self.x = self.host_x.to(wanted.device)
        self.host_outputs = tuple(
            torch.zeros(shape, pin_memory=True) for shape in wanted.output_shapes()
        )

    def send(self) -> None:
        """Queues the copy of the input to the GPU."""
        self.x.copy_(self.host_x, non_blocking=True)

    def fetch(self, outputs: tuple[Tensor, ...]) -> None:
        """Queues the copies of the outputs to the host."""
        for host, output in zip(self.host_outputs, outputs, strict=True):
            host.copy_(output, non_blocking=True)

    def as_pass(self, run: Callable[[], None], alive: object) -> Pass:
        outputs = tuple(host.numpy() for host in self.host_outputs)
        return Pass(self.host_x.numpy(), outputs, run, (self, alive))
