"""Folders of images: every file that a person put there, by its id; what programs put there not."""

import os
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvf_core.problem import Problem
from index.encoders.spec import EncoderSpec
from index.images import read_image
from offline_train.data.features import extract_features
from offline_train.data.images import content_of, image_files, passed_over, pictures_of


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_images_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "b/x.PNG", "a.jpg", "b/c/y.jpeg", "a/z.webp", "w.bmp", "notes.txt", "b/v.tif")
    assert list(image_files(tmp_path)) == ["z", "a", "y", "v", "x", "w"]
    assert image_files(tmp_path)["y"] == tmp_path / "b/c/y.jpeg"


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".DS_Store")
    assert list(passed_over(tmp_path)) == []
    put(tmp_path, "b.HEIC", "c/d.heic", "c/notes.txt", "README")
    (sentence,) = passed_over(tmp_path)
    assert sentence.startswith(f"4 files in '{tmp_path}' are passed over (2 .heic, ")


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".b.png", "._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/c/._a.png")
    put(tmp_path, ".ipynb_checkpoints/a-checkpoint.png", "x/.git/c.png")
    assert list(image_files(tmp_path)) == ["a"]
    put(tmp_path / ".cache", "d.png")  # but a folder that was asked for is
    assert list(image_files(tmp_path / ".cache")) == ["d"]


def test_links_are_followed_and_end(tmp_path: Path) -> None:
    images, elsewhere = (
        put(tmp_path / "images", "cat/cat_1.png"),
        put(tmp_path / "far", "dog_1.png"),
    )
    put(tmp_path / "one", "owl_1.png")
    os.symlink(elsewhere, images / "dog")
    os.symlink(tmp_path / "one/owl_1.png", images / "owl_1.png")
    os.symlink(images, images / "cat/loop")
    os.symlink(elsewhere / "back", elsewhere / "back")  # onto itself
    os.symlink(images / "cat", images / "zoo")  # a second way to the same folder
    found = image_files(images)
    assert list(found) == ["cat_1", "dog_1", "owl_1"]
    assert found["dog_1"] == images / "dog/dog_1.png"
    by_link = image_files(images / "dog")
    assert list(by_link) == ["dog_1"]


def test_two_images_of_one_id_are_refused_by_both_names(tmp_path: Path) -> None:
    put(tmp_path, "003.png", "y/003.jpg", "004.png")
    with pytest.raises(Problem, match=r"003\.png' and '.*y/003\.jpg' have the same id"):
        image_files(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.png", "locked/b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(Problem, match=r"locked' cannot be read \(Permission denied\)"):
        image_files(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(Problem, match=r"caf\\udce9\.png' has a name that is no Unicode: rename it"):
        image_files(tmp_path)


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_no_folder_or_no_image_is_said(tmp_path: Path, folder: Path | None) -> None:
    with pytest.raises(Problem, match=r"there is no folder of images .* --images"):
        image_files(folder and tmp_path / folder)
    with pytest.raises(Problem, match=r"holds no image; expected \.png"):
        image_files(put(tmp_path, ".hidden.png"))


# Letters that have two spellings, in the composed and in macOS's form, and a few that have one.
NAMES = st.text(st.sampled_from("aÅéöñがàệ한_"), min_size=1, max_size=6)


@given(name=NAMES, form=st.sampled_from(["NFC", "NFD"]))
def test_an_id_is_composed_whichever_form_a_file_system_keeps(
    tmp_path_factory: pytest.TempPathFactory, name: str, form: str
) -> None:
    folder = put(tmp_path_factory.mktemp("images"), unicodedata.normalize(form, name) + ".png")
    assert list(image_files(folder)) == [unicodedata.normalize("NFC", name)]


def test_two_forms_of_one_name_are_one_id(tmp_path: Path) -> None:
    put(tmp_path, "caf\u00e9.png", "x/cafe\u0301.png")
    with pytest.raises(Problem, match="have the same id"):
        image_files(tmp_path)


# --- what is in them -----------------------------------------------------------------------------


def picture(path: Path, seed: int, **options: object) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_a_picture_s_content_is_its_file_s_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2), ("copies/c", 1)):
        picture(tmp_path / f"{name}.png", seed)
    times_ns = (tmp_path / "a.png").stat().st_mtime_ns
    before = pictures_of(tmp_path)
    assert before.contents["a"] == before.contents["c"] != before.contents["b"]
    # Another picture of as many bytes, at the same time: neither size nor time tells it.
    size = (tmp_path / "a.png").stat().st_size
    content = picture(tmp_path / "a.png", 3).read_bytes()
    assert len(content) == size
    os.utime(tmp_path / "a.png", ns=(times_ns, times_ns))
    after = pictures_of(tmp_path)
    assert before.contents["a"] != after.contents["a"]
    np.testing.assert_array_equal(after.read("a"), read_image(tmp_path / "a.png"))
    with pytest.raises(Problem, match=r"a\.png' has just changed"):
        before.read("a")


def test_pictures_are_those_of_the_stimuli_asked_for(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png", ord(name))
    composed, apart = "caf\u00e9", "cafe\u0301"
    picture(tmp_path / f"{apart}.png", 7)
    told: list[tuple[int, int]] = []
    found = pictures_of(tmp_path, ["b", composed, "a"], lambda *done: told.append(done))
    assert list(found.files) == list(found.contents) == ["b", composed, "a"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert list(pictures_of(tmp_path, [apart]).files) == [apart]  # as an older trial set spells it
    with pytest.raises(Problem, match=r"has no image of stimulus 'd'; add it"):
        pictures_of(tmp_path, ["a", "d"])
    os.symlink(tmp_path / "nowhere", tmp_path / "e.png")
    with pytest.raises(Problem, match=r"e\.png' cannot be read \(No such file"):
        pictures_of(tmp_path)


def test_pixels_have_a_content_of_their_own() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert content_of(pixels) == content_of(pixels.copy())
    assert content_of(pixels) != content_of(pixels.reshape(4, 2, 3))
    assert content_of(pixels) != content_of(pixels + 1)


def test_photos_take_no_more_memory_the_more_there_are(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 3), dtype=np.uint8)
    for n, pixels in enumerate(small):
        photo = Image.fromarray(pixels).resize((600, 400))
        photo.save(tmp_path / f"{n:02d}.jpg", quality=20)
    peaks = {}
    for n in (4, 40):
        pictures = pictures_of(tmp_path, [f"{i:02d}" for i in range(n)])
        tracemalloc.start()
        extract_features(pictures.contents, pictures.read, [MeanColour()], tmp_path / f"cache{n}")
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    one = 600 * 400 * 3
    assert one < peaks[40] < 3 * one
    assert peaks[40] - peaks[4] < one / 2


class MeanColour:
    """An image encoder that keeps three numbers of each image, times that of a channel."""

    spec = EncoderSpec(name="mean", kind="classifier", source="none", dim=9, size_px=1)
    checksum = "0" * 64
    fingerprint = (1.0, 2.0)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        colour = image.mean(axis=(0, 1), dtype=np.float32)
        return np.outer(colour - 128, colour - 120).ravel()

    def embed(self, prepared: list[np.ndarray]) -> np.ndarray:
        return np.stack(prepared)
