"""The cache of features: nothing is computed twice, nothing damaged is believed."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from hvf_core.problem import Problem
from offline_train.data.features import extract_features, label_features
from offline_train.features.cache import BLOCK, Index

ITEMS = [f"thing/{i}" for i in range(600)]


@dataclass
class FakeEncoder:
    """Embeds an image of one pixel by a random vector that its colour seeds."""

    name: str = "fake"
    dim: int = 8
    checksum: str = "0123456789abcdef" * 4
    fingerprint: tuple[float, ...] = (1.0, -2.0, 0.5)
    seen: list[int] = field(default_factory=list)

    @property
    def spec(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name, dim=self.dim)

    def prepare(self, image: np.ndarray) -> int:
        return int(image[0, 0] @ [1, 256, 0])

    def embed(self, colours: list[int]) -> np.ndarray:
        self.seen += colours
        rows = [np.random.default_rng([self.dim, c]).standard_normal(self.dim) for c in colours]
        return np.array(rows, np.float32)


def contents(items: list[str]) -> dict[str, str]:
    return {item: f"content of {item}" for item in items}


def load_image(item: str) -> np.ndarray:
    number = int(item.split("/")[1])
    return np.array([[[number % 256, number // 256, 0]]], np.uint8)


def test_what_is_cached_is_neither_loaded_nor_encoded_again(tmp_path: Path) -> None:
    fresh = extract_features(contents(ITEMS), load_image, [FakeEncoder()], tmp_path)
    encoder, loaded = FakeEncoder(), []
    again = extract_features(contents(ITEMS[::-1]), loaded.append, [encoder], tmp_path)
    assert encoder.seen == loaded == []
    np.testing.assert_array_equal(again.embeddings["fake"], fresh.embeddings["fake"][::-1])
    assert again.embeddings["fake"].dtype == np.float32
    np.testing.assert_array_equal(fresh.embeddings["fake"], FakeEncoder().embed(list(range(600))))


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path: Path) -> None:
    def interrupted(item: str) -> np.ndarray:
        if item == ITEMS[580]:
            raise KeyboardInterrupt
        return load_image(item)

    with pytest.raises(KeyboardInterrupt):
        extract_features(contents(ITEMS), interrupted, [FakeEncoder()], tmp_path)
    encoder, reports = FakeEncoder(), []
    extract_features(
        contents(ITEMS), load_image, [encoder], tmp_path, lambda *done: reports.append(done)
    )
    assert encoder.seen == list(range(2 * BLOCK, 600))
    assert reports == [(88, 88)]


def test_a_second_encoder_and_new_weights_have_caches_of_their_own(tmp_path: Path) -> None:
    extract_features(contents(ITEMS[:9]), load_image, [FakeEncoder()], tmp_path)
    old, other = FakeEncoder(), FakeEncoder(name="other", dim=3)
    both = extract_features(contents(ITEMS[:10]), load_image, [old, other], tmp_path)
    assert (old.seen, other.seen) == ([9], list(range(10)))
    assert [encoder.dim for encoder in both.encoders] == [8, 3]
    retrained = FakeEncoder(checksum="f" * 64)
    extract_features(contents(ITEMS[:9]), load_image, [retrained], tmp_path)
    assert retrained.seen == list(range(9))


@pytest.mark.parametrize("damage", ["a byte", "half", "empty", "of before"])
def test_a_damaged_cache_file_is_set_aside_aloud_and_made_anew(tmp_path: Path, damage: str) -> None:
    extract_features(contents(ITEMS), load_image, [FakeEncoder()], tmp_path)
    path = next(p for p in tmp_path.rglob("*.safetensors") if ITEMS[256].encode() in p.read_bytes())
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[-2] ^= 1
    elif damage == "of before":  # a file that knew images by their names
        content = save({"embeddings": np.zeros((2, 8), np.float32)}, {"ids": '["a", "b"]'})
    else:
        content = content[: {"half": 2000, "empty": 0}[damage]]
    path.write_bytes(content)
    encoder, said = FakeEncoder(), []
    found = extract_features(contents(ITEMS), load_image, [encoder], tmp_path, say=said.append)
    assert said == [f"'{path}' is damaged and set aside: its images are encoded again"]
    assert encoder.seen == list(range(256, 512))
    np.testing.assert_array_equal(found.embeddings["fake"], encoder.embed(list(range(600))))
    again = FakeEncoder()
    extract_features(contents(ITEMS), load_image, [again], tmp_path, say=said.append)
    assert (again.seen, len(said)) == ([], 1)  # said once, and nothing has taken another's place


def test_after_a_file_was_deleted_only_its_images_are_encoded_again(tmp_path: Path) -> None:
    for n in (3, 6, 9):
        extract_features(contents(ITEMS[:n]), load_image, [FakeEncoder()], tmp_path)
    min(tmp_path.rglob("*.safetensors")).unlink()
    seen = []
    for _ in range(3):
        encoder = FakeEncoder()
        extract_features(contents(ITEMS[:9]), load_image, [encoder], tmp_path)
        seen.append(len(encoder.seen))
    assert seen == [3, 0, 0]


def test_an_image_is_known_by_its_content_whatever_it_is_called(tmp_path: Path) -> None:
    extract_features(contents(ITEMS[:9]), load_image, [FakeEncoder()], tmp_path)
    renamed = {f"other {item}": content for item, content in contents(ITEMS[:9]).items()}
    encoder = FakeEncoder()
    found = extract_features(renamed, load_image, [encoder], tmp_path)
    assert (encoder.seen, found.items[0]) == ([], "other thing/0")
    changed = contents(ITEMS[:9]) | {ITEMS[4]: "another content"}
    extract_features(changed, load_image, [encoder], tmp_path)
    assert encoder.seen == [4]


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30), min_size=1),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_names_and_contents_come_each_image_has_its_own_embedding(
    runs: list[dict[str, int]],
) -> None:
    encoded = []
    with TemporaryDirectory() as folder:
        for run in runs:
            encoder = FakeEncoder()
            found = extract_features(
                {item: f"{n}" for item, n in run.items()},
                lambda item, run=run: np.full((1, 1, 3), run[item], np.uint8),
                [encoder],
                Path(folder),
            )
            encoded += encoder.seen
            expected = FakeEncoder().embed([257 * n for n in run.values()])
            np.testing.assert_array_equal(found.embeddings["fake"], expected)
    assert len(encoded) == len(set(encoded))  # nothing twice


@given(st.lists(st.lists(st.integers(0, 60), unique=True), max_size=40))
def test_an_index_finds_the_newest_place_of_each_content(added: list[list[int]]) -> None:
    index, newest = Index(), {}
    for number, contents in enumerate(added):
        places = 100 * number + np.arange(len(contents))
        index.add([str(one) for one in contents], places)
        newest |= dict(zip(contents, places.tolist(), strict=True))
    found = index.find([str(one) for one in range(61)])
    assert found.tolist() == [newest.get(one, -1) for one in range(61)]


def test_an_encoder_of_other_weights_or_behaviour_mixes_with_none(tmp_path: Path) -> None:
    known = contents(ITEMS[:9])
    extract_features(known, load_image, [FakeEncoder()], tmp_path)
    rounded = FakeEncoder(fingerprint=(1.0005, -1.9995, 0.4995))  # as other hardware rounds
    extract_features(known, load_image, [rounded], tmp_path)
    assert rounded.seen == []
    for other in (
        {"checksum": "0123456789abcdef" + "0" * 48},  # in the folder of the same name
        {"fingerprint": (1.1, -2.0, 0.5)},
        {"fingerprint": (1.0, -2.0)},
        {"dim": 9},
    ):
        for n_seen in (9, 0):
            encoder = FakeEncoder(**other)
            extract_features(known, load_image, [encoder], tmp_path)
            assert len(encoder.seen) == n_seen
    encoder = FakeEncoder()
    extract_features(known, load_image, [encoder], tmp_path)
    assert encoder.seen == []


def test_a_cache_of_before_is_neither_used_nor_touched(tmp_path: Path) -> None:
    old = tmp_path / "fake-0123456789abcdef"
    old.mkdir()
    file = old / "00000.safetensors"
    file.write_bytes(save({"embeddings": np.zeros((1, 8), np.float32)}, {"ids": '["thing/0"]'}))
    kept = file.read_bytes()
    found = extract_features(contents(ITEMS[:9]), load_image, [FakeEncoder()], tmp_path)
    assert np.abs(found.embeddings["fake"]).min() > 0
    assert (file.read_bytes(), list(old.iterdir())) == (kept, [file])


def test_two_at_once_leave_a_cache_that_holds_all(tmp_path: Path) -> None:
    def beside(item: str) -> np.ndarray:
        if item == ITEMS[100]:  # a second program starts while this one works
            extract_features(contents(ITEMS[50:300]), load_image, [FakeEncoder()], tmp_path)
        return load_image(item)

    extract_features(contents(ITEMS[:200]), beside, [FakeEncoder()], tmp_path)
    encoder = FakeEncoder()
    found = extract_features(contents(ITEMS[:300]), load_image, [encoder], tmp_path)
    assert encoder.seen == []
    np.testing.assert_array_equal(found.embeddings["fake"], encoder.embed(list(range(300))))
    assert [path for path in tmp_path.rglob("*") if "draft" in path.name] == []


def test_images_that_cannot_be_read_are_named_together_and_the_others_are_encoded(
    tmp_path: Path,
) -> None:
    def half_broken(item: str) -> np.ndarray:
        if item in (ITEMS[2], ITEMS[300]):
            raise Problem(f"the image '{item}' cannot be read")
        return load_image(item)

    with pytest.raises(Problem, match=r"'thing/2' cannot .* 'thing/300' cannot be read"):
        extract_features(contents(ITEMS), half_broken, [FakeEncoder()], tmp_path)
    encoder = FakeEncoder()
    extract_features(contents(ITEMS), load_image, [encoder], tmp_path)
    assert encoder.seen == [2, 300]


def test_one_image_is_in_memory_at_a_time(tmp_path: Path) -> None:
    photos: list[ref[np.ndarray]] = []

    def photo(item: str) -> np.ndarray:
        assert not photos or photos[-1]() is None
        image = load_image(item)
        photos.append(ref(image))
        return image

    extract_features(contents(ITEMS), photo, [FakeEncoder(), FakeEncoder("second")], tmp_path)


def test_a_collapsed_encoder_is_refused(tmp_path: Path) -> None:
    class Collapsed(FakeEncoder):
        def embed(self, colours: list[int]) -> np.ndarray:
            return 10 + super().embed(colours)

    with pytest.raises(Problem, match=r"'fake' are collapsed"):
        extract_features(contents(ITEMS[:50]), load_image, [Collapsed()], tmp_path)


def test_values_that_are_not_finite_never_reach_the_cache(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def embed(self, colours: list[int]) -> np.ndarray:
            return super().embed(colours) * np.float32(np.nan)

    with pytest.raises(Problem, match="'fake' gives values that are not finite"):
        extract_features(contents(ITEMS[:5]), load_image, [Broken()], tmp_path)
    assert extract_features(contents(ITEMS[:5]), load_image, [FakeEncoder()], tmp_path).items


def test_a_single_image_is_enough(tmp_path: Path) -> None:
    found = extract_features(contents(ITEMS[:1]), load_image, [FakeEncoder()], tmp_path)
    assert found.items == ("thing/0",)
    assert found.embeddings["fake"].shape == (1, 8)


def test_copies_of_one_image_are_no_sign_of_a_spoilt_encoder(tmp_path: Path) -> None:
    copies = dict.fromkeys(ITEMS[:50], "one") | {ITEMS[50]: "another"}
    found = extract_features(copies, load_image, [FakeEncoder()], tmp_path)
    assert len(np.unique(found.embeddings["fake"], axis=0)) == 2


def test_features_are_joined_by_id(tmp_path: Path) -> None:
    found = extract_features(contents(ITEMS[:20]), load_image, [FakeEncoder()], tmp_path)
    chosen = found.select([ITEMS[7], ITEMS[2]])
    np.testing.assert_array_equal(chosen.embeddings["fake"], found.embeddings["fake"][[7, 2]])
    with pytest.raises(Problem, match="'thing/99' has no features"):
        found.select([ITEMS[1], "thing/99"])


def test_labels_are_one_hot() -> None:
    features = label_features(["square", "rt"]).select(["rt", "square"])
    np.testing.assert_array_equal(features.embeddings["label"], [[0, 1], [1, 0]])
