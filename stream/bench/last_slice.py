"""Ways to an answer of a decoder, each timed in turn: `decoder_latency` says which, and why."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from decoder.anytime import Anytime, Shares, shares_of
from decoder.brain.base import BrainEncoder
from decoder.brain.mbp import MBP
from decoder.engines.choice import ON_CPU, PASSES
from decoder.engines.graph import UnitLength
from decoder.engines.open import Engine, open_engine
from hvf_core.screen import Screen
from index.search.flat import Flat

N_CHANNELS, N_TIMES, DIM, N_IMAGES = 63, 250, 1024, 200
TAIL = 5
"""Samples of the last slice: 20 ms at 250 Hz."""
PAUSES_S = (0.0, 0.02)
_N_DIFFERENT = 20  # trials, which come again

Way = tuple[Callable[[np.ndarray], object], Callable[[np.ndarray], np.ndarray]]
"""What is done with a trial (channels, times) before the pause, and what is timed after it, which
gives its embedding (dim,)."""


def show_ways(trials: int) -> None:
    """Times one-shot and last-slice answers, interleaved, and prints one table."""
    console = Screen(highlight=False)
    table = Table(title=f"ms to an answer, {trials} trials", title_justify="left")
    for column in ("pause", "way", "p50", "p99", "largest difference of a cosine"):
        table.add_column(column, justify="right")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(N_IMAGES, DIM)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    ways = _ways(MBP(N_CHANNELS, N_TIMES, DIM, DIM).eval(), Flat(images), console)
    eeg = rng.normal(size=(_N_DIFFERENT, N_CHANNELS, N_TIMES)).astype(np.float32)
    for pause_s in PAUSES_S:
        taken_ms, answers = _in_turn(ways, eeg, trials, pause_s)
        first = next(iter(answers.values())) @ images.T
        for name, ms in taken_ms.items():
            p50, p99 = np.percentile(ms, [50, 99])
            off = np.abs(answers[name] @ images.T - first).max()
            table.add_row(f"{1e3 * pause_s:g} ms", name, f"{p50:.3f}", f"{p99:.3f}", f"{off:.1g}")
        table.add_section()
    console.print(table)


def _in_turn(
    ways: Mapping[str, Way], eeg: np.ndarray, rounds: int, pause_s: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Milliseconds of each way, (rounds,), and its embeddings, (rounds, dim), of unit length: every
    way once a round, in an order drawn anew, so that all meet the same machine. A first round does
    not count.
    """
    rng = np.random.default_rng(0)
    taken_s: dict[str, list[float]] = {name: [] for name in ways}
    embedded: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for at in range(1 + rounds):
        for name in rng.permutation(list(ways)):
            before, after = ways[name]
            before(eeg[at % len(eeg)])
            time.sleep(pause_s)
            began_s = time.perf_counter()
            z = after(eeg[at % len(eeg)])
            taken_s[name].append(time.perf_counter() - began_s)
            embedded[name].append(z / np.linalg.norm(z))
    return (
        {name: 1e3 * np.array(seconds[1:]) for name, seconds in taken_s.items()},
        {name: np.array(of[1:]) for name, of in embedded.items()},
    )


def _ways(network: BrainEncoder, search: Flat, console: Screen) -> dict[str, Way]:
    @torch.inference_mode()
    def one_shot(eeg: np.ndarray) -> np.ndarray:
        return _look_up(search, network(torch.from_numpy(eeg)[None])[0].numpy())

    return {
        "one-shot, 1 thread": (lambda _: torch.set_num_threads(1), one_shot),
        "one-shot, 2 threads": (lambda _: torch.set_num_threads(2), one_shot),
        **{
            f"last slice, {engine.name}": _last_slice(shares, engine, search)
            for shares in [shares_of(network, [N_TIMES])]
            for engine in _engines(shares, console)
        },
    }


def _engines(shares: Shares, console: Screen) -> Iterator[Engine]:
    """Of the head, those that open here; why another does not is told."""
    for name in PASSES:
        if name not in ON_CPU and not torch.cuda.is_available():
            continue
        said: list[str] = []
        with tempfile.TemporaryDirectory(prefix="hvf-bench-") as folder:
            engine = open_engine(
                UnitLength(shares.rest),
                shares.rest_shape,
                name,
                device="cpu" if name in ON_CPU else "cuda",
                cache=Path(folder),
                say=said.append,
            )
        if engine.name == name:
            yield engine
        else:
            console.print(*said, sep="\n")


def _last_slice(shares: Shares, engine: Engine, search: Flat) -> Way:
    anytime = Anytime(shares)

    def before(eeg: np.ndarray) -> None:
        torch.set_num_threads(1)
        anytime.add(0, 0, eeg[:, :-TAIL])
        engine(shares.rest_input(anytime.shown(0)))

    def after(eeg: np.ndarray) -> np.ndarray:
        anytime.add(0, N_TIMES - TAIL, eeg[:, -TAIL:])
        z, *_ = engine(shares.rest_input(anytime.shown(0)))
        anytime.forget(0)
        return _look_up(search, z)

    return before, after


def _look_up(search: Flat, z: np.ndarray) -> np.ndarray:
    scores = search.scores(z)
    scores.top_k(5)
    scores.log_sum_exp(30.0)
    return z
