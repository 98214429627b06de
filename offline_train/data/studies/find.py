"""Which data set lies somewhere: a look into keys, shapes and columns decides, and no file name."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hvf_core.problem import Problem
from offline_train.data.saved import read_saved
from offline_train.data.settings import RecordingPart
from offline_train.data.studies import (
    alljoined,
    bids,
    epochs,
    things_eeg1,
    things_eeg2_bids,
    things_eeg2_epochs,
    things_eeg2_pt,
    things_eeg2_raw,
    things_meg,
)
from offline_train.data.studies.recordings import recordings
from offline_train.data.study import Source, Study, images_in, whitened
from offline_train.data.trial_set import MANIFEST

_SAVED = (".npy", ".pt")
_ASIDE = ({"train_img_files"}, {"target_present"})  # keys of what lies beside EEG


def study_of(
    paths: Sequence[Path], images: Path | None, asked: RecordingPart, to_play: bool = False
) -> Study:
    """The study of files and folders; a folder of several subjects is all of them.

    Args:
        images: folder of the images shown, where they do not lie with the data.
        to_play: trials that others have whitened are refused, whichever images they are of.

    Raises:
        Problem: what is there is of no known data set, or of two; or an image is missing; or a
            recording is given twice.
    """
    _check_paths(paths)
    study = _study_of([one for path in paths for one in _apart(path)], images, asked, to_play)
    read = Counter(map(_files, study.sources))
    if twice := next((one.name for one in study.sources if read[_files(one)] > 1), None):
        raise Problem(f"'{twice}' is given twice, perhaps within a folder: give it once")
    return study


def _study_of(
    paths: Sequence[Path], images: Path | None, asked: RecordingPart, to_play: bool
) -> Study:
    if any(path.is_dir() and any(path.glob("recording*.xdf")) for path in paths):
        return recordings(paths, images, asked, asked.stop_s)  # a session of this program
    if roots := {root for path in paths if path.is_dir() and (root := bids.root_of(path))}:
        study = _of_bids(roots, paths, images, asked.pickles)
        return study if images is None or not study.images else _with_images(study, images)
    if files_of_hub := [file for path in paths for file in alljoined.files_of_hub(path)]:
        return alljoined.alljoined_hub(files_of_hub, images)
    saved = [file for path in paths for file in saved_below(path)]
    if files_of_epochs := [file for path in paths for file in _epochs_below(path)]:
        return _of_epochs(files_of_epochs, images)
    if not saved:
        return recordings(paths, images, asked, asked.stop_s)
    files = {file: read_saved(file, asked.pickles) for file in saved}
    files = {f: held for f, held in files.items() if not any(a <= set(held) for a in _ASIDE)}
    study = _of_saved(files, images, asked.pickles, to_play)
    return study if images is None else _with_images(study, images)


def _files(source: Source) -> frozenset[Path]:
    return frozenset(file.resolve() for file in source.files)


def _check_paths(paths: Sequence[Path]) -> None:
    """Refuses a path at which there is nothing."""
    for path in paths:
        if not os.path.exists(path):  # False also of a name that no file can have
            near = next(one for one in path.absolute().parents if one.is_dir())
            name = path.absolute().relative_to(near).parts[0]
            meant = get_close_matches(name, [one.name for one in near.iterdir()], 1)
            told = f"; did you mean '{near / meant[0]}'?" if meant else f", only '{near}'"
            raise Problem(f"there is no file or folder '{path}'{told}")


def _apart(path: Path) -> list[Path]:
    """A path, or the one BIDS data set in it; a folder of several data sets is refused."""
    below = sorted(one for one in path.iterdir() if one.is_dir()) if path.is_dir() else []
    if bids.root_of(path) is not None:
        return [path]
    kinds = {one: kind for one in below if (kind := _sort(one))}
    roots = [one for one, kind in kinds.items() if kind == "BIDS"]
    if len(roots) > 1 or len({*kinds.values()}) > 1:
        told = ", ".join(f"'{one.name}' ({kind})" for one, kind in kinds.items())
        raise Problem(f"the folder '{path}' holds several data sets: {told}; give one of them")
    return roots or [path]


def _sort(folder: Path) -> str:
    """Of which sort a data set in a folder is, if there is one."""
    if bids.root_of(folder) == folder:
        return "BIDS"
    sorts = {"EDF": alljoined.files_of_hub, "epochs": _epochs_below, "arrays": saved_below}
    return next((name for name, files in sorts.items() if any(True for _ in files(folder))), "")


def _of_bids(
    roots: Collection[Path], paths: Sequence[Path], images: Path | None, pickles: bool
) -> Study:
    if len(roots) > 1:
        raise Problem(f"{', '.join(map(str, sorted(roots)))} are apart: prepare them apart")
    (root,) = roots
    columns: set[str] = set()
    for file in (file for path in paths for file in bids.event_files(path)):
        rows = bids.events_of(file)
        columns = set(rows[0]) if rows else set()
        if things_eeg2_bids.COLUMN in columns:
            kind = things_eeg2_bids.things_eeg2_bids(root, images, pickles)
        elif things_eeg1.COLUMN in columns:
            kind = things_eeg1.things_eeg1(rows)
        elif any(alljoined.PATTERN.search(row.get("trial_type", "")) for row in rows):
            kind = alljoined.ALLJOINED
        elif any(row.get("stim_file", "n/a") != "n/a" for row in rows):
            kind = bids.said_in("stim_file")
        elif "stim_id" in columns:
            kind = bids.said_in("stim_id")
        else:  # as of rest
            continue
        return bids.bids(root, paths, kind, images)
    raise Problem(
        f"the events of '{root}' do not say which image was shown: they have the columns "
        f"{', '.join(sorted(columns)) or '-'}, expected stim_file or stim_id"
    )


def _epochs_below(path: Path) -> Iterator[Path]:
    found = sorted(path.rglob("*epo.fif*")) if path.is_dir() else [path]
    yield from (file for file in found if epochs.FILE.search(file.name) and file.is_file())


def _of_epochs(files: Sequence[Path], images: Path | None) -> Study:
    is_things = [
        bool((epochs.open_epochs(f).events[:, 2] == things_meg.CATCH).any()) for f in files
    ]
    if not any(is_things):
        return epochs.saved_epochs(files)
    paths = things_meg.paths_near(files[0], images)
    if paths is None:
        raise Problem(
            f"'{files[0]}' is of THINGS-MEG, whose events are rows of {things_meg.PATHS}, which "
            "lies neither beside it nor above it: put it there, or in the folder of --images"
        )
    study = things_meg.things_meg(files, paths)
    return study if images is None else _with_images(study, images)


def saved_below(path: Path) -> Iterator[Path]:
    """Saved arrays in a folder and below it, or the file itself where it is one.

    What is hidden, and what this program has prepared of the data, is passed over.
    """
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in found:
        is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        is_ours = is_hidden or (file.parent / MANIFEST).is_file()
        if file.suffix.lower() in _SAVED and not is_ours:
            yield file


def _of_saved(
    files: Mapping[Path, Mapping[str, Any]], images: Path | None, pickles: bool, to_play: bool
) -> Study:
    kinds = {file: _kind(file, set(held)) for file, held in files.items()}
    if len(set(kinds.values())) > 1:
        (one, kind), (other, another) = list({k: f for f, k in kinds.items()}.items())[:2]
        raise Problem(f"'{kind}' is of {one} and '{another}' of {other}: prepare them apart")
    if to_play and {*kinds.values()} & {"preprocessed EEG", "UBP's EEG"}:
        raise whitened(str(next(iter(files))))
    match next(iter(kinds.values()), None):
        case "raw EEG":
            return things_eeg2_raw.things_eeg2_raw(files, images, pickles)
        case "preprocessed EEG":
            return things_eeg2_epochs.things_eeg2_epochs(files, images, pickles)
        case "UBP's MEG":
            return things_meg.things_meg_pt(files, pickles)
        case _:
            return things_eeg2_pt.things_eeg2_pt(files, pickles)


def _kind(file: Path, keys: set[str]) -> str:
    """What a file holds, by its keys."""
    known = {
        "raw EEG": things_eeg2_raw.KEYS,
        "preprocessed EEG": things_eeg2_epochs.KEYS,
        "UBP's EEG": things_eeg2_pt.KEYS,
        "UBP's MEG": things_meg.KEYS,
    }
    for kind, needed in known.items():
        if set(needed) <= keys and (kind != "UBP's MEG" or len(keys) == len(needed)):
            return kind
    told = "; ".join(f"{kind} has {', '.join(needed)}" for kind, needed in known.items())
    raise Problem(f"'{file}' holds {', '.join(sorted(keys))}, which is no known data set: {told}")


def _with_images(study: Study, folder: Path) -> Study:
    """The study with the paths of its images in a folder in which each of them must be."""
    there = images_in(folder)
    for stimulus, image in study.images.items():
        if stimulus not in there:
            raise Problem(
                f"the folder '{folder}' lacks the image of stimulus '{stimulus}' ({image.path}): "
                "put it there, or leave out --images"
            )
    shown = {one: image._replace(path=there[one].path) for one, image in study.images.items()}
    return replace(study, images=shown)
