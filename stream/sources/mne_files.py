"""What MNE reads, as a recording: .set .fif .edf .bdf .vhdr .gdf."""

import re
from collections.abc import Sequence
from pathlib import Path

import mne
import numpy as np
from mne.io.constants import FIFF

from hvf_core.problem import Problem
from stream.acquire.units import kept
from stream.sources.recording import RecordedMarker, Recording, sorted_markers, unreadable

SUFFIXES = (".set", ".fif", ".fif.gz", ".edf", ".bdf", ".vhdr", ".gdf")

# MNE's own rule for annotations that mark bad spans and filter edges, and what EEGLAB and
# BrainVision write where two pieces of a recording were joined.
NOT_A_STIMULUS = re.compile(r"bad|edge|boundary$|new segment/", re.IGNORECASE)

_DATA = {"eeg", "mag", "grad", "seeg", "ecog"}  # of MNE's types of channels
_FIFF_UNITS = {FIFF.FIFF_UNIT_V: "V", FIFF.FIFF_UNIT_T: "T", FIFF.FIFF_UNIT_T_M: "T/m"}


def read_with_mne(path: Path, stim_channel: str | None) -> Recording:
    try:
        raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
        types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    except Exception as error:  # damage surfaces in the libraries as anything
        raise unreadable(path, error) from error
    stim_channels = [name for name, kind in types.items() if kind == "stim"]
    if stim_channel is None:
        markers = _annotations(raw) or _stim_events(raw, stim_channels, path)
    elif stim_channel in types:
        markers = _stim_events(raw, [stim_channel], path)
    else:
        raise Problem(
            f"'{path}' has no channel '{stim_channel}' to take markers from; "
            f"give --stim-channel one of {_listed(stim_channels or raw.ch_names)}"
        )
    channels = tuple(name for name in types if name not in (stim_channel, *stim_channels))
    if _DATA.isdisjoint(types[name] for name in channels):
        raise Problem(f"'{path}' has no EEG channel; choose a recording of EEG or MEG")
    picks = [raw.ch_names.index(name) for name in channels]
    units, factors = kept(_FIFF_UNITS.get(raw.info["chs"][i]["unit"], "") for i in picks)
    samples = raw.get_data(picks)
    samples *= factors[:, None]
    rate_hz = float(raw.info["sfreq"])
    return Recording(
        path=path,
        name=Path(path.name.removesuffix(".gz")).stem,
        channels=channels,
        units=units,
        rate_hz=rate_hz,
        stamps_s=np.arange(raw.n_times) / rate_hz,
        samples=np.ascontiguousarray(samples.T, np.float32),
        markers=markers,
        kinds=tuple(types[name] for name in channels),
    )


def _annotations(raw: mne.io.BaseRaw) -> tuple[RecordedMarker, ...]:
    # The onsets in a Raw count from a zero that is `first_time` before its first sample.
    return sorted_markers(
        (one["onset"] - raw.first_time, str(one["description"]))
        for one in raw.annotations
        if not NOT_A_STIMULUS.match(one["description"])
    )


def _stim_events(
    raw: mne.io.BaseRaw, stim_channels: Sequence[str], path: Path
) -> tuple[RecordedMarker, ...]:
    """The events of the only one of `stim_channels`, which may last a single sample.

    They are what `mne.find_events` finds: every rise, so of the codes 0, 3, 5, 3 the 3 and the 5.
    """
    if not stim_channels:
        return ()
    if len(stim_channels) > 1:
        raise Problem(
            f"'{path}' has no annotations but {len(stim_channels)} stim channels; "
            f"choose one with --stim-channel: {_listed(stim_channels)}"
        )
    events = mne.find_events(raw, stim_channels[0], shortest_event=1, verbose="ERROR")
    onsets_s = (events[:, 0] - raw.first_samp) / raw.info["sfreq"]
    return sorted_markers(zip(onsets_s, events[:, 2].astype(str).tolist(), strict=True))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
