"""Galleries: what is saved comes back, and what is wrong is refused in one sentence."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoder.bundle import BundleManifest, ImageEncoderRecord
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from index.gallery import Gallery, check_space, load_gallery, open_gallery, save_gallery
from index.gallery.appending import Row
from index.gallery.changes import add_images, copy_galleries
from index.gallery.names import Name, hash_of, index_of, line_of


def gallery_of(n: int = 4) -> Gallery:
    embeddings = np.random.default_rng(0).standard_normal((n, 6)).astype(np.float32)
    return Gallery(
        ids=tuple(f"train/{i}" for i in range(n)),
        labels=tuple(f"thing {i}" for i in range(n)),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        space="abc",
        image_encoders=(ImageEncoderRecord(name="vae", dim=3, checksum="7a"),),
        created_by="test",
    )


def bundle_of(space: str, dim: int) -> BundleManifest:
    return BundleManifest.model_construct(space=space, embedding_dim=dim)


def renamed(folder: Path, change: Callable[[list[dict]], None]) -> None:
    """Changes the names of a gallery of one block, its index and their checksums with them."""
    file, manifest = folder / "names.jsonl", json.loads((folder / "gallery.json").read_text())
    names = [json.loads(line) for line in file.read_text().splitlines()]
    change(names)
    lines = [json.dumps(name, ensure_ascii=False).encode() + b"\n" for name in names]
    file.write_bytes(b"".join(lines))
    hashes = [hash_of(name["id"]) for name in names]
    (folder / "names.index").write_bytes(index_of(hashes, [*map(len, lines)], 0, 0).tobytes())
    [block] = manifest["blocks"]
    block["names_bytes"] = sum(map(len, lines))
    for name in ("names.jsonl", "names.index"):
        block["sha256"][name] = file_sha256(folder / name)
    (folder / "gallery.json").write_text(json.dumps(manifest))


def test_ids_that_changed_places_are_refused(tmp_path: Path) -> None:
    save_gallery(tmp_path / "g", gallery_of())
    index = tmp_path / "g/names.index"
    manifest = tmp_path / "g/gallery.json"
    whole, before = index.read_bytes(), file_sha256(index)
    index.write_bytes(np.roll(np.frombuffer(whole, "<u8"), 1).tobytes())
    manifest.write_text(manifest.read_text().replace(before, file_sha256(index)))
    with pytest.raises(Problem, match=r"names\.index is not that of its names\.jsonl"):
        load_gallery(tmp_path / "g")


def test_images_that_are_links_are_refused(tmp_path: Path) -> None:
    save_gallery(tmp_path / "g", gallery_of(), np.zeros((4, 2, 2, 3), np.uint8))
    image = tmp_path / "g/images/00002.png"
    image.unlink()
    image.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(Problem, match=r"00002\.png is a link"):
        load_gallery(tmp_path / "g")


def test_a_gallery_of_before_tells_how_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "gallery.json").write_text('{"schema_version": 1, "created_by": "make it so"}')
    with pytest.raises(Problem, match=r"version 1, .* make it again, with `make it so`$"):
        open_gallery(tmp_path)


def test_a_gallery_comes_back_as_it_was(tmp_path: Path) -> None:
    gallery = gallery_of()
    loaded = save_gallery(tmp_path / "g", gallery)
    np.testing.assert_array_equal(loaded.embeddings, gallery.embeddings)
    assert (tuple(loaded.ids), tuple(loaded.labels)) == (gallery.ids, gallery.labels)
    for name in ("space", "image_encoders", "created_by", "images"):
        assert getattr(loaded, name) == getattr(gallery, name)
    assert len(loaded) == 4
    assert [loaded.row_of(id_) for id_ in loaded.ids] == [0, 1, 2, 3]
    assert loaded.row_of("elsewhere") is None


def test_pictures_are_kept_without_loss_and_copied_along(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(256, size=(4, 8, 9, 3), dtype=np.uint8)
    first = save_gallery(tmp_path / "first", gallery_of(), pictures)
    second = save_gallery(tmp_path / "second", first)
    for path, picture in zip(second.images, pictures, strict=True):
        assert path.is_relative_to(tmp_path / "second")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_a_gallery_of_another_space_is_refused() -> None:
    check_space(gallery_of(), bundle_of("abc", 6))
    with pytest.raises(Problem, match="space abc, the bundle decodes into xyz"):
        check_space(gallery_of(), bundle_of("xyz", 6))
    with pytest.raises(Problem, match="embeddings have 6 numbers, the bundle's 7"):
        check_space(gallery_of(), bundle_of("abc", 7))


def test_reading_a_gallery_needs_no_torch(tmp_path: Path) -> None:
    save_gallery(tmp_path / "g", gallery_of())
    program = (
        "import sys, pathlib; from index.gallery import load_gallery; "
        "load_gallery(pathlib.Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "g"], check=True)


def test_opening_looks_at_neither_embeddings_nor_pictures(tmp_path: Path) -> None:
    saved = save_gallery(tmp_path / "g", gallery_of(), np.zeros((4, 2, 2, 3), np.uint8))
    shutil.rmtree(tmp_path / "g" / "images")
    path = tmp_path / "g" / "embeddings.f32"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert tuple(open_gallery(tmp_path / "g").ids) == tuple(saved.ids)
    with pytest.raises(Problem, match="damaged"):
        load_gallery(tmp_path / "g")


def test_what_is_done_to_mapped_embeddings_stays_in_the_process(tmp_path: Path) -> None:
    saved = save_gallery(tmp_path / "g", gallery_of())
    saved.embeddings[:] = 0
    load_gallery(tmp_path / "g")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ids": ("a", "b", "a", "c")}, "'a' comes twice"),
        ({"labels": ("a", "b")}, "4 ids, 2 labels"),
        ({"images": (Path("one.png"),)}, "1 images"),
        ({"embeddings": np.full((4, 6), np.nan, np.float32)}, "length nan"),
        ({"embeddings": np.ones((4, 6), np.float32)}, "length 2.4"),
        ({"embeddings": np.zeros((3, 6), np.float32)}, "3 embeddings"),
    ],
)
def test_a_gallery_that_is_no_table_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        save_gallery(tmp_path / "g", replace(gallery_of(), **change))
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("gallery.json", b"no", "not JSON"),
        ("embeddings.f32", b"no", "has 2 bytes, expected 96"),
        ("embeddings.f32", None, "No such file"),
        ("names.jsonl", b"", "has 0 bytes"),
        ("names.index", None, "No such file"),
    ],
)
def test_a_damaged_gallery_is_refused(
    tmp_path: Path, file: str, content: bytes | None, sentence: str
) -> None:
    save_gallery(tmp_path / "g", gallery_of(), np.zeros((4, 2, 2, 3), np.uint8))
    path = tmp_path / "g" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(Problem, match=sentence):
        load_gallery(tmp_path / "g")
    with pytest.raises(Problem):
        # Opening finds what is missing or too short.
        open_gallery(tmp_path / "g")


@pytest.mark.parametrize(
    "told",
    [{"dim": 10**18}, {"dim": 0}, {"removed": [4]}, {"removed": [1, 1]}, {"removed": [0, 1, 2, 3]}],
)
def test_a_manifest_that_says_what_is_not_there_is_refused(tmp_path: Path, told: dict) -> None:
    save_gallery(tmp_path / "g", gallery_of())
    file = tmp_path / "g" / "gallery.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    with pytest.raises(Problem):
        open_gallery(tmp_path / "g")


def test_a_gallery_that_a_link_points_to_is_replaced_there(tmp_path: Path) -> None:
    save_gallery(tmp_path / "disk" / "g", gallery_of())
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "g")
    save_gallery(tmp_path / "link", gallery_of(3))
    assert len(load_gallery(tmp_path / "disk" / "g")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "path",
    ["../other.png", "images/../../x.png", "/etc/x.png", "images/..", "C:/x.png", "images\\..\\x"],
)
def test_images_that_lie_elsewhere_are_none_of_a_gallery(tmp_path: Path, path: str) -> None:
    save_gallery(tmp_path / "g", gallery_of(), np.zeros((4, 2, 2, 3), np.uint8))
    renamed(tmp_path / "g", lambda names: names[2].update(image=path))
    gallery = open_gallery(tmp_path / "g")
    assert gallery.image_of(1) == tmp_path / "g/images/00001.png"
    with pytest.raises(Problem, match=r"damaged at row 2 \(a line is not valid at image"):
        gallery.image_of(2)
    with pytest.raises(Problem, match="not valid at image"):
        load_gallery(tmp_path / "g")


def test_ids_are_found_in_either_form_of_unicode() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    for kept in (composed, apart):
        gallery = replace(gallery_of(2), ids=("tea", kept))
        assert [gallery.row_of(asked) for asked in (composed, apart, "cafe")] == [1, 1, None]
    with pytest.raises(Problem, match="comes twice"):
        replace(gallery_of(2), ids=(composed, apart)).check()


def test_pictures_are_asked_for_one_after_the_other(tmp_path: Path) -> None:
    written = []

    def pictures() -> Iterator[np.ndarray]:
        for row in range(4):
            [draft] = tmp_path.glob(".g.draft-*")
            written.append(len([*(draft / "images").iterdir()]))
            yield np.full((2, 2, 3), row, np.uint8)

    save_gallery(tmp_path / "g", gallery_of(), pictures())
    assert written == [0, 1, 2, 3]


def test_an_image_that_cannot_be_copied_leaves_the_gallery_that_was_there(tmp_path: Path) -> None:
    save_gallery(tmp_path / "g", gallery_of(3))
    images = tuple(tmp_path / f"{row}.png" for row in range(4))
    with pytest.raises(Problem, match=r"0\.png' cannot be copied into the gallery \(No such file"):
        save_gallery(tmp_path / "g", replace(gallery_of(4), images=images))
    assert len(load_gallery(tmp_path / "g")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("name", ["c.p:g", "d.p\\g", "e.", "f", "g.p\ng", f"h.{'x' * 200}", "i.é"])
def test_whatever_a_picture_is_called_its_gallery_can_be_read(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / name, "png")
    images = (tmp_path / name,)
    made = save_gallery(tmp_path / "g", replace(gallery_of(1), images=images))
    add_images(tmp_path / "g", [([Row("more", "more", tmp_path / name)], made.embeddings)], "test")
    after = load_gallery(tmp_path / "g")
    for path in (made.image_of(0), after.image_of(0), after.image_of(1)):
        assert path.read_bytes() == (tmp_path / name).read_bytes()


def test_a_name_that_cannot_be_read_is_never_written() -> None:
    with pytest.raises(Problem, match=r"'a' cannot be kept as 'images/0\.p:g' \(.*rename its file"):
        line_of(Name("a", "a", "images/0.p:g"))


@pytest.mark.parametrize("out", ["all/one", "all", "link"])
def test_no_gallery_is_replaced_by_a_part_of_itself(tmp_path: Path, out: str) -> None:
    save_gallery(tmp_path / "all", gallery_of(4))
    one = save_gallery(tmp_path / "all" / "one", gallery_of(4))
    (tmp_path / "link").symlink_to("all")
    with pytest.raises(Problem, match="would be replaced, and its images are copied from"):
        copy_galleries(tmp_path / out, [(one, one.rows[:1])], "test")
    for left in ("all", "all/one"):
        assert len(load_gallery(tmp_path / left)) == 4
    assert len(copy_galleries(tmp_path / "all/two", [(one, one.rows[:1])], "test")) == 1


def test_no_gallery_is_written_into_the_one_it_comes_from(tmp_path: Path) -> None:
    made = save_gallery(tmp_path / "g", gallery_of())
    with pytest.raises(Problem, match="g/inner' lies in the gallery"):
        copy_galleries(tmp_path / "g" / "inner", [(made, made.rows[:1])], "test")
    assert not (tmp_path / "g" / "inner").exists()


def test_a_disk_that_fills_while_images_are_copied_is_said_of_the_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(Problem, match=r"/g cannot be written \(.*No space.*make room"):
        save_gallery(tmp_path / "g", replace(gallery_of(1), images=(tmp_path / "0.png",)))
    assert not [*tmp_path.iterdir()]
