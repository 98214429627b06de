"""Galleries that change: images come and go, readers keep what they have, nothing is ever torn."""

import os
import shutil
import signal
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decoder.bundle import ImageEncoderRecord
from hvf_core.lock import alone_in
from hvf_core.problem import Problem
from index.gallery import Gallery, load_gallery, open_gallery
from index.gallery.appending import Row
from index.gallery.changes import add_images, compact_gallery, make_gallery, remove_images
from index.gallery.manifest import FILES, GalleryManifest, read_gallery_manifest
from index.gallery.names import same_id
from index.search.flat import Flat

DIM = 6
EMPTY = GalleryManifest(
    space="abc", image_encoders=(ImageEncoderRecord(name="vae", dim=3, checksum="7a"),), dim=DIM
)
IDS = ("a", "b,c", "caf\u00e9", "cafe\u0301", '"quoted"\n', "train/7", "\u2028", "", "猫", "a ")


def unit(n: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def picture(number: int) -> np.ndarray:
    return np.full((2, 3, 3), number % 256, np.uint8)


@dataclass(frozen=True)
class Known:
    id: str
    label: str
    embedding: bytes
    image: int | None

    def row(self) -> Row:
        return Row(self.id, self.label, None if self.image is None else picture(self.image))


def contents(gallery: Gallery) -> dict[str, Known]:
    """What counts, by id, read through the public surface."""
    from index.images import read_image

    found = {}
    for row in gallery.rows.tolist():
        path = gallery.image_of(row)
        image = None if path is None else int(read_image(path)[0, 0, 0])
        id_ = gallery.ids[row]
        known = Known(id_, gallery.labels[row], gallery.embeddings[row].tobytes(), image)
        found[same_id(id_)] = known
        assert gallery.row_of(id_) == row
        assert id_ in gallery
    assert len(found) == len(gallery)
    return found


def added(folder: Path, new: list[Known]) -> None:
    embeddings = np.stack([np.frombuffer(one.embedding, np.float32) for one in new])
    part = [one.row() for one in new], embeddings
    if folder.exists():
        add_images(folder, [part], "added")
    else:
        make_gallery(folder, EMPTY, [part], "made")


class Changes(RuleBasedStateMachine):
    """A gallery beside a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name) / "g"
        self.known: dict[str, Known] = {}
        self.n = 0
        self.reader: tuple[Gallery, dict[str, Known]] | None = None

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=4), image=st.booleans())
    def add(self, ids: list[str], image: bool) -> None:
        new = []
        for id_ in ids:
            self.n += 1
            embedding = unit(1, self.n)[0].tobytes()
            new.append(Known(id_, f"label {self.n}", embedding, self.n if image else None))
        names = [same_id(id_) for id_ in ids]
        if len({*names}) < len(names) or self.known.keys() & {*names}:
            with pytest.raises(Problem, match="comes twice in the gallery"):
                added(self.folder, new)
        else:
            added(self.folder, new)
            self.known |= dict(zip(names, new, strict=True))

    @precondition(lambda self: self.known)
    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=3))
    def remove(self, ids: list[str]) -> None:
        names = {same_id(id_) for id_ in ids}
        if not names <= self.known.keys():
            with pytest.raises(Problem, match="is not in the gallery"):
                remove_images(self.folder, ids)
        elif names == self.known.keys():
            with pytest.raises(Problem, match="one at least has to stay"):
                remove_images(self.folder, ids)
        else:
            remove_images(self.folder, ids)
            self.known = {id_: one for id_, one in self.known.items() if id_ not in names}

    @precondition(lambda self: self.known)
    @rule()
    def compact(self) -> None:
        if self.reader is not None:  # images of what was removed since go
            self.reader = self.reader if self.reader[1] == self.known else None
        assert not len(compact_gallery(self.folder).removed)

    @precondition(lambda self: self.known)
    @rule(name=st.sampled_from(FILES), tail=st.binary(min_size=1, max_size=40))
    def tear(self, name: str, tail: bytes) -> None:
        """As an addition leaves it that was killed."""
        manifest = read_gallery_manifest(self.folder)
        with manifest.path(self.folder, name).open("ab") as file:
            file.write(tail)

    @precondition(lambda self: self.known)
    @rule()
    def keep_open(self) -> None:
        self.reader = open_gallery(self.folder), dict(self.known)

    @invariant()
    def it_is_the_dict(self) -> None:
        if not self.known:
            assert not self.folder.exists()
            return
        assert contents(load_gallery(self.folder)) == self.known
        if self.reader is not None:
            assert contents(self.reader[0]) == self.reader[1]

    def teardown(self) -> None:
        self.place.cleanup()


TestChanges = pytest.mark.slow(Changes.TestCase)
TestChanges.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def gallery_in(folder: Path, n: int = 20) -> Gallery:
    parts = [([Row(f"old {i}", "x", picture(i)) for i in range(n)], unit(n))]
    return make_gallery(folder, EMPTY, parts, "made")


def test_a_change_changes_the_revision_and_leaves_rows_where_they_are(tmp_path: Path) -> None:
    revisions = [gallery_in(tmp_path / "g").revision]
    for change in (
        lambda: add_images(tmp_path / "g", [([Row("new", "y")], unit(1, 9))], "test"),
        lambda: remove_images(tmp_path / "g", ["old 3"]),
        lambda: remove_images(tmp_path / "g", ["old 4"]),
        lambda: add_images(tmp_path / "g", [([Row("old 3", "z")], unit(1, 8))], "test"),
    ):
        gallery = change()
        revisions.append(gallery.revision)
        assert gallery.row_of("old 5") == 5
    assert len({*revisions}) == len(revisions)
    assert (gallery.row_of("old 3"), gallery.row_of("old 4"), len(gallery)) == (21, None, 20)
    assert gallery.removed.tolist() == [3, 4]
    assert gallery.rows.tolist() == [0, 1, 2, *range(5, 22)]
    np.testing.assert_array_equal(gallery.counted, gallery.embeddings[gallery.rows])


@pytest.mark.parametrize(
    ("rows", "embeddings", "sentence"),
    [
        ([Row("\ud800", "x")], unit(1), "is no Unicode: rename it"),
        ([Row("x", "\udcff")], unit(1), "is no Unicode"),
        ([Row("x", "x"), Row("x", "y")], unit(2), "'x' comes twice"),
        ([Row("x", "x"), Row("old 7", "y")], unit(2), "'old 7' comes twice"),
        ([Row("x", "x", Path("nowhere.png"))], unit(1), r"'nowhere\.png' cannot be copied"),
        ([Row("x", "x")], 2 * unit(1), "'x' has length 2, not 1"),
        ([Row("x", "x")], np.full((1, DIM), np.nan, np.float32), "has length nan"),
        ([Row("x", "x")], np.ones((1, 4), np.float32) / 2, "not of the gallery's width, 6"),
        ([Row(str(i), "x") for i in range(100)], np.repeat(unit(1), 100, 0), "are collapsed"),
    ],
)
def test_what_cannot_be_added_leaves_the_gallery_as_it_was(
    tmp_path: Path, rows: list[Row], embeddings: np.ndarray, sentence: str
) -> None:
    before = contents(gallery_in(tmp_path / "g"))
    manifest = (tmp_path / "g/gallery.json").read_bytes()
    good = ([Row("good", "x", picture(1))], unit(1, 5))
    with pytest.raises(Problem, match=sentence):
        add_images(tmp_path / "g", [good, (rows, embeddings)], "test")
    assert (tmp_path / "g/gallery.json").read_bytes() == manifest
    assert contents(load_gallery(tmp_path / "g")) == before
    add_images(tmp_path / "g", [good], "test")
    assert len(load_gallery(tmp_path / "g")) == len(before) + 1


def test_an_id_of_no_unicode_is_not_in_a_gallery(tmp_path: Path) -> None:
    assert "\ud800" not in gallery_in(tmp_path / "g")


def test_two_cannot_write_at_once(tmp_path: Path) -> None:
    gallery_in(tmp_path / "g")
    with alone_in(tmp_path / "g", "somebody else"):
        for change in (
            lambda: add_images(tmp_path / "g", [([Row("n", "n")], unit(1))], "test"),
            lambda: remove_images(tmp_path / "g", ["old 1"]),
            lambda: compact_gallery(tmp_path / "g"),
            lambda: gallery_in(tmp_path / "g"),
        ):
            with pytest.raises(Problem, match="is being written by another program: wait"):
                change()
    assert len(remove_images(tmp_path / "g", ["old 1"])) == 19


def test_a_block_that_is_known_is_not_read_again(tmp_path: Path) -> None:
    known = gallery_in(tmp_path / "g")
    add_images(tmp_path / "g", [([Row("n", "n")], unit(1))], "test")
    with (tmp_path / "g/embeddings.f32").open("r+b") as file:
        file.write(b"\0")
    assert len(load_gallery(tmp_path / "g", known)) == 21
    with pytest.raises(Problem, match="is damaged"):
        load_gallery(tmp_path / "g")


def test_compacting_leaves_no_hole_and_no_image_too_many(tmp_path: Path) -> None:
    gallery_in(tmp_path / "g")
    remove_images(tmp_path / "g", [f"old {i}" for i in range(5, 20)])
    before = contents(open_gallery(tmp_path / "g"))
    compacted = compact_gallery(tmp_path / "g")
    assert contents(load_gallery(tmp_path / "g")) == before
    assert (compacted.n_rows, compacted.created_by) == (5, "made")
    assert len([*(tmp_path / "g/images").iterdir()]) == 5
    assert sum(path.stat().st_size for path in tmp_path.glob("g/embeddings*")) == 5 * 4 * DIM


def test_compacting_removes_what_one_that_was_killed_has_left(tmp_path: Path) -> None:
    gallery_in(tmp_path / "g", 4)
    for name in ("embeddings.f32", "names.jsonl", "names.index"):
        shutil.copy(tmp_path / "g" / name, tmp_path / "old")
        remains = tmp_path / "g" / name.replace(".", "-7.")
        shutil.move(tmp_path / "old", remains)
    before = contents(open_gallery(tmp_path / "g"))
    for _ in range(2):
        assert contents(compact_gallery(tmp_path / "g")) == before
        files = [path for path in (tmp_path / "g").iterdir() if path.suffix != ".lock"]
        assert len(files) == 5, files


def test_many_images_lie_in_subfolders(tmp_path: Path) -> None:
    n = 4100
    parts = [([Row(str(i), "x", picture(i) if i > 4090 else None) for i in range(n)], unit(n))]
    gallery = make_gallery(tmp_path / "g", EMPTY, parts, "made")
    names = [gallery.image_of(row).relative_to(tmp_path / "g") for row in (4091, 4099)]
    assert list(map(str, names)) == ["images/04091.png", "images/00001/00004099.png"]
    assert gallery.image_of(5) is None
    assert load_gallery(tmp_path / "g").image_of(4099).is_file()
    assert contents(compact_gallery(tmp_path / "g")) == contents(gallery)


class _Kill:
    """Kills its process at the n-th line of these modules."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: FrameType, event: str, _: object) -> "_Kill | None":
        file = frame.f_code.co_filename
        if not file.endswith(("artifact.py", "lock.py")) and "/index/gallery/" not in file:
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def killed_at(n: int, work: object) -> bool:
    """Runs some work in a process that is killed at its n-th line; whether it came that far."""
    child = os.fork()
    if not child:
        try:
            sys.settrace(_Kill(n))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("kind", ["add", "remove", "compact", "make"])
def test_whatever_is_killed_leaves_a_whole_gallery(tmp_path: Path, kind: str) -> None:
    folder, new = tmp_path / "g", [Row(f"new {i}", "y", picture(40 + i)) for i in range(3)]
    gallery_in(tmp_path / "first", 4)
    remove_images(tmp_path / "first", ["old 2"])
    work = {
        "add": lambda: add_images(folder, [(new, unit(3, 7))], "test"),
        "remove": lambda: remove_images(folder, ["old 0"]),
        "compact": lambda: compact_gallery(folder),
        "make": lambda: make_gallery(folder, EMPTY, [(new, unit(3, 7))], "test"),
    }[kind]
    shutil.copytree(tmp_path / "first", folder)
    before = contents(open_gallery(folder))
    work()
    after = contents(open_gallery(folder))
    n, found = 1, []
    while True:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "first", folder)
        if not killed_at(n, work):
            break
        if (
            kind == "make" and not folder.exists()
        ):  # between the two renames of a folder that is replaced
            [old] = tmp_path.glob(".g.old-*")
            assert contents(load_gallery(old)) == before
            gallery_in(tmp_path / "g", 4)
            remove_images(folder, ["old 2"])
        found.append(contents(load_gallery(folder)))
        assert found[-1] in (before, after)
        if found[-1] == before != after:
            work()
        assert contents(load_gallery(folder)) == after if before != after else before
        n += 31  # which is no multiple of how long loops are, so that all of their lines come
    assert before in found
    assert len(found) > 10


def of(number: int) -> np.ndarray:
    return unit(1, 1000 + number)[0]


@pytest.mark.slow
def test_queries_beside_additions_are_never_wrong_missing_or_torn(tmp_path: Path) -> None:
    """1,000 images come in 50 additions, and some go, while 1,000 queries or more are answered."""
    folder, n = tmp_path / "g", 20
    expected = np.stack([of(number) for number in range(1020)])
    first = [([Row(str(i), f"label {i}") for i in range(n)], expected[:n])]
    make_gallery(folder, EMPTY, first, "made")

    def change() -> None:
        for start in range(n, 1020, n):
            rows = [Row(str(i), f"label {i}") for i in range(start, start + n)]
            add_images(folder, [(rows, expected[start : start + n])], "test")
            remove_images(folder, [str(start + 1)])

    seen, rng, n_queries = set(), np.random.default_rng(0), 0
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while n_queries < 1000 or not changing.done():
            n_queries += 1
            gallery = open_gallery(folder)
            seen.add(len(gallery))
            row = int(rng.choice(gallery.rows))
            assert (gallery.ids[row], gallery.labels[row]) == (str(row), f"label {row}")
            assert gallery.row_of(str(row)) == row
            np.testing.assert_array_equal(gallery.embeddings[row], expected[row])
            [place], [cosine] = Flat(gallery.counted).scores(expected[row]).top_k(1)
            assert (gallery.rows[place], cosine) == (row, pytest.approx(1, abs=1e-6))
        changing.result()
    assert len(seen) > 1
    assert len(load_gallery(folder)) == 1020 - 50


@pytest.mark.slow
def test_opening_100_000_images_holds_none_of_their_names(tmp_path: Path) -> None:
    n = 100_000
    drawn = unit(n)
    parts = [([Row(f"n{i:06d}", f"thing {i}") for i in range(n)], drawn)]
    make_gallery(tmp_path / "g", EMPTY, parts, "made")
    tracemalloc.start()
    gallery = open_gallery(tmp_path / "g")
    assert (len(gallery), gallery.row_of("n054321"), gallery.ids[99_999]) == (n, 54321, "n099999")
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 1_000_000
    np.testing.assert_array_equal(gallery.embeddings, drawn)
    assert load_gallery(tmp_path / "g").revision == gallery.revision


def test_a_few_images_of_one_scene_may_be_added_but_no_spoilt_embeddings(tmp_path: Path) -> None:
    gallery_in(tmp_path / "g", 300)
    alike = np.repeat(unit(1, 9), 200, 0)
    series = [Row(f"frame {i}", "x") for i in range(200)]
    add_images(tmp_path / "g", [(series[:30], alike[:30])], "test")
    with pytest.raises(Problem, match=r"'fused' are collapsed: the median cosine .* 1\.000"):
        add_images(tmp_path / "g", [(series[30:], alike[30:])], "test")
    assert len(load_gallery(tmp_path / "g")) == 330


def test_a_gallery_of_embeddings_that_are_alike_is_refused_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.gallery.appending.refuse_alike", lambda *_: None)
    rows = [Row(str(i), "x") for i in range(20)]
    make_gallery(tmp_path / "g", EMPTY, [(rows, np.repeat(unit(1), 20, 0))], "made")
    with pytest.raises(Problem, match="are collapsed"):
        load_gallery(tmp_path / "g")
