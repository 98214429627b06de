"""THINGS-MEG: its authors' epochs (preprocessed_P1-epo.fif), and UBP's {train,test}.pt of them.

271 channels at 200 Hz, not whitened. An event is the number of a row of THINGS' image_paths.csv,
999999 a catch trial. Images that are shown twelve times are for test; whatever else is of their
concepts is left out, so that no concept is in both.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.images import IMAGE_SUFFIXES
from offline_train.data.studies.epochs import FILE, cut_epochs, open_epochs
from offline_train.data.studies.things_images import stem
from offline_train.data.study import CutTrials, Facts, ShownImage, Study, StudyPart

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

    Raises:
        Problem: a file is damaged, or has events of no image.
    """
    lines = [line.strip().strip('"') for line in paths.read_text("utf-8-sig").splitlines()]
    images = [line for line in lines if line.lower().endswith(IMAGE_SUFFIXES)]

    def parts() -> Iterator[StudyPart]:
        for path in files:
            epochs = open_epochs(path)
            codes = epochs.events[:, 2]
            counts = Counter(codes[codes != CATCH].tolist())
            if not counts or max(counts) > len(images) or min(counts) < 1:
                raise Problem(
                    f"'{path}' has events from {min(counts, default=0)} to "
                    f"{max(counts, default=0)}, and '{paths}' names {len(images)} images: give "
                    "the list that THINGS has published"
                )
            test = {code for code, n in counts.items() if n == _TEST_REPEATS}
            held = {_concept(images[code - 1]) for code in test}
            train = {code for code in counts if _concept(images[code - 1]) not in held}
            subject = FILE.sub("", path.name).rpartition("_")[2]
            for split, chosen in (("train", train), ("test", test)):
                rows = np.flatnonzero(np.isin(codes, list(chosen)))
                if len(rows):
                    stimuli = [stem(images[code - 1]) for code in codes[rows]]
                    cut = cut_epochs(path, epochs, rows, stimuli)
                    yield StudyPart(cut, Facts(subject, split=split))

    return Study("things-meg", parts(), _shown(images))


def things_meg_pt(files: Mapping[Path, Mapping[str, Any]]) -> Study:
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

    def parts() -> Iterator[StudyPart]:
        for path, held in sorted(files.items(), key=lambda one: one[1]["eeg"].shape[1]):
            eeg = held["eeg"]
            _, n_repeats, n_channels, n_times = eeg.shape
            cut = CutTrials(
                path.as_posix(),
                stimuli=np.repeat([stem(str(one)) for one in held["img"]], n_repeats).tolist(),
                read=eeg.reshape(-1, n_channels, n_times).__getitem__,
                channels=tuple(f"MEG{number:03d}" for number in range(1, n_channels + 1)),
                rate_hz=_RATE_HZ,
                tmin_s=0.0,
                n_times=n_times,
                kind="meg",
                unit="",
            )
            yield StudyPart(cut, Facts.of(path, "test" if n_repeats > 1 else "train"))

    return Study("things-meg-ubp", parts(), _shown([p for h in files.values() for p in h["img"]]))


def _shown(paths: Sequence[str]) -> dict[str, ShownImage]:
    return {stem(path): ShownImage(path, _concept(path)) for path in paths}


def _concept(path: str) -> str:
    return Path(path).parent.name
