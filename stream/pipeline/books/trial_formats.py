"""Trials in files that other programs read: NumPy's .npz, and MNE's epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stream.acquire.channels import brain_channels

COLUMNS = ("trial", "stimulus", "group", "repeat", "onset_s", "residual_s", "first_stamp_s")
"""What is said of each trial."""
Row = Mapping[str, Any]
_LONGEST, _LONGEST_NAME = 1000, 100  # characters of a text, and of the name of an event
_MEG = {"femtoteslas": "mag", "femtoteslas/cm": "grad"}
_BESIDE = ("eog", "ecg", "emg")
_SI = {"mag": 1e-15, "grad": 1e-13} | dict.fromkeys(("eeg", *_BESIDE), 1e-6)


@dataclass(frozen=True)
class Head:
    """What the samples of trials are.

    Attributes:
        window: first and last sample, counted from the onset's; both belong to it.
        types: what each channel is, in MNE's words.
    """

    channels: Sequence[str]
    rate_hz: float
    window: tuple[int, int]
    types: Sequence[str]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.channels), self.window[1] - self.window[0] + 1


def channel_types(
    channels: Sequence[str], kinds: Sequence[str], unit: str, trigger: str | None
) -> list[str]:
    """MNE's types of channels, by the stream's words for their kinds, and by their labels.

    Args:
        kinds: one a channel, or none.
        unit: in which signals are kept; "" where it is not known.
        trigger: the channel that holds codes, and no signal.
    """
    brain = brain_channels(channels, kinds)
    types = []
    for name, kind in zip(channels, kinds or [""] * len(channels), strict=True):
        if name == trigger:
            types.append("stim")
        elif name in brain:
            types.append(
                kind.casefold() if kind.casefold() in _MEG.values() else _MEG.get(unit, "eeg")
            )
        else:
            told = f"{kind} {name}".casefold()
            types.append(next((beside for beside in _BESIDE if beside in told), "misc"))
    return types


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

    # MNE's files hold no other names of channels.
    channels = [one.encode("ascii", "backslashreplace").decode() for one in head.channels]
    info = mne.create_info(channels, head.rate_hz, list(head.types), verbose="ERROR")
    factors = np.array([[_SI.get(kind, 1.0)] for kind in head.types])
    names = _event_names({row["stimulus"] for row in rows})
    codes = {stimulus: code for code, stimulus in enumerate(names, start=1)}
    onsets_s = np.array([row["onset_s"] for row in rows])
    events = np.zeros((len(rows), 3), int)
    events[:, 0] = _apart(np.round((onsets_s - onsets_s[0]) * head.rate_hz).astype(int))
    events[:, 2] = [codes[row["stimulus"]] for row in rows]
    epochs = mne.EpochsArray(
        np.multiply(trials, factors, dtype=np.float64),
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
    plain = [
        {name: _kept(one) if isinstance(one, str) else one for name, one in row.items()}
        for row in rows
    ]
    try:
        from pandas import DataFrame
    except ImportError:
        return plain
    return DataFrame(plain)


def _kept(text: str) -> str:
    """What comes back from a file; a lone surrogate, which no table of pandas holds, is escaped."""
    # When it reads a file, MNE takes `&#128512;` for a sign, and then `&quot;` for one of JSON's.
    return text.replace("&#", "& #").encode("utf-8", "backslashreplace").decode()


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
