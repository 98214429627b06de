"""The benchmark of search: what it looks through, and what it makes of what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from decoder.bundle import load_bundle
from demo.model import ready_model
from hvf_core.problem import WrongUsage
from index.gallery import open_gallery
from index.search.flat import Flat
from stream.bench import search, search_world
from stream.bench.search import Truth, read_gb_per_s
from stream.bench.search_kinds import Asked, K
from stream.bench.search_world import World, pictures

FACTOR = 30.0


def drawn(n: int, seed: int, dim: int = 12) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal((n, dim))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def asked_of(embeddings: np.ndarray, queries: np.ndarray) -> Asked:
    scores = [Flat(embeddings).scores(query) for query in queries]
    best = [one.top_k(K) for one in scores]
    totals = np.array([one.log_sum_exp(FACTOR) for one in scores])
    first = np.array([cosines[0] for _, cosines in best])
    rows = np.array([rows for rows, _ in best])
    return Asked(np.ones(len(queries)), rows, FACTOR * first - totals)


def test_exact_search_is_judged_to_find_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ROWS", 64)  # so that several blocks are put together
    embeddings, queries = np.tile(drawn(150, 0), (2, 1)), drawn(40, 1)  # each image comes twice
    truth = Truth(embeddings, queries, FACTOR)
    asked = asked_of(embeddings, queries)
    judged = truth.judged(asked)
    assert judged["recall_at_1"] == judged["recall_at_5"] == 1
    assert judged["regret"] == pytest.approx(0, abs=1e-6)
    assert judged["log_p_error_p99"] < 1e-4
    twins = asked._replace(rows=(asked.rows + 150) % 300)
    assert truth.judged(twins)["recall_at_5"] == 1


def test_what_is_missed_is_judged_so() -> None:
    embeddings, queries = drawn(300, 2), drawn(40, 3)
    truth, asked = Truth(embeddings, queries, FACTOR), asked_of(embeddings, queries)
    rows = asked.rows.copy()
    worst = np.argmin(queries @ embeddings.T, axis=1)
    rows[:10, 0], rows[:, 4] = worst[:10], worst
    judged = truth.judged(asked._replace(rows=rows, log_p=asked.log_p + 0.5))
    assert judged["recall_at_1"] == 0.75
    assert judged["recall_at_5"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.6)
    assert judged["regret"] > 0.1
    assert judged["log_p_error_p50"] == pytest.approx(0.5, rel=1e-3)
    of_a_peer = asked._replace(log_p=np.full(40, np.nan))
    assert "log_p_error_p50" not in truth.judged(of_a_peer)


def test_memory_is_read() -> None:
    assert read_gb_per_s(2) > 0


def test_pictures_begin_with_those_of_the_demo_and_none_comes_twice() -> None:
    ids = [stimulus.id for stimulus in pictures()]
    assert tuple(ids[:200]) == tuple(open_gallery(ready_model().gallery).ids)
    assert len(set(ids)) == len(ids) == 200_000


@pytest.mark.slow
def test_embeddings_are_those_of_the_demos_own_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_world, "BLOCK", 4)
    search_world._fuse(1, tmp_path / "fused.npy")
    shipped = open_gallery(ready_model().gallery).embeddings[4:8]  # kept in half precision
    np.testing.assert_allclose(np.load(tmp_path / "fused.npy"), shipped, atol=3e-4)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Console], World]:
    """One whose pictures cost nothing."""
    bundle = load_bundle(ready_model().bundle)

    class Cheap(World):
        def __init__(self, console: Console) -> None:
            self.bundle, self.folder, self._console = bundle, tmp_path, console

        def _fused(self, n: int) -> np.ndarray:
            return drawn(n, 4)

        def queries(self) -> np.ndarray:
            return drawn(30, 5)

    monkeypatch.setattr(search, "World", Cheap)
    return Cheap


def test_what_is_drawn_has_the_mean_and_covariance_of_what_is_made(
    world: Callable[[Console], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = drawn(3000, 6) * np.linspace(1, 3, 12, dtype=np.float32) + 0.3
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    monkeypatch.setattr(world, "_fused", lambda self, n: spread[:n])
    found = world(Console(quiet=True)).embeddings(40_000, 3000)
    assert found.shape == (40_000, 12)
    np.testing.assert_array_equal(found[:3000], spread)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[3000:].mean(0), spread.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(found[3000:].T), np.cov(spread.T), atol=0.03)


@pytest.mark.slow
def test_a_line_for_each_size_and_kind(
    world: Callable[[Console], World], capsys: pytest.CaptureFixture[str]
) -> None:
    search.main("200,300", "exact,IndexFlatIP", 20, 2, 1.0, 250, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["images"], line["kind"]) for line in lines] == [
        (n, kind) for n in (200, 300) for kind in ("exact", "IndexFlatIP")
    ]
    assert {line["embeddings"] for line in lines} == {
        "200 of pictures, 0 drawn",
        "250 of pictures, 50 drawn",
    }
    for line in (SimpleNamespace(**one) for one in lines):
        assert line.recall_at_5 == 1
        assert 0 < line.p50_ms <= line.p99_ms
        assert 0 < line.p50_ms_two_threads <= line.p99_ms_two_threads
        assert len(line.read_gb_per_s) == 2


def test_a_kind_that_is_not_there_is_told(world: Callable[[Console], World]) -> None:
    with pytest.raises(WrongUsage, match="'exakt' is no kind of search here"):
        search.main("200", "exakt", 20, 1, 1.0, 200, 0)
