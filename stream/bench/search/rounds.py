"""All kinds of search asked in turn, for one size of a gallery after the other."""

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

from index.gallery import Gallery, open_gallery, save_gallery
from index.search.kinds import AUTO, FEWEST, GPU_IVF, KINDS, OF_GPU_IVF
from index.search.measure import Queries, Truth, truth_of
from stream.bench.processes import workers
from stream.bench.search.kinds import (
    Asked,
    Place,
    ask,
    build_index,
    load_on_server,
    memory_mb,
    open_kind,
)
from stream.bench.search.names import ON_SERVER
from stream.bench.search.world import World

_INDEX_OF = {GPU_IVF: OF_GPU_IVF}
_READ = 2**26  # float32: 256 MiB, more than caches hold
_SAME = 2e-6  # cosines this close are equal, but for rounding
_CHOOSE = 1000  # queries by which an index is chosen, and others than it is measured with


def measure(
    sizes: Sequence[int],
    kinds: Sequence[str],
    n_queries: int,
    n_rounds: int,
    seconds: float,
    pictures: int,
    usearch_up_to: int,
    milvus_uri: str | None,
) -> None:
    """Prints a line of JSON for each size and kind, as `main` of `run` says them."""
    console = Console(stderr=True, highlight=False)
    world = World(console)
    every = world.queries()
    chooses, asked = every.part(slice(-_CHOOSE, None)), every.part(slice(n_queries))
    for n in sizes:
        too_few, too_many = (
            {*KINDS, GPU_IVF} if n < FEWEST else (),
            {"usearch"} if n > usearch_up_to else (),
        )
        wanted = [kind for kind in kinds if kind not in {*too_few, *too_many}]
        with tempfile.TemporaryDirectory(prefix="hvf-bench-") as base, ExitStack() as running:
            folder = Path(base) / "gallery"
            console.print(f"{n:,} images: writing them, and looking at all for each trial")
            _write(folder, world, n, pictures)
            gallery = open_gallery(folder)
            truth = truth_of(gallery.embeddings, gallery.rows, asked)
            opened, read = list[_Kind](), [[read_gb_per_s(1), read_gb_per_s(2)]]
            try:
                for name in wanted:
                    console.print(f"{n:,} images: making {name} ready")
                    place = Place.on(milvus_uri) if name in ON_SERVER else None
                    opened.append(_Kind(folder, name, n, chooses, running, place))
                for at in range(n_rounds):
                    left_s = (n_rounds - at) * len(wanted) * 2 * seconds
                    of = f"round {at + 1} of {n_rounds}"
                    console.print(f"{n:,} images: {of}, at most {left_s:.0f} s left")
                    for kind in opened:
                        kind.take_turn(asked, seconds)
                    read.append([read_gb_per_s(1), read_gb_per_s(2)])
            finally:
                about = {
                    "images": n,
                    "dim": gallery.embeddings.shape[1],
                    "embeddings": f"{min(n, pictures)} of pictures, {max(0, n - pictures)} drawn",
                    "asked": "simulated trials",
                    "read_gb_per_s": np.median(read, axis=0).round(1).tolist(),
                }
                for kind in opened:
                    line = about | kind.told(truth, gallery.embeddings, asked)
                    print(json.dumps(line), flush=True)


def _write(folder: Path, world: World, n: int, pictures: int) -> None:
    ids = tuple(map(str, range(n)))
    of, embeddings = world.bundle.manifest, world.embeddings(n, pictures)
    save_gallery(folder, Gallery(ids, ids, embeddings, of.space, of.image_encoders, "bench search"))


class _Kind:
    """A kind of search in its process, and what it took so far."""

    def __init__(
        self,
        folder: Path,
        name: str,
        n: int,
        chooses: Queries,
        running: ExitStack,
        place: Place | None,
    ) -> None:
        self._facts: dict[str, Any] = {"kind": name}
        tried = (
            KINDS if name == AUTO and n >= FEWEST else KINDS.keys() & {_INDEX_OF.get(name, name)}
        )
        fits = [one for one in tried if name != AUTO or n <= (KINDS[one].tried_up_to or n)]
        if fits:
            with workers() as builder:
                self._facts |= builder.submit(build_index, folder, fits, chooses).result()
        if place is not None:
            running.callback(place.drop)
            with workers() as builder:
                self._facts |= builder.submit(load_on_server, folder, name, place).result()
        self._process = running.enter_context(workers())
        self._facts |= self._process.submit(open_kind, folder, name, place).result()
        self._turns: list[tuple[Asked, Asked]] = []  # with one thread, and with two

    def take_turn(self, queries: Queries, seconds: float) -> None:
        if "skipped" not in self._facts:
            one, two = (
                self._process.submit(ask, queries, n_threads, seconds).result()
                for n_threads in (1, 2)
            )
            self._turns.append((one, two))
            self._facts["memory_mb"] = self._process.submit(memory_mb).result()

    def told(self, truth: Truth, embeddings: np.ndarray, queries: Queries) -> dict[str, Any]:
        """What is known of it, if it has had a turn with its times, and else why not."""
        line = {key: _short(x) if type(x) is float else x for key, x in self._facts.items()}
        for suffix, turns in zip(
            ("", "_two_threads"), zip(*self._turns, strict=True), strict=False
        ):
            times = np.median([np.percentile(turn.ms, [50, 99]) for turn in turns], axis=0)
            line |= {f"p{p}_ms{suffix}": _short(ms) for p, ms in zip((50, 99), times, strict=True)}
        if self._turns:
            most = max((one for one, _ in self._turns), key=lambda turn: len(turn.ms))
            line |= judged_by(truth, embeddings, queries, most) | {"n_asked": len(most.ms)}
        return line | {"rounds": len(self._turns)}


def judged_by(
    truth: Truth, embeddings: np.ndarray, queries: Queries, asked: Asked
) -> dict[str, Any]:
    """How much of the best was found, and how far off probabilities are, in natural logarithms.

    Of equal images, any is right.
    """
    n = len(asked.ms)
    found = np.einsum("qd,qkd->qk", queries.vectors[:n], embeddings[asked.rows])
    best = truth.best[:n]
    judged = {
        "recall_at_1": _short((found[:, 0] >= best[:, 0] - _SAME).mean()),
        "recall_at_5": _short((found >= best[:, -1:] - _SAME).mean()),
        "regret": _short((best - found).mean().clip(0)),
    }
    wrong = np.abs(asked.log_p - (queries.factors[:n] * best[:, 0] - truth.log_totals[:n, 0]))
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
