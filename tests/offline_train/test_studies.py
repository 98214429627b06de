"""Studies: what a lab's own files and folders become."""

import shutil
from pathlib import Path

import mne
import numpy as np
import pytest

from hvf_core.problem import Problem
from offline_train.data.studies.recordings import recordings
from stream.sources.settings import ReadSettings


def write_recording(path: Path) -> Path:
    raw = mne.io.RawArray(np.zeros((2, 400)), mne.create_info(2, 100.0, "eeg"), verbose="ERROR")
    raw.set_annotations(mne.Annotations([1.0, 3.0], [0, 0], ["cat_1", "dog_1"]))
    raw.save(path, verbose="ERROR")
    return path


def test_files_are_sessions_and_are_read_one_by_one(tmp_path: Path) -> None:
    first = write_recording(tmp_path / "monday_raw.fif")
    study = recordings([first, tmp_path / "missing_raw.fif"], asked=ReadSettings(start_s=2.0))
    parts = iter(study.parts)
    part = next(parts)
    assert part.facts.name == part.facts.session == "monday_raw"
    assert part.facts.subject is part.facts.run is part.facts.split is None
    assert [marker.text for marker in part.data.markers] == ["dog_1"]
    assert study.images == {}
    with pytest.raises(Problem, match=r"there is no file .*missing_raw.fif"):
        next(parts)


def test_the_folder_of_a_session_is_one_session(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds no recording\.xdf; give .* themselves, or"):
        list(recordings([tmp_path]).parts)
    for name in ("b_raw.fif", "a_raw.fif", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(Problem, match=r"themselves, as '.*/a_raw.fif' of 2 that are there, or a"):
        list(recordings([tmp_path]).parts)


def test_images_are_known_by_name_and_by_the_folder_they_lie_in(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for name in ("cats/cat_1.PNG", "dog_1.jpg", "notes.txt"):
        (tmp_path / name).touch()
    images = recordings([], tmp_path).images
    assert {name: (shown.path, shown.category) for name, shown in images.items()} == {
        "cat_1": ("cats/cat_1.PNG", "cats"),
        "dog_1": ("dog_1.jpg", None),
    }
    (tmp_path / "dogs").mkdir()
    shutil.copy(tmp_path / "dog_1.jpg", tmp_path / "dogs" / "dog_1.png")
    with pytest.raises(Problem, match=r"dog_1.jpg' and .*dogs/dog_1.png' have the same id"):
        recordings([], tmp_path)
