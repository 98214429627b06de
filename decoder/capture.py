"""CUDA graphs: work on a card that is told to it once, and then launched whole.

A network of many small kernels waits for the processor that launches them one by one: of a step of
SDXL at 512 px on an H200, five sixths. What is captured reads and writes the same places of
memory each time, so whoever replays it fills its inputs and reads its output before the next time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decoder.devices import stream_on

_WARM_UPS = 3


def capture(
    step: Callable[[], object], stream: torch.cuda.Stream, pool: Any = None
) -> torch.cuda.CUDAGraph:
    """The graph of `step`, which looks at no value and always uses the same places.

    Args:
        step: queues work; what it makes has to be kept as long as the graph is.
        stream: whose kernels these are; their priority stays with them.
        pool: torch's handle of a memory for graphs that never run at the same time.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))  # which has sent the weights
    with torch.cuda.stream(stream):  # libraries allocate at first use, which a capture forbids
        for _ in range(_WARM_UPS):
            step()
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: what others do on the card meanwhile is no part of it.
    with torch.cuda.graph(graph, stream=stream, pool=pool, capture_error_mode="thread_local"):
        step()
    return graph


class _Kept(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Captured:
    """A function of tensors on a card, captured anew for each shape that it is given.

    Its output is good until the next call with inputs of the same shape.

    Args:
        work: from tensors to a tensor, without looking at any value.
        device: the card.
        pool: as `capture` has it.
    """

    def __init__(self, work: Callable[..., Tensor], device: torch.device, pool: Any) -> None:
        self._work, self._pool = work, pool
        self._stream = stream_on(device, urgent=False)
        self._kept: dict[tuple[object, ...], _Kept] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        shapes = tuple((x.shape, x.dtype, x.stride()) for x in inputs)
        kept = self._kept.get(shapes)
        if kept is None:
            kept = self._kept[shapes] = self._capture(tuple(x.clone() for x in inputs))
        for place, x in zip(kept.inputs, inputs, strict=True):
            place.copy_(x)
        kept.graph.replay()
        return kept.output

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Kept:
        made: list[Tensor] = []

        def step() -> None:
            made[:] = [self._work(*inputs)]

        graph = capture(step, self._stream, self._pool)
        return _Kept(graph, inputs, made[0])
