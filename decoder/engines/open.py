"""Engines: ways to run a network for one trial at a time, and the choice among them."""

import copy
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import torch
from torch import nn

from decoder.devices import Device, device_of
from decoder.engines.cache import Say
from decoder.engines.choice import ON_CPU, ON_GPU, PASSES, EngineChoice, EngineName, Precision
from decoder.engines.compiled import can_run
from decoder.engines.export import LOWEST_COSINE
from decoder.engines.onnx_engines import runtime_faults
from decoder.engines.passes import CannotRun, Pass, Wanted
from hvf_core.problem import Problem

_FAULTS = (Problem, RuntimeError, OSError)
_N_TRIED = 16  # more than the runs after which ONNX Runtime captures a CUDA graph


class Engine:
    """A network that is ready to run, made by `open_engine`.

    Attributes:
        name: which kind of engine it is.
        precision: of the network's linear maps and convolutions.
        shape: of its input.
    """

    def __init__(self, name: EngineName, wanted: Wanted, one_pass: Pass) -> None:
        self.name = name
        self.precision = wanted.precision
        self.shape = wanted.shape
        self._pass = one_pass
        self._x = one_pass.x[0]
        self._outputs = tuple(output[0] for output in one_pass.outputs)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Runs the network; values that are not finite pass through it.

        Args:
            x: float32 `shape`.

        Returns:
            z (dim,) and, where the network gives them, the cosines of all images (n,); float32,
            and good until the next call.

        Raises:
            ValueError: when x has another shape.
        """
        if x.shape != self.shape:
            raise ValueError(f"the input has shape {x.shape}, this engine takes {self.shape}")
        np.copyto(self._x, x, casting="same_kind")
        self._pass.run()
        return self._outputs


def open_engine(
    network: nn.Module,
    shape: tuple[int, ...],
    choice: EngineChoice,
    *,
    precision: Precision = "fp32",
    device: Device = "auto",
    cache: Path,
    say: Say,
) -> Engine:
    """Opens the engine that was chosen or, where it cannot run, the next best.

    Every engine answers some random inputs before it is taken, and must agree with the network.

    Args:
        network: gives a tuple, as `decoder.engines.graph.UnitLength` and `Scored` do. The engine
            keeps a copy.
        shape: of one input, without the batch axis.
        choice: of the engine; "auto" takes the fastest one that this machine can run.
        precision: of the linear maps and the convolutions.
        device: on which it runs.
        cache: the folder in which exported networks and built engines are kept.
        say: hears, one sentence each, why an engine cannot run and what takes its place.

    Raises:
        Problem: no engine can run the network in this precision, or there is no such device.
    """
    place = device_of(device)
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    wanted = Wanted(network, shape, precision, cache, say, place)
    with torch.inference_mode():
        if not all(y.isfinite().all() for y in network(torch.ones(1, *shape))):
            raise Problem(
                "the network gives embeddings that are zero or not finite: the bundle's weights "
                "are damaged, make the bundle again"
            )
    names = _candidates(choice, wanted)
    for name, following in zip(names, (*names[1:], None), strict=True):
        try:
            return _open(name, wanted)
        except CannotRun as reason:
            if following is None:
                raise Problem(
                    f"no engine can run this network in {precision} (engine {name}: {reason}): "
                    "take the other precision, or another device"
                ) from reason
            say(f"engine {name} cannot run: {reason}; {following} is used")
    raise AssertionError("the last candidate returns or raises")


def _candidates(choice: EngineChoice, wanted: Wanted) -> tuple[EngineName, ...]:
    on_gpu, say = wanted.device.type == "cuda", wanted.say
    why = "the device is the CPU" if torch.cuda.is_available() else "no CUDA device"
    order = ON_GPU if on_gpu else ON_CPU
    if choice != "compiled" and not can_run(wanted.network):
        order = tuple(name for name in order if name != "compiled")
    if choice == "auto":
        if not on_gpu:
            say(f"{why}: the engines cuda_graph and tensorrt are left out")
        return order
    if choice not in order:
        why = "the device is a GPU" if on_gpu else why
        say(f"engine {choice} cannot run: {why}; {order[0]} is used")
        return order
    return (choice, *(name for name in order if name != choice))


def _open(name: EngineName, wanted: Wanted) -> Engine:
    """Raises CannotRun."""
    try:
        engine = Engine(name, wanted, resolve_name(PASSES[name])(wanted))
        cosine = _lowest_cosine(engine, wanted)
    except _FAULTS + runtime_faults() as error:
        first_line, *_ = str(error).splitlines() or [type(error).__name__]
        raise CannotRun(first_line) from error
    if not cosine >= LOWEST_COSINE[wanted.precision]:
        raise CannotRun(f"its answers have a cosine of {cosine:.5f} to the network's")
    return engine


@torch.inference_mode()
def _lowest_cosine(engine: Engine, wanted: Wanted) -> float:
    """The lowest one of all outputs; NaN where one of them is."""
    inputs = torch.randn(_N_TRIED, *wanted.shape, generator=torch.Generator().manual_seed(0))
    cosines = []
    for x in inputs:
        for expected, found in zip(wanted.network(x[None]), engine(x.numpy()), strict=True):
            lengths = expected.norm() * np.linalg.norm(found)
            cosines.append(expected[0].numpy() @ found / lengths.item())
    return float(np.min(cosines))
