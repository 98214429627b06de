"""Features of very many images: from folders and shards, shared out, never all in memory."""

import csv
import io
import json
import multiprocessing
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from weakref import finalize

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from safetensors import SafetensorError
from test_features import FakeEncoder, load_image

from demo.settings import ASSETS
from hvf_core.problem import Problem
from hvf_core.screen import Screen
from index.encoders.load import BATCH
from offline_train.commands import options
from offline_train.commands.options import features_of
from offline_train.data.features import encode_images, extract_features
from offline_train.data.image_table import pictures_of_table
from offline_train.features.cache import BLOCK, MERGED, FeatureCache
from offline_train.features.run import alone_at, encode, finish, look, parts_of, survey
from offline_train.features.shards import entries
from tests.calling import Done, call
from tests.together import together
from tests.waiting import wait_until


def picture(number: int) -> bytes:
    """A PNG of one pixel, as `load_image` gives it."""
    file = io.BytesIO()
    Image.fromarray(load_image(f"x/{number}")).save(file, "PNG")
    return file.getvalue()


def in_folder(folder: Path, numbers: range) -> Path:
    for number in numbers:
        place = folder / f"class-{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"i{number:04d}.png").write_bytes(picture(number))
    return folder


def in_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def shards(folder: Path, n: int) -> Path:
    """A third of the images in folders, a third in a tar with labels beside, and one in Parquet."""
    third = n // 3
    in_folder(folder / "plain", range(third))
    files = {}
    for number in range(third, 2 * third):
        files |= {f"./a/i{number:04d}.png": picture(number), f"./a/i{number:04d}.json": b"{}"}
    in_tar(folder / "shard-000.tar", files)
    rest = [{"bytes": picture(i), "path": f"x/i{i:04d}.png"} for i in range(2 * third, n)]
    table = pyarrow.table({"image": rest, "label": [1] * len(rest)})
    parquet.write_table(table, folder / "b.parquet")
    return folder


def encoded(folder: Path, cache: Path, out: Path, *encoders: FakeEncoder, **more: bool) -> None:
    caches = [FeatureCache(cache, encoder, pytest.fail) for encoder in encoders]
    part = out.with_suffix(".part")
    encode([folder], caches, part, (0, 1), more.get("skip_broken", False), 3)
    finish(out, [part], caches)


def check_all(out: Path, cache: Path, n: int) -> None:
    """The table has every image, and the cache what the encoder gives for it."""
    encoder = FakeEncoder()
    told = pictures_of_table(out, [f"i{number:04d}" for number in range(n)])
    found = extract_features(told.contents, pytest.fail, [encoder], cache)
    assert encoder.seen == []
    np.testing.assert_array_equal(found.embeddings["fake"], FakeEncoder().embed(list(range(n))))


def test_folders_and_shards_are_gone_through_in_one_order(tmp_path: Path) -> None:
    folder = shards(tmp_path / "images", 30)
    found = {entry.id: entry for entry in entries([folder])}
    assert sorted(found) == [f"i{number:04d}" for number in range(30)]
    assert all(found[f"i{number:04d}"].read() == picture(number) for number in range(30))
    assert [entry.id for entry in entries([folder])] == list(found)
    assert found["i0001"].file == folder / "plain/class-1/i0001.png"
    assert found["i0012"].name == f"{folder / 'shard-000.tar'}/a/i0012.png"
    assert found["i0021"].name == f"{folder / 'b.parquet'}, row 1"
    surveyed = survey([folder])
    assert surveyed.n == 30
    assert {entry.id for entry in surveyed.sample} == {*found}


@pytest.mark.slow
def test_all_are_in_the_cache_and_in_a_table_that_others_read(tmp_path: Path) -> None:
    folder, out = shards(tmp_path / "images", 900), tmp_path / "t.csv"
    encoded(folder, tmp_path / "cache", out, FakeEncoder(), FakeEncoder("other", 5))
    check_all(out, tmp_path / "cache", 900)
    with out.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["i0002"]["path"] == str(folder / "plain/class-2/i0002.png")
    assert rows["i0500"]["path"] == ""  # its features are in the cache
    again = FakeEncoder()
    encoded(folder, tmp_path / "cache", tmp_path / "u.csv", again)
    assert again.seen == []
    assert out.read_bytes() == (tmp_path / "u.csv").read_bytes()
    assert not [path for path in tmp_path.iterdir() if "part" in path.name or "broken" in path.name]
    with pytest.raises(Problem, match="has no row of stimulus 'gnu'"):
        pictures_of_table(out, ["gnu"])


class Counted(FakeEncoder):
    """Counts what is in memory: pixels, what the network takes, and what it gave, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = Counter[str](), Counter[str]()

    def count(self, kind: str, array: np.ndarray) -> np.ndarray:
        self.held[kind] += len(array)
        self.most[kind] = max(self.most[kind], self.held[kind])
        finalize(array, self.held.subtract, {kind: len(array)})
        return array

    def prepare(self, image: np.ndarray) -> np.ndarray:
        self.count("pixels", image)
        return self.count("prepared", np.array([super().prepare(image)]))

    def embed(self, prepared: list[np.ndarray]) -> np.ndarray:
        return self.count("embeddings", super().embed([int(one[0]) for one in prepared]))


@pytest.mark.slow
def test_what_is_in_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    folder, most = tmp_path / "images", []
    for n in (600, 1200):
        shards(folder, n)
        encoder = Counted()
        encoded(folder, tmp_path / f"cache-{n}", tmp_path / "t.csv", encoder)
        assert len(encoder.seen) == n
        most.append(encoder.most)
    for one in most:
        assert one["pixels"] <= 3 + 1  # a thread's, and one that is given back
        assert one["prepared"] <= 2 * BATCH + 2
        assert one["embeddings"] <= BLOCK + BATCH


@pytest.mark.slow
def test_small_files_become_one_and_nothing_is_lost(tmp_path: Path) -> None:
    """A process may have a thousand files open; ImageNet would be five thousand of a block each."""
    n, before = MERGED + 5, len(os.listdir("/proc/self/fd"))
    for number in range(n):  # each a program of its own, that adds one image
        cache = FeatureCache(tmp_path, FakeEncoder(), pytest.fail)
        cache.add([f"{number}"], FakeEncoder().embed([number]))
        cache.write()
        known = [f"{one}" for one in range(number + 1)]
        if number == MERGED - 1:  # it has just merged them
            np.testing.assert_array_equal(cache.rows(known), FakeEncoder().embed([*range(MERGED)]))
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 1 + n - MERGED
    cache = FeatureCache(tmp_path, FakeEncoder(), pytest.fail)
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * len(files)
    rows = cache.rows([f"{number}" for number in range(n)])
    np.testing.assert_array_equal(rows, FakeEncoder().embed(list(range(n))))
    assert "69" not in cache
    assert "68" in cache


def _encode_slowly(folder: Path, cache: Path, out: Path) -> None:
    encoded(folder, cache, out, FakeEncoder())


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, cache, out = in_folder(tmp_path / "images", range(900)), tmp_path / "c", tmp_path / "t"
    told = (folder, cache, out)
    process = multiprocessing.get_context("fork").Process(target=_encode_slowly, args=told)
    process.start()
    wait_until(lambda: len(list(cache.rglob("*.safetensors"))) >= 2, 60)
    process.kill()
    process.join()
    n_kept = BLOCK * len(list(cache.rglob("*.safetensors")))
    assert not out.exists() or n_kept >= 900  # it was quick
    encoder = FakeEncoder()
    encoded(folder, cache, out, encoder)
    assert len(encoder.seen) == max(0, 900 - n_kept)
    check_all(out, cache, 900)


@pytest.mark.slow
def test_each_of_several_processes_encodes_its_share(tmp_path: Path) -> None:
    folder, cache = shards(tmp_path / "images", 900), tmp_path / "cache"
    parts, seen = [tmp_path / "0", tmp_path / "1"], []
    for rank, part in enumerate(parts):
        encoder = FakeEncoder()
        caches = [FeatureCache(cache, encoder, pytest.fail)]
        encode([folder], caches, part, (rank, 2), False)
        seen.append(encoder.seen)
    assert [len(one) for one in seen] == [2 * BLOCK, 900 - 2 * BLOCK]
    caches = [FeatureCache(cache, FakeEncoder(), pytest.fail)]
    assert finish(tmp_path / "both.csv", parts, caches) == (900, 0)
    check_all(tmp_path / "both.csv", cache, 900)
    encoded(folder, cache, tmp_path / "one.csv", FakeEncoder())
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_what_cannot_be_read_stops_it_or_is_listed(tmp_path: Path) -> None:
    folder, cache, out = in_folder(tmp_path / "images", range(300)), tmp_path / "c", tmp_path / "t"
    cut, text = folder / "class-1/i0004.png", folder / "class-0/text.png"
    cut.write_bytes(picture(4)[:40])
    text.write_bytes(b"no image")
    with pytest.raises(Problem, match=r"text.png' cannot be read \(it is none of .*--skip-broken"):
        encoded(folder, cache, out, FakeEncoder())
    assert not out.exists()
    look(survey([folder]).sample, [FeatureCache(cache, FakeEncoder(), pytest.fail)])
    encoded(folder, cache, out, encoder := FakeEncoder(), skip_broken=True)
    assert 4 not in encoder.seen
    listed = (tmp_path / "t-broken.txt").read_text().splitlines()
    assert [str(path) in line for path, line in zip((text, cut), listed, strict=True)] == [True] * 2
    assert len(out.read_text().splitlines()) == 1 + 299
    text.unlink()
    cut.write_bytes(picture(4))
    encoded(folder, cache, out, FakeEncoder(), skip_broken=True)
    assert not (tmp_path / "t-broken.txt").exists()
    check_all(out, cache, 300)


def test_damaged_shards_and_ids_that_come_twice_are_one_sentence(tmp_path: Path) -> None:
    def refused(*places: Path) -> str:
        with pytest.raises(Problem) as problem:
            survey(places)
        return str(problem.value)

    folder = shards(tmp_path / "images", 300)
    for name in ("shard-000.tar", "b.parquet"):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes((folder / name).read_bytes()[:3000])
        assert f"the shard '{cut}' cannot be read" in refused(cut)
    spoilt = bytearray((folder / "shard-000.tar").read_bytes())
    spoilt[10240:14336] = b"\xff" * 4096  # where others take the end of the tar
    (tmp_path / "spoilt.tar").write_bytes(spoilt)
    assert "is no file): it is damaged" in refused(tmp_path / "spoilt.tar")
    again = in_folder(tmp_path / "again", range(5, 6))
    assert f"and '{again}/class-2/i0005.png' have the same id, 'i0005'" in refused(folder, again)
    (tmp_path / "empty").mkdir()
    assert "there is no image in" in refused(tmp_path / "empty")
    assert "there is no '" in refused(tmp_path / "nowhere.tar")
    (tmp_path / "note.txt").write_text("x")
    assert "no file that ends in one of .tar" in refused(tmp_path / "note.txt")
    table = pyarrow.table({"label": [1]})
    parquet.write_table(table, tmp_path / "labels.parquet")
    assert "has the columns label, expected `image`" in refused(tmp_path / "labels.parquet")


def test_a_tar_that_was_cut_or_joined_or_is_empty_is_one_sentence(tmp_path: Path) -> None:
    tar = in_tar(tmp_path / "a.tar", {f"i{i:04d}.png": picture(i) for i in range(3)})
    with tarfile.open(tar) as opened:
        second = opened.getmembers()[1].offset
    whole, other = tar.read_bytes(), tmp_path / "b.tar"

    def refused(data: bytes) -> str:
        other.write_bytes(data)
        with pytest.raises(Problem, match=str(other)) as problem:
            survey([other])
        return str(problem.value)

    assert "without the zeros that close a tar): it is damaged or was cut" in refused(
        whole[:second]
    )
    assert "as where tars were joined by `cat`" in refused(whole + whole)
    assert "nothing but zeros" in refused(bytes(10240))
    other.write_bytes(whole + bytes(10240))
    assert survey([other]).n == 3


def test_links_in_a_tar_are_followed(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    links = {
        "b/hard.png": (tarfile.LNKTYPE, "a/i0001.png"),
        "b/soft.png": (tarfile.SYMTYPE, "../a/i0001.png"),
        "b/twice.png": (tarfile.SYMTYPE, "soft.png"),
        "b/out.png": (tarfile.SYMTYPE, "/data/x.png"),
        "b/circle.png": (tarfile.SYMTYPE, "circle.png"),
    }
    with tarfile.open(tar, "w") as opened:
        file = tarfile.TarInfo("a/i0001.png")
        file.size = len(picture(1))
        opened.addfile(file, io.BytesIO(picture(1)))
        for name, (kind, to) in links.items():
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname = kind, to
            opened.addfile(link)
    found = {entry.id: entry for entry in entries([tar])}
    assert {*found} == {"i0001", "hard", "soft", "twice", "out", "circle"}
    for name in ("i0001", "hard", "soft", "twice"):
        assert found[name].read() == picture(1)
    with pytest.raises(Problem, match=r"a.tar/b/out.png' is a link to '/data/x.png', which is no"):
        found["out"].read()
    with pytest.raises(Problem, match=r"is a link to 'b/circle.png', which is no file"):
        found["circle"].read()
    other = tar.rename(tmp_path / "b.tar")
    soft = next(entry for entry in entries([other]) if entry.id == "soft")
    other.unlink()
    with pytest.raises(Problem, match=r"the shard '.*b.tar' cannot be read \(.*No such file"):
        soft.read()


class Same(FakeEncoder):
    def embed(self, colours: list[int]) -> np.ndarray:
        return np.ones((len(colours), self.dim), np.float32)


def test_an_encoder_that_gives_the_same_for_all_is_refused_before_the_pass(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "images", range(100))
    with pytest.raises(Problem, match="'fake' are collapsed"):
        look(survey([folder]).sample, [FeatureCache(tmp_path / "c", Same(), pytest.fail)])
    with pytest.raises(Problem, match="'fake' are collapsed"):
        encoded(folder, tmp_path / "d", tmp_path / "t.csv", Same())
    assert not (tmp_path / "t.csv").exists()


@pytest.fixture
def by_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Calls `features` of some images, or `gallery`, with an encoder that costs nothing."""
    monkeypatch.setattr("index.encoders.load.load_encoders", lambda specs, device: [FakeEncoder()])

    def called(command: str, *arguments: object, cache: Path | None = None) -> Done:
        told = ("--encoders", "paper-retrieval", "--cache", cache or tmp_path / "c")
        return call(command, *arguments, *told, module="offline_train")

    return called


def test_one_table_is_made_by_one_process_at_a_time(
    by_command: Callable[..., Done], tmp_path: Path
) -> None:
    folder, out = in_folder(tmp_path / "images", range(20)), tmp_path / "new" / "t.csv"
    with alone_at(out):
        done = by_command("features", folder, "--out", out)
        assert done.code == 1
        assert "is being made by another program: wait" in done.one_sentence()
    done = by_command("features", folder, "--out", out)
    assert done.code == 0, done.err
    assert f"--encoders paper-retrieval --cache {tmp_path / 'c'} --bundle" in done.out
    assert [path.name for path in out.parent.iterdir()] == ["t.csv"]
    check_all(out, tmp_path / "c", 20)


def test_a_full_disk_is_one_sentence_that_names_what_was_asked_for(
    by_command: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = in_folder(tmp_path / "images", range(20)), tmp_path / "t.csv"
    (part,) = parts_of(out, 1)
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    done = by_command("features", folder, "--out", out)
    said = done.one_sentence()
    assert said.startswith(f"{out} cannot be written ("), said
    assert "No space left" in said
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device")

        patch.setattr("hvf_core.artifact.save_file", full)
        said = by_command("features", folder, "--out", out, cache=tmp_path / "d").one_sentence()
    assert said.startswith(f"{tmp_path / 'd'}"), said
    assert "draft" not in said
    assert not [path for path in tmp_path.iterdir() if "part" in path.name]


def test_images_that_the_cache_lacks_are_one_sentence_before_others_are_encoded(
    by_command: Callable[..., Done], tmp_path: Path
) -> None:
    numbers, tables = {i: picture(i) for i in range(12)}, tmp_path / "t.csv"
    tar = in_tar(tmp_path / "a.tar", {f"i{i:04d}.png": data for i, data in numbers.items()})
    assert by_command("features", tar, "--out", tables).code == 0
    more = (tables.read_text() + f"own,{in_folder(tmp_path / 'own', range(50, 51))}").strip()
    tables.write_text(f"{more}/class-2/i0050.png,\n")
    pictures, encoder = pictures_of_table(tables), FakeEncoder()
    bare = pictures.contents.keys() - pictures.files.keys()
    with pytest.raises(Problem, match=r"12 of 13 images, 'i0000' first, .*the cache '.*/e' .*--c"):
        encode_images(
            pictures.contents, pictures.read, [encoder], tmp_path / "e", without_file=bare
        )
    assert encoder.seen == []
    with pytest.raises(Problem, match="12 of 13 images"):
        features_of(None, tables, "paper-retrieval", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_the_cache_refuses_images_that_it_lacks(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, FakeEncoder(), pytest.fail)
    cache.add(["a"], FakeEncoder().embed([1]))
    cache.write()
    with pytest.raises(Problem, match=rf"the cache '{tmp_path}.*' lacks 2 of 3 images.*--cache"):
        cache.rows(["a", "b", "c"])


def test_a_bar_of_nothing_to_do_leaves_nothing_on_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(options, "console", Screen(file=said))
    with options.bar("encoding images"):
        pass
    assert said.getvalue().strip() == ""
    monkeypatch.setattr(options, "console", Screen(file=said, force_terminal=True))
    with options.bar("encoding images"):
        pass
    assert "encoding images" not in said.getvalue().split("\x1b[2K")[-1]
    with options.bar("encoding images") as tell:
        tell(3, 3)
    assert "100%" in said.getvalue()


def _features_in(rank: int, arguments: list[object], folder: Path) -> None:
    """One of two processes."""
    done = call(*arguments, module="offline_train")
    (folder / f"said-{rank}").write_text(done.out)
    os._exit(done.code)


@pytest.mark.slow
def test_two_processes_of_accelerate_share_the_images(tmp_path: Path) -> None:
    rng, files = np.random.default_rng(0), {}
    for number in range(300):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((36, 24)).save(file, "PNG")
        files[f"i{number:04d}.png"] = file.getvalue()
    tar, spec = in_tar(tmp_path / "a.tar", files), tmp_path / "encoders.json"
    vae = {"name": "vae", "kind": "autoencoder_kl", "source": str(ASSETS / "vae")}
    spec.write_text(json.dumps([vae | {"dim": 64, "size_px": 32}]))
    told = ["features", tar, "--encoders", spec, "--cache", tmp_path / "c"]
    resolve_name("diffusers.models:AutoencoderKL")  # imported once, not by both
    ended = together(_features_in, [*told, "--out", tmp_path / "t.csv"], tmp_path)
    first, second = ((tmp_path / f"said-{rank}").read_text() for rank in (0, 1))
    assert ended == [0, 0], first + second
    assert "300 images, some 100% of them new: 0.1 MB in" in first  # 4 * 64 bytes of each
    assert "features of 300 images" in first
    assert second == ""
    assert len(list((tmp_path / "c").rglob("*.safetensors"))) == 3  # the sample, and two shares
    alone = call(*told, "--out", tmp_path / "u.csv", module="offline_train")
    assert alone.code == 0, alone.err
    assert "some 0% of them new" in alone.out
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "u.csv").read_bytes()
    _, features = features_of(("i0007",), tmp_path / "t.csv", str(spec), tmp_path / "c")
    assert features.embeddings["vae"].shape == (1, 64)
