"""THINGS-EEG2 as its authors, NICE and ATM have preprocessed it: preprocessed_eeg_*.npy.

17 channels at 100 Hz (Gifford et al.), or 63 at 250 Hz (NICE, ATM), whitened; saved by `np.save`,
or as a bare pickle under such a name. Conditions are places in the list of images; repetitions of
several sessions are mixed, so that no session is known.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.saved import mapped_anew, read_saved
from offline_train.data.studies.things_images import ThingsImages, things_images
from offline_train.data.study import CutTrials, Facts, Source, Study, StudyPart

KEYS = ("preprocessed_eeg_data", "ch_names", "times")


def things_eeg2_epochs(
    files: Mapping[Path, Mapping[str, Any]], images: Path | None, pickles: bool
) -> Study:
    """The study of what these files hold, training before test.

    Raises:
        Problem: an array is not (images, repetitions, channels, times), its channels or times do
            not fit it, or there are more or fewer images than are known.
    """
    known = things_images(next(iter(files)), images, pickles)
    splits = {path: _split(path, held, known) for path, held in files.items()}
    sources = (
        Source.of(path, partial(_parts, path, split, known, pickles))
        for path, split in sorted(splits.items(), key=lambda one: one[1], reverse=True)
    )
    return Study("things-eeg2-preprocessed", tuple(sources), known.shown, known.notices)


def _parts(path: Path, split: str, known: ThingsImages, pickles: bool) -> Iterator[StudyPart]:
    held = read_saved(path, pickles)
    eeg = held["preprocessed_eeg_data"]
    stimuli = np.repeat(known.ids(split), eeg.shape[1]).tolist()
    cut = whitened_trials(path, eeg, held["ch_names"], held["times"], stimuli)
    yield StudyPart(cut, Facts.of(path, split))


def _split(path: Path, held: Mapping[str, Any], known: ThingsImages) -> str:
    eeg = held["preprocessed_eeg_data"]
    if np.ndim(eeg) != 4:
        raise Problem(
            f"'{path}' has an array of shape {np.shape(eeg)}, expected images, repetitions, "
            "channels and times: give the files that the authors have published"
        )
    return known.split_of(len(eeg), f"'{path}'")


def whitened_trials(
    path: Path,
    eeg: np.ndarray,
    names: Sequence[str],
    times: Sequence[float] | np.ndarray,
    stimuli: Sequence[str],
    rows: np.ndarray | None = None,
) -> CutTrials:
    """Trials (images, repetitions, channels, times), or some `rows` of them, counted by trial.

    Some releases name the channel `stim` beside those of EEG, or hold it too. `times` may begin
    before the trials, where these were cut at onset and it was not.

    Raises:
        Problem: there are not as many channels or times as the array has, or times go on.
    """
    *_, n_channels, n_times = eeg.shape
    columns = [i for i, name in enumerate(names) if name != "stim"]
    channels = tuple(names[i] for i in columns)
    if n_channels not in (len(channels), len(names)):
        raise Problem(
            f"'{path}' has trials of {n_channels} channels and names {len(channels)} of EEG: "
            "download it again, as nobody can say which is which"
        )
    steps = np.diff(times)
    surplus = len(times) - n_times
    if surplus < 0 or not np.allclose(steps, steps[:1]) or (surplus and abs(times[surplus]) > 1e-6):
        raise Problem(
            f"'{path}' has trials of {n_times} samples and {len(times)} times from {times[0]:g} s "
            f"to {times[-1]:g} s, expected as many, or more that end at 0 s: download it again"
        )
    picked: Any = slice(None) if n_channels == len(channels) else columns

    def read(some: slice) -> np.ndarray:
        flat = mapped_anew(eeg).reshape(-1, n_channels, n_times)
        taken: np.ndarray = flat[some if rows is None else rows[some]]
        return taken[:, picked]

    return CutTrials(
        path.as_posix(),
        stimuli=stimuli,
        read=read,
        channels=channels,
        rate_hz=round(float(1 / np.mean(steps)), 6),
        tmin_s=float(times[surplus]),
        n_times=n_times,
        unit="",
        is_whitened=True,
    )
