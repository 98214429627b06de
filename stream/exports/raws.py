"""A run as what MNE calls Raw: in volts, with its events as annotations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from hvf_core.text import printable
from stream.acquire.units import MICROVOLTS
from stream.exports.columns import EVENTS
from stream.exports.evenly import Run
from stream.exports.events import Event
from stream.exports.finished import FinishedSession
from stream.pipeline.books.trial_formats import channel_types
from stream.sources.recording import Recording

_MADE = ("onset", "duration", "trial_type", "value", "sample")
"""Columns that mne-bids makes itself."""


def types_of(recording: Recording, session: FinishedSession) -> list[str]:
    """MNE's types of the channels of a session's recording."""
    trigger = session.config.trigger
    unit = recording.signal(recording.brain_channels).unit
    told = (recording.kinds, unit, trigger.channel if trigger is not None else None)
    types = channel_types(recording.channels, *told)
    # Beside EEG a unit may be anything: what is no voltage is kept as it is.
    return [
        kind if kind in ("eeg", "stim", "mag", "grad") or unit == MICROVOLTS else "misc"
        for kind, unit in zip(types, recording.units, strict=True)
    ]


def montage_of(name: str, channels: Sequence[str]) -> Any:
    """One of MNE's montages, by its name.

    Raises:
        Problem: there is no such montage, or it has a place for none of the channels.
    """
    import mne

    try:
        montage = mne.channels.make_standard_montage(name)
    except ValueError:
        known = ", ".join(mne.channels.get_builtin_montages())
        raise Problem(f"there is no montage '{name}'; --montage takes {known}") from None
    there = {one.casefold() for one in montage.ch_names}
    if not any(one.casefold() in there for one in channels):
        raise Problem(
            f"no channel of the session has a place in the montage '{name}': give --montage "
            "another one, or leave it out"
        )
    return montage


def raw_of(run: Run, types: Sequence[str], events: Sequence[Event]) -> Any:
    """What was recorded, and zeros where nothing was."""
    import mne

    is_kept = [kind in ("stim", "misc") for kind in types]
    data = np.zeros((len(types), run.n_times))
    data[:, run.places] = run.samples.T
    data *= np.where(is_kept, 1.0, 1e-6)[:, None]
    channels, rate_hz = list(map(printable, run.recording.channels)), run.recording.rate_hz
    info = mne.create_info(channels, rate_hz, list(types), verbose="ERROR")
    for channel, kept in zip(info["chs"], is_kept, strict=True):
        if kept:
            channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    raw = mne.io.RawArray(data, info, copy="auto", verbose="ERROR")
    columns = [name for name in EVENTS if name not in _MADE]
    annotations = mne.Annotations(
        [event["place"] / rate_hz for event in events],
        [event["duration"] for event in events],
        [event["trial_type"] for event in events],
        extras=[{name: event[name] for name in columns if name in event} for event in events],
    )
    return raw.set_annotations(annotations)
