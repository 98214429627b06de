"""Galleries of any size, looked through as a whole: an embedding on the host to the best five.

The embeddings are drawn at random, so what is found says nothing; exact search takes as long with
any. By torch: the product, the best five and the total in one captured graph. By FAISS: what
`--search faiss-gpu` does.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stream.bench.gpu.answers import FACTOR, K, drawn, ranked
from stream.bench.gpu.card import Captured, Card, Figures
from stream.bench.gpu.sections import Cell


def cells(card: Card) -> Iterator[Cell]:
    """From 200 to a million images of two widths, in single and in half precision."""
    sizes = (20,) if card.tiny else (200, 16_540, 100_000, 1_000_000)
    dims = (8,) if card.tiny else (512, 2048)
    for n, dim, dtype in product(sizes, dims, (torch.float32, torch.float16)):
        name = str(dtype).removeprefix("torch.")
        for how, search in (("torch", _torch), ("FAISS", _faiss)):
            needs_s = 3 + n * dim / (4e8 if how == "torch" else 1e8)
            ask = partial(search, card, n, dim, dtype)
            yield Cell(f"{n:,} x {dim} {name}, drawn: {how}", needs_s, ask)


def _torch(card: Card, n: int, dim: int, dtype: torch.dtype) -> Figures:
    found: Figures = {}
    with card.memory(found):
        gallery = drawn(n, dim, card.device, dtype)

        def work(z: Tensor) -> tuple[Tensor, ...]:
            return ranked(functional.linear(z.to(dtype)[None], gallery)[0].float())

        answer = Captured(card, work, (dim,))
        query = gallery[n // 2].float().cpu().numpy()
        found["finds_itself"] = bool(answer(query)[0][0] == n // 2)
        least = _least(n, dim, dtype)
        found |= card.figures(lambda: answer(query), 500, waits=False, **least)
        found["how"] = answer.how
    return found


def _faiss(card: Card, n: int, dim: int, dtype: torch.dtype) -> Figures:
    from index.search.gpu import open_gpu, refuse_no_gpu

    refuse_no_gpu()
    found: Figures = {}
    with card.memory(found):
        embeddings = drawn(n, dim, card.device, torch.float32).cpu().numpy()
        search = open_gpu(embeddings, half=dtype == torch.float16)
        query = np.array(embeddings[n // 2])

        def answer() -> None:
            scores = search.scores(query)
            scores.top_k(K)
            scores.log_sum_exp(FACTOR)

        found |= card.figures(answer, 500, waits=False, **_least(n, dim, dtype))
    return found


def _least(n: int, dim: int, dtype: torch.dtype) -> Figures:
    half = dtype == torch.float16
    return {"n_bytes": float(n * dim * (2 if half else 4)), "flops": 2.0 * n * dim, "half": half}
