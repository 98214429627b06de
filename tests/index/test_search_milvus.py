"""Search over Milvus: as good as exact, never waited for, refused where it is another gallery's."""

import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.engine.collection import Collection
from pymilvus import MilvusClient
from typer.testing import CliRunner

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from index.gallery import Gallery, open_gallery, save_gallery
from index.gallery.changes import Row, add_images, remove_images
from index.search.flat import Flat
from index.search.measure import simulated_queries
from index.search.milvus import load as loading
from index.search.milvus import search as searching
from index.search.milvus.kept import collection_of
from index.search.milvus.search import Milvus, open_milvus
from index.search.milvus.server import Lost, Server
from index.search.milvus.settings import MilvusSettings
from offline_train.commands.app import app
from stream.bench.search.kinds import K, Place, ask, load_on_server, open_kind
from stream.doctor.models import milvus as looked_at
from stream.doctor.verdict import Named
from stream.pipeline.decoding import open_decoder
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig, SessionSettings
from tests.tiny_bundle import tiny_models
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
N, DIM, FACTOR = 1500, 16, 15.0
PATIENT_S = 60.0


def drawn(n: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((n, DIM)) * 0.85 ** np.arange(DIM) + 0.2
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def saved(folder: Path, n: int = N, seed: int = 0, space: str = "s") -> Gallery:
    ids = tuple(f"image {row}" for row in range(n))
    save_gallery(folder, Gallery(ids, ids, drawn(n, seed), space, (), "test"))
    return open_gallery(folder)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, data, port = start_server_in_thread(str(tmp_path_factory.mktemp("milvus")))
    yield f"http://127.0.0.1:{port}"
    server.stop(0).wait()
    data.close()


@pytest.fixture(scope="module")
def folder(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery that the command has loaded."""
    folder = tmp_path_factory.mktemp("loaded") / "g"
    saved(folder)
    done = CliRunner().invoke(app, ["gallery", "load-milvus", str(folder), "--uri", uri])
    assert done.exit_code == 0, done.output
    assert (
        f"{N} images are in the collection '{collection_of(open_gallery(folder))}'" in done.output
    )
    assert "with 100 simulated queries 100.0% of the best five were found" in done.output
    assert f"--search milvus --milvus-uri {uri}" in done.output
    return folder


def opened(
    gallery: Gallery, uri: str, deadline_s: float = PATIENT_S
) -> tuple[Milvus, list[tuple[str, dict]]]:
    said: list = []
    local = Flat(gallery.embeddings, gallery.rows if len(gallery.removed) else None)
    asked = MilvusSettings(uri=uri, deadline_s=deadline_s)
    search, figures = open_milvus(gallery, asked, local, lambda *one: said.append(one))
    assert isinstance(search, Milvus)
    assert (search.kind, search.exact, figures.kind) == ("milvus", False, "milvus")
    return search, said


def test_it_finds_what_exact_search_finds(folder: Path, uri: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "g")
    remove_images(tmp_path / "g", [f"image {row}" for row in range(0, N, 20)])
    rows = [Row(f"new {row}", "new") for row in range(40)]
    add_images(tmp_path / "g", [(rows, drawn(40, 9))], "test")
    galleries = open_gallery(folder), open_gallery(tmp_path / "g")
    found = [opened(gallery, uri)[0] for gallery in galleries]

    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([FACTOR, 3 * FACTOR]))
    def check(seed: int, changed: bool, factor: float) -> None:
        gallery, search = galleries[changed], found[changed]
        rng = np.random.default_rng(seed)
        image = gallery.embeddings[rng.choice(gallery.rows)]
        vector = (image + rng.standard_normal(DIM) * rng.uniform(0, 0.5)).astype(np.float32)
        exact = Flat(gallery.embeddings, gallery.rows).scores(vector)
        scores = search.scores(vector)
        for ours, true in zip(scores.top_k(5), exact.top_k(5), strict=True):
            assert ours.tolist() == true.tolist()
        assert scores.log_sum_exp(factor) == pytest.approx(exact.log_sum_exp(factor), abs=0.05)
        first = int(exact.top_k(1)[0][0])
        assert scores.place_of(first) == 1

    check()
    assert [search.n_local for search in found] == [0, 0]
    named = Named(SessionSettings(gallery=folder, decoding={"milvus": {"uri": uri}}))
    assert [one.state for one in looked_at(named)] == ["ok", "ok"]


def test_nobody_waits_for_a_server_that_hangs(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_AGAIN_S", 0.0)  # it is asked again with the next answer
    gallery = open_gallery(folder)
    search, said = opened(gallery, uri, deadline_s=0.5)
    goes_on, really = Event(), Collection.search

    def hang(*asked: object, **more: object) -> object:
        goes_on.wait(60)
        return really(*asked, **more)

    monkeypatch.setattr(Collection, "search", hang)
    vectors, exact = drawn(5, 3), Flat(gallery.embeddings)
    for vector in vectors:
        ours, true = search.scores(vector).top_k(3), exact.scores(vector).top_k(3)
        assert ours[0].tolist() == true[0].tolist()
    assert search.n_local == 5
    lost, facts = said[0]
    assert lost.startswith(f"the Milvus server at {uri} did not ")
    assert lost.endswith("; answers are found on this machine ('exact') until it does")
    assert facts == {"milvus_fallbacks": 1}
    assert [facts["milvus_fallbacks"] for _, facts in said[1:]] == [2, 4]
    goes_on.set()

    def is_back() -> bool:
        search.scores(vectors[0])
        return "answers again" in said[-1][0]

    wait_until(is_back)
    assert said[-1][1] == {"milvus_fallbacks": search.n_local}


def test_a_load_that_was_ended_goes_on_and_what_grew_is_added(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, server = saved(tmp_path / "g", 50, seed=5), Server(uri)
    monkeypatch.setattr(loading, "BATCH_BYTES", 8 * 4 * DIM)  # eight rows
    written: list[tuple[int, bool]] = []
    really = Server.write

    def write(self: Server, name: str, first: int, part: np.ndarray, *, anew: bool) -> None:
        written.append((first, anew))
        if len(written) == 3:
            really(self, name, first, part[:5], anew=anew)  # the connection was lost meanwhile
            raise Lost("the server is lost")
        really(self, name, first, part, anew=anew)

    monkeypatch.setattr(Server, "write", write)
    load = partial(loading.load, server=server, collection="grows", index="flat")
    with pytest.raises(Lost):
        load(gallery, tell=lambda *_: None)
    made_of = load(gallery, tell=lambda *_: None)
    assert written == [
        *((0, True), (8, False), (16, False)),
        *((16, True), (24, False), (32, False), (40, False), (48, False)),
    ]
    queries = simulated_queries(gallery.embeddings, gallery.rows, FACTOR, 20)
    assert loading.measure(gallery, server, "grows", made_of, queries).recall_5 == 1
    rows = [Row(f"new {row}", "new") for row in range(3)]
    grown = add_images(tmp_path / "g", [(rows, drawn(3, 6))], "test")
    del written[:]
    load(grown, tell=lambda *_: None)
    assert written == [(48, True)]
    assert server.count("grows", 100) == 53
    search, exact = opened(grown, uri)[0], Flat(grown.embeddings)
    for vector in drawn(10, 7):
        ours, true = search.scores(vector), exact.scores(vector)
        assert ours.top_k(5)[0].tolist() == true.top_k(5)[0].tolist()
    other = saved(tmp_path / "other", 50, seed=8)
    with pytest.raises(Problem, match=r"was made of other images than .*another --collection"):
        load(other, tell=lambda *_: None)
    with pytest.raises(Problem, match="is of the embedding space s, the gallery of t"):
        load(saved(tmp_path / "space", 50, seed=5, space="t"), tell=lambda *_: None)
    with pytest.raises(Problem, match=r"is on no Milvus server: load it with `python -m .*milvus"):
        opened(other, uri)


def test_a_load_ends_when_the_server_searches_by_its_index(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Milvus 2.3 has loaded of an index that is built: nothing, rows without it, with it."""
    states = [
        [SimpleNamespace(num_rows=rows, index_name=index) for rows, index in segments]
        for segments in ([], [(N, "")], [(N - 500, "embedding"), (500, "")])
    ]
    monkeypatch.setattr(MilvusClient, "list_loaded_segments", lambda *_, **__: states.pop(0))
    monkeypatch.setattr(loading, "_LOOK_S", 0.0)
    told: list[str] = []
    name = collection_of(open_gallery(folder))
    loading.load(open_gallery(folder), Server(uri), name, "hnsw", lambda _, text: told.append(text))
    assert told[-2:] == [f"the server makes its index ready, {N} images left"] * 2
    assert not states


def test_a_collection_that_is_not_the_gallery_s_is_refused(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, name = open_gallery(folder), collection_of(open_gallery(folder))
    client = MilvusClient(uri)
    client.create_collection("theirs", dimension=DIM)
    refused = CliRunner().invoke(
        app, ["gallery", "load-milvus", str(folder), "--uri", uri, "--collection", "theirs"]
    )
    assert "'theirs' at" in str(refused.exception)
    assert "was not made by this program" in str(refused.exception)
    there = client.describe_collection(name)["properties"]["hvf_live"]
    with monkeypatch.context() as patched:
        patched.setattr(Server, "said_of", lambda *_: there.replace('"s"', '"another"'))
        with pytest.raises(
            Problem, match=r"of the embedding space another, the gallery of s: load"
        ):
            opened(gallery, uri)
        patched.setattr(Server, "said_of", lambda *_: '{"schema_version": 2}')
        with pytest.raises(Problem, match="was written by another version of this program"):
            opened(gallery, uri)
        patched.setattr(Server, "said_of", lambda *_: None)
        with pytest.raises(Problem, match=rf"the collection '{name}' at {uri} is not there: load"):
            opened(gallery, uri)
    client.release_collection(name)  # as who looks after the server may do
    assert opened(gallery, uri)[0].scores(gallery.embeddings[7]).top_k(1)[0] == [7]
    client.delete(name, filter="row < 3")
    with pytest.raises(Problem, match=f"has {N - 3} of its {N} images: load it with"):
        opened(gallery, uri)
    with monkeypatch.context() as patched:
        patched.setattr(MilvusClient, "get_server_version", lambda *_, **__: "v2.2.9")
        with pytest.raises(Problem, match=r"is of version 'v2.2.9', known are 2.3 to 3: use"):
            Server(uri)


def test_a_session_says_how_good_it_is_and_what_is_there_without_it(
    uri: str, tmp_path: Path
) -> None:
    models, server = tiny_models(tmp_path), Server(uri)
    gallery = open_gallery(models / "gallery")
    made_of = loading.load(gallery, server, "tiny", "flat", lambda *_: None)
    queries = simulated_queries(gallery.embeddings, gallery.rows, FACTOR, 5)
    loading.measure(gallery, server, "tiny", made_of, queries)
    asked = {"search": "milvus", "milvus": {"uri": uri, "deadline_s": PATIENT_S}, "engine": "torch"}
    config = SessionConfig(
        session="s",
        folder=tmp_path,
        endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
        source=LiveSource(eeg="eeg", markers="markers"),
        bundle=models / "bundle",
        gallery=models / "gallery",
        decoding=asked,
    )
    said: list = []
    bundle = open_bundle(models / "bundle")
    live = open_decoder(config, bundle, gallery, float, lambda *one: said.append(one))
    live.warm_up()
    (good, facts), (instead, _), *_ = said
    assert f"the search of {len(gallery)} images is 'milvus', which is not exact: with simu" in good
    assert (facts["search"], facts["is_exact"], facts["recall_5"]) == ("milvus", False, 1.0)
    assert instead.startswith("should the server be lost: the search of")
    assert not any("fallbacks" in str(one) for one in said)


def test_the_benchmark_has_a_collection_of_its_own_which_it_takes_away(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    place, gallery = Place.on(uri), open_gallery(folder)
    assert load_on_server(folder, "milvus-flat", place)["server"].startswith("Milvus milvus_lite")
    assert not open_kind(folder, "milvus-flat", place)["exact"]
    queries = simulated_queries(gallery.embeddings, gallery.rows, FACTOR, 20)
    found = ask(queries, 2, PATIENT_S)
    for vector, factor, rows, log_p in zip(
        queries.vectors, queries.factors, found.rows, found.log_p, strict=True
    ):
        true = Flat(gallery.embeddings).scores(vector)
        best, cosines = true.top_k(K)
        assert rows.tolist() == best.tolist()
        assert log_p == pytest.approx(factor * cosines[0] - true.log_sum_exp(factor), abs=0.05)
    place.drop()
    assert "is not there" in open_kind(folder, "milvus-flat", place)["skipped"]


def test_a_server_that_is_not_there_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Lost, match=rf"the Milvus server at {uri} is not reached \("):
            Server(uri, timeout_s=0.2)
    with pytest.raises(Lost, match=rf"the Milvus server at {uri} is not reached \("):
        Server(uri, timeout_s=0.2)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "http://root:Milvus@server:19530",
            "put USER:PASSWORD into the environment as MILVUS_TOKEN",
        ),
        ("gallery.db", "no address of a Milvus server: give one such as http://server:19530"),
    ],
)
def test_an_address_holds_no_password(uri: str, said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["gallery", "load-milvus", str(tmp_path), "--uri", uri])
    assert said in str(done.exception)
    with pytest.raises(ValueError, match=said):
        MilvusSettings(uri=uri)
