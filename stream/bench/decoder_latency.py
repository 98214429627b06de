"""How long an answer takes after the last slice of a trial, beside the whole network at once.

`python -m stream.bench.decoder_latency`: MBP with the paper's 17 channels and with 63, 250 samples,
random weights, one trial at a time. In turn, once with the encoder warm, and once with the pause
before each that a live decoder has before a trial's last samples come (20 ms, in which caches and
cores go cold):

- one-shot: the whole trial through the torch network, then the search, with one thread or two;
- last slice: all but the last 20 ms of the trial are in; the last slice is added, the head runs in
  each engine on one thread, then the search. Once before the pause the head runs as in a session.

Medians over rounds of the rounds' percentiles, and the ratio of the medians.
"""

import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from decoder.anytime import Anytime, shares_of
from decoder.brain.base import BrainEncoder
from decoder.brain.registry import make_brain_encoder
from decoder.bundle import BrainEncoderName
from decoder.engines.choice import EngineName
from decoder.engines.graph import UnitLength
from decoder.engines.open import open_engine
from index.search.flat import Flat

N_TIMES = 250
TAIL = 5
"""Samples of the last slice: 20 ms at 250 Hz."""
PAUSES_S = (0.0, 0.02)
DIM = 1024

console = Console(width=100)


def main(
    trials: Annotated[int, typer.Option(help="in a round")] = 100,
    rounds: int = 5,
    gallery: Annotated[int, typer.Option(help="images to search")] = 200,
    encoder: BrainEncoderName = "mbp",
) -> None:
    """Times one-shot and last-slice answers, interleaved, and prints one table."""
    table = Table(title=f"{encoder}: ms to an answer, {rounds} rounds of {trials} trials")
    for column in ("channels", "pause", "way", "p50", "p99", "of one-shot p50"):
        table.add_column(column, justify="right")
    for n_channels, pause_s in product((17, 63), PAUSES_S):
        torch.manual_seed(0)
        network = make_brain_encoder(encoder, n_channels, N_TIMES, DIM, DIM).eval()
        found = _measure(_ways(network, gallery), trials, rounds, pause_s)
        one_shot = found["one-shot, 1 thread"][0]
        case = (str(n_channels), f"{1e3 * pause_s:g} ms")
        for way, (p50, p99) in found.items():
            table.add_row(*case, way, f"{p50:.3f}", f"{p99:.3f}", f"{p50 / one_shot:.2f}")
        table.add_section()
    console.print(table)


Way = tuple[Callable[[int], None], Callable[[int], None]]
"""What is done before the pause, and what is timed after it; both get the trial's number."""


def _ways(network: BrainEncoder, n_gallery: int) -> dict[str, Way]:
    rng = np.random.default_rng(0)
    eeg = rng.normal(size=(network.n_channels, N_TIMES)).astype(np.float32)
    images = rng.normal(size=(n_gallery, DIM)).astype(np.float32)
    search = Flat(images / np.linalg.norm(images, axis=1, keepdims=True))

    @torch.inference_mode()
    def one_shot(trial: int) -> None:
        _look_up(search, network(torch.from_numpy(eeg)[None])[0].numpy())

    ways: dict[str, Way] = {
        "one-shot, 1 thread": (lambda trial: torch.set_num_threads(1), one_shot),
        "one-shot, 2 threads": (lambda trial: torch.set_num_threads(2), one_shot),
    }
    for name in ("torch", "onnx"):
        ways[f"last slice, {name}"] = _last_slice(network, name, eeg, search)
    return ways


def _last_slice(network: BrainEncoder, name: EngineName, eeg: np.ndarray, search: Flat) -> Way:
    shares = shares_of(network, [N_TIMES])
    anytime = Anytime(shares, network.n_channels, [N_TIMES])
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(
            UnitLength(shares.rest),
            shares.rest_shape,
            name,
            cache=Path(folder),
            key="benchmark",
            say=console.print,
        )

    def before(trial: int) -> None:
        torch.set_num_threads(1)
        anytime.add(trial, 0, eeg[:, :-TAIL])
        engine(shares.rest_input(anytime.shown(trial)))

    def after(trial: int) -> None:
        anytime.add(trial, N_TIMES - TAIL, eeg[:, -TAIL:])
        z, *_ = engine(shares.rest_input(anytime.shown(trial)))
        _look_up(search, z)
        anytime.forget(trial)

    return before, after


def _look_up(search: Flat, z: np.ndarray) -> None:
    scores = search.scores(z)
    scores.top_k(5)
    scores.log_sum_exp(30.0)


def _measure(
    ways: dict[str, Way], trials: int, rounds: int, pause_s: float
) -> dict[str, tuple[float, float]]:
    """p50 and p99 in ms of each way."""
    rng = np.random.default_rng(0)
    names = list(ways)
    percentiles: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for _ in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in names}
        for trial in range(trials):
            for i in rng.permutation(len(names)):
                before, after = ways[names[i]]
                before(trial)
                time.sleep(pause_s)
                began_s = time.perf_counter()
                after(trial)
                taken[names[i]].append((time.perf_counter() - began_s) * 1e3)
        for name in names:
            percentiles[name].append(np.percentile(taken[name], [50, 99]))
    return {name: tuple(np.median(some, axis=0)) for name, some in percentiles.items()}


if __name__ == "__main__":
    typer.run(main)
