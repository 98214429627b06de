"""Trials in files that other programs read: NumPy's .npz, and MNE's epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("trial", "stimulus", "group", "repeat", "onset_s", "residual_s", "first_stamp_s")
"""What is said of each trial."""
Row = Mapping[str, Any]
_LONGEST, _LONGEST_NAME = 1000, 100  # characters of a text, and of the name of an event
_EEG, _STIM = ("eeg", 1e-6), ("stim", 1.0)
_MEG = {"femtoteslas": ("mag", 1e-15), "femtoteslas/cm": ("grad", 1e-13)}


@dataclass(frozen=True)
class Head:
    """What the samples of trials are.

    Attributes:
        window: first and last sample, counted from the onset's; both belong to it.
        unit: as signals are kept; "" where it is not known.
        trigger: the channel that holds codes, and no signal.
    """

    channels: Sequence[str]
    rate_hz: float
    window: tuple[int, int]
    unit: str
    trigger: str | None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.channels), self.window[1] - self.window[0] + 1


def write_npz(path: Path, head: Head, rows: Sequence[Row], trials: np.ndarray) -> list[str]:
    """Writes trials (n, channels, times) as they are; returns what is to be said of them."""
    columns: dict[str, Any] = {
        name: np.array([_short(row[name]) for row in rows]) for name in COLUMNS
    }
    times_s = np.arange(head.window[0], head.window[1] + 1) / head.rate_hz
    channels = np.array(head.channels)
    np.savez(path, trials=trials, times_s=times_s, channels=channels, **columns)
    n_long = sum(len(row["stimulus"]) > _LONGEST for row in rows)
    return [f"{n_long} stimuli with a text cut to {_LONGEST} characters"] * bool(n_long)


def _short(value: Any) -> Any:
    """Of a text what NumPy's rows hold: each takes the room of the longest, and ends at a NUL."""
    return value[:_LONGEST].replace("\0", "\\0") if isinstance(value, str) else value


def write_epochs(path: Path, head: Head, rows: Sequence[Row], trials: np.ndarray) -> list[str]:
    """Writes trials in volts or teslas, by onset; returns what is to be said of them."""
    import mne  # here: it takes a second to import, and only this file format needs it

    kinds = [_STIM if name == head.trigger else _MEG.get(head.unit, _EEG) for name in head.channels]
    info = mne.create_info(list(head.channels), head.rate_hz, [kind for kind, _ in kinds])
    names = _event_names({row["stimulus"] for row in rows})
    codes = {stimulus: code for code, stimulus in enumerate(names, start=1)}
    onsets_s = np.array([row["onset_s"] for row in rows])
    events = np.zeros((len(rows), 3), int)
    events[:, 0] = _apart(np.round((onsets_s - onsets_s[0]) * head.rate_hz).astype(int))
    events[:, 2] = [codes[row["stimulus"]] for row in rows]
    epochs = mne.EpochsArray(
        np.multiply(trials, np.array([[factor] for _, factor in kinds]), dtype=np.float64),
        info,
        events,
        tmin=head.window[0] / head.rate_hz,
        event_id={name: codes[stimulus] for stimulus, name in names.items()},
        metadata=_table(rows),
        verbose="ERROR",
    )
    notes = _place(epochs, mne.channels.make_standard_montage("colin27_1005"))
    epochs.save(path, verbose="ERROR")
    return notes


def _place(epochs: Any, montage: Any) -> list[str]:
    """Gives the electrodes their standard places, if most of their names are standard."""
    standard = {name.casefold() for name in montage.ch_names}
    channels = zip(epochs.ch_names, epochs.get_channel_types(), strict=True)
    names = [name for name, kind in channels if kind == "eeg"]
    unknown = [name for name in names if name.casefold() not in standard]
    # A1 and A2 are standard, and numbers on other caps: a few names alone say nothing. Cz and CZ
    # would be in one place.
    n_twice = len(epochs.ch_names) - len({name.casefold() for name in epochs.ch_names})
    if len(unknown) > len(names) / 2 or n_twice:
        return ["no places of electrodes, as their names are not those of the 10-05 system"]
    epochs.set_montage(montage, match_case=False, on_missing="ignore", verbose="ERROR")
    few = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if unknown[4:] else "")
    return [f"no place in the 10-05 system for {few}"] * bool(unknown)


def _table(rows: Sequence[Row]) -> Any:
    """The rows as MNE wants them, with pandas or without; the file is the same."""
    # When it reads a file, MNE takes `&#128512;` for a sign, and then `&quot;` for one of JSON's.
    texts = ("stimulus", "group")
    plain = [{**row, **{name: row[name].replace("&#", "& #") for name in texts}} for row in rows]
    try:
        from pandas import DataFrame
    except ImportError:
        return plain
    return DataFrame(plain)


def _event_names(stimuli: set[str]) -> dict[str, str]:
    """Names that MNE's files can hold, each once: Latin-1, short, and without a semicolon."""
    names: dict[str, str] = {}
    for stimulus in sorted(stimuli):
        name = stimulus[:_LONGEST_NAME].encode("latin-1", "backslashreplace").decode("latin-1")
        name = name.replace(";", ",").replace("\0", "\\0") or "(empty)"
        taken = set(names.values())
        while name in taken:
            name += "'"
        names[stimulus] = name
    return names


def _apart(numbers: np.ndarray) -> np.ndarray:
    """Ascending numbers of samples, moved on until each is there once, as MNE wants them."""
    order = np.arange(len(numbers))
    return np.maximum.accumulate(numbers - order) + order
