"""THINGS-EEG1 (OpenNeuro ds003825): RSVP at 10 Hz; columns of its own, and onsets in samples."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from offline_train.data.studies.bids import Kind, Row, Shown
from offline_train.data.studies.things_images import stem

COLUMN = "isteststim"


def things_eeg1(rows: Iterable[Row]) -> Kind:
    """How it says which image was shown, by the rows of one run: all show the same test images.

    Training has images of the test's concepts too, which are left out.
    """
    held = frozenset(row["object"] for row in rows if row[COLUMN] == "1")
    return Kind("things-eeg1", partial(_shown, held), in_samples=True)


def _shown(held: frozenset[str], row: Row, path: Path) -> Shown | None:
    is_test = row[COLUMN] == "1"
    if row.get("istarget", "0") != "0":  # a button was to be pressed
        return None
    if row["object"] in held and not is_test:
        return None
    return Shown(stem(row["stimname"]), "test" if is_test else "train")
