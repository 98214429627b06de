"""How long an answer takes after the last slice of a trial, beside the whole network at once.

`run_realtime.py bench decoder-latency`: MBP with 63 channels, 250 samples and the paper's width,
random weights, one trial at a time. In turn, once with the encoder warm, and once with the pause
before each that a live decoder has before a trial's last samples come (20 ms, in which caches and
cores go cold):

- one-shot: the whole trial through the torch network, then the search, with one thread or two;
- last slice: all but the last 20 ms of the trial are in; the last slice is added, the head runs in
  each engine on one thread, then the search. Once before the pause the head runs as in a session.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from decoder.anytime import Anytime, shares_of
from decoder.brain.base import BrainEncoder
from decoder.brain.mbp import MBP
from decoder.engines.choice import EngineName
from decoder.engines.graph import UnitLength
from decoder.engines.open import open_engine
from index.search.flat import Flat

N_CHANNELS, N_TIMES, DIM, N_IMAGES = 63, 250, 1024, 200
TAIL = 5
"""Samples of the last slice: 20 ms at 250 Hz."""
PAUSES_S = (0.0, 0.02)

console = Console(width=100)
Way = tuple[Callable[[], object], Callable[[], object]]
"""What is done before the pause, and what is timed after it."""


def main(trials: Annotated[int, typer.Option(min=1, help="of each way")] = 500) -> None:
    """Times one-shot and last-slice answers, interleaved, and prints one table."""
    table = Table(title=f"ms to an answer, {trials} trials")
    for column in ("pause", "way", "p50", "p99"):
        table.add_column(column, justify="right")
    torch.manual_seed(0)
    ways = _ways(MBP(N_CHANNELS, N_TIMES, DIM, DIM).eval())
    for pause_s in PAUSES_S:
        timed = {name: _timed(*way, pause_s) for name, way in ways.items()}
        for name, taken_ms in _in_turn(timed, trials).items():
            p50, p99 = np.percentile(taken_ms, [50, 99])
            table.add_row(f"{1e3 * pause_s:g} ms", name, f"{p50:.3f}", f"{p99:.3f}")
        table.add_section()
    console.print(table)


def _in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each way, (rounds,): every way once a round, in an order drawn anew, so that
    all meet the same machine. A first round does not count.
    """
    rng = np.random.default_rng(0)
    taken_s: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):
        for name in rng.permutation(list(ways)):
            taken_s[name].append(ways[name]())
    return {name: 1e3 * np.array(seconds[1:]) for name, seconds in taken_s.items()}


def _timed(
    before: Callable[[], object], after: Callable[[], object], pause_s: float
) -> Callable[[], float]:
    def once() -> float:
        before()
        time.sleep(pause_s)
        began_s = time.perf_counter()
        after()
        return time.perf_counter() - began_s

    return once


def _ways(network: BrainEncoder) -> dict[str, Way]:
    rng = np.random.default_rng(0)
    eeg = rng.normal(size=(N_CHANNELS, N_TIMES)).astype(np.float32)
    images = rng.normal(size=(N_IMAGES, DIM)).astype(np.float32)
    search = Flat(images / np.linalg.norm(images, axis=1, keepdims=True))

    @torch.inference_mode()
    def one_shot() -> None:
        _look_up(search, network(torch.from_numpy(eeg)[None])[0].numpy())

    return {
        "one-shot, 1 thread": (lambda: torch.set_num_threads(1), one_shot),
        "one-shot, 2 threads": (lambda: torch.set_num_threads(2), one_shot),
        "last slice, torch": _last_slice(network, "torch", eeg, search),
        "last slice, onnx": _last_slice(network, "onnx", eeg, search),
    }


def _last_slice(network: BrainEncoder, name: EngineName, eeg: np.ndarray, search: Flat) -> Way:
    shares = shares_of(network, [N_TIMES])
    anytime = Anytime(shares)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(
            UnitLength(shares.rest),
            shares.rest_shape,
            name,
            cache=Path(folder),
            say=console.print,
        )

    def before() -> None:
        torch.set_num_threads(1)
        anytime.add(0, 0, eeg[:, :-TAIL])
        engine(shares.rest_input(anytime.shown(0)))

    def after() -> None:
        anytime.add(0, N_TIMES - TAIL, eeg[:, -TAIL:])
        z, *_ = engine(shares.rest_input(anytime.shown(0)))
        _look_up(search, z)
        anytime.forget(0)

    return before, after


def _look_up(search: Flat, z: np.ndarray) -> None:
    scores = search.scores(z)
    scores.top_k(5)
    scores.log_sum_exp(30.0)


if __name__ == "__main__":
    typer.run(main)
