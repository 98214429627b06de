"""Answers: from a trial's float32 array on the host to the best five images on the host.

Every engine that a session has runs MBP and multiplies the gallery, and the host ranks; beside them
all of that, the best five and the total over all images too, as one captured graph.
"""

import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decoder.brain.mbp import MBP
from decoder.engines.choice import ON_CPU, EngineName, Precision
from decoder.engines.graph import Scored, UnitLength, in_half
from decoder.engines.open import open_engine
from hvf_core.problem import Problem
from index.search.dense import Dense
from stream.bench.gpu.card import Captured, Card, Figures
from stream.bench.gpu.sections import Cell

K = 5
FACTOR = 30.0
"""On cosines, as a calibrated bundle has it."""
_CHECKED = 20


def cells(card: Card) -> Iterator[Cell]:
    """MBP at the paper's size with 63 and 17 channels, whole and what is left at a trial's end."""
    dim, sizes = (16, (20,)) if card.tiny else (1024, (200, 16_540))
    shapes = ((6, 20),) if card.tiny else ((63, 250), (17, 250))
    torch.manual_seed(0)
    for shape, n in product(shapes, sizes):
        encoder = MBP(*shape, dim, dim).eval().requires_grad_(False)
        whole, rest = UnitLength(encoder), UnitLength(encoder.head)
        gallery = drawn(n, dim, torch.device("cpu"), torch.float32)
        about = f"MBP {shape[0]} x {shape[1]}, {n:,} images"
        wanted: list[tuple[EngineName, Precision]] = [("cuda_graph", "fp32")]
        if shape == shapes[0]:
            wanted += [("cuda_graph", "fp16"), ("torch", "fp32"), ("torch", "fp16")]
        if n == sizes[0] and shape == shapes[0]:
            wanted += [("onnx", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "fp16")]
        for precision in ("fp32", "fp16"):
            way = partial(_one_graph, card, whole, gallery, shape, precision)
            yield Cell(f"{about}: all in one graph, {precision}", 6, way)
        for name, precision in wanted:
            ask = partial(_engine, card, whole, gallery, shape, name, precision)
            yield Cell(f"{about}: {name} {precision}", 60 if name == "tensorrt" else 8, ask)
        if shape == shapes[0]:
            about = f"what is left of it at a trial's end, {n:,} images"
            yield Cell(
                f"{about}: all in one graph, fp32",
                6,
                partial(_one_graph, card, rest, gallery, (dim,), "fp32"),
            )
            ask = partial(_engine, card, rest, gallery, (dim,), "cuda_graph", "fp32")
            yield Cell(f"{about}: cuda_graph fp32", 6, ask)


def drawn(n: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Directions drawn at random, (n, dim), of unit length: no images have them."""
    rows = torch.randn(n, dim, device=device, dtype=dtype)
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))


def ranked(cosines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What an answer says of all cosines (n,): the best rows, their cosines, log of the total."""
    best = cosines.topk(K)
    return best.indices, best.values, (FACTOR * cosines).logsumexp(0)[None]


def graph_of_answers(
    card: Card, unit: UnitLength, gallery: Tensor, shape: tuple[int, ...], urgent: bool = True
) -> Captured:
    """From a trial to `ranked` in one graph, with copies of network and gallery on the card."""
    scored = copy.deepcopy(Scored(unit, gallery)).to(card.device)

    def work(x: Tensor) -> tuple[Tensor, ...]:
        z, cosines = scored(x[None])
        return (*ranked(cosines[0]), z[0])

    return Captured(card, work, shape, urgent=urgent)


def _one_graph(
    card: Card, unit: UnitLength, gallery: Tensor, shape: tuple[int, ...], precision: Precision
) -> Figures:
    network = in_half(unit) if precision == "fp16" else unit
    answer = graph_of_answers(card, network, gallery, shape)  # type: ignore[arg-type] # a copy
    trials = np.random.default_rng(0).standard_normal((_CHECKED, *shape), np.float32)
    same = [_best(unit, gallery, trial) == answer(trial)[0].tolist() for trial in trials]
    found = card.answers(lambda: answer(trials[0]), **_least(network, gallery, shape, precision))
    return found | {"how": answer.how, "same_top5": float(np.mean(same))}


def _engine(
    card: Card,
    unit: UnitLength,
    gallery: Tensor,
    shape: tuple[int, ...],
    name: EngineName,
    precision: Precision,
) -> Figures:
    if not card.is_gpu and name not in ON_CPU:
        raise Problem("no CUDA device")
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hvf-bench-") as folder:
        engine = open_engine(
            Scored(unit, gallery),
            shape,
            name,
            precision=precision,
            device=str(card.device),
            cache=Path(folder),
            say=said.append,
        )
    if engine.name != name:
        raise Problem(said[0])
    trial = np.random.default_rng(0).standard_normal(shape, np.float32)

    def answer() -> None:
        scores = Dense(engine(trial)[1])
        scores.top_k(K)
        scores.log_sum_exp(FACTOR)

    found = card.answers(answer, **_least(unit, gallery, shape, precision))
    return found | ({"how": _provider(card)} if name == "onnx" else {})


def _provider(card: Card) -> str:
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return "with CUDA" if has_cuda and card.is_gpu else "on the CPU"


def _least(
    network: nn.Module, gallery: Tensor, shape: tuple[int, ...], precision: Precision
) -> Figures:
    """The fewest bytes and operations of an answer: every weight and image is read once."""
    weights = list(network.parameters())
    n_weights = sum(weight.numel() for weight in weights)
    width = 2 if precision == "fp16" else 4
    n_bytes = width * n_weights + gallery.nbytes + 4 * float(np.prod(shape))
    flops = 2.0 * (n_weights + gallery.numel())
    return {"n_bytes": n_bytes, "flops": flops, "half": precision == "fp16"}


@torch.inference_mode()
def _best(unit: UnitLength, gallery: Tensor, trial: np.ndarray) -> list[int]:
    """The best rows by the CPU, in single precision."""
    (z,) = unit(torch.from_numpy(trial)[None])
    best: list[int] = functional.linear(z, gallery)[0].topk(K).indices.tolist()
    return best
