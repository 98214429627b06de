"""Whoever asks, and whatever for: one sentence, one entry, and the session goes on."""

import json
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.bundle import open_bundle
from hvf_core.settings import live_settings
from index.gallery import MANIFEST, Gallery, load_gallery, open_gallery, save_gallery
from index.gallery.changes import Row, add_images, compact_gallery, remove_images
from stream.pipeline import control
from stream.pipeline.books.summary import summary_rows
from stream.pipeline.control import QUIET, SESSION, VERBS, Control
from stream.pipeline.decoding import look_up_in, open_decoder, prepare
from stream.pipeline.galleries import accept, let_go, open_accepted
from stream.pipeline.nodes.decode import Decoder
from stream.pipeline.states import Event, Lifecycle, State
from stream.pipeline.wire.asked import Asked
from stream.pipeline.wire.config import DecodingSettings, Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.messages import Controlled
from stream.pipeline.wire.nodes import DECODE, READER, RESULTS
from stream.pipeline.wire.orders import changed
from tests.index.test_search_kept import drawn
from tests.index.test_search_kept import index as index_gallery
from tests.stream.test_flow import SUMMARY
from tests.tiny_bundle import tiny_models
from tests.waiting import wait_until


@dataclass
class FakeNodes:
    """Keeps what nodes are told."""

    config: SessionConfig
    orders: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def order(self, order: str, *names: str) -> None:
        self.orders.append((order, names))


class Stage:
    """A session that runs, as far as control sees it."""

    def __init__(self, folder: Path, **more: object):
        config = SessionConfig(
            session="s",
            folder=folder,
            endpoints=Endpoints.local(),
            source=LiveSource(eeg="EEG", markers="m"),
            **more,
        )
        self.nodes, self.life = FakeNodes(config), Lifecycle(0.0)
        self.life.on(Event.WAIT if config.about.form else Event.READY, 0.0)
        self.control = Control(
            self.nodes, self.life, lambda event: self.life.on(event, 0.0), clock=lambda: 12.5
        )

    def ask(self, verb: str, argument: str = "") -> Controlled:
        asked = Asked((b"id",), "me", verb, argument)
        self.control.obey(asked)
        wait_until(lambda: self.control.look() or self.control.told)
        ((whose, done),) = self.control.told
        self.control.told.clear()
        assert whose is asked
        return done


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def stage(tmp_path: Path, models: Path) -> Stage:
    return Stage(tmp_path, bundle=models / "bundle", gallery=models / "gallery")


def test_a_session_is_paused_resumed_and_ended(stage: Stage) -> None:
    for verb, state in (
        ("pause", State.PAUSED),
        ("resume", State.RUNNING),
        ("finish", State.FINISHING),
        ("stop", State.STOPPING),
    ):
        done = stage.ask(verb)
        assert (done.outcome, stage.life.state) == ("done", state)
        assert (done.verb, done.by, done.stamp_s) == (verb, "me", 12.5)
    assert stage.nodes.orders == [("pause", (READER,))]  # so that an endless source is finished


def test_a_session_that_waits_for_its_form_is_paused_until_its_start(tmp_path: Path) -> None:
    stage = Stage(tmp_path, about={"form": True})
    done = [(stage.ask(verb).outcome, stage.life.state) for verb in ("resume", "start", "start")]
    running = State.RUNNING
    assert done == [("refused", State.PAUSED), ("done", running), ("refused", running)]


@pytest.mark.parametrize(
    ("verb", "argument", "said"),
    [
        ("resume", "", "a session that is running has nothing to resume"),
        ("mark", "", "'mark' says nothing of what: give it one line of text"),
        ("dance", "x", "there is no verb 'dance'; there are finish, stop, pause"),
        ("set", "nonsense 1", "there is no setting 'nonsense'"),
        ("set", "bundle /x", "bundle cannot change during a session; these can: "),
        ("gallery", "/nowhere", "/nowhere"),
        ("set", "decoding.search fast", "no search 'fast': give one of auto, exact"),
        ("set", "decoding.search hnsw", "the gallery has no index, not 'hnsw'"),
        ("set", "decoding.search milvus", "the search 'milvus' needs a server: give --milvus-uri"),
        pytest.param("gallery", "a" * 5000, "there is no /", id="no name of a file"),
        pytest.param("set", f"top_k {'[' * 20_000}", "top_k '[[[", id="no end of brackets"),
        ("reset_group", " ", "'reset_group' says nothing"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(stage, verb, argument, said) -> None:
    before = stage.nodes.config
    done = stage.ask(verb, argument)
    assert done.outcome == "refused"
    assert said in done.text
    assert stage.life.state is State.RUNNING
    assert (stage.nodes.config, stage.nodes.orders) == (before, [])


def test_without_a_bundle_there_is_nothing_to_look_up_or_to_forget(tmp_path: Path) -> None:
    for verb in ("gallery", "reset_group"):
        assert "no bundle" in Stage(tmp_path).ask(verb, "x").text


def test_a_mark_is_an_entry_with_its_moment_and_nothing_else(stage: Stage) -> None:
    done = stage.ask("mark", "the subject coughed")
    assert (done.outcome, done.argument, done.stamp_s) == ("done", "the subject coughed", 12.5)
    assert stage.nodes.orders == []


def test_a_group_is_reset_in_the_decoder_and_a_snapshot_comes_from_results(stage: Stage) -> None:
    stage.ask("reset_group", "a cup")
    stage.ask("hello")
    assert stage.nodes.orders == [("reset_group a cup", (DECODE,)), ("hello", (RESULTS,))]


def test_a_live_setting_changes_in_every_process_and_is_told_with_old_and_new(stage) -> None:
    done = stage.ask("set", "decoding.min_confidence 0.5")
    assert (done.outcome, done.facts) == ("done", {"old": 0.0, "new": 0.5})
    ((order, names),) = stage.nodes.orders
    assert {READER, DECODE, RESULTS} <= set(names)
    begun = Stage(stage.nodes.config.folder).nodes.config  # of a node that has run from the start
    verb, _, argument = order.partition(" ")
    assert changed(begun, verb, argument).decoding.min_confidence == 0.5
    assert stage.nodes.config.decoding.min_confidence == 0.5
    refused = stage.ask("set", "decoding.min_confidence 7")
    assert "decoding.min_confidence 7" in refused.text
    assert stage.nodes.config.decoding.min_confidence == 0.5


def test_there_are_live_settings() -> None:
    assert {"decoding.min_confidence", "top_k"} <= set(live_settings(SessionConfig))


def test_a_gallery_of_the_same_space_takes_the_place_of_the_other(stage, models, tmp_path) -> None:
    from index.gallery import load_gallery

    old = load_gallery(models / "gallery")
    n = len(old) - 1
    fewer = Gallery(
        old.ids[:n], old.labels[:n], old.embeddings[:n], old.space, old.image_encoders, "test"
    )
    save_gallery(tmp_path / "fewer", fewer)
    done = stage.ask("gallery", str(tmp_path / "fewer"))
    text = f"answers are now among the {n} images of '{tmp_path / 'fewer'}', before among {n + 1}"
    assert done.text == text
    assert (done.facts["n_old"], done.facts["n_new"]) == (n + 1, n)
    assert stage.nodes.config.gallery == tmp_path / "fewer"
    eye = np.eye(len(old), dtype=np.float32)
    other = Gallery(old.ids, old.labels, eye, "elsewhere", old.image_encoders, "test")
    save_gallery(tmp_path / "other", other)
    assert "embedding space" in stage.ask("gallery", str(tmp_path / "other")).text
    assert stage.nodes.config.gallery == tmp_path / "fewer"


def test_images_that_are_alike_are_told_to_whoever_asks(stage, models, tmp_path) -> None:
    old, rng = open_gallery(models / "gallery"), np.random.default_rng(0)
    drawn = rng.normal(size=old.embeddings.shape).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    labels = [f"Bild {id_}" for id_ in old.ids]
    told = Gallery(tuple(old.ids), tuple(labels), drawn, old.space, old.image_encoders, "test")
    gallery = save_gallery(tmp_path / "drawn", told)
    assert stage.ask("gallery", str(tmp_path / "drawn")).outcome == "done"
    stage.nodes.orders.clear()
    cosines = gallery.embeddings @ gallery.embeddings[1]
    cosines[1] = -2  # it is not like itself
    rows = np.argsort(-cosines, kind="stable")[:3]
    done = stage.ask("like", f"3 {gallery.ids[1]}")
    assert done.outcome == "done"
    ids, labels, told = zip(*json.loads(done.text), strict=True)
    assert ids == tuple(gallery.ids[row] for row in rows)
    assert labels == tuple(gallery.labels[row] for row in rows)
    assert told == pytest.approx(cosines[rows], abs=1e-6)
    everything = json.loads(stage.ask("like", f"1000 {gallery.ids[1]}").text)
    assert {id_ for id_, *_ in everything} == {*gallery.ids} - {gallery.ids[1]}
    for argument in ("apple", "0 apple", "-1 apple", "3", "3 "):
        assert "like which: `like 5 apple`" in stage.ask("like", argument).text
    assert "there is no image 'none' in the gallery" in stage.ask("like", "3 none").text
    assert stage.nodes.orders == []
    assert "like" in QUIET


def test_the_loop_does_not_wait_for_a_gallery_that_is_looked_at(stage, models, monkeypatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(control, "usable", lambda *_: looked.wait(100) and open_gallery(*_[:1]))
    stage.control.obey(Asked((b"id",), "me", "gallery", str(models / "gallery")))
    stage.control.look()
    assert stage.control.told == []
    assert stage.ask("set", "top_k 2").outcome == "done"  # which is asked later, and done before
    looked.set()
    wait_until(lambda: stage.control.look() or stage.control.told)
    assert stage.control.told[0][1].outcome == "done"
    assert [order.split()[0] for order, _ in stage.nodes.orders] == ["set", "gallery"]


# --- a gallery that changes ----------------------------------------------------------------------


@pytest.fixture
def growing(tmp_path: Path, models: Path) -> Stage:
    """A session whose gallery is its own, and was accepted."""
    shutil.copytree(models / "gallery", tmp_path / "gallery")
    (tmp_path / "session").mkdir()
    told = {"bundle": models / "bundle", "gallery": tmp_path / "gallery"}
    stage = Stage(tmp_path / "session", **told)
    accept(stage.nodes.config, load_gallery(tmp_path / "gallery"), None)
    return stage


def add(stage: Stage, *ids: str) -> None:
    drawn = np.random.default_rng(len(ids)).normal(size=(len(ids), 8)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    add_images(stage.nodes.config.gallery, [([Row(id_, id_) for id_ in ids], drawn)], "test")


def noticed(stage: Stage, n: int = 1) -> Controlled:
    """What the session says of its gallery after so many looks, once all is done."""
    for _ in range(n):
        stage.control._next_look_s = 0.0
        stage.control.look()
    wait_until(lambda: stage.control.look() or not stage.control._begun)
    told = [done for asked, done in stage.control.told if asked.by == SESSION]
    stage.control.told.clear()
    return told[0] if told else None


def test_images_that_are_added_or_removed_are_noticed_and_told(growing: Stage) -> None:
    folder = growing.nodes.config.gallery
    assert noticed(growing) is None
    add(growing, *(f"new {n}" for n in range(5)))
    assert len(open_accepted(growing.nodes.config)) == 8  # also of a node that starts just now
    done = noticed(growing)
    assert (done.outcome, done.verb, done.argument) == ("done", "gallery", str(folder))
    assert done.text == f"answers are now among the 13 images of '{folder}', before among 8"
    assert done.facts["revision"] == open_gallery(folder).revision
    assert growing.nodes.orders == [(f"gallery {folder}", control._WHO_KNOWS)]
    assert open_accepted(growing.nodes.config).row_of("new 4") == 12
    assert noticed(growing) is None
    remove_images(folder, ["a", "new 0"])
    assert open_accepted(growing.nodes.config).row_of("a") == 0
    assert noticed(growing).facts["n_new"] == 11
    assert open_accepted(growing.nodes.config).row_of("a") is None
    compact_gallery(folder)
    assert len(open_accepted(growing.nodes.config)) == 11
    assert noticed(growing).facts["n_new"] == 11
    assert open_accepted(growing.nodes.config).row_of("b") == 0
    add(growing, "one more")
    assert len(open_accepted(growing.nodes.config)) == 11
    assert noticed(growing).facts["n_new"] == 12


@pytest.mark.parametrize("what", ["space", "rows", "manifest", "gone"])
def test_a_gallery_that_cannot_be_used_is_refused_once_and_the_session_keeps_its_own(
    what: str, growing: Stage, models: Path
) -> None:
    folder, config = growing.nodes.config.gallery, growing.nodes.config
    whole = (folder / MANIFEST).read_bytes()
    add(growing, "x", "y")
    manifest = (folder / MANIFEST).read_text()
    if what == "space":
        (folder / MANIFEST).write_text(manifest.replace(open_gallery(folder).space, "0" * 64))
    elif what == "rows":
        rows = (folder / "embeddings.f32").read_bytes()
        (folder / "embeddings.f32").write_bytes(rows[:-4])
    elif what == "manifest":
        (folder / MANIFEST).write_text(manifest[:40])
    else:
        (folder / MANIFEST).unlink()
    done = noticed(growing, 2)
    assert done.outcome == "refused"
    assert done.text
    assert noticed(growing, 2) is None
    assert growing.nodes.orders == []
    assert len(open_accepted(config)) == 8
    if what == "rows":  # it was copied to half, and the rest comes
        (folder / "embeddings.f32").write_bytes(rows)
        assert noticed(growing).facts["n_new"] == 10
    else:
        (folder / MANIFEST).write_bytes(whole)
        assert noticed(growing) is None
    add(growing, "z")
    assert noticed(growing).outcome == "done"


def test_a_disk_that_fails_while_a_gallery_is_read_ends_no_session(growing, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error", "embeddings.f32")

    monkeypatch.setattr("stream.pipeline.galleries.load_gallery", fail)
    add(growing, "x")
    assert "cannot be read ([Errno 5] Input/output error" in noticed(growing).text
    monkeypatch.undo()
    monkeypatch.setattr("stream.pipeline.control.accept", fail)
    assert "Input/output error" in growing.ask("gallery", str(growing.nodes.config.gallery)).text
    assert growing.nodes.orders == []


def test_only_what_is_new_is_read(growing: Stage) -> None:
    """Old rows are not read again: that they have changed meanwhile is not even seen."""
    folder = growing.nodes.config.gallery
    with (folder / "embeddings.f32").open("r+b") as file:
        file.write(np.float32(np.eye(8)[1]).tobytes())
    add(growing, "x")
    assert noticed(growing).outcome == "done"
    assert growing.ask("gallery", str(folder)).outcome == "done"
    shutil.copytree(folder, folder.with_name("copy"))
    assert "damaged" in growing.ask("gallery", str(folder.with_name("copy"))).text


def test_answers_are_among_the_images_of_a_file(growing: Stage, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("c\n\na\r\nc\n", encoding="utf-8-sig")
    done = growing.ask("set", f"decoding.among {file}")
    assert done.outcome == "done"
    assert done.facts == {"old": None, "new": str(file), "n_old": 8, "n_new": 2}
    gallery = open_accepted(growing.nodes.config)
    assert (len(gallery), gallery.row_of("a"), gallery.row_of("b")) == (2, 0, None)
    assert [order.split()[0] for order, _ in growing.nodes.orders] == ["set", "gallery"]
    file.write_text("a\nwho\n")
    assert len(open_accepted(growing.nodes.config)) == 2  # it holds as it was accepted
    refused = growing.ask("set", f"decoding.among {file}")
    told = f"'{file}' of --among names 2 images, of which the gallery has 1, and not that of line 2"
    assert told in refused.text  # and not what it holds: it may be any file of this machine
    add(growing, "who")
    assert noticed(growing).facts["n_new"] == 2  # who is no candidate
    assert growing.ask("set", f"decoding.among {file}").outcome == "done"
    assert open_accepted(growing.nodes.config).row_of("who") == 8
    remove_images(growing.nodes.config.gallery, ["who"])
    assert "not that of line 2" in noticed(growing).text
    assert growing.ask("set", "decoding.among none").outcome == "done"
    assert len(open_accepted(growing.nodes.config)) == 9
    for text in ("", " \n"):
        file.write_text(text)
        assert "names no image" in growing.ask("set", f"decoding.among {file}").text
    assert "cannot be read" in growing.ask("set", "decoding.among /nowhere").text


def test_what_is_let_go_is_read_again_by_whoever_looks_at_it(models: Path) -> None:
    gallery = open_gallery(models / "gallery")
    before = gallery.embeddings.copy()
    let_go(gallery)
    assert (gallery.embeddings == before).all()
    drawn = Gallery(("a",), ("a",), before[:1].copy(), gallery.space, (), "test")
    let_go(drawn)  # in memory
    assert (drawn.embeddings == before[:1]).all()


def test_without_its_server_a_session_is_searched_on_this_machine(growing: Stage) -> None:
    config, said = growing.nodes.config, []

    def say(*one: object) -> None:
        said.append(one)

    live = open_decoder(config, open_bundle(config.bundle), open_accepted(config), float, say)
    del said[:]
    told = {"search": "milvus", "milvus": {"uri": "http://127.0.0.1:1"}, "engine": "torch"}
    config = config.model_copy(update={"decoding": DecodingSettings.model_validate(told)})
    ready = prepare(config, live)
    look_up_in(ready, live, config, say)
    assert "is on no Milvus server: load it with" in said[0][0]
    assert said[0][0].endswith("; meanwhile the gallery is searched on this machine")
    assert said[1][1] == {"search": "exact", "is_exact": True}
    ready.said("it is back", {})
    assert said[-1] == ("it is back", {})


def test_what_an_approximate_search_costs_is_said(growing: Stage, tmp_path: Path) -> None:
    ids = tuple(f"image {row}" for row in range(1000))
    bundle = open_bundle(growing.nodes.config.bundle)
    rows = drawn(1000, 0)[:, : bundle.manifest.embedding_dim].copy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    many = Gallery(ids, ids, rows, bundle.manifest.space, (), "test")
    save_gallery(tmp_path / "many", many)
    told = index_gallery(tmp_path / "many", "ivf-sq8").figures
    config = changed(growing.nodes.config, "gallery", str(tmp_path / "many"))
    live = open_decoder(
        growing.nodes.config, bundle, open_gallery(tmp_path / "gallery"), float, lambda *_: None
    )
    exact = prepare(changed(config, "set", "decoding.search exact"), live).said.kept[0]
    assert exact == ("the search of 1000 images is exact", {"search": "exact", "is_exact": True})
    (sentence, facts), *_ = prepare(
        changed(config, "set", "decoding.search ivf-sq8"), live
    ).said.kept
    assert f"with simulated queries it found {told.recall_5:.1%} of the best five" in sentence
    assert (facts["search"], facts["is_exact"]) == ("ivf-sq8", False)
    rows = dict(summary_rows(SUMMARY | {"decoder": facts}))
    assert rows["search"].startswith("ivf-sq8, not exact: recall@5 ")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((*VERBS, "")) | st.text(), st.text()), max_size=10))
def test_nothing_that_is_asked_breaks_it(models, asks) -> None:
    stage = Stage(models, bundle=models / "bundle", gallery=models / "gallery")
    for verb, argument in asks:
        done = stage.ask(verb, argument)
        assert done.text
        assert (done.verb, done.argument) == (verb, argument)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the engine holds the gallery")
def test_another_gallery_comes_with_the_engine_that_looks_at_it(
    stage: Stage, models: Path, engine: str
) -> None:
    said, config = [], stage.nodes.config
    config = config.model_copy(
        update={"decoding": config.decoding.model_copy(update={"engine": engine})}
    )

    def say(text: str, facts: object) -> None:
        said.append(text)

    gallery, bundle = open_gallery(config.gallery), open_bundle(config.bundle)
    decoder = Decoder(config, open_decoder(config, bundle, gallery, float, say), gallery, say)
    before, first = decoder.live.ranker, decoder.live.engine
    decoder.obey("gallery", str(models / "gallery"))
    assert decoder.live.ranker is before  # until the other one is ready
    wait_until(lambda: decoder.look() or decoder.live.ranker is not before)
    holds_it = first.name == "compiled"
    assert (decoder.live.engine is first) is not holds_it
    assert sum(text.startswith("the engine is") for text in said) == 1 + holds_it
    after = decoder.live.ranker
    decoder.obey("set", "decoding.search hnsw")  # of which this gallery has no index
    decoder.obey("gallery", str(models / "gallery"))
    wait_until(lambda: decoder.look() or decoder.live.ranker is not after)
    assert any("meanwhile the gallery is searched exactly" in text for text in said)
    assert any(text.endswith("is exact") for text in said)
    after = decoder.live.ranker
    decoder.obey("gallery", "/nowhere")
    wait_until(lambda: decoder.look() or "go on among the images of before" in said[-1])
    assert decoder.live.ranker is after
