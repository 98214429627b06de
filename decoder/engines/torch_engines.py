"""Engines of torch alone: call by call, and as one captured CUDA graph."""

import copy
from collections.abc import Callable

import torch

from decoder.capture import capture
from decoder.devices import stream_on
from decoder.engines.passes import GpuBuffers, Pass, Wanted


def torch_pass(wanted: Wanted) -> Pass:
    """Torch, call by call."""
    if wanted.device.type == "cpu":
        return _on_cpu(wanted)
    buffers = GpuBuffers(wanted)
    step = _step(wanted, buffers)
    stream = stream_on(wanted.device, urgent=True)
    stream.wait_stream(torch.cuda.current_stream(wanted.device))  # which has sent the weights

    def run() -> None:
        with torch.cuda.stream(stream):
            step()
        stream.synchronize()

    return buffers.as_pass(run, step)


def cuda_graph_pass(wanted: Wanted) -> Pass:
    """Torch's kernels and both copies captured once, then launched all at once for every trial."""
    buffers = GpuBuffers(wanted)
    step = _step(wanted, buffers)
    stream = stream_on(wanted.device, urgent=True)
    captured = capture(step, stream)

    def run() -> None:
        with torch.cuda.stream(stream):
            captured.replay()
        stream.synchronize()

    return buffers.as_pass(run, step)


def _on_cpu(wanted: Wanted) -> Pass:
    graph = wanted.graph()
    x = torch.zeros(1, *wanted.shape)
    outputs = tuple(torch.zeros(shape) for shape in wanted.output_shapes())

    @torch.inference_mode()
    def run() -> None:
        for output, result in zip(outputs, graph(x), strict=True):
            output.copy_(result)

    return Pass(x.numpy(), tuple(output.numpy() for output in outputs), run, graph)


def _step(wanted: Wanted, buffers: GpuBuffers) -> Callable[[], None]:
    """One trial from the host to the GPU, through the network and back, queued."""
    graph = copy.deepcopy(wanted.graph()).to(wanted.device)

    @torch.inference_mode()
    def step() -> None:
        buffers.send()
        buffers.fetch(graph(buffers.x))

    return step
