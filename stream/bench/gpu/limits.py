"""What the chip does at most, and what the way to it and back takes."""

from collections.abc import Iterator

import torch

from stream.bench.gpu.card import Captured, Card, Figures
from stream.bench.gpu.sections import Cell

_TRIAL = (63, 250)


def cells(card: Card) -> Iterator[Cell]:
    """A copy, matrix products, and one trial there and back."""
    yield Cell("a copy on the card, products of matrices", 5, lambda: _chip(card))
    yield Cell("a trial of 63 x 250 to the card and back, one graph", 2, lambda: _there(card))


def _chip(card: Card) -> Figures:
    return {**card.limits._asdict(), "context_gib": card.context_gib()}


def _there(card: Card) -> Figures:
    way = Captured(card, lambda x: (x + 1,), _TRIAL)
    trial = torch.randn(_TRIAL).numpy()
    n_bytes = 4.0 * trial.nbytes
    return card.answers(lambda: way(trial), n_bytes=n_bytes, flops=0.0, half=False) | {
        "how": way.how
    }
