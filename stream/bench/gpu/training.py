"""Steps of training: MBP and HVF as the paper trains them, and the Fusion Prior on SDXL."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import needed
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import BrainAndImages
from offline_train.data.features import Features
from stream.bench.gpu.card import Card, Figures, flops_of, spread
from stream.bench.gpu.sections import Cell

_RETRIEVAL = {"RN50": 1024, "ViT-B-32": 512, "SDXL-VAE": 1024}
_PAINTING = {"ViT-H-14": 1024, "SDXL-VAE": 1024}
"""Widths of what the paper sees images by."""
_ADAM_BYTES = 28
"""Of each weight in a step: weight, gradient and both means are read, and all but one written."""


def brain_cells(card: Card) -> Iterator[Cell]:
    """Batches of 1024, from arrays on the host on, as `offline_train mbp` makes them."""
    for shape in ((6, 20),) if card.tiny else ((63, 250), (17, 250)):
        about = f"a step of MBP and HVF, {shape[0]} x {shape[1]}, batch 1024, float32"
        yield Cell(about, 6, partial(_brain, card, shape))


def _brain(card: Card, shape: tuple[int, int]) -> Figures:
    n, dim = (8, 16) if card.tiny else (1024, 1024)
    settings = TrainSettings(batch_size=n, dim=dim, hidden=dim)
    rng = np.random.default_rng(0)
    trials = rng.standard_normal((n, *shape), np.float32)
    embeddings = _drawn(_RETRIEVAL, n, rng)
    found: Figures = {}
    with card.memory(found):
        model = BrainAndImages(*shape, _RETRIEVAL, settings).to(card.device).train()
        images = {k: torch.from_numpy(x).to(card.device) for k, x in embeddings.items()}
        owner = torch.arange(n, device=card.device)
        optimizer = torch.optim.AdamW(
            model.parameters(), settings.lr, betas=settings.betas, fused=True
        )

        def step() -> None:
            there = torch.from_numpy(trials).to(card.device)
            loss = model(there, needed(model.hvf)(images), owner)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
            loss.item()

        n_weights = sum(weight.numel() for weight in model.parameters())
        n_bytes = float(_ADAM_BYTES * n_weights + trials.nbytes)
        found |= card.figures(step, 50, n_bytes=n_bytes, flops=flops_of(step), half=False)
    return found


def prior_cells(card: Card) -> Iterator[Cell]:
    """Batches of 32 pictures of 512 px, as `offline_train prior` makes and learns from them."""
    from stream.bench.gpu.sdxl import size_of  # here: diffusers takes seconds

    n, px = (2, size_of(card).px) if card.tiny else (32, 512)
    ways = (("", 1, False), (" in 4 parts", 4, False), (", computed again", 1, True))
    for how, parts, recompute in ways[: 1 if card.tiny else None]:
        about = f"a step of the Fusion Prior on SDXL, {px} px, batch {n}{how}, bfloat16"
        yield Cell(about, 25, partial(_prior, card, n, parts, recompute))


def _prior(card: Card, n: int, parts: int, recompute: bool) -> Figures:
    from offline_train.prior.settings import PriorSettings
    from offline_train.prior.training import PriorProgress, train_prior
    from stream.bench.gpu.sdxl import random_base, size_of

    side, dim = size_of(card).px // 8, size_of(card).dim
    rng = np.random.default_rng(0)
    encoders = tuple(
        ImageEncoderRecord(name=k, dim=d, checksum="none") for k, d in _PAINTING.items()
    )
    features = Features(tuple(map(str, range(n))), encoders, _drawn(_PAINTING, n, rng))
    latents = rng.standard_normal((n, 4, side, side), np.float32)
    settings = PriorSettings(
        steps=2 if card.tiny else 6,
        batch_size=n,
        parts=parts,
        recompute=recompute,
        dim=dim,
        n_samples=0,
        log_every=1,
        device="auto" if card.is_gpu else "cpu",
        **({"hvf_hidden": dim, "projector_hidden": dim} if card.tiny else {}),
    )
    done_s: list[float] = []

    def note(progress: PriorProgress) -> None:
        done_s.append(time.perf_counter())

    found: Figures = {}
    with card.memory(found):
        base = random_base(card, trains=True)
        train_prior(latents, features, base, settings, note)
    return found | spread(1e3 * np.diff(done_s))


def _drawn(widths: dict[str, int], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal((n, dim), np.float32) for name, dim in widths.items()}
