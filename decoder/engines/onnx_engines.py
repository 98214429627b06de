"""Engines of ONNX Runtime: on one CPU thread, with CUDA, and with TensorRT.

TensorRT is reached through ONNX Runtime: onnxruntime-gpu 1.31 is built against TensorRT 10, which
the `tensorrt` packages of that version bring. No option here sets a precision; the graph has it.
"""

import contextlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from decoder.devices import stream_on
from decoder.engines.cache import engine_files, network_sha256, program_sha256
from decoder.engines.export import OPSET, export_onnx, require_onnx, session_options
from decoder.engines.passes import CannotRun, GpuBuffers, Pass, Wanted

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_CUDA_OPTIONS = {"enable_cuda_graph": "1", "use_tf32": "0"}
_TENSORRT_OPTIONS = {"trt_engine_cache_enable": "1", "trt_cuda_graph_enable": "1"}
_NETWORK = "network.onnx"

_Providers = list[tuple[str, dict[str, str]]]


def onnx_pass(wanted: Wanted) -> Pass:
    """ONNX Runtime with CUDA where the device is a GPU and its build knows it, else on the CPU.

    Raises:
        Problem: the extra `onnx` is not installed, or the exported network differs from torch.
    """
    require_onnx()
    with _files(wanted, "onnx", {}, partial(_export, wanted)) as folder:
        if wanted.device.type == "cuda" and _has(_CUDA):
            stream = stream_on(wanted.device, urgent=True)
            providers = [(_CUDA, _on_stream(stream) | _CUDA_OPTIONS)]
            return _on_gpu(wanted, _session(folder, providers), stream)
        return _on_cpu(wanted, _session(folder, [(_CPU, {})]))


def tensorrt_pass(wanted: Wanted) -> Pass:
    """ONNX Runtime with TensorRT, whose engine is built once for each kind of GPU.

    Raises:
        CannotRun: this build of ONNX Runtime has no TensorRT, or cannot load it.
        Problem: the extra `onnx` is not installed, or the exported network differs from torch.
    """
    require_onnx()
    if not _has(_TENSORRT):
        raise CannotRun("this build of onnxruntime has no TensorRT, onnxruntime-gpu has")
    stream = stream_on(wanted.device, urgent=True)

    def open_session(folder: Path) -> "onnxruntime.InferenceSession":
        options = _on_stream(stream)
        cached = {"trt_engine_cache_path": str(folder)}
        providers = [(_TENSORRT, options | _TENSORRT_OPTIONS | cached), (_CUDA, options)]
        return _session(folder, providers)

    def make(folder: Path) -> None:
        _export(wanted, folder)
        open_session(folder)  # builds the engine

    facts = {
        "gpu": torch.cuda.get_device_name(wanted.device),
        "capability": str(torch.cuda.get_device_capability(wanted.device)),
        "cuda": str(torch.version.cuda),
        "tensorrt": _tensorrt_version(),
    }
    with _files(wanted, "tensorrt", facts, make) as folder:
        return _on_gpu(wanted, open_session(folder), stream)


def runtime_faults() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its exceptions have no class of their own in common."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (value for value in vars(state).values() if isinstance(value, type))
    return tuple(kind for kind in found if issubclass(kind, Exception))


def _files(
    wanted: Wanted, name: str, facts: dict[str, str], make: Callable[[Path], None]
) -> contextlib.AbstractContextManager[Path]:
    import onnx
    import onnxruntime

    facts = facts | {
        "shape": str(wanted.shape),
        "precision": wanted.precision,
        "network": network_sha256(wanted.network),
        "program": program_sha256(),
        "opset": str(OPSET),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    return engine_files(wanted.cache, name, facts, make, wanted.say)


def _export(wanted: Wanted, folder: Path) -> None:
    export_onnx(wanted.network, wanted.shape, folder / _NETWORK, wanted.precision)


def _has(provider: str) -> bool:
    import onnxruntime

    return provider in onnxruntime.get_available_providers()


def _on_stream(stream: torch.cuda.Stream) -> dict[str, str]:
    """Torch's copies and the network share one stream, and so wait for each other."""
    return {"device_id": str(stream.device_index), "user_compute_stream": str(stream.cuda_stream)}


def _session(folder: Path, providers: _Providers) -> "onnxruntime.InferenceSession":
    import onnxruntime

    if providers[0][0] == _TENSORRT and importlib.util.find_spec("tensorrt"):
        importlib.import_module("tensorrt")  # loads the libraries that pip puts out of sight
    options = session_options()
    if providers[0][0] != _CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(
        folder / _NETWORK, options, providers=providers, enable_fallback=0
    )
    if session.get_providers()[0] != providers[0][0]:
        raise CannotRun(f"onnxruntime cannot load the libraries of its {providers[0][0]}")
    return session


def _on_cpu(wanted: Wanted, session: "onnxruntime.InferenceSession") -> Pass:
    x = np.zeros((1, *wanted.shape), np.float32)
    outputs = tuple(np.zeros(shape, np.float32) for shape in wanted.output_shapes())
    binding = session.io_binding()
    binding.bind_input("eeg", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    for place, array in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(place.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return Pass(x, outputs, partial(session.run_with_iobinding, binding), session)


def _on_gpu(
    wanted: Wanted, session: "onnxruntime.InferenceSession", stream: torch.cuda.Stream
) -> Pass:
    buffers = GpuBuffers(wanted)
    outputs = tuple(torch.zeros(shape, device=wanted.device) for shape in wanted.output_shapes())
    binding = session.io_binding()
    device = stream.device_index
    x = buffers.x
    binding.bind_input("eeg", "cuda", device, np.float32, tuple(x.shape), x.data_ptr())
    for place, y in zip(session.get_outputs(), outputs, strict=True):
        shape = tuple(y.shape)
        binding.bind_output(place.name, "cuda", device, np.float32, shape, y.data_ptr())
    torch.cuda.synchronize()

    def run() -> None:
        with torch.cuda.stream(stream):
            buffers.send()
            session.run_with_iobinding(binding)
            buffers.fetch(outputs)
        stream.synchronize()

    return buffers.as_pass(run, stream)


def _tensorrt_version() -> str:
    if not importlib.util.find_spec("tensorrt"):
        return "of the system"
    return str(importlib.import_module("tensorrt").__version__)
