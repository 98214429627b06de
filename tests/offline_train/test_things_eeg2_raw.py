"""THINGS-EEG2 as published, raw: what is taken of it, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lookalikes import things, things_eeg2
from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.way import prepared, refused

HOW = ("--per-session", "--tmax", 0.196)  # as long as the look-alike's brain answers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = things_eeg2.raw(tmp_path_factory.mktemp("raw"))
    things.write_metadata(folder)
    return folder


def test_trials_are_what_mne_cuts_each_with_its_image(data: Path, tmp_path: Path) -> None:
    usual = ("--rate", 0, "--whitening", "none", "--tmax", 0.199)
    trials = prepared(tmp_path / "trials", data / "raw_data", *usual)
    for number, (session, part, split) in enumerate(
        (s, p, {"training": "train"}.get(p, p)) for s in ("01", "02") for p in ("test", "training")
    ):
        path = data / "raw_data" / "sub-01" / f"ses-{session}" / f"raw_eeg_{part}.npy"
        volts, codes = things_eeg2.epochs_of(path, 0.199)
        ours = trials.select([session], "session").select([split], "split")
        np.testing.assert_allclose(ours.data[ours.rows], 1e6 * volts, rtol=1e-4, atol=1e-3)
        names = TRAIN if split == "train" else TEST
        assert ours.stimuli == tuple(names[code - 1] for code in codes), number
    assert trials.format.unit == "microvolts"


@pytest.mark.slow
def test_a_session_is_whitened_by_its_training_trials_alone(data: Path, tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole", data, *HOW)
    assert set(whole.session_arrays) == {("01", "01"), ("01", "02")}
    session = data / "raw_data" / "sub-01" / "ses-01"
    alone = prepared(tmp_path / "alone", session / "raw_eeg_training.npy", *HOW)
    fitted = [one.session_arrays["01", "01"]["whitener"] for one in (whole, alone)]
    np.testing.assert_allclose(*fitted, rtol=1e-5)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda t: t["ch_names"].pop(0), "and names 4 channels, expected a row for each"),
        (lambda t: t.update(ch_types=["eeg"] * 5), "has 0 channels of kind stim, expected one"),
        (lambda t: t["raw_eeg_data"][-1].__setitem__(5, 31), "images up to code 31, and"),
        (lambda t: t["raw_eeg_data"][-1].__setitem__(5, 5), "is called test and holds the images"),
        (lambda t: t.pop("sfreq"), "which is no known data set"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(
    data: Path, how: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    file = next(data.rglob("ses-01/raw_eeg_test.npy"))
    table = np.load(file, allow_pickle=True).item()
    how(table)
    things.write_metadata(tmp_path)
    np.save(tmp_path / "raw_eeg_test.npy", table)
    assert told in refused(tmp_path / "raw_eeg_test.npy", "--pickles")


def test_files_that_were_cut_short_or_are_of_two_forms_are_told(data: Path, tmp_path: Path) -> None:
    file = next(data.rglob("ses-01/raw_eeg_training.npy"))
    (tmp_path / "cut.npy").write_bytes(file.read_bytes()[:-100])
    assert "was cut short" in refused(tmp_path / "cut.npy", "--pickles")
    published = things_eeg2.gifford(tmp_path / "other") / "preprocessed_eeg_test.npy"
    assert "prepare them apart" in refused(file, published, "--pickles")
