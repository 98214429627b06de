"""THINGS-MEG: its authors' epochs (preprocessed_P1-epo.fif), and UBP's {train,test}.pt of them.

271 channels at 200 Hz, not whitened. An event is the number of a row of THINGS' image_paths.csv,
999999 a catch trial. Images that are shown twelve times are for test; whatever else is of their
concepts is left out, so that no concept is in both.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.images import IMAGE_SUFFIXES
from offline_train.data.saved import mapped_anew, read_saved
from offline_train.data.studies.epochs import FILE, cut_epochs, open_epochs
from offline_train.data.studies.things_images import stem
from offline_train.data.study import CutTrials, Facts, ShownImage, Source, Study, StudyPart

KEYS = ("eeg", "img")
PATHS = "image_paths.csv"
CATCH = 999999
_TEST_REPEATS = 12
_RATE_HZ = 200.0


def paths_near(file: Path, images: Path | None) -> Path | None:
    """THINGS' list of images, beside a file, above it, or in the folder of images."""
    places = [images] if images is not None else []
    places += [up / name for up in list(file.absolute().parents)[:5] for name in ("", "stimuli")]
    return next((place / PATHS for place in places if (place / PATHS).is_file()), None)


def things_meg(files: Sequence[Path], paths: Path) -> Study:
    """The study of its authors' epochs, of which trials are read when they are needed.

    Args:
        paths: image_paths.csv.

    Its parts raise a `Problem` where a file is damaged, or has events of no image.
    """
    sources = (Source.of(path, partial(_parts, path, paths), paths) for path in files)
    return Study("things-meg", tuple(sources), _shown(_images(paths)))


def _images(paths: Path) -> list[str]:
    lines = [line.strip().strip('"') for line in paths.read_text("utf-8-sig").splitlines()]
    return [line for line in lines if line.lower().endswith(IMAGE_SUFFIXES)]


def _parts(path: Path, paths: Path) -> Iterator[StudyPart]:
    epochs, images = open_epochs(path), _images(paths)
    codes = epochs.events[:, 2]
    counts = Counter(codes[codes != CATCH].tolist())
    if not counts or max(counts) > len(images) or min(counts) < 1:
        raise Problem(
            f"'{path}' has events from {min(counts, default=0)} to {max(counts, default=0)}, and "
            f"'{paths}' names {len(images)} images: give the list that THINGS has published"
        )
    test = {code for code, n in counts.items() if n == _TEST_REPEATS}
    held = {_concept(images[code - 1]) for code in test}
    train = {code for code in counts if _concept(images[code - 1]) not in held}
    subject = FILE.sub("", path.name).rpartition("_")[2]
    for split, chosen in (("train", train), ("test", test)):
        rows = np.flatnonzero(np.isin(codes, list(chosen)))
        if len(rows):
            stimuli = [stem(images[code - 1]) for code in codes[rows]]
            yield StudyPart(cut_epochs(path, epochs, rows, stimuli), Facts(subject, split=split))


def things_meg_pt(files: Mapping[Path, Mapping[str, Any]], pickles: bool) -> Study:
    """The study of UBP's files, training before test; they name no channels, which get numbers.

    Raises:
        Problem: an array is not (images, repetitions, channels, times), or has another number of
            images than there are paths.
    """
    for path, held in files.items():
        if np.ndim(held["eeg"]) != 4 or len(held["img"]) != len(held["eeg"]):
            raise Problem(
                f"'{path}' has trials of shape {np.shape(held['eeg'])} and {len(held['img'])} "
                "images, expected images, repetitions, channels and times: download it again"
            )

    sources = (
        Source.of(path, partial(_parts_of_pt, path, pickles))
        for path, _ in sorted(files.items(), key=lambda one: one[1]["eeg"].shape[1])
    )
    shown = _shown([path for held in files.values() for path in held["img"]])
    return Study("things-meg-ubp", tuple(sources), shown)


def _parts_of_pt(path: Path, pickles: bool) -> Iterator[StudyPart]:
    held = read_saved(path, pickles)
    _, n_repeats, n_channels, n_times = held["eeg"].shape

    def read(some: slice) -> np.ndarray:
        taken: np.ndarray = mapped_anew(held["eeg"]).reshape(-1, n_channels, n_times)[some]
        return taken

    cut = CutTrials(
        path.as_posix(),
        stimuli=np.repeat([stem(str(one)) for one in held["img"]], n_repeats).tolist(),
        read=read,
        channels=tuple(f"MEG{number:03d}" for number in range(1, n_channels + 1)),
        rate_hz=_RATE_HZ,
        tmin_s=0.0,
        n_times=n_times,
        kind="meg",
        unit="",
    )
    yield StudyPart(cut, Facts.of(path, "test" if n_repeats > 1 else "train"))


def _shown(paths: Sequence[str]) -> dict[str, ShownImage]:
    return {stem(path): ShownImage(path, _concept(path)) for path in paths}


def _concept(path: str) -> str:
    return Path(path).parent.name
