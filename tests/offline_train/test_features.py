"""The cache of features: nothing is computed twice, nothing damaged is believed."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hvf_core.problem import Problem
from offline_train.data import features as features_module
from offline_train.data.features import extract_features, label_features

ITEMS = [f"thing/{i}" for i in range(600)]


@dataclass
class FakeEncoder:
    """Embeds an image of one pixel by a random vector that its colour seeds."""

    name: str = "fake"
    dim: int = 8
    checksum: str = "0123456789abcdef" * 4
    seen: list[int] = field(default_factory=list)

    @property
    def spec(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name, dim=self.dim)

    def encode(self, images: list[np.ndarray]) -> np.ndarray:
        colours = [int(image[0, 0] @ [1, 256, 0]) for image in images]
        self.seen += colours
        rows = [np.random.default_rng([self.dim, c]).standard_normal(self.dim) for c in colours]
        return np.array(rows, np.float32)


def load_image(item: str) -> np.ndarray:
    number = int(item.split("/")[1])
    return np.array([[[number % 256, number // 256, 0]]], np.uint8)


def test_what_is_cached_is_neither_loaded_nor_encoded_again(tmp_path: Path) -> None:
    fresh = extract_features(ITEMS, load_image, [FakeEncoder()], tmp_path)
    encoder, loaded = FakeEncoder(), []
    again = extract_features(ITEMS[::-1], loaded.append, [encoder], tmp_path)
    assert encoder.seen == loaded == []
    np.testing.assert_array_equal(again.embeddings["fake"], fresh.embeddings["fake"][::-1])
    assert again.embeddings["fake"].dtype == np.float32
    np.testing.assert_array_equal(
        fresh.embeddings["fake"], FakeEncoder().encode([load_image(item) for item in ITEMS])
    )


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path: Path) -> None:
    def interrupted(item: str) -> np.ndarray:
        if item == ITEMS[580]:
            raise KeyboardInterrupt
        return load_image(item)

    with pytest.raises(KeyboardInterrupt):
        extract_features(ITEMS, interrupted, [FakeEncoder()], tmp_path)
    encoder, reports = FakeEncoder(), []
    extract_features(
        ITEMS, load_image, [encoder], tmp_path, lambda done, total: reports.append((done, total))
    )
    assert encoder.seen == list(range(2 * features_module.BLOCK, 600))
    assert reports == [(88, 88)]


def test_a_second_encoder_and_new_weights_have_caches_of_their_own(tmp_path: Path) -> None:
    extract_features(ITEMS[:9], load_image, [FakeEncoder()], tmp_path)
    old, other = FakeEncoder(), FakeEncoder(name="other", dim=3)
    both = extract_features(ITEMS[:10], load_image, [old, other], tmp_path)
    assert (old.seen, other.seen) == ([9], list(range(10)))
    assert [encoder.dim for encoder in both.encoders] == [8, 3]
    retrained = FakeEncoder(checksum="f" * 64)
    extract_features(ITEMS[:9], load_image, [retrained], tmp_path)
    assert retrained.seen == list(range(9))


def test_a_damaged_cache_file_is_named_and_can_be_deleted(tmp_path: Path) -> None:
    extract_features(ITEMS, load_image, [FakeEncoder()], tmp_path)
    path = next(p for p in tmp_path.rglob("*.safetensors") if ITEMS[256].encode() in p.read_bytes())
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    for damage in (bytes(content), b"short"):
        path.write_bytes(damage)
        with pytest.raises(Problem, match=f"{path.name} is damaged .* delete this file"):
            extract_features(ITEMS, load_image, [FakeEncoder()], tmp_path)
    path.unlink()
    encoder = FakeEncoder()
    extract_features(ITEMS, load_image, [encoder], tmp_path)
    assert encoder.seen == list(range(256, 512))
    again = FakeEncoder()
    assert extract_features(ITEMS, load_image, [again], tmp_path).items == tuple(ITEMS)
    assert again.seen == []  # nor has what was written anew taken the place of another


def test_a_cache_of_other_weights_under_the_same_name_is_refused(tmp_path: Path) -> None:
    extract_features(ITEMS[:9], load_image, [FakeEncoder()], tmp_path)
    alike = FakeEncoder(checksum="0123456789abcdef" + "0" * 48)
    with pytest.raises(Problem, match="not of encoder fake"):
        extract_features(ITEMS[:9], load_image, [alike], tmp_path)


def test_a_collapsed_encoder_is_refused(tmp_path: Path) -> None:
    class Collapsed(FakeEncoder):
        def encode(self, images: list[np.ndarray]) -> np.ndarray:
            return 10 + super().encode(images)

    with pytest.raises(Problem, match=r"'fake' are collapsed"):
        extract_features(ITEMS[:50], load_image, [Collapsed()], tmp_path)


def test_values_that_are_not_finite_never_reach_the_cache(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, images: list[np.ndarray]) -> np.ndarray:
            return super().encode(images) * np.float32(np.nan)

    with pytest.raises(Problem, match="'fake' gives values that are not finite"):
        extract_features(ITEMS[:5], load_image, [Broken()], tmp_path)
    assert extract_features(ITEMS[:5], load_image, [FakeEncoder()], tmp_path).items


def test_a_single_image_is_enough(tmp_path: Path) -> None:
    assert extract_features(ITEMS[:1], load_image, [FakeEncoder()], tmp_path).items == ("thing/0",)


def test_features_are_joined_by_id(tmp_path: Path) -> None:
    found = extract_features(ITEMS[:20], load_image, [FakeEncoder()], tmp_path)
    chosen = found.select([ITEMS[7], ITEMS[2]])
    np.testing.assert_array_equal(chosen.embeddings["fake"], found.embeddings["fake"][[7, 2]])
    with pytest.raises(Problem, match="'thing/99' has no features"):
        found.select([ITEMS[1], "thing/99"])


def test_labels_are_one_hot() -> None:
    features = label_features(["square", "rt"]).select(["rt", "square"])
    np.testing.assert_array_equal(features.embeddings["label"], [[0, 1], [1, 0]])
