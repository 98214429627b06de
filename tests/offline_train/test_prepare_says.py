"""What `prepare` says: of what it found and made, and where it is asked for what is not there."""

import shutil
from pathlib import Path

import pytest

from tests.calling import call
from tests.lookalikes import bids, things, things_eeg2
from tests.lookalikes.epochs import saved_epochs
from tests.lookalikes.way import refused


def twice(folder: Path, way: str) -> list[Path]:
    """A recording by two ways."""
    first, other = folder / "s1_raw.fif", folder / "other_raw.fif"
    if way == "linked":
        other.symlink_to(first)
    return [first, {"same": first, "longer": folder / "x" / ".." / first.name}.get(way, other)]


@pytest.mark.parametrize("way", ["same", "longer", "linked"])
def test_a_recording_is_taken_once(way: str, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    done = call("prepare", *twice(tmp_path, way), "--out", tmp_path / "t", module="offline_train")
    assert "is given twice" in done.one_sentence()


def test_prepare_says_what_it_found_and_made(recording: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "trials")
    done = call("prepare", recording, *out, "--rate", 100, module="offline_train")
    for told in (
        f"recordings, found in '{tmp_path}'\n",
        "\n1 subject, 1 session, 1 recording\n",
        "\n3 channels (Fz, Cz, Oz), 100 Hz, 0 to 0.996 s, whitening mvnn, all sessions together\n",
        "\nfor training, as of no split: 38 trials of 2 stimuli\n",
    ):
        assert told in done.out
    assert "share one whitening" not in done.out


@pytest.mark.slow
def test_subjects_that_share_a_whitening_are_told(tmp_path: Path) -> None:
    for name in ("anna", "bert"):
        folder = saved_epochs(tmp_path / name, beside=False)
        (folder / "anna-epo.fif").rename(tmp_path / f"{name}-epo.fif")
    shutil.rmtree(tmp_path / "anna")
    shutil.rmtree(tmp_path / "bert")
    told = "2 subjects share one whitening, which fits none of them: give --per-session"
    for more, is_told in (((), True), (("--per-session",), False)):
        out = tmp_path / f"trials{len(more)}"
        done = call("prepare", tmp_path, *more, "--out", out, module="offline_train")
        assert "2 subjects, 4 sessions, 4 recordings" in done.out
        assert "training: 120 trials of 30 stimuli" in done.out
        assert (told in done.out) == is_told


def test_prepare_helps_where_a_path_is_wrong(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").touch()
    (tmp_path / "sets").mkdir()
    bids.nm000133(tmp_path / "sets" / "nm000133")
    for asked, told in (
        ("s1_rw.fif", f"there is no file or folder '{tmp_path / 's1_rw.fif'}'; did you mean"),
        ("q/s1.fif", f"there is no file or folder '{tmp_path / 'q/s1.fif'}', only '{tmp_path}'"),
        ("images", f"the folder '{tmp_path / 'images'}' holds images and no recording"),
    ):
        done = call(
            "prepare", tmp_path / asked, "--out", tmp_path / "trials", module="offline_train"
        )
        assert told in done.one_sentence()
    out = ("--tmax", 0.2, "--out", tmp_path / "trials")
    assert call("prepare", tmp_path / "sets", *out, module="offline_train").code == 0
    saved_epochs(tmp_path / "sets" / "mine", beside=False)
    done = call("prepare", tmp_path / "sets", "--out", tmp_path / "t", module="offline_train")
    told = "holds several data sets: 'mine' (epochs), 'nm000133' (BIDS); give one of them"
    assert told in done.one_sentence()


def test_data_sets_of_one_form_are_known_by_their_names(tmp_path: Path) -> None:
    things.write_metadata(tmp_path)
    things_eeg2.gifford(tmp_path / "things-eeg2-preprocessed" / "sub-01")
    things_eeg2.nice(tmp_path / "things-eeg2-nice" / "sub-01")
    told = "holds several data sets, things-eeg2-nice, things-eeg2-preprocessed: give one of them"
    assert told in refused(tmp_path, "--pickles")


def test_encoders_are_looked_at_before_anything_else(tmp_path: Path) -> None:
    asked = ("mbp", tmp_path / "none", "--images", tmp_path, "--encoders", "paper-retreival")
    done = call(*asked, "--out", tmp_path / "b", module="offline_train")
    assert "one of them (did you mean 'paper-retrieval'?)" in done.one_sentence()
