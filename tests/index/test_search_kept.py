"""The index that lies beside a gallery: it is used where it is of use, and said where it is not."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hvf_core.problem import Problem, WrongUsage
from index.gallery import Gallery, load_gallery, open_gallery, save_gallery
from index.gallery.appending import Row
from index.gallery.changes import add_images, remove_images
from index.search.approximate import Approximate
from index.search.base import Search
from index.search.choose import Chosen, Rows, choose
from index.search.flat import Flat
from index.search.measure import simulated_queries
from index.search.open import open_search
from index.search.remainder import moments_of
from index.search.stored import read_search, save_search
from offline_train.commands.app import app

N, DIM, FACTOR = 3000, 32, 15.0


def drawn(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((n, DIM)) * 0.85 ** np.arange(DIM) + 0.3
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def index(folder: Path, kind: str = "ivf-sq8") -> Chosen:
    """As fast as if it had been measured on a machine on which exact search is slow."""
    gallery = open_gallery(folder)
    moments, rows = moments_of(gallery.embeddings), gallery.rows
    queries = simulated_queries(gallery.embeddings, rows, FACTOR, 40)
    kinds = [] if kind == "exact" else [kind]
    chosen = choose(Rows(gallery.embeddings, rows, moments), queries, kinds, lambda text: None)
    exact = chosen.tried[0].model_copy(update={"p50_ms": 3.0})
    figures = chosen.figures.model_copy(update={"p50_ms": 0.5})
    chosen = replace(chosen, figures=figures, tried=(exact, *chosen.tried[1:]))
    save_search(gallery, chosen, moments, "test")
    return chosen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    ids = tuple(f"image {row}" for row in range(N))
    save_gallery(folder, Gallery(ids, ids, drawn(N, 0), "s", (), "test"))
    index(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "g"))


def opened(
    folder: Path, kind: str = "auto", among: np.ndarray | None = None
) -> tuple[Search, list[str]]:
    said: list[str] = []
    return open_search(open_gallery(folder), kind, said.append, among), said


def test_what_is_opened_is_what_was_chosen(folder: Path) -> None:
    load_gallery(folder)  # an index beside it is no fault of a gallery
    kept = read_search(open_gallery(folder))
    assert kept is not None
    assert kept.chosen.kind == "ivf-sq8"
    assert kept.chosen.good
    search, said = opened(folder)
    assert isinstance(search, Approximate)
    assert not said
    gallery = open_gallery(folder)
    for row in (0, 1234, N - 1):
        scores, exact = search.scores(drawn(N, 0)[row]), Flat(gallery.embeddings)
        assert scores.top_k(1)[0] == row
        total = exact.scores(drawn(N, 0)[row]).log_sum_exp(FACTOR)
        assert scores.log_sum_exp(FACTOR) == pytest.approx(total, abs=0.05)


def test_exact_search_can_be_asked_for(folder: Path) -> None:
    assert isinstance(opened(folder, "exact")[0], Flat)


def test_a_gallery_without_an_index_is_searched_exactly(folder: Path) -> None:
    shutil.rmtree(folder / "search")
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert not said
    with pytest.raises(Problem, match=r"has no index, not 'hnsw': make it with .* --kind hnsw`$"):
        opened(folder, "hnsw")


def test_another_kind_than_there_is_is_refused(folder: Path) -> None:
    with pytest.raises(Problem, match="an index of kind 'ivf-sq8', not 'hnsw'"):
        opened(folder, "hnsw")
    with pytest.raises(Problem, match="there is no search 'hmsw': give one of auto, exact"):
        opened(folder, "hmsw")
    assert isinstance(opened(folder, "ivf-sq8")[0], Approximate)


def test_where_exact_search_was_chosen_it_is_taken(folder: Path) -> None:
    assert index(folder, "exact").index is None
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert not said


def test_a_kind_that_is_not_good_is_not_taken_by_itself(folder: Path) -> None:
    manifest = folder / "search/search.json"
    told = json.loads(manifest.read_text())
    told["chosen"]["recall_5"] = 0.97
    manifest.write_text(json.dumps(told))
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert "recall@5 0.970" in said[0]
    assert isinstance(opened(folder, "ivf-sq8")[0], Approximate)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tried", []),
        ("blocks", []),
        ("files", {}),
        ("n_rows", 10 * N),
        ("chosen.kind", "fast"),
        ("chosen.effort", -1),
        ("chosen.effort", 9),
        ("chosen.n_candidates", 0),
        ("chosen.p50_ms", float("nan")),
    ],
)
def test_what_is_not_valid_is_said_and_the_gallery_is_searched_exactly(
    folder: Path, name: str, value: object
) -> None:
    manifest = folder / "search/search.json"
    told = json.loads(manifest.read_text())
    *into, key = name.split(".")
    (told[into[0]] if into else told)[key] = value
    manifest.write_text(json.dumps(told))
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert str(folder) in said[0]


def test_a_small_part_is_searched_exactly_and_of_a_large_one_is_said_what_was_measured(
    folder: Path,
) -> None:
    rows = np.arange(N * 6 // 10)
    search, said = opened(folder, among=rows)
    assert isinstance(search, Flat)
    assert f"of the {N} images of the index {len(rows)} count" in said[0]
    manifest = folder / "search/search.json"
    told = json.loads(manifest.read_text())
    told["tried"][0]["p50_ms"] = 100.0
    manifest.write_text(json.dumps(told))
    search, said = opened(folder, among=rows)
    assert isinstance(search, Approximate)
    assert "how good it is was measured with all of them" in said[0]


def test_images_that_were_added_and_removed_since_are_respected(folder: Path) -> None:
    ids = [f"new {i}" for i in range(100)]
    remove_images(folder, [f"image {row}" for row in range(50)])
    add_images(folder, [([Row(i, i) for i in ids], drawn(100, 9))], "test")
    search, said = opened(folder)
    assert isinstance(search, Approximate)
    assert not said
    assert search.scores(drawn(100, 9)[99]).top_k(1)[0] == N + 99
    removed = search.scores(drawn(N, 0)[7])
    assert removed.place_of(7) == 0
    assert removed.top_k(20)[0].min() >= 50


def test_many_added_images_and_an_index_that_is_slow_are_told(folder: Path) -> None:
    add_images(folder, [([Row(f"n{i}", "") for i in range(2 * N)], drawn(2 * N, 9))], "test")
    gallery = open_gallery(folder)
    kept = read_search(gallery)
    assert kept is not None
    search, said = opened(folder)
    assert isinstance(search, Approximate)  # still faster than looking at all that there are
    assert said == [
        f"{2 * N} images were added since the index was made, and take longer than the index: "
        "make it again with `python -m offline_train gallery index GALLERY`"
    ]
    told = kept.model_copy(update={"chosen": kept.chosen.model_copy(update={"p50_ms": 3.5})})
    (folder / "search/search.json").write_text(told.model_dump_json())
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert said == [
        f"the index 'ivf-sq8' takes longer than looking at its {N} images; meanwhile the gallery "
        "is searched exactly"
    ]


def test_a_subset_is_searched_exactly_as_the_index_was_measured_with_all(folder: Path) -> None:
    search, said = opened(folder, among=np.arange(0, N, 3))
    assert isinstance(search, Flat)
    assert f"of the {N} images of the index 1000 count" in said[0]
    most, said = opened(folder, among=np.arange(N - 100))
    assert isinstance(most, Approximate)
    assert not said
    with pytest.raises(Problem, match="none of the gallery's images is to be searched"):
        opened(folder, among=np.array([], np.int64))


def test_an_index_of_other_rows_is_noticed(folder: Path, tmp_path: Path) -> None:
    ids = tuple(f"image {row}" for row in range(N))
    save_gallery(tmp_path / "other", Gallery(ids, ids, drawn(N, 5), "s", (), "test"))
    shutil.copytree(folder / "search", tmp_path / "other/search")
    search, said = opened(tmp_path / "other")
    assert isinstance(search, Flat)
    assert "was made of other rows" in said[0]
    assert "make it again" in said[0]
    with pytest.raises(Problem, match="made of other rows"):
        opened(tmp_path / "other", "ivf-sq8")


@pytest.mark.parametrize("name", ["index.faiss", "moments.safetensors", "search.json"])
def test_a_damaged_index_is_noticed(folder: Path, name: str) -> None:
    file = folder / "search" / name
    file.write_bytes(file.read_bytes()[:-20])
    search, said = opened(folder)
    assert isinstance(search, Flat)
    assert name in said[0]


def test_a_writing_that_fails_leaves_the_index_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in (folder / "search").iterdir()}
    monkeypatch.setattr("index.search.stored.write_tensors", fail)
    with pytest.raises(KeyboardInterrupt):
        index(folder)
    assert {path.name: path.read_bytes() for path in (folder / "search").iterdir()} == before
    assert isinstance(opened(folder)[0], Approximate)


@pytest.mark.slow
def test_images_are_added_while_others_ask(folder: Path) -> None:
    """No wrong, missing or torn answer: each is right for the gallery that was opened for it."""
    later, stop = drawn(1000, 7), threading.Event()
    wrong: list[str] = []
    said: set[str] = set()
    asked = [0, 0]

    def ask(number: int) -> None:
        rng = np.random.default_rng(number)
        known = np.concatenate([drawn(N, 0), later])
        while not stop.is_set() or asked[number] < 500:
            gallery = open_gallery(folder)
            search = open_search(gallery, "auto", said.add)
            for row in rng.integers(gallery.n_rows, size=20).tolist():
                scores = search.scores(known[row])
                rows, cosines = scores.top_k(5)
                expected = known[: gallery.n_rows] @ known[row]
                asked[number] += 1
                if rows[0] != row or rows.max() >= gallery.n_rows:
                    wrong.append(f"{rows} of {gallery.n_rows} for {row}")
                if not np.allclose(cosines, expected[rows], atol=1e-5):
                    wrong.append(f"{cosines} for {row}")
                total = np.log(np.exp(FACTOR * expected).sum())
                if abs(scores.log_sum_exp(FACTOR) - total) > 0.1:
                    wrong.append(f"a total of {scores.log_sum_exp(FACTOR)}, not {total}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for start in range(0, 1000, 100):
        rows = [Row(f"later {i}", "") for i in range(start, start + 100)]
        add_images(folder, [(rows, later[start : start + 100])], "test")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert all("images were added since the index was made" in sentence for sentence in said)
    assert sum(asked) >= 1000
    assert open_gallery(folder).n_rows == N + 1000


# --- the command ---------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gallery", "index", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_measures_kinds_and_keeps_the_best(folder: Path) -> None:
    shutil.rmtree(folder / "search")
    result = command(folder, "--kind", "ivf-sq8")
    assert result.exit_code == 0, result.output
    assert f"{N} images, 500 simulated queries" in result.output
    kept = read_search(open_gallery(folder))
    assert kept is not None
    assert f"'ivf-sq8' is {'taken' if kept.chosen.good else 'kept'}" in result.output
    assert isinstance(opened(folder, "ivf-sq8")[0], Approximate)
    told = CliRunner().invoke(app, ["gallery", "info", str(folder)]).output
    assert f"ivf-sq8 of {N} rows" in told
    assert "simulated queries" in told


def test_the_command_leaves_a_small_gallery_without_an_index(tmp_path: Path) -> None:
    ids = tuple(map(str, range(50)))
    save_gallery(tmp_path / "g", Gallery(ids, ids, drawn(50, 0), "s", (), "test"))
    result = command(tmp_path / "g")
    assert result.exit_code == 0
    assert "50 images are searched exactly" in result.output
    assert not (tmp_path / "g/search").exists()


def test_the_command_refuses_what_does_not_belong_together(folder: Path) -> None:
    for arguments, why in (
        (("--kind", "fast"), "there is no kind 'fast'"),
        (("--queries", folder), "--queries and --bundle belong together"),
    ):
        result = command(folder, *arguments)
        assert isinstance(result.exception, WrongUsage)
        assert why in str(result.exception)


@pytest.mark.slow
def test_the_table_cuts_no_name_and_the_verdict_says_what_was_measured(folder: Path) -> None:
    output = command(folder, "--kind", "ivf-rabitq").output
    assert "ivf-rabitq " in output.split("build s")[1]
    kept = read_search(open_gallery(folder))
    assert kept is not None
    assert f"recall@5 {kept.chosen.recall_5:.4f}" in " ".join(output.split())
