"""The kinds of search in the benchmark of search, each opened and asked in a process of its own."""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import psutil
import torch  # before FAISS, as each brings an OpenMP runtime

# isort: split
import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from hvf_core.problem import Problem, needed
from index.gallery import open_gallery
from index.search.base import Search
from index.search.choose import Rows, choose
from index.search.gpu import refuse_no_gpu
from index.search.kinds import GPU, GPU_HALF, GPU_IVF
from index.search.measure import Queries
from index.search.milvus.kept import refuse_other
from index.search.milvus.load import load
from index.search.milvus.search import named_by
from index.search.milvus.server import CALL_S, FIRST_S, Server
from index.search.open import open_search
from index.search.remainder import moments_of
from index.search.stored import save_search
from stream.bench.search.names import ON_SERVER

K = 5
_WARM_UP = 3

Ask = Callable[[np.ndarray, float], tuple[np.ndarray, float]]
"""From an embedding, and what cosines with it are multiplied by, to the best `K` rows and the
log-probability of the first; NaN of a peer."""


class Asked(NamedTuple):
    """What was asked one after the other, and how long each answer took."""

    ms: np.ndarray
    """(queries,), of as many as there was time for."""
    rows: np.ndarray
    """The best `K` of each, (queries, K)."""
    log_p: np.ndarray
    """Of the first of each, (queries,)."""


def build_index(folder: Path, kinds: Sequence[str], queries: Queries) -> dict[str, Any]:
    """Chooses an index of a gallery as `gallery index` does, keeps it, and tells how far it is.

    For a million images that takes a quarter of an hour.
    """
    began_s, steps = time.monotonic(), itertools.count()

    def tell(text: str) -> None:
        n, n_all = next(steps), 1 + 2 * len(kinds)
        left_s = (time.monotonic() - began_s) * (n_all - n) / max(n, 1)
        left = f", about {left_s / 60:.1f} minutes left" if n > 1 else ""
        print(f"  {text} (step {n + 1} of {n_all}{left})", file=sys.stderr, flush=True)

    gallery = open_gallery(folder)
    moments = moments_of(gallery.embeddings)
    rows = Rows(gallery.embeddings, gallery.rows, moments)
    chosen = choose(rows, queries, kinds, tell)
    kept = save_search(gallery, chosen, moments, "bench search")
    figures = chosen.figures
    settings = {"index": figures.kind, "effort": figures.effort, "looked_at": figures.n_candidates}
    size = sum(file.stat().st_size for file in kept.iterdir())
    return settings | {"build_s": figures.build_s, "index_mb": size / 1e6}


class Place(NamedTuple):
    """A collection of a Milvus server."""

    uri: str
    collection: str

    @classmethod
    def on(cls, uri: str | None) -> Self:
        """One that nobody has."""
        return cls(needed(uri), f"hvf_bench_{uuid4().hex[:12]}")

    def drop(self) -> None:
        """Takes it away, if it is there."""
        Server(self.uri).drop(self.collection)


def load_on_server(folder: Path, kind: str, place: Place) -> dict[str, Any]:
    """Loads a gallery as `gallery load-milvus` does."""
    gallery, server = open_gallery(folder), Server(place.uri, CALL_S)
    began_s = time.monotonic()
    load(gallery, server, place.collection, ON_SERVER[kind], lambda done, doing: None)
    return {"server": f"Milvus {server.version}", "build_s": time.monotonic() - began_s}


def open_kind(folder: Path, kind: str, place: Place | None) -> dict[str, Any]:
    """Makes a kind ready in this process; gives what that took, or why it is `skipped`."""
    torch.set_num_threads(1)
    _state["before"] = psutil.Process().memory_info().rss
    opening = {"IndexFlatIP": _flat_ip, "usearch": _usearch}.get(kind, _ours)
    if place is not None:
        opening = partial(_on_server, place=place)
    try:
        _state["ask"], facts = opening(folder, kind)
    except Problem as problem:
        return {"skipped": str(problem)}
    return facts


def ask(queries: Queries, n_threads: int, seconds: float) -> Asked:
    """Asks all queries in turn, or as many as there is time for; threads share them evenly."""
    ask_one: Ask = _state["ask"]
    found: list[tuple[int, float, np.ndarray, float]] = []

    def run(first: int) -> None:
        vectors, factors = queries.vectors, queries.factors
        for at in range(_WARM_UP):
            ask_one(vectors[at], factors[at])
        end_s = time.perf_counter() + seconds
        for at in range(first, len(vectors), n_threads):
            began_s = time.perf_counter()
            rows, log_p = ask_one(vectors[at], factors[at])
            took_s = time.perf_counter() - began_s
            found.append((at, 1e3 * took_s, rows, log_p))
            if began_s + took_s > end_s:
                return

    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(run, range(n_threads)))  # of which the first one's failure is raised
    _, ms, rows, log_p = zip(*sorted(found, key=lambda one: one[0]), strict=True)
    return Asked(np.array(ms), np.array(rows), np.array(log_p))


def memory_mb() -> float:
    """What this process holds since it began to open, mapped files that it has read included."""
    return (psutil.Process().memory_info().rss - _state["before"]) / 1e6


_state: dict[str, Any] = {}


def _ours(folder: Path, kind: str) -> tuple[Ask, dict[str, Any]]:
    if kind in (GPU, GPU_HALF, GPU_IVF):
        refuse_no_gpu()  # the CPU in its place is measured anyhow
    said: list[str] = []
    began_s = time.perf_counter()
    search = open_search(open_gallery(folder), kind, said.append)
    took_s = time.perf_counter() - began_s
    return _asks(search), {"open_ms": 1e3 * took_s, "exact": search.exact, "said": said}


def _on_server(folder: Path, kind: str, place: Place) -> tuple[Ask, dict[str, Any]]:
    """However late it answers: in a session another search would, after a deadline."""
    gallery = open_gallery(folder)
    moments = moments_of(gallery.embeddings)  # which a session reads
    began_s = time.perf_counter()
    server = Server(place.uri)
    made_of = refuse_other(server, place.collection, gallery)
    search, _ = named_by(gallery, server, place.collection, made_of, moments, FIRST_S)
    took_s = time.perf_counter() - began_s
    return _asks(search), {"open_ms": 1e3 * took_s, "exact": search.exact}


def _asks(search: Search) -> Ask:
    def ask_one(query: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
        scores = search.scores(query)
        rows, cosines = scores.top_k(K)
        return rows, factor * float(cosines[0]) - scores.log_sum_exp(factor)

    return ask_one


def _flat_ip(folder: Path, kind: str) -> tuple[Ask, dict[str, Any]]:
    began_s = time.perf_counter()
    embeddings = open_gallery(folder).embeddings
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.asarray(embeddings))
    took_s = time.perf_counter() - began_s

    def ask_one(query: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
        faiss.omp_set_num_threads(1)  # of this thread: others that spin would only be in its way
        return index.search(query[None], K)[1][0], np.nan

    return ask_one, {"open_ms": 1e3 * took_s}


def _usearch(folder: Path, kind: str) -> tuple[Ask, dict[str, Any]]:
    usearch: Any = import_module("usearch.index")  # which nothing here requires
    embeddings = open_gallery(folder).embeddings
    began_s = time.perf_counter()
    made = usearch.Index(ndim=embeddings.shape[1], metric="ip", dtype="f16")
    made.add(np.arange(len(embeddings)), np.asarray(embeddings), threads=psutil.cpu_count())
    built_s = time.perf_counter() - began_s
    with tempfile.TemporaryDirectory() as base:
        path = Path(base) / "usearch"
        made.save(path)
        began_s = time.perf_counter()
        index = usearch.Index.restore(path)
        took_s = time.perf_counter() - began_s
    facts = {"build_s": built_s, "open_ms": 1e3 * took_s}
    return lambda query, factor: (index.search(query, K).keys.astype(np.int64), np.nan), facts
