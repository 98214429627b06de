"""THINGS-EEG2 as published, preprocessed: what is taken of it, and what is refused."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_train.data.saved import read_saved
from offline_train.data.trial_set import load_trial_set
from tests.calling import call
from tests.lookalikes import things, things_eeg2
from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.way import prepared, refused

FORMS = {"gifford": things_eeg2.gifford, "nice": things_eeg2.nice, "ubp": things_eeg2.ubp}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return things.write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("form", FORMS)
def test_trials_are_those_that_were_published_each_with_its_image(
    form: str, images: Path, tmp_path: Path
) -> None:
    data = FORMS[form](tmp_path / "sub-08")
    trials = prepared(tmp_path / "trials", data, "--images", images)
    assert trials.column("subject").present == {"08"}
    assert {*trials.select(["train"], "split").items} == {*TRAIN}
    assert {*trials.select(["test"], "split").items} == {*TEST}
    shown = dict(zip(trials.stimuli, trials.column("image").values, strict=True))
    assert shown["abacus_04b"] == "training_images/00002_abacus/abacus_04b.jpg"
    concepts = dict(zip(trials.stimuli, trials.column("category").values, strict=True))
    assert concepts["ball_05s"] == "ball"
    n_channels, n_times = (17, 100) if form == "gifford" else (63, 250)
    assert trials.data.shape == (30 * 4 + 4 * 6, n_channels, n_times)
    assert trials.format.tmin_s == (-0.2 if form == "gifford" else 0.0)
    for split, names, n_repeats in (("train", TRAIN, 4), ("test", TEST, 6)):
        published = things_eeg2.trials(names, n_repeats, n_channels, n_times)
        of_split = trials.select([split], "split")
        for name, repeats in zip(names, published, strict=True):
            taken = of_split.data[of_split.select([name]).rows]
            np.testing.assert_allclose(
                taken.mean(axis=0), repeats.mean(axis=0), rtol=1e-3, atol=2e-3
            )


def test_what_ubp_says_of_sessions_is_kept(tmp_path: Path) -> None:
    trials = prepared(tmp_path / "trials", things_eeg2.ubp(tmp_path))
    first = trials.select(["01"], "session")
    assert {*first.select(["train"], "split").items} == {*TRAIN[1::2]}
    assert trials.format.preprocessing["whitening"] == "given"
    assert trials.column("image").names[0] == "train_images/00001_aardvark/aardvark_02s.jpg"


def test_a_table_names_the_images_as_their_folders_do(images: Path, tmp_path: Path) -> None:
    data = things_eeg2.gifford(tmp_path / "data")
    by_folder = prepared(tmp_path / "one", data, "--images", images)
    things.write_metadata(tmp_path)
    assert prepared(tmp_path / "two", data).stimuli == by_folder.stimuli


def test_a_channel_stim_that_some_releases_name_is_none(tmp_path: Path) -> None:
    data = things_eeg2.gifford(tmp_path / "data", keeps_stim=True)
    things.write_metadata(tmp_path)
    assert prepared(tmp_path / "one", data).format.channels == tuple(things_eeg2.CHANNELS_17)
    for file in data.iterdir():
        table = np.load(file, allow_pickle=True).item()
        eeg = table["preprocessed_eeg_data"]
        table["preprocessed_eeg_data"] = np.concatenate([eeg, 0 * eeg[:, :, :1]], axis=2)
        np.save(file, table)
    assert prepared(tmp_path / "two", data).format.channels == tuple(things_eeg2.CHANNELS_17)


def change(folder: Path, how: Callable[[dict[str, Any]], object], *, is_pt: bool = False) -> Path:
    """One file of a published form, with something changed in what it holds."""
    if is_pt:
        table = things_eeg2.ubp_table("test")
        how(table)
        torch.save(table, folder / "odd.pt", pickle_protocol=5)
        return folder / "odd.pt"
    things.write_metadata(folder)
    file = things_eeg2.gifford(folder / "made") / "preprocessed_eeg_test.npy"
    table = np.load(file, allow_pickle=True).item()
    how(table)
    np.save(folder / "odd.npy", table)
    return folder / "odd.npy"


def cut_off(name: str, axis: int) -> Callable[[dict[str, Any]], object]:
    return lambda table: table.update(
        {name: np.delete(np.asarray(table[name]), -1, axis)}  # one image, channel ... less
    )


@pytest.mark.parametrize(
    ("is_pt", "how", "told"),
    [
        (False, cut_off("ch_names", 0), "trials of 17 channels and names 16 of EEG"),
        (False, cut_off("times", 0), "trials of 100 samples and 99 times from -0.2 s to 0.78 s"),
        (False, cut_off("preprocessed_eeg_data", 3), "99 samples and 100 times"),
        (False, cut_off("preprocessed_eeg_data", 0), "has 3 images and .* names 30 for train, 4"),
        (False, lambda t: t.update(ch_names=["O1"] * 17), "has a channel twice"),
        (False, lambda t: t.pop("times"), "holds ch_names, preprocessed_eeg_data, which is no kno"),
        (True, cut_off("session", 1), r"\(4, 6, 63, 250\) beside img \(4, 6\), session \(4, 5\)"),
        (True, cut_off("ch_names", 0), "trials of 63 channels and names 62 of EEG"),
        (True, cut_off("eeg", 3), "249 samples and 300 times"),
        (True, lambda t: t["img"].__setitem__((0, 0), "train_images/a/a.jpg"), "is mislabelled or"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(
    is_pt: bool, how: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    assert re.search(told, refused(change(tmp_path, how, is_pt=is_pt), "--pickles"))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_cut_short_is_told(form: str, tmp_path: Path) -> None:
    things.write_metadata(tmp_path)
    for file in FORMS[form](tmp_path / "data").iterdir():
        file.write_bytes(file.read_bytes()[:-3000])
    assert "it is damaged or was cut short" in refused(tmp_path / "data", "--pickles")


@pytest.mark.parametrize("where", ["folder", "table"])
def test_a_missing_image_is_told_before_codes_are_shifted(where: str, tmp_path: Path) -> None:
    data, shown = things_eeg2.gifford(tmp_path / "data"), things.write_images(tmp_path / "shown")
    if where == "table":
        things.write_metadata(tmp_path)
    (shown / "training_images" / "00002_abacus" / "abacus_04b.jpg").unlink()
    sentence = refused(data, "--pickles", "--images", shown)
    if where == "table":
        assert "abacus_04b.jpg' is missing, which" in sentence
    else:
        assert "00002_abacus' is folder 2 of" in sentence
        assert "holds 9 images, expected folder 00002_NAME of 10" in sentence


def test_images_beside_that_are_not_whole_are_passed_over_where_a_table_names_them(
    tmp_path: Path,
) -> None:
    data, beside = things_eeg2.gifford(tmp_path / "sub-01"), tmp_path / "Image_set"
    things.write_metadata(tmp_path)
    absent = things.write_images(beside) / "test_images" / "00004_ball" / "ball_05s.jpg"
    absent.unlink()
    told = ("prepare", data, "--pickles", "--out", tmp_path / "trials")
    done = call(*told, module="offline_train")
    assert done.code == 0, done.err
    said = f"'{beside}' is passed over, as it lacks 1 images, first '{absent}'"
    assert done.out.splitlines().count(said) == 1
    trials = load_trial_set(tmp_path / "trials")
    shown = dict(zip(trials.stimuli, trials.column("image").values, strict=True))
    assert shown["ball_05s"] == "test_images/00004_ball/ball_05s.jpg"


def test_an_image_that_ubp_names_must_be_in_the_folder(tmp_path: Path) -> None:
    few = things.write_images(tmp_path / "few", "train_images")
    (few / "test_images" / "00004_ball" / "ball_05s.jpg").unlink()
    sentence = refused(things_eeg2.ubp(tmp_path / "data"), "--pickles", "--images", few)
    assert "lacks the image of stimulus 'ball_05s'" in sentence


class Evil:
    """What a pickle with code in it is made of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil-was-here"),)


def test_a_pickle_is_read_only_if_asked_for_and_its_code_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is saved as a pickle, in which there may be code" in refused(
        things_eeg2.ubp(tmp_path / "data")
    )
    table: Any = {**things_eeg2.ubp_table("test"), "extra": Evil()}
    torch.save(table, tmp_path / "a.pt")
    np.save(tmp_path / "b.npy", table)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(table))
    for name in ("a.pt", "b.npy", "c.npy"):
        sentence = refused(tmp_path / name, "--pickles")
        assert f"{name}' names '" in sentence
        assert "may be code, so nothing of it is read" in sentence
    torch.save({"eeg": torch.zeros(3)}, tmp_path / "t.pt")
    assert refused(tmp_path / "t.pt", "--pickles")
    assert not list(tmp_path.rglob("evil-was-here"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_large_arrays_of_any_protocol_are_read_as_they_were(protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {
        "c": rng.random((300, 500)),
        "fortran": np.asfortranarray(rng.random((300, 500))),
        "strided": rng.random((600, 500))[::2],
        "big_endian": rng.random((300, 500)).astype(">f4"),
        "texts": np.array(["a", "bc"]),
        "objects": np.array([["a", None], ["bc", 3]], object),
        "one": np.float32(2.5),
    }
    with (tmp_path / "some.npy").open("wb") as file:
        pickle.dump(table, file, protocol=protocol)
    read = read_saved(tmp_path / "some.npy", pickles=True)
    for name, array in table.items():
        np.testing.assert_array_equal(read[name], array)
    if protocol > 2:  # which keeps bytes as text
        assert isinstance(read["c"], np.memmap)
