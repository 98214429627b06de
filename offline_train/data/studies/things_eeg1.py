"""THINGS-EEG1 (OpenNeuro ds003825): RSVP at 10 Hz; columns of its own, and onsets in samples."""

from pathlib import Path

from offline_train.data.studies.bids import Kind, Row, Shown
from offline_train.data.studies.things_images import stem

COLUMN = "isteststim"


def _shown(row: Row, path: Path) -> Shown | None:
    if row.get("istarget", "0") != "0":  # a button was to be pressed
        return None
    return Shown(stem(row["stimname"]), "test" if row[COLUMN] == "1" else "train")


THINGS_EEG1 = Kind("things-eeg1", _shown, in_samples=True)
