"""Any BIDS data set whose events say which image was shown, by `stim_file` or by `stim_id`.

Alljoined1 (nm000133) is one of them. Data sets that say it otherwise have a rule of their own.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hvf_core.problem import Problem, needed
from offline_train.data.studies.things_images import stem
from offline_train.data.study import (
    Facts,
    ShownImage,
    Source,
    Study,
    StudyPart,
    by_split,
    images_in,
    split_of,
    told,
)
from stream.sources.mne_files import files_beside
from stream.sources.read import SUFFIXES, read_recording
from stream.sources.recording import RecordedMarker, Recording

DESCRIPTION = "dataset_description.json"
Row = Mapping[str, str]
_OLD = re.compile(r"ses-\w*old")  # NEMAR keeps what it has replaced


class Shown(NamedTuple):
    """What a row of events says."""

    stimulus: str
    split: str | None = None


@dataclass(frozen=True)
class Kind:
    """How a data set says which image was shown.

    Attributes:
        shown: the image of a row of events, or None where it shows none; and the file's path.
        images: its images by id; None: those in the folder `stimuli`, or the one that is given.
        in_samples: whether onsets may be samples, against the standard.
        notices: of how its images were found.
    """

    name: str
    shown: Callable[[Row, Path], Shown | None]
    images: Mapping[str, ShownImage] | None = field(default=None)
    in_samples: bool = False
    notices: tuple[str, ...] = ()


def root_of(path: Path) -> Path | None:
    """The BIDS data set that a folder is, or is a part of; derivatives are none."""
    for place in (path, *path.absolute().parents[:3]):
        if (place / DESCRIPTION).is_file():
            below = path.absolute().relative_to(place.absolute()).parts
            return None if below[:1] in (("derivatives",), ("sourcedata",)) else place
    return None


def event_files(place: Path) -> list[Path]:
    """The tables of events in a folder and below it, but for derivatives, sources and old ones."""
    return [
        file
        for file in sorted(place.rglob("*_events.tsv"))
        if not {"derivatives", "sourcedata", "code"} & set(file.parts)
        and not _OLD.search(file.as_posix())
    ]


def events_of(path: Path) -> Sequence[Row]:
    """The rows of a table of events."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if rows and ("onset" not in rows[0] or any(None in row.values() for row in rows)):
        raise Problem(
            f"'{path}' has no column onset, or a row that is too short: it is damaged or was cut "
            "short; download it again"
        )
    return rows


def said_in(column: str) -> Kind:
    """How `stim_file`, by the name of the file, or `stim_id` says what was shown."""

    return Kind("bids", partial(_said, column))


def _said(column: str, row: Row, path: Path) -> Shown | None:
    if (said := told(row[column])) is None:
        return None
    return Shown(stem(said) if column == "stim_file" else said, split_of(row.get("split")))


def bids(root: Path, places: Sequence[Path], kind: Kind, images: Path | None) -> Study:
    """The study of a BIDS data set, whose recordings are read when they are needed.

    Args:
        places: the parts of it that are wanted.
        images: folder of the images, where they do not lie in its `stimuli`.

    Raises:
        Problem: a recording is missing, ends before its events do, or has other channels than the
            table beside it names; or an image is missing.
    """
    shown = kind.images
    folder = images or root / "stimuli"
    if shown is None:
        shown = images_in(folder) if folder.is_dir() else {}
    kind = replace(kind, images=shown)
    sources = []
    for events in (file for place in places for file in event_files(place)):
        base = escape(events.name.removesuffix("events.tsv"))
        files = sorted(events.parent.glob(f"{base}*"))
        files += [named for file in files if file.is_file() for named in files_beside(file)]
        read = partial(_parts, events, kind, folder)
        sources.append(Source(events.as_posix(), tuple(dict.fromkeys(files)), read))
    return Study(kind.name, sources, shown, kind.notices)


def _parts(events: Path, kind: Kind, folder: Path) -> Iterator[StudyPart]:
    """The recording of a table of events, with the images of each split; none of rest."""
    shown = needed(kind.images)
    rows = [(row, said) for row in events_of(events) if (said := kind.shown(row, events))]
    if not rows:
        return
    rows = [(row, _as_named(said, shown)) for row, said in rows]
    for _, said in rows:
        if shown and said.stimulus not in shown:
            raise Problem(
                f"'{events}' shows '{said.stimulus}', and there is no such image in '{folder}': "
                "put it there, or name another folder with --images"
            )
    recording = _with_kinds(read_recording(recording_beside(events)), events)
    yield from _split(recording, events, rows, kind)


def _as_named(said: Shown, shown: Mapping[str, ShownImage]) -> Shown:
    """By the name of its file, which in BEP044 is `stim-01_image.png` for `stim-01`."""
    named = f"{said.stimulus}_image"
    return said if said.stimulus in shown or named not in shown else said._replace(stimulus=named)


def recording_beside(events: Path) -> Path:
    """The recording that a table of events belongs to."""
    base = events.name.removesuffix("events.tsv")
    for datatype in ("eeg", "meg", "ieeg"):
        for suffix in SUFFIXES:
            if (found := events.with_name(f"{base}{datatype}{suffix}")).is_file():
                return found
    raise Problem(
        f"'{events}' lies beside no recording {base}eeg.*: download that too (of a data set in "
        "git-annex, `datalad get` it)"
    )


def _split(
    recording: Recording, path: Path, rows: Sequence[tuple[Row, Shown]], kind: Kind
) -> Iterator[StudyPart]:
    """The recording with the markers of each split."""
    onsets_s = _onsets_s(recording, path, [row for row, _ in rows], kind)
    times = Counter(onsets_s)
    if unclear := sum(times[one] > 1 for one in onsets_s):
        sentence = f"{unclear} images in '{path.name}' share an onset with others: left out"
        recording = replace(recording, notices=(*recording.notices, sentence))
    shown = []
    for onset_s, (_, said) in zip(onsets_s, rows, strict=True):
        if times[onset_s] == 1:
            at = min(round(onset_s * recording.rate_hz), len(recording.stamps_s) - 1)
            stamp_s = float(recording.stamps_s[at]) + onset_s - at / recording.rate_hz
            shown.append((said.split, RecordedMarker(stamp_s, said.stimulus)))
    yield from by_split(recording, shown, partial(Facts.of, path))


def _onsets_s(recording: Recording, path: Path, rows: Sequence[Row], kind: Kind) -> list[float]:
    """When the rows say that something was shown, after the first sample."""
    try:
        onsets_s = np.array([float(row["onset"]) for row in rows])
        samples = [row.get("sample", "n/a") for row in rows]
        at = np.array([np.nan if one == "n/a" else float(one) for one in samples])
    except ValueError as error:
        raise Problem(f"'{path}' has an onset that is no number ({error}): mend it") from None
    rate_hz, length_s = recording.rate_hz, len(recording.samples) / recording.rate_hz
    if kind.in_samples and onsets_s.max() > length_s and (onsets_s == np.round(onsets_s)).all():
        onsets_s = onsets_s / rate_hz
    if onsets_s.min() < 0 or onsets_s.max() >= length_s:
        raise Problem(
            f"'{path}' has events from {onsets_s.min():g} to {onsets_s.max():g} s and its "
            f"recording lasts {length_s:g} s: one of them was cut short, or is of another run; "
            "download both again"
        )
    if np.nanmax(np.abs(at - onsets_s * rate_hz), initial=0) > 2:
        worst = int(np.nanargmax(np.abs(at - onsets_s * rate_hz)))
        raise Problem(
            f"'{path}' says of one event {onsets_s[worst]:g} s and sample {at[worst]:g}, which "
            f"does not fit at {rate_hz:g} Hz: the recording and its events are not of one another"
        )
    return [float(one) for one in onsets_s]


def _with_kinds(recording: Recording, path: Path) -> Recording:
    """The recording with what the table beside it says that each of its channels records."""
    table = path.with_name(path.name.removesuffix("events.tsv") + "channels.tsv")
    if not table.is_file():
        return recording
    with table.open(encoding="utf-8-sig", newline="") as file:
        named = {row["name"]: row["type"] for row in csv.DictReader(file, delimiter="\t")}
    kinds = {name.casefold(): kind.lower() for name, kind in named.items()}
    brain = {name for name, kind in kinds.items() if kind in ("eeg", "megmag", "meggradaxial")}
    there = {name.casefold() for name in recording.channels}
    if missing := sorted(brain - there):
        raise Problem(
            f"'{table}' names channels that '{recording.path.name}' has not: "
            f"{', '.join(missing[:5])}; one of them is of another recording, download both again"
        )
    theirs = recording.kinds or ("",) * len(recording.channels)
    told = [
        kinds.get(name.casefold(), kind)
        for name, kind in zip(recording.channels, theirs, strict=True)
    ]
    return replace(recording, kinds=tuple("meg" if one.startswith("meg") else one for one in told))
