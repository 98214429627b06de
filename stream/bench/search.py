"""How long galleries of any size take to be searched, what is found, and what that takes.

`run_realtime.py bench search`: galleries of the demo world, in which the embeddings of simulated
trials are looked up one at a time. Each kind of search has a process of its own, which opens the
gallery as a session does. In every round all are asked in turn, so that they meet the same machine,
and beside them FAISS's plain `IndexFlatIP`, usearch where it is installed, and how fast memory is
read. Ours give the total over all images too, the others do not.
"""

import json
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from decoder.evidence import Weights
from hvf_core.problem import WrongUsage
from index.gallery import Gallery, open_gallery, save_gallery
from index.search.kinds import NAMES as KINDS
from stream.bench.search_kinds import Asked, K, ask, memory_mb, open_kind
from stream.bench.search_world import World

_USEARCH = ("usearch",) if find_spec("usearch") else ()
_ALL = ",".join((*KINDS, "IndexFlatIP", *_USEARCH))
_ROWS = 2**14
_READ = 2**26  # float32: 256 MiB, more than caches hold
_SAME = 2e-6  # cosines this close are equal, but for rounding
_processes = get_context("spawn")


def main(
    images: Annotated[str, typer.Option(help="sizes: N,N,...")] = "200,16540,100000,1000000",
    kinds: Annotated[str, typer.Option(help="of search: KIND,KIND,...")] = _ALL,
    queries: Annotated[int, typer.Option(min=20, max=3800, help="trials looked up")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="in which all kinds take turns")] = 3,
    seconds: Annotated[float, typer.Option(help="at most, of each kind in a round")] = 10.0,
    pictures: Annotated[
        int, typer.Option(help="images that are made; beyond, embeddings are drawn like theirs")
    ] = 16540,
    usearch_up_to: Annotated[int, typer.Option(help="images of which it builds its index")] = 10**5,
) -> None:
    """Looks trials up in galleries of any size; one line of JSON for each size and kind."""
    if unknown := set(kinds.split(",")) - {*KINDS, "IndexFlatIP", *_USEARCH}:
        raise WrongUsage(f"'{unknown.pop()}' is no kind of search here; there are {_ALL}")
    console = Console(stderr=True)
    world = World(console)
    asked, factor = world.queries()[:queries], _factor(world)
    for n in map(int, images.split(",")):
        wanted = [kind for kind in kinds.split(",") if kind != "usearch" or n <= usearch_up_to]
        with tempfile.TemporaryDirectory(prefix="hvf-bench-") as base, ExitStack() as running:
            folder = Path(base) / "gallery"
            _write(folder, world, n, pictures)
            truth = Truth(open_gallery(folder).embeddings, asked, factor)
            running_kinds = [_Kind(folder, kind, factor, running) for kind in wanted]
            about = {
                "images": n,
                "dim": asked.shape[1],
                "embeddings": f"{min(n, pictures)} of pictures, {max(0, n - pictures)} drawn",
                "asked": "simulated trials",
            }
            read = []
            for at in range(rounds):
                console.print(f"{n:,} images, round {at + 1} of {rounds}", highlight=False)
                read.append([read_gb_per_s(1), read_gb_per_s(2)])
                for kind in running_kinds:
                    kind.take_turn(asked, seconds)
            about["read_gb_per_s"] = np.median(read, axis=0).round(1).tolist()
            for kind in running_kinds:
                print(json.dumps(about | kind.told(truth)), flush=True)


def _write(folder: Path, world: World, n: int, pictures: int) -> None:
    ids = tuple(map(str, range(n)))
    of, embeddings = world.bundle.manifest, world.embeddings(n, pictures)
    save_gallery(folder, Gallery(ids, ids, embeddings, of.space, of.image_encoders, "bench search"))


def _factor(world: World) -> float:
    """What the cosines with one trial are multiplied by, to be logarithms of odds."""
    of = world.bundle.manifest
    weights = Weights("mean", of.logit_scale, of.calibration)
    return weights.of_one(of.tmax_s) / weights.temperature(of.tmax_s, 1)


class _Kind:
    """A kind of search in its process, and what it took so far."""

    def __init__(self, folder: Path, name: str, factor: float, running: ExitStack) -> None:
        self._process = running.enter_context(ProcessPoolExecutor(1, _processes))
        self._name = name
        self._facts = self._process.submit(open_kind, folder, name, factor).result()
        self._turns: dict[int, list[Asked]] = {1: [], 2: []}

    def take_turn(self, queries: np.ndarray, seconds: float) -> None:
        for n_threads, turns in self._turns.items():
            turns.append(self._process.submit(ask, queries, n_threads, seconds).result())

    def told(self, truth: "Truth") -> dict[str, Any]:
        line: dict[str, Any] = {"kind": self._name}
        line |= {key: _short(x) if type(x) is float else x for key, x in self._facts.items()}
        for n_threads, turns in self._turns.items():
            times = np.median([np.percentile(turn.ms, [50, 99]) for turn in turns], axis=0)
            suffix = "" if n_threads == 1 else "_two_threads"
            line |= {f"p{p}_ms{suffix}": _short(ms) for p, ms in zip((50, 99), times, strict=True)}
        most = max(self._turns[1], key=lambda turn: len(turn.ms))
        line |= truth.judged(most) | {"n_asked": [len(turn.ms) for turn in self._turns[1]]}
        return line | {"memory_mb": round(self._process.submit(memory_mb).result())}


class Truth:
    """What a plain product of all embeddings with all queries finds."""

    def __init__(self, embeddings: np.ndarray, queries: np.ndarray, factor: float) -> None:
        self._embeddings, self._queries, self._factor = embeddings, queries, factor
        best, totals = np.empty((len(queries), 0)), []
        for first in range(0, len(embeddings), _ROWS):
            cosines = queries @ embeddings[first : first + _ROWS].T
            totals.append(logsumexp(factor * cosines.astype(np.float64), axis=1))
            k = min(K, cosines.shape[1])
            best = np.hstack([best, np.partition(cosines, -k, axis=1)[:, -k:]])
        self._best = np.sort(best, axis=1)[:, : -K - 1 : -1]
        self._log_total = logsumexp(totals, axis=0)

    def judged(self, asked: Asked) -> dict[str, Any]:
        """How much of the best was found, and how far off probabilities are, in natural logarithms.

        Of equal images, any is right.
        """
        n = len(asked.ms)
        found = np.einsum("qd,qkd->qk", self._queries[:n], self._embeddings[asked.rows])
        best = self._best[:n]
        judged = {
            "recall_at_1": _short((found[:, 0] >= best[:, 0] - _SAME).mean()),
            "recall_at_5": _short((found >= best[:, -1:] - _SAME).mean()),
            "regret": _short((best[:, 0] - found[:, 0]).mean().clip(0)),
        }
        wrong = np.abs(asked.log_p - (self._factor * found[:, 0] - self._log_total[:n]))
        if np.isfinite(wrong).all():
            p50, p99 = np.percentile(wrong, [50, 99])
            judged |= {"log_p_error_p50": _short(p50), "log_p_error_p99": _short(p99)}
        return judged


def read_gb_per_s(n_threads: int) -> float:
    """How fast threads read together, each its part of what no cache holds."""
    parts = np.array_split(np.ones(_READ, np.float32), n_threads)
    threads = [threading.Thread(target=np.dot, args=(part, part)) for part in parts]
    with threadpool_limits(1):
        began_s = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 4 * _READ / (time.perf_counter() - began_s) / 1e9


def _short(number: float) -> float:
    """With four digits that count."""
    return float(f"{number:.4g}")


if __name__ == "__main__":
    typer.run(main)
