"""Networks as ONNX files, checked against torch as they are written."""

import contextlib
import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from decoder.engines.choice import Precision
from decoder.engines.graph import in_half
from hvf_core.problem import Problem

if TYPE_CHECKING:
    import onnxruntime

# ONNX Runtime would leave a file in the temporary folder, and tell its makers of each import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
OPSET = 20  # the first with Gelu as one node; LayerNormalization is one since 17
LOWEST_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999}
_WAY_OUT: dict[Precision, str] = {
    "fp32": "run it with torch",
    "fp16": "export it in fp32, or run it with torch",
}
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INLINE_BYTES = 1_900_000_000  # a protobuf file ends at 2 GB; the graph needs some of it too
_N_IMAGES = 1000
_TOP = 5


@dataclass(frozen=True)
class ExportCheck:
    """How near the answers of an exported network are to torch's in float32."""

    n_inputs: int
    lowest_cosine: float
    """Over all inputs, between the embeddings."""
    same_top5: float
    """Share of the inputs with the same five images, in the same order."""


def require_onnx() -> None:
    """Raises Problem where the packages of the extra `onnx` are not all installed."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise Problem(
                f"{package} is not installed: run `pip install -c constraints.txt -e '.[onnx]'`"
            )


def export_onnx(
    network: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    precision: Precision,
    gallery: np.ndarray | None = None,
    n_inputs: int = 100,
) -> ExportCheck:
    """Writes a network as ONNX, for one input at a time, and runs it beside torch.

    The file has one input, `eeg`, and the outputs `z` (1, dim) and, where the network gives them,
    `cosines` (1, n); all are float32. Weights beyond 2 GB lie in a file beside it.

    Args:
        network: gives a tuple, as `decoder.engines.graph.UnitLength` and `Scored` do.
        shape: of one input, without the batch axis.
        path: of the file.
        precision: of the linear maps and the convolutions.
        gallery: float32 (n, dim), L2-normalised, for `same_top5`; None takes random images.
        n_inputs: random inputs for the check, of mean 0 and standard deviation 1, as preprocessed
            EEG has.

    Raises:
        Problem: a package is not installed, the network has an operation that ONNX has not, or
            the lowest cosine is under 0.9999 (fp32) or 0.999 (fp16).
    """
    require_onnx()
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    graph = in_half(network) if precision == "fp16" else network
    try:
        _write(graph, shape, path)
    except torch.onnx.OnnxExporterError as error:
        kind = type(network).__name__
        raise Problem(f"{kind} cannot be written as ONNX: run it with torch") from error
    check = _check(network, shape, path, gallery, n_inputs)
    if not check.lowest_cosine >= LOWEST_COSINE[precision]:
        path.unlink()
        raise Problem(
            f"{path} in {precision} has a cosine of {check.lowest_cosine:.5f} to torch, at least "
            f"{LOWEST_COSINE[precision]} was expected: {_WAY_OUT[precision]}"
        )
    return check


def session_options() -> "onnxruntime.SessionOptions":
    """ONNX Runtime on one thread, which does not spin while it waits, and quiet."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return options


def _write(graph: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    example = torch.zeros(1, *shape)
    with torch.inference_mode():
        names = ["z", "cosines"][: len(graph(example))]
    n_bytes = sum(tensor.nbytes for tensor in graph.state_dict().values())
    with _quiet():
        torch.onnx.export(
            graph,
            (example,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["eeg"],
            output_names=names,
            external_data=n_bytes > _INLINE_BYTES,
            verbose=False,
        )


def _check(
    network: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    gallery: np.ndarray | None,
    n_inputs: int,
) -> ExportCheck:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, session_options(), providers=["CPUExecutionProvider"]
    )
    inputs = torch.randn(n_inputs, 1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = np.concatenate([network(x)[0].numpy() for x in inputs])
    found = np.concatenate([session.run(["z"], {"eeg": x.numpy()})[0] for x in inputs])
    if gallery is None:
        images = np.random.default_rng(0).standard_normal((_N_IMAGES, found.shape[1]), np.float32)
        gallery = images / np.linalg.norm(images, axis=1, keepdims=True)
    same = (_best(expected, gallery) == _best(found, gallery)).all(axis=1)
    return ExportCheck(n_inputs, float((expected * found).sum(axis=1).min()), float(same.mean()))


def _best(z: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.argsort(-(z @ gallery.T), axis=1)[:, :_TOP]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporter warns of and logs from a person who can do nothing about it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
