"""THINGS-EEG2's BIDS edition (NEMAR nm000232): images are numbers in the column tot_img_number."""

import csv
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.studies.bids import Kind, Row, Shown
from offline_train.data.studies.things_images import (
    ThingsImages,
    concept_of,
    stem,
    things_images,
)
from offline_train.data.study import ShownImage

COLUMN = "tot_img_number"
_LABEL = re.compile(r"stim-(train|test)(\d+)")
_ORIGINAL = re.compile(r'original filename "(.+?)"')


def things_eeg2_bids(root: Path, images: Path | None, pickles: bool) -> Kind:
    """How this edition says which image was shown; ids are THINGS' own, as in the other forms.

    Raises:
        Problem: the list of images is missing or not whole.
    """
    table = root / "stimuli" / "stimuli.tsv"
    if table.is_file():
        known = _of_table(table)
    else:
        known = things_images(root / "stimuli" / "any", images, pickles)
    ids = {split: known.ids(split) for split in known.by_split}
    said = partial(_shown, known.path, ids)
    return Kind("things-eeg2-bids", said, known.shown, notices=known.notices)


def _shown(named_in: Path, ids: Mapping[str, Sequence[str]], row: Row, path: Path) -> Shown | None:
    if row.get("trial_type") != "image":
        return None
    split = "test" if "_task-test" in path.name else "train"
    code = row[COLUMN]
    if not code.isdecimal() or not 0 < int(code) <= len(ids[split]):
        raise Problem(
            f"'{path}' shows image {code}, and '{named_in}' names {len(ids[split])} for "
            f"{split}: one of them is incomplete, download both again"
        )
    return Shown(ids[split][int(code) - 1], split)


def _of_table(path: Path) -> ThingsImages:
    """The images by the table that NEMAR has made of image_metadata.npy."""
    by_split: dict[str, list[ShownImage]] = {"train": [], "test": []}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            label, name = _LABEL.search(row["stimulus_id"]), _ORIGINAL.search(row["description"])
            if label is None or name is None or int(label[2]) != len(by_split[label[1]]) + 1:
                raise Problem(
                    f"'{path}' has the stimulus '{row['stimulus_id']}' in row "
                    f"{len(by_split['train']) + len(by_split['test']) + 1}, expected the next "
                    "number and the original file's name: download it again"
                )
            below = row["filename"].rpartition("/")[0]
            image = ShownImage(f"{below}/{name[1]}", concept_of(stem(below + ".")))
            by_split[label[1]].append(image)
    return ThingsImages(path, by_split)
