"""THINGS-MEG, and epochs with a table: what is taken of them, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
import torch

from offline_train.data.trial_set import TrialSet
from tests.lookalikes import epochs, things_eeg2, things_meg
from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.way import prepared, refused

PLAIN = ("--whitening", "none")


@pytest.fixture(scope="module", params=["fif", "pt"])
def meg(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrialSet:
    folder = tmp_path_factory.mktemp(request.param)
    data = {"fif": things_meg.epochs_fif, "pt": things_meg.ubp}[request.param](folder)
    return prepared(folder / "trials", data, *PLAIN, "--tmin", 0, "--tmax", 1)


@pytest.mark.slow
def test_training_and_test_of_things_meg_share_no_concept(meg: TrialSet) -> None:
    train, test = meg.select(["train"], "split"), meg.select(["test"], "split")
    assert {*train.items} == {*things_meg.TRAIN}
    assert {*test.items} == {*things_meg.TEST}
    assert train.column("category").present.isdisjoint(test.column("category").present)
    assert {len(repeats) for repeats in test.repeats.values()} == {12}
    assert meg.data.shape[1:] == (271, 201)
    assert (meg.format.kind, meg.format.unit) == ("meg", "")  # no teslas, whatever MNE says


@pytest.mark.slow
def test_trials_of_meg_are_those_that_were_published(tmp_path: Path) -> None:
    trials = prepared(tmp_path / "trials", things_meg.ubp(tmp_path / "data"), *PLAIN)
    published = things_eeg2.trials(things_meg.TRAIN, 1, 271, 201)[:, 0]
    of_train = trials.select(["train"], "split")
    np.testing.assert_allclose(of_train.data[of_train.rows], published, rtol=1e-3, atol=1e-3)
    assert of_train.stimuli == things_meg.TRAIN
    assert trials.column("subject").present == {"01"}


@pytest.mark.parametrize("beside", [False, True])
def test_epochs_are_joined_with_their_table_by_sample(beside: bool, tmp_path: Path) -> None:
    data = epochs.saved_epochs(tmp_path / "data", beside=beside)
    trials = prepared(tmp_path / "trials", data, *PLAIN)
    assert {*trials.select(["train"], "split").items} == {*TRAIN}
    assert trials.column("subject").present == {"anna"}
    assert trials.column("session").present == {"1", "2"}
    published = things_eeg2.trials(TEST, 3, 4, 50) * 5
    test = trials.select(["test"], "split")
    for name, repeats in zip(TEST, published, strict=True):
        taken = test.data[test.select([name]).rows]
        np.testing.assert_allclose(taken.mean(axis=0), repeats.mean(axis=0), rtol=1e-3, atol=1e-3)
    assert trials.format.unit == "microvolts"


def without_a_row(folder: Path) -> None:
    table = folder / "anna-epo.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def of_no_stimulus(folder: Path) -> None:
    table = folder / "anna-epo.tsv"
    table.write_text(table.read_text().replace("stimulus", "what"))


def cut_short(folder: Path) -> None:
    file = folder / "anna-epo.fif"
    file.write_bytes(file.read_bytes()[:-20_000])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (without_a_row, "has no row 7 in its column sample"),
        (of_no_stimulus, "the columns what, split, session, sample, expected one of stimulus"),
        (lambda folder: (folder / "anna-epo.tsv").unlink(), "does not say what was shown"),
        (cut_short, "anna-epo.fif' cannot be read"),
    ],
)
def test_epochs_without_a_whole_table_are_refused(
    how: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    data = epochs.saved_epochs(tmp_path / "data", beside=True)
    how(data)
    assert told in refused(data, *PLAIN)


@pytest.mark.slow
def test_what_of_things_meg_does_not_fit_is_told(tmp_path: Path) -> None:
    data = things_meg.epochs_fif(tmp_path / "data")
    file = next(data.rglob("*-epo.fif"))
    lines = (data / "image_paths.csv").read_text().splitlines(keepends=True)
    (data / "image_paths.csv").write_text("".join(lines[:-1]))
    assert "has events from 1 to 40, and" in refused(data)
    (data / "image_paths.csv").unlink()
    assert "whose events are rows of image_paths.csv, which lies neither" in refused(file)
    table: Any = {"eeg": np.zeros((3, 1, 271, 201), np.float16), "img": ["a/a_1.jpg"] * 2}
    torch.save(table, tmp_path / "train.pt", pickle_protocol=5)
    assert "(3, 1, 271, 201) and 2 images" in refused(tmp_path / "train.pt", "--pickles")
    channels = mne.create_info(["a"], 100.0, "misc")
    mne.EpochsArray(np.zeros((2, 1, 9)), channels, event_id={"x": 1}, verbose="ERROR").save(
        tmp_path / "odd-epo.fif", verbose="ERROR"
    )
    assert "does not say what was shown" in refused(tmp_path / "odd-epo.fif")
