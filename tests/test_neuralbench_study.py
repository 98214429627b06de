"""The example by which exported sessions enter NeuralBench, on a double of neuralset's class."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.calling import ROOT

EVENTS = """onset\tduration\ttrial_type\tstimulus\tstim_file\tgroup
0.5\t0.0\timage\tNA\tstim-na_image.png\tcat
1.0\tn/a\timage\t007\tstim-007_image.png\tcat
1.2\tn/a\tmarker\tbreak\tn/a\tn/a
1.5\t0.25\timage\tgone\tstim-gone_image.png\tdog
"""


class Study:
    """What is used of `neuralset.events.study.Study`."""

    def __init__(self, path: Path) -> None:
        self.path = path


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("pandas")
    events, study = ModuleType("neuralset.events"), ModuleType("neuralset.events.study")
    events.study, study.Study = study, Study  # type: ignore[attr-defined]
    for module in (ModuleType("neuralset"), events, study):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "neuralbench_study", raising=False)
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("neuralbench_study")


def test_recordings_and_the_images_shown_in_them(example: ModuleType, tmp_path: Path) -> None:
    eeg, more = tmp_path / "sub-01" / "eeg", tmp_path / "sub-01" / "ses-b" / "eeg"
    for folder, name in ((eeg, "sub-01_task-test"), (more, "sub-01_ses-b_task-rsvp_run-02")):
        folder.mkdir(parents=True)
        (folder / f"{name}_eeg.vhdr").touch()
        (folder / f"{name}_events.tsv").write_text(EVENTS)
    (tmp_path / "stimuli").mkdir()
    for name in ("stim-na_image.png", "stim-007_image.png"):
        (tmp_path / "stimuli" / name).touch()
    study = example.HvfLive(tmp_path)
    known = [(t["session"], t["run"], t["split"]) for t in study.iter_timelines()]
    assert known == [("01", "01", "test"), ("b", "02", "train")]

    first, *images = study._load_timeline_events(next(study.iter_timelines())).to_dict("records")
    assert (first["type"], first["start"]) == ("Eeg", 0)
    assert first["filepath"] == str(eeg / "sub-01_task-test_eeg.vhdr")
    assert [(one["stem"], one["start"], one["duration"]) for one in images] == [
        ("NA", 0.5, 0.1),
        ("007", 1.0, 0.1),
    ]
    assert all(Path(one["filepath"]).is_file() for one in images)
