"""The benchmark of search: what it looks through, and what it makes of what was found."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from decoder.bundle import load_bundle
from demo.model import ready_model
from hvf_core.problem import Problem, WrongUsage
from index.gallery import open_gallery
from index.search.flat import Flat
from index.search.gpu import refuse_no_gpu
from index.search.measure import Queries, truth_of
from stream.bench.search import rounds, run
from stream.bench.search import world as worlds
from stream.bench.search.kinds import Asked, K
from stream.bench.search.rounds import judged_by, read_gb_per_s
from stream.bench.search.world import World, pictures


def drawn(n: int, seed: int, dim: int = 12) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal((n, dim))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def asked_of(embeddings: np.ndarray, queries: Queries) -> Asked:
    scores = [Flat(embeddings).scores(vector) for vector in queries.vectors]
    best = [one.top_k(K) for one in scores]
    totals = [one.log_sum_exp(factor) for one, factor in zip(scores, queries.factors, strict=True)]
    first = np.array([cosines[0] for _, cosines in best])
    log_p = queries.factors * first - totals
    return Asked(np.ones(len(scores)), np.array([rows for rows, _ in best]), log_p)


def judged(embeddings: np.ndarray, queries: Queries, asked: Asked) -> dict[str, float]:
    truth = truth_of(embeddings, np.arange(len(embeddings)), queries)
    return judged_by(truth, embeddings, queries, asked)


def asking(n: int, seed: int) -> Queries:
    return Queries(drawn(n, seed), np.linspace(10, 40, n), "brain")


def test_exact_search_is_judged_to_find_all() -> None:
    embeddings, queries = np.tile(drawn(150, 0), (2, 1)), asking(40, 1)  # each image comes twice
    asked = asked_of(embeddings, queries)
    found = judged(embeddings, queries, asked)
    assert found["recall_at_1"] == found["recall_at_5"] == 1
    assert found["regret"] == pytest.approx(0, abs=1e-6)
    assert found["log_p_error_p99"] < 1e-4
    twins = asked._replace(rows=(asked.rows + 150) % 300)
    assert judged(embeddings, queries, twins)["recall_at_5"] == 1
    few = Asked(*(column[:10] for column in asked))  # as there was no time for more
    assert judged(embeddings, queries, few)["recall_at_5"] == 1


def test_what_is_missed_is_judged_so() -> None:
    embeddings, queries = drawn(300, 2), asking(40, 3)
    asked = asked_of(embeddings, queries)
    rows = asked.rows.copy()
    worst = np.argmin(queries.vectors @ embeddings.T, axis=1)
    rows[:10, 0], rows[:, 4] = worst[:10], worst
    found = judged(embeddings, queries, asked._replace(rows=rows, log_p=asked.log_p + 0.5))
    assert found["recall_at_1"] == 0.75
    assert found["recall_at_5"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.6)
    assert found["regret"] > 0.1
    assert found["log_p_error_p50"] == pytest.approx(0.5, rel=1e-3)
    of_a_peer = asked._replace(log_p=np.full(40, np.nan))
    assert "log_p_error_p50" not in judged(embeddings, queries, of_a_peer)


@pytest.mark.slow
def test_memory_is_read() -> None:
    assert read_gb_per_s(2) > 0


@pytest.mark.slow
def test_pictures_begin_with_those_of_the_demo_and_none_comes_twice() -> None:
    ids = [stimulus.id for stimulus in pictures()]
    assert tuple(ids[:200]) == tuple(open_gallery(ready_model().gallery).ids)
    assert len(set(ids)) == len(ids) == 200_000


@pytest.mark.slow
def test_embeddings_are_those_of_the_demos_own_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "BLOCK", 4)
    worlds._fuse(1, tmp_path / "fused.npy")
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

        def queries(self) -> Queries:
            return asking(60, 5)

    monkeypatch.setattr(rounds, "World", Cheap)
    monkeypatch.setattr(rounds, "_READ", 2**16)
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
    run.main("200,1100", "exact,ivf-sq8", 20, 2, 1.0, 250, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["images"], line["kind"]) for line in lines] == [
        (200, "exact"),  # so few are
        *((1100, kind) for kind in ("exact", "ivf-sq8")),
    ]
    assert {line["embeddings"] for line in lines} == {
        "200 of pictures, 0 drawn",
        "250 of pictures, 850 drawn",
    }
    for line in lines:
        assert line["recall_at_5"] == 1 or line["kind"] == "ivf-sq8"
        assert 0 < line["p50_ms"] <= line["p99_ms"]
        assert 0 < line["p50_ms_two_threads"] <= line["p99_ms_two_threads"]
        assert len(line["read_gb_per_s"]) == 2
        assert line["open_ms"] > 0
        assert line.get("index") == (
            "ivf-sq8" if line["kind"] == "ivf-sq8" and line["images"] == 1100 else None
        )


@pytest.mark.slow
def test_a_kind_that_cannot_run_here_says_why(
    world: Callable[[Console], World], capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(Problem):
        refuse_no_gpu()
        pytest.skip("there is a GPU here, and FAISS's build for it")
    run.main("200", "faiss-gpu", 20, 1, 1.0, 200, 0)
    line = json.loads(capsys.readouterr().out)
    assert "FAISS" in line["skipped"]
    assert "p50_ms" not in line


def test_a_kind_that_is_not_there_is_told(world: Callable[[Console], World]) -> None:
    with pytest.raises(WrongUsage, match="'exakt' is no kind of search here"):
        run.main("200", "exakt", 20, 1, 1.0, 200, 0)
    with pytest.raises(WrongUsage, match="'milvus-flat' is asked of a server: say which by --mil"):
        run.main("200", "exact,milvus-flat", 20, 1, 1.0, 200, 0)
    with pytest.raises(WrongUsage, match="--milvus-uri is no address of a Milvus server"):
        run.main("200", "exact", 20, 1, 1.0, 200, 0, "server")


@pytest.mark.parametrize("sizes", ["0", "-5", "abc", "200,"])
def test_what_is_no_size_is_told(sizes: str) -> None:
    with pytest.raises(WrongUsage, match="are no sizes: give numbers from 1 on"):
        run.main(sizes, "exact", 20, 1, 1.0, 200, 0)


@pytest.mark.slow
def test_what_was_measured_before_ctrl_c_is_kept(
    world: Callable[[Console], World],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_turn, n_turns = rounds._Kind.take_turn, 0

    def interrupted(*arguments: object) -> None:
        nonlocal n_turns
        n_turns += 1
        if n_turns == 4:  # in the second round
            raise KeyboardInterrupt
        take_turn(*arguments)

    monkeypatch.setattr(rounds._Kind, "take_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.main("200,300", "exact,IndexFlatIP", 20, 2, 1.0, 200, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["images"], one["kind"], one["rounds"]) for one in lines] == [
        (200, "exact", 2),
        (200, "IndexFlatIP", 1),
    ]
    assert all(one["p50_ms"] > 0 and one["memory_mb"] >= 0 for one in lines)
    assert {one["recall_at_5"] for one in lines} == {1}
