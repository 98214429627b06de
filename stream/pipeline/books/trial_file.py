"""The trials as the live path cut them, in a file: MNE epochs (.fif) or NumPy (.npz)."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.trials import Trial, Window

SUFFIXES = (".npz", "-epo.fif", "_epo.fif")


class TrialFile:
    """Collects trials and writes them when it is closed.

    The samples are those of the stream, in microvolts, before any preprocessing; an .npz has
    `trials` (n, channels, times) float32, `times_s`, `channels`, and per trial `trial`,
    `stimulus`, `onset_s`, `residual_s`, `first_stamp_s`. MNE files hold volts, as MNE's do.
    """

    def __init__(self, path: Path, channels: Sequence[str], rate_hz: float, window: Window):
        self._path = path
        self._channels = list(channels)
        self._rate_hz = rate_hz
        self._window = window
        self._trials: list[np.ndarray] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, trial: Trial) -> None:
        self._trials.append(trial.samples.T.copy())
        row = {
            "trial": trial.number,
            "stimulus": trial.event.stimulus,
            "onset_s": trial.event.onset_s,
            "residual_s": trial.residual_s,
            "first_stamp_s": trial.first_stamp_s,
        }
        self._rows.append(row)

    def close(self) -> None:
        """Writes the file; without trials there is none, as MNE has no empty epochs."""
        if not self._trials:
            return
        if self._path.suffix == ".npz":
            self._write_npz()
        else:
            self._write_epochs()

    def _write_npz(self) -> None:
        columns: dict[str, Any] = {
            name: np.array([row[name] for row in self._rows]) for name in self._rows[0]
        }
        np.savez(
            self._path,
            trials=np.stack(self._trials),
            times_s=np.arange(self._window.first, self._window.last + 1) / self._rate_hz,
            channels=np.array(self._channels),
            **columns,
        )

    def _write_epochs(self) -> None:
        import mne  # here: it takes a second to import, and only this file format needs it

        try:
            from pandas import DataFrame
        except ImportError:  # MNE needs it for what an .npz has of each trial
            metadata = None
        else:
            metadata = DataFrame(self._rows)
        stimuli = [row["stimulus"] for row in self._rows]
        codes = {stimulus: code for code, stimulus in enumerate(sorted(set(stimuli)), start=1)}
        onsets_s = np.array([row["onset_s"] for row in self._rows])
        events = np.zeros((len(self._rows), 3), int)
        events[:, 0] = _apart(np.round((onsets_s - onsets_s.min()) * self._rate_hz).astype(int))
        events[:, 2] = [codes[stimulus] for stimulus in stimuli]
        epochs = mne.EpochsArray(
            np.stack(self._trials).astype(np.float64) * 1e-6,
            mne.create_info(self._channels, self._rate_hz, "eeg"),
            events,
            tmin=self._window.first / self._rate_hz,
            event_id=codes,
            metadata=metadata,
            verbose="ERROR",
        )
        epochs.save(self._path, overwrite=True, verbose="ERROR")


def _apart(numbers: np.ndarray) -> list[int]:
    """Numbers of samples, moved on until each is there once, as MNE wants them."""
    taken: dict[int, None] = {}  # in the order of the trials
    for number in numbers.tolist():
        taken[next(free for free in count(number) if free not in taken)] = None
    return list(taken)


def check_trial_file(path: Path) -> None:
    """Refuses a path that no trials can be written to, before a session is spent on them.

    Raises:
        Problem: another ending than `SUFFIXES`, or no such folder.
    """
    if not path.name.endswith(SUFFIXES):
        raise Problem(
            f"trials cannot be saved as '{path}': the name must end in {', '.join(SUFFIXES)}"
        )
    if not path.absolute().parent.is_dir():
        raise Problem(f"trials cannot be saved as '{path}': make the folder '{path.parent}' first")
