"""Alljoined-1.6M (NEMAR nm000134): the ids of images sit in trial_type, `stim_test,16641,-1,1`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hvf_core.problem import Problem, needed
from offline_train.data.studies.bids import Kind, Row, Shown
from offline_train.data.study import (
    Facts,
    ShownImage,
    Source,
    Study,
    StudyPart,
    by_split,
    images_in,
)
from stream.sources.read import read_recording

PATTERN = re.compile(r"(?:^|,)stim_(train|test),(\d+),")
"""Split and number of an image; what participants did, and pauses, look otherwise."""


def _shown(row: Row, path: Path) -> Shown | None:
    said = PATTERN.search(row["trial_type"])
    return Shown(f"{int(said[2]):05d}", said[1]) if said else None


ALLJOINED = Kind("alljoined-1.6m", _shown)


_FILE = re.compile(r"^Subject (\d+), Session (\d+), Block (\d+)\b.*\.edf$")
_MISLABELLED = ([8, 1], [8, 3], [8, 4])
_FOLDER = re.compile(r"sub-(\d+)/session_(\d+)/block_(\d+)/[^/]*$")


def files_of_hub(place: Path) -> list[Path]:
    """The recordings of the first edition, as it lies on the Hugging Face hub."""
    return [file for file in sorted(place.rglob("*.edf")) if _FILE.match(file.name)]


def alljoined_hub(files: Sequence[Path], images: Path | None) -> Study:
    """The study of the first edition: raw_eeg/sub-XX/session_XX/block_XX, marked by annotations.

    Of subject 8, the files of sessions 1, 3 and 4 are named after subject 19, and are the
    subject's own.

    Raises:
        Problem: another file's name and its folders disagree; or an image is missing.
    """
    shown = images_in(images) if images is not None else {}
    sources = (Source.of(file, partial(_parts, file, images, shown)) for file in files)
    return Study("alljoined-1.6m", tuple(sources), shown)


def _parts(file: Path, images: Path | None, shown: Mapping[str, ShownImage]) -> Iterator[StudyPart]:
    told, place = needed(_FILE.match(file.name)), _FOLDER.search(file.as_posix())
    said = [int(one) for one in told.groups()]
    there = [int(one) for one in place.groups()] if place else said
    if said != there and not (said == [19, *there[1:]] and there[:2] in _MISLABELLED):
        raise Problem(
            f"'{file}' is called subject {said[0]}, session {said[1]}, block {said[2]} and "
            f"lies with subject {there[0]}, session {there[1]}, block {there[2]}: it is "
            "mislabelled; ask its authors whose it is, and rename or leave it out"
        )
    recording, found = read_recording(file), []
    for marker in recording.markers:
        if is_image := PATTERN.search(marker.text):
            id = f"{int(is_image[2]):05d}"
            if shown and id not in shown:
                raise Problem(
                    f"'{file}' shows '{id}', and there is no such image in '{images}': put it "
                    "there, or leave out --images"
                )
            found.append((is_image[1], replace(marker, text=id)))
    yield from by_split(recording, found, partial(Facts, *(f"{one:02d}" for one in there)))
