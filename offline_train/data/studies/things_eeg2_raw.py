"""THINGS-EEG2 as its authors have published it raw: raw_eeg_{training,test}.npy of each session.

64 rows in volts at 1 kHz, of which the last, `stim`, has the code of an image at its onset, 99999
for a target that was to be counted. Which file is of training is seen from the codes.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.saved import mapped_anew, read_saved
from offline_train.data.studies.things_images import ThingsImages, things_images
from offline_train.data.study import Facts, Source, Study, StudyPart
from stream.acquire.units import MICROVOLTS
from stream.sources.recording import RecordedMarker, Recording

KEYS = ("raw_eeg_data", "ch_names", "ch_types", "sfreq")
_TARGET = 99999
_BLOCK = 1 << 20  # samples that are converted at a time


def things_eeg2_raw(
    files: Mapping[Path, Mapping[str, Any]], images: Path | None, pickles: bool
) -> Study:
    """The study of these files, a recording each, read as they are asked for.

    Raises:
        Problem: a recording has not as many channels as rows, no stim channel, or codes of images
            that are not known; or a file is called `test` and holds training, or the other way.
    """
    known = things_images(next(iter(files)), images, pickles)
    sources = (Source.of(path, partial(_parts, path, known, pickles)) for path in files)
    return Study("things-eeg2-raw", tuple(sources), known.shown, known.notices)


def _parts(path: Path, known: ThingsImages, pickles: bool) -> Iterator[StudyPart]:
    held = read_saved(path, pickles)
    eeg, names, rate_hz = held["raw_eeg_data"], list(held["ch_names"]), float(held["sfreq"])
    stims = [i for i, kind in enumerate(held["ch_types"]) if kind == "stim"]
    if np.ndim(eeg) != 2 or len(eeg) != len(names) or len(held["ch_types"]) != len(names):
        raise Problem(
            f"'{path}' has samples of shape {np.shape(eeg)} and names {len(names)} channels, "
            "expected a row for each: download it again"
        )
    if stims != [len(names) - 1]:
        raise Problem(
            f"'{path}' has {len(stims)} channels of kind stim, expected one, the last: which image "
            "was shown is not in it; download it again"
        )
    stim = np.array(eeg[-1])
    rises = np.flatnonzero(stim[1:] > stim[:-1]) + 1  # as mne.find_events finds them
    if stim[0] > 0:
        rises = np.concatenate([[0], rises])
    codes = stim[rises].astype(int)
    onsets, codes = rises[codes != _TARGET], codes[codes != _TARGET]
    ids = known.ids(split := _split(path, codes, known))
    n_samples = eeg.shape[1]
    samples = np.empty((n_samples, len(names) - 1), np.float32)
    for start in range(0, n_samples, _BLOCK):  # of volts, mapped from the file
        block = mapped_anew(eeg)[:-1, start : start + _BLOCK]
        samples[start : start + _BLOCK] = 1e6 * block.T
    recording = Recording(
        path=path,
        name=path.stem,
        channels=tuple(names[:-1]),
        units=(MICROVOLTS,) * (len(names) - 1),
        rate_hz=rate_hz,
        stamps_s=np.arange(n_samples) / rate_hz,
        samples=samples,
        markers=tuple(
            RecordedMarker(onset / rate_hz, ids[code - 1])
            for onset, code in zip(onsets.tolist(), codes.tolist(), strict=True)
        ),
        kinds=("eeg",) * (len(names) - 1),
    )
    yield StudyPart(recording, Facts.of(path, split))


def _split(path: Path, codes: np.ndarray, known: ThingsImages) -> str:
    """Test shows all of its few images, and nothing else."""
    sizes = {split: len(images) for split, images in known.by_split.items()}
    most = codes.max(initial=0)
    split = "test" if set(codes.tolist()) == set(range(1, sizes["test"] + 1)) else "train"
    if not len(codes) or most > sizes[split]:
        raise Problem(
            f"'{path}' shows images up to code {most}, and '{known.path}' names "
            f"{sizes['train']} for training and {sizes['test']} for test: give the images that "
            "were shown, or download the recording again"
        )
    other = "test" if split == "train" else "training"
    if other in path.stem:
        raise Problem(
            f"'{path}' is called {other} and holds the images of {split}: it is mislabelled or "
            "incomplete; download it again"
        )
    return split
