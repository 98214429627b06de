"""Painting with SDXL at its real size: steps, previews, decoding, and how soon it is given up."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor, nn

from decoder.painting import previews
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import Sampler
from decoder.painting.step import Step
from hvf_core.problem import Problem
from stream.bench.gpu.card import Captured, Card, Figures, flops_of, spread
from stream.bench.gpu.sdxl import N_STEPS, embedding, random_base, random_sampler, size_of
from stream.bench.gpu.sections import Cell

_CANCELLED = 30
_PATIENCE_S = 20.0


def cells(card: Card) -> Iterator[Cell]:
    """At 512 px, in four steps, in half precision; and what is needed of memory at 512 and 1024."""
    base = random_base(card)
    px = size_of(card).px
    sampler = random_sampler(card, base, px)
    latents, step = unet_step(card, base)
    unet: Figures = {"n_bytes": float(_n_bytes(base.unet)), "flops": flops_of(step), "half": True}
    about = f"SDXL, random weights, {px} px"
    yield Cell(f"{about}: a step, the UNet alone", 4, lambda: card.figures(step, 50, **unet))
    yield Cell(f"{about}: a step, the UNet alone, one graph", 8, lambda: _graph(card, base, unet))
    yield Cell(f"{about}: first preview, from the embedding on", 5, lambda: _first(card, sampler))
    yield Cell(
        f"{about}: image in {N_STEPS} steps, without previews",
        8,
        lambda: _image(card, base, sampler),
    )
    tiny = base.tiny_vae
    assert tiny is not None
    for name, vae, decoded in (
        ("the VAE decodes", base.vae, partial(previews.decoder(base), latents)),
        ("the tiny decoder decodes", tiny, partial(previews.previewer(base, "tiny"), latents)),
    ):
        decode = torch.inference_mode()(decoded)
        yield Cell(f"{about}: {name}", 4, partial(_decoding, card, vae, decode))
    yield Cell(f"{about}: given up, until the card is free", 10, lambda: _cancel(card, sampler))
    for size_px in (px, 2 * px):
        yield Cell(
            f"SDXL, random weights, {size_px} px: memory of an image with previews",
            10,
            partial(_memory, card, base, size_px),
        )


def unet_step(card: Card, base: DiffusionBase) -> tuple[Tensor, Callable[[], Tensor]]:
    """Latents, and one run of the UNet on them, with the tokens that are bound."""
    px = size_of(card).px
    latents = torch.randn(1, 4, px // 8, px // 8, device=card.device, dtype=base.dtype)
    sizes = torch.tensor([[px, px, 0, 0, px, px]], device=card.device, dtype=base.dtype)
    condition = {"text_embeds": base.pooled_prompt_embeds, "time_ids": sizes}
    noise_level = torch.tensor(999.0, device=card.device)

    @torch.no_grad()
    def step() -> Tensor:
        told = {"added_cond_kwargs": condition, "return_dict": False}
        guess: Tensor = base.unet(latents, noise_level, base.prompt_embeds, **told)[0]
        return guess

    return latents, step


def graph_of_steps(card: Card, base: DiffusionBase) -> Captured:
    """A run of the UNet as one graph, which gives way to other work."""
    _, step = unet_step(card, base)
    return Captured(card, lambda x: (step().float().mean()[None] + x,), (1,), urgent=False)


def _graph(card: Card, base: DiffusionBase, unet: Figures) -> Figures:
    graph, nothing = graph_of_steps(card, base), np.zeros(1, np.float32)
    return card.figures(lambda: graph(nothing), 50, waits=False, **unet) | {"how": graph.how}


def _first(card: Card, sampler: Sampler) -> Figures:
    z_c = embedding(card)

    def look(step: Step) -> bool:
        step.preview()
        return False

    return spread(card.timed(lambda: sampler.paint(z_c, [0], look), 30))


def _image(card: Card, base: DiffusionBase, sampler: Sampler) -> Figures:
    paint = partial(sampler.paint, embedding(card), [0], lambda step: True)
    n_bytes = float(N_STEPS * _n_bytes(base.unet) + _n_bytes(base.vae))
    return card.figures(paint, 30, n_bytes=n_bytes, flops=flops_of(paint), half=True)


def _decoding(card: Card, vae: nn.Module, decode: Callable[[], object]) -> Figures:
    n_bytes = sum(p.nbytes for name, p in vae.named_parameters() if "encoder" not in name)
    return card.figures(decode, 30, n_bytes=float(n_bytes), flops=flops_of(decode), half=True)


def _cancel(card: Card, sampler: Sampler) -> Figures:
    """From a moment anywhere in an image's steps until nothing of it is under way any more."""
    z_c, rng = embedding(card), np.random.default_rng(0)
    began_s = time.perf_counter()
    sampler.denoise(z_c, [0], lambda step: True)
    card.wait()
    whole_s = time.perf_counter() - began_s
    taken_ms = []
    for _ in range(2 if card.tiny else _CANCELLED):
        given_up, ended = Event(), Event()

        def paint(given_up: Event, ended: Event) -> None:
            while not given_up.is_set():
                sampler.paint(z_c, [0], lambda step: not given_up.is_set())
            card.wait()
            ended.set()

        painter = Thread(target=paint, args=(given_up, ended))
        painter.start()
        time.sleep(whole_s * rng.uniform(1, 2))
        asked_s = time.perf_counter()
        given_up.set()
        if not ended.wait(_PATIENCE_S):
            raise Problem("the thread that paints has ended, and what it says is above")
        taken_ms.append(1e3 * (time.perf_counter() - asked_s))
        painter.join()
    return spread(np.array(taken_ms))


def _memory(card: Card, base: DiffusionBase, size_px: int) -> Figures:
    """From the making of what paints on: its graphs keep what they have taken."""
    found: Figures = {}
    z_c = embedding(card)

    def look(step: Step) -> bool:
        step.preview()
        return True

    with card.memory(found):
        paint = partial(random_sampler(card, base, size_px).paint, z_c, [0], look)
        found |= spread(card.timed(paint, 5))
    del paint
    found["fits"] = card.fits(lambda: random_sampler(card, base, size_px).paint(z_c, [0], look))
    return found


def _n_bytes(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in network.parameters())
