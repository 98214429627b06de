"""Latents on disk: right, made once, gone on with, refused when they are others."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.bundle import ImageEncoderRecord
from decoder.painting.base import DiffusionBase
from hvf_core.problem import Problem, needed
from index.encoders.load import ImageEncoder, load_encoder
from offline_train.data import latents as latents_module
from offline_train.data.features import Features
from offline_train.data.latents import (
    ARRAY,
    cache_latents,
    latents_folder,
    shared_latents,
    vae_encoder,
)
from tests.tiny_sdxl import SIZE_PX, tiny_base

pytestmark = pytest.mark.slow

ITEMS = tuple(f"image {n}" for n in range(10))
CONTENTS = {item: f"content of {item}" for item in ITEMS}
SCALING = 0.13025


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "BLOCK", 4)


@pytest.fixture
def base(tmp_path: Path) -> DiffusionBase:
    return tiny_base(tmp_path / "base")


@pytest.fixture
def vae(base: DiffusionBase) -> ImageEncoder:
    return load_encoder(vae_encoder(base.spec, SIZE_PX))


def picture(item: str) -> np.ndarray:
    rng = np.random.default_rng(int(item.split()[1]))
    return rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


class Camera:
    """Gives the pictures, and remembers which; breaks off at one if told to."""

    def __init__(self, broken_at: str | None = None) -> None:
        self.taken: list[str] = []
        self._broken_at = broken_at

    def __call__(self, item: str) -> np.ndarray:
        if item == self._broken_at:
            raise KeyboardInterrupt
        self.taken.append(item)
        return picture(item)


def test_they_are_the_scaled_mean_in_half_precision(
    base: DiffusionBase, vae: ImageEncoder, tmp_path: Path
) -> None:
    made = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")
    pixels = torch.from_numpy(np.stack([picture(item) for item in ITEMS])).permute(0, 3, 1, 2)
    with torch.no_grad():
        mean = base.vae.encode(pixels / 127.5 - 1).latent_dist.mean
    assert (made.dtype, made.shape) == (np.float16, (10, 4, SIZE_PX // 8, SIZE_PX // 8))
    np.testing.assert_allclose(made, mean.numpy() * SCALING, rtol=2e-3, atol=1e-5)
    assert not made.flags.writeable


def test_an_interrupted_run_goes_on_and_a_finished_one_is_not_repeated(
    vae: ImageEncoder, tmp_path: Path
) -> None:
    whole = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        cache_latents(CONTENTS, Camera("image 6"), vae, SCALING, tmp_path / "latents")
    second, told = Camera(), []
    made = cache_latents(
        CONTENTS, second, vae, SCALING, tmp_path / "latents", lambda *done: told.append(done)
    )
    assert second.taken == list(ITEMS[4:])
    assert told == [(8, 10), (10, 10)]
    assert np.array_equal(made, whole)
    third = Camera()
    assert np.array_equal(cache_latents(CONTENTS, third, vae, SCALING, tmp_path / "latents"), whole)
    assert third.taken == []


def test_those_of_other_images_another_vae_or_size_are_refused(
    base: DiffusionBase, vae: ImageEncoder, tmp_path: Path
) -> None:
    cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")
    other_vae = load_encoder(vae_encoder(tiny_base(tmp_path / "other", seed=1).spec, SIZE_PX))
    smaller = load_encoder(vae_encoder(base.spec, SIZE_PX // 2))
    changed = CONTENTS | {ITEMS[3]: "another content"}
    otherwise = replace(vae, fingerprint=tuple(1.1 * x for x in vae.fingerprint))
    for contents, encoder, scaling in (
        (dict(reversed(CONTENTS.items())), vae, SCALING),
        (changed, vae, SCALING),
        (CONTENTS, other_vae, SCALING),
        (CONTENTS, smaller, SCALING),
        (CONTENTS, otherwise, SCALING),
        (CONTENTS, vae, 0.18215),
    ):
        with pytest.raises(Problem, match="of other images, of another VAE or another size"):
            cache_latents(contents, Camera(), encoder, scaling, tmp_path / "latents")
    assert latents_folder(tmp_path, vae, changed) != latents_folder(tmp_path, vae, CONTENTS)
    renamed = {f"other {item}": content for item, content in CONTENTS.items()}
    assert latents_folder(tmp_path, vae, renamed) == latents_folder(tmp_path, vae, CONTENTS)


@pytest.mark.parametrize(
    ("damage", "n_again"), [("a byte", 2), ("in the middle", 6), ("cut", 10), ("gone", 10)]
)
def test_damaged_ones_are_made_again_aloud(
    vae: ImageEncoder, tmp_path: Path, damage: str, n_again: int
) -> None:
    whole = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "whole")
    cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")
    path = tmp_path / "latents" / ARRAY
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[{"a byte": -1, "in the middle": len(content) * 6 // 10, "cut": -1}[damage]] ^= 1
        path.write_bytes(content[: -100 if damage == "cut" else None])
    camera, said = Camera(), []
    folder = tmp_path / "latents"
    made = cache_latents(CONTENTS, camera, vae, SCALING, folder, say=said.append)
    assert camera.taken == list(ITEMS[10 - n_again :])
    assert said == [f"the latents in '{path}' are damaged from image {10 - n_again} on: made again"]
    np.testing.assert_array_equal(made, whole)
    cache_latents(CONTENTS, Camera(ITEMS[0]), vae, SCALING, folder, say=said.append)
    assert len(said) == 1


def test_another_array_in_their_place_is_replaced(vae: ImageEncoder, tmp_path: Path) -> None:
    whole = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents").copy()
    np.save(tmp_path / "latents" / ARRAY, np.zeros((10, 4, 2, 2), np.float16))
    made = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")
    np.testing.assert_array_equal(made, whole)


def test_a_second_program_that_begins_does_not_cut_the_file_of_the_first(
    vae: ImageEncoder, tmp_path: Path
) -> None:
    class Beside(Camera):
        def __call__(self, item: str) -> np.ndarray:
            if item == ITEMS[1]:  # before the first block is on record
                with pytest.raises(KeyboardInterrupt):
                    cache_latents(CONTENTS, Camera("image 6"), vae, SCALING, tmp_path / "latents")
            return super().__call__(item)

    whole = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "whole")
    for camera in (Beside(), Camera()):
        made = cache_latents(CONTENTS, camera, vae, SCALING, tmp_path / "latents")
        np.testing.assert_array_equal(made, whole)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no disk that can be asked")
def test_a_disk_that_is_too_small_is_told_before_anything_is_encoded(
    vae: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        camera = Camera()
        with pytest.raises(Problem, match=r"latents\.npy cannot be written \(.*No space"):
            cache_latents(CONTENTS, camera, vae, SCALING, tmp_path / "latents")
    assert (camera.taken, list((tmp_path / "latents").iterdir())) == ([], [])
    cache_latents(CONTENTS, camera, vae, SCALING, tmp_path / "latents")


def test_values_that_are_not_finite_are_not_kept(
    base: DiffusionBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = load_encoder(vae_encoder(base.spec, SIZE_PX))
    monkeypatch.setattr(ImageEncoder, "embed", lambda self, images: np.full((4, 256), np.nan))
    with pytest.raises(Problem, match="values that are not finite"):
        cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")


def test_an_image_encoder_that_is_the_vae_at_that_size_has_them_already(
    base: DiffusionBase, vae: ImageEncoder, tmp_path: Path
) -> None:
    def features(encoder: ImageEncoder) -> Features:
        spec = encoder.spec
        record = ImageEncoderRecord(name="pixels", dim=spec.dim, checksum=encoder.checksum)
        embeddings = encoder.encode([picture(item) for item in ITEMS])
        return Features(ITEMS, (record,), {"pixels": embeddings})

    shared = needed(shared_latents(features(vae), vae))
    assert shared.shape == (10, 4, SIZE_PX // 8, SIZE_PX // 8)
    made = cache_latents(CONTENTS, Camera(), vae, SCALING, tmp_path / "latents")
    rows = np.array([7, 0, 3])
    assert np.array_equal(shared[rows].astype(np.float16), made[rows])
    smaller = load_encoder(vae_encoder(base.spec, SIZE_PX // 2))
    assert shared_latents(features(smaller), vae) is None
    other = load_encoder(vae_encoder(tiny_base(tmp_path / "other", seed=1).spec, SIZE_PX))
    assert shared_latents(features(other), vae) is None
