"""gallery and its commands: made, changed and looked at, and what a lab does wrong."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from decoder.hvf import HVF
from demo.settings import ASSETS
from hvf_core.problem import Problem
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from index.gallery import load_gallery, open_gallery
from offline_train.brain import gallery as making
from offline_train.brain.gallery import build_gallery, make_from_features
from offline_train.commands.app import app
from offline_train.data.features import Features, records_of
from offline_train.data.image_table import read_image_table
from offline_train.data.trial_set import TrialFormat, write_trial_set
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.slow
NAMES = ("cat", "dog,big", "owl", "caf\u00e9")


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((72, 48), Image.Resampling.NEAREST)


def drawn(folder: str, names: tuple[str, ...], offset: int = 0) -> None:
    Path(folder).mkdir()
    for seed, name in enumerate(names, offset):
        picture(seed).save(f"{folder}/{name}.png")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's small VAE as encoders, and an untrained bundle of it; another one of others."""
    folder = tmp_path_factory.mktemp("models")
    vae = {"name": "vae", "kind": "autoencoder_kl", "source": str(ASSETS / "vae")}
    (folder / "encoders.json").write_text(json.dumps([vae | {"dim": 64, "size_px": 32}]))
    [spec] = read_specs(str(folder / "encoders.json"))
    records = records_of([load_encoder(spec, "cpu")])
    for name in ("bundle", "other"):
        tiny_bundle(folder / name, hvf=HVF({"vae": 64}, 8, 8), image_encoders=records)
    tiny_bundle(folder / "toy")
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    drawn("first", NAMES)

    def command(*arguments: object, bundle: str = "bundle") -> Result:
        made = ("--bundle", models / bundle, "--encoders", models / "encoders.json")
        more = made if arguments[0] == "add" or str(arguments[0]).startswith("--") else ()
        return CliRunner().invoke(app, ["gallery", *map(str, (*arguments, *more))])

    return command


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refusal(result: Result) -> str:
    assert isinstance(result.exception, Problem), result.output
    return str(result.exception)


def test_a_gallery_grows_shrinks_and_is_looked_at(run: Callable[..., Result]) -> None:
    done(run("--images", "first", "--out", "g"))
    drawn("more", ("bee", "ant"), 10)
    assert "2 images added: 6 in 'g'" in done(run("add", "g", "--images", "more"))
    assert "1 image removed: 5 in 'g'" in done(run("remove", "g", "dog,big"))
    assert "4 images removed" not in done(run("info", "g"))
    gallery = load_gallery(Path("g"))
    assert (len(gallery), gallery.n_rows) == (5, 6)
    assert gallery.image_of(gallery.row_of("bee")).read_bytes() == Path("more/bee.png").read_bytes()
    assert "1 row freed: 5 images in 'g'" in done(run("compact", "g"))
    again = load_gallery(Path("g"))
    for id_ in ("cat", "owl", "caf\u00e9", "bee", "ant"):
        rows = gallery.row_of(id_), again.row_of(id_)
        np.testing.assert_array_equal(gallery.embeddings[rows[0]], again.embeddings[rows[1]])
    said = done(run("info", "g"))
    assert "5, 5 of them with a picture; 0 removed" in said
    assert "vae (64)" in said
    done(run("sheet", "g", "--out", "sheet.png", "--columns", "2", "--rows", "2"))
    done(run("sheet", "g", "cat", "--out", "new/one.png"))
    assert Image.open("new/one.png").size[0] == 8 + 136
    assert "end its name in .png" in refusal(run("sheet", "g", "--out", "one"))
    assert Image.open("sheet-001.png").size[0] == 8 + 2 * 136
    assert [Path(f"sheet-00{n}.png").exists() for n in (1, 2, 3)] == [True, True, False]


def test_a_gallery_of_what_the_test_shows(run: Callable[..., Result]) -> None:
    info = TrialFormat(channels=("Oz",), rate_hz=100, tmin_s=0, tmax_s=0.01, preprocessing={})
    shown = {"train": ("cat",), "test": ("owl", "cafe\u0301", "owl")}
    with write_trial_set(Path("trials"), info) as writer:
        for split, stimuli in shown.items():
            writer.append(np.ones((len(stimuli), 1, 2), np.float32), stimuli, split=split)
    done(run("--images", "first", "--trials", "trials", "--out", "g"))
    assert tuple(load_gallery(Path("g")).ids) == ("owl", "cafe\u0301")
    Path("first/owl.png").unlink()
    lacking = run("--images", "first", "--trials", "trials", "--out", "h")
    assert "has no image of stimulus 'owl'" in refusal(lacking)
    Path("t.csv").write_text("path\nfirst/cat.png\n")
    assert "give these too" in refusal(run("--table", "t.csv", "--trials", "trials", "--out", "h"))


def test_like_names_the_nearest_first(run: Callable[..., Result], models: Path) -> None:
    done(run("--images", "first", "--out", "g"))
    done(run("remove", "g", "owl"))
    gallery = load_gallery(Path("g"))
    cosines = gallery.embeddings @ gallery.embeddings[gallery.row_of("cat")]
    expected = sorted(("dog,big", "caf\u00e9"), key=lambda id_: -cosines[gallery.row_of(id_)])
    lines = run("like", "g", "cat", "-k", "5", "--out", "like.png").output.splitlines()
    assert [line.split()[1] for line in lines[:2]] == expected
    assert Path("like.png").is_file()
    found = run(
        *("like", "g", "first/cat.png", "-k", "1", "--bundle", models / "bundle"),
        *("--encoders", models / "encoders.json"),
    )
    assert found.output.split("\n")[-2].split()[:2] == ["1.000", "cat"]
    assert "neither an image of the gallery 'g' nor a file" in refusal(run("like", "g", "gnu"))


def test_a_part_and_the_rest_are_merged_to_the_whole(run: Callable[..., Result]) -> None:
    done(run("--images", "first", "--out", "g"))
    Path("ids.txt").write_text("owl\ncafe\u0301\n", encoding="utf-8")
    done(run("subset", "g", "--ids", "ids.txt", "--out", "some"))
    assert tuple(load_gallery(Path("some")).ids) == ("owl", "caf\u00e9")
    done(run("subset", "g", "--match", "*o*", "--out", "others"))
    assert tuple(load_gallery(Path("others")).ids) == ("dog,big", "owl")
    assert "3 images in 'all'" in done(run("merge", "some", "others", "--out", "all"))
    again = ("merge", "some", "others", "g", "--out")
    for taken in (again, ("subset", "g", "owl", "--out"), ("--images", "first", "--out")):
        assert "'all' is a gallery already: name another --out" in refusal(run(*taken, "all"))
    assert "4 images in 'every'" in done(run(*again, "every"))
    whole, merged = load_gallery(Path("g")), load_gallery(Path("every"))
    for row, id_ in enumerate(merged.ids):
        np.testing.assert_array_equal(merged.embeddings[row], whole.embeddings[whole.row_of(id_)])


def test_images_are_kept_small_or_not_at_all(run: Callable[..., Result]) -> None:
    done(run("--images", "first", "--out", "small", "--thumbnails", "16"))
    small = load_gallery(Path("small"))
    assert {Image.open(path).size for path in small.images} == {(16, 11)}
    done(run("--images", "first", "--out", "none", "--without-images"))
    assert load_gallery(Path("none")).images is None
    both = run("--images", "first", "--out", "x", "--thumbnails", "16", "--without-images")
    assert "--thumbnails has no meaning with --without-images" in refusal(both)
    np.testing.assert_array_equal(small.embeddings, load_gallery(Path("none")).embeddings)


def test_a_table_names_images_and_those_that_were_seen_before(run: Callable[..., Result]) -> None:
    done(run("--images", "first", "--out", "g"))
    content = hashlib.sha256(Path("first/owl.png").read_bytes()).hexdigest()
    Path("t.csv").write_text(
        f'\ufeffid;path;label;sha256\ncat;first/cat.png;"a cat; tabby";\nowl;;;{content}\n',
        encoding="utf-8",
    )
    done(run("--table", "t.csv", "--out", "tabled"))
    found, whole = load_gallery(Path("tabled")), load_gallery(Path("g"))
    assert (tuple(found.ids), tuple(found.labels)) == (("cat", "owl"), ("a cat; tabby", "owl"))
    assert [found.image_of(row) is None for row in (0, 1)] == [False, True]
    for row, id_ in enumerate(found.ids):  # of another batch: BLAS then rounds as it likes
        embedding = whole.embeddings[whole.row_of(id_)]
        np.testing.assert_allclose(found.embeddings[row], embedding, rtol=0, atol=1e-6)
    Path("t.tsv").write_text(f"id\tsha256\nx\t{'0' * 64}\n")
    assert "1 of 1 images, 'x' first, have no path and are not in the cache" in refusal(
        run("--table", "t.tsv", "--out", "x")
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,file\na,b\n", "has the columns name, file: it needs `path`"),
        ("id,path\na,\n", "row 1 of 't.csv' has no path"),
        ("id,path\na,x.png\na,y.png\n", "row 2 of 't.csv' has the id 'a', which a row before has"),
        ("id,path\n", "has no rows"),
        ("", "has the columns"),
        (b"id,path\n\xff,x\n", "is no UTF-8"),
    ],
)
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Problem) as caught:
        read_image_table(Path("t.csv"))
    assert sentence in str(caught.value)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"path": ["a.png", "b.png"], "label": ["A", None], "n": [1, 2]})
    table.to_parquet(tmp_path / "t.parquet")
    found = read_image_table(tmp_path / "t.parquet")
    assert found.labels == {"a": "A", "b": "b"}
    assert found.files == {"a": tmp_path / "a.png", "b": tmp_path / "b.png"}


def test_what_a_lab_does_wrong_is_a_sentence(run: Callable[..., Result]) -> None:
    done(run("--images", "first", "--out", "g"))
    before = Path("g/gallery.json").read_bytes()
    drawn("same", ("cat", "new"), 20)
    assert "'cat' is in the gallery 'g' by now, like 0 others" in refusal(
        run("add", "g", "--images", "same")
    )
    assert "embedding space" in refusal(run("add", "g", "--images", "same", bundle="other"))
    toy = run("--images", "same", "--out", "t", bundle="toy")
    assert "was trained with the image encoders toy" in refusal(toy)
    assert "all 4 images are in the gallery 'g' by now" in refusal(
        run("add", "g", "--images", "first", "--new-only")
    )
    Path("same/new.png").write_bytes(Path("same/new.png").read_bytes()[:60])
    assert "'same/new.png' cannot be read" in refusal(
        run("add", "g", "--images", "same", "--new-only")
    )
    assert "'gnu' is not in the gallery 'g'" in refusal(run("remove", "g", "gnu"))
    assert "these are all 4 images" in refusal(run("remove", "g", "--match", "*"))
    assert "no id in the gallery 'g' matches 'z*'" in refusal(run("remove", "g", "--match", "z*"))
    assert "say which images" in refusal(run("remove", "g"))
    assert "there is no none/gallery.json" in refusal(run("info", "none"))
    assert Path("g/gallery.json").read_bytes() == before
    drawn("again", ("new",), 20)
    assert "1 image added: 5 in 'g'" in done(run("add", "g", "--images", "again", "--new-only"))


def test_one_picture_under_two_names_is_told(run: Callable[..., Result]) -> None:
    shutil.copy("first/cat.png", "first/twin.png")
    said = done(run("--images", "first", "--out", "g"))
    assert "1 images are the same as another one, first 'cat' and 'twin'" in said


def test_a_disk_that_fills_names_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    bundle = tiny_bundle(tmp_path / "b")
    features = np.ones((1, 3), np.float32)
    every = Features(("a",), bundle.manifest.image_encoders, {"toy": features})
    rows = [making.Row("a", "a", tmp_path / "a.png")]
    with pytest.raises(Problem, match=r"g cannot be written .*No space left.*make room") as caught:
        make_from_features(tmp_path / "g", rows, "a", every, bundle, "test")
    [begun] = tmp_path.glob(".g.begun-*")
    assert f"from what it has left in '{begun}', or delete that folder" in str(caught.value)


class Killed(BaseException):
    """Ends a build as a signal does."""


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_build_that_was_killed_while_it_takes_its_place_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    bundle, ids = tiny_bundle(tmp_path / "b"), tuple(map(str, range(20)))
    features = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    every = Features(ids, bundle.manifest.image_encoders, {"toy": features})
    rows = [making.Row(id_, id_) for id_ in ids]
    rename, moved = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        moved.append(self)
        if len(moved) == at:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        make_from_features(tmp_path / "g", rows, ids, every, bundle, "test")
    monkeypatch.undo()
    make_from_features(tmp_path / "g", rows, ids, every, bundle, "test")
    assert tuple(load_gallery(tmp_path / "g").ids) == ids
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "g"]


def test_a_build_that_was_killed_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "BATCH", 10)
    monkeypatch.setattr("index.gallery.appending.BLOCK", 20)
    bundle, n = tiny_bundle(tmp_path / "b"), 95
    ids = tuple(map(str, range(n)))
    features = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    every = Features(ids, bundle.manifest.image_encoders, {"toy": features})
    rows = [making.Row(id_, f"label {id_}") for id_ in ids]
    fused: list[str] = []

    class Counted:
        encoders = every.encoders

        def select(self, items: list[str]) -> Features:
            fused.extend(items)
            return every.select(items)

    def kill(at: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if done >= at:
                raise Killed

        return progress

    def make(folder: str, at: int = 1000, contents: tuple[str, ...] = ids) -> None:
        make_from_features(
            tmp_path / folder, rows, contents, Counted(), bundle, "test", None, kill(at)
        )

    with pytest.raises(Killed):
        make("g", 50)
    assert not (tmp_path / "g").exists()
    fused.clear()
    make("g")
    assert fused == list(ids[40:])
    found, whole = load_gallery(tmp_path / "g"), build_gallery(ids, ids, every, bundle, "test")
    np.testing.assert_array_equal(found.embeddings, whole.embeddings)
    assert tuple(found.labels) == tuple(f"label {id_}" for id_ in ids)
    with pytest.raises(Killed):
        make("g", 50)
    assert len(open_gallery(tmp_path / "g")) == n
    fused.clear()
    make("g", contents=ids[::-1])  # other images: nothing of what was begun is taken
    assert fused == list(ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "g"]
