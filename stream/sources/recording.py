"""Reads recordings of EEG or MEG and markers, whatever wrote them, into one plain value."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pyxdf
from mne.io.constants import FIFF

from hvf_core.problem import Problem
from stream.acquire.markers import marker_text
from stream.acquire.units import Signal, kept_as
from stream.sources.xdf import MAGIC, STRING, whole_chunks

MNE_SUFFIXES = (".set", ".fif", ".fif.gz", ".edf", ".bdf", ".vhdr", ".gdf")
SUFFIXES = (*MNE_SUFFIXES, ".xdf")

# MNE's own rule for annotations that mark bad spans and filter edges, and what EEGLAB and
# BrainVision write where two pieces of a recording were joined.
NOT_A_STIMULUS = re.compile(r"bad|edge|boundary$|new segment/", re.IGNORECASE)

_DATA = {"eeg", "mag", "grad", "seeg", "ecog"}  # of MNE's types of channels
_FIFF_UNITS = {FIFF.FIFF_UNIT_V: "V", FIFF.FIFF_UNIT_T: "T", FIFF.FIFF_UNIT_T_M: "T/m"}

Offsets = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class RecordedMarker:
    """A marker of a recording; `stamp_s` is in seconds, as recorded.

    `text` is the annotation's description, the code of a stim channel as a decimal number, or the
    value in an XDF marker stream, where several columns become one JSON list.
    """

    stamp_s: float
    text: str


@dataclass(frozen=True, eq=False)
class Recording:
    """EEG, or MEG, and markers of one file.

    `samples` is float32 (n, channels), in `units` per channel: "microvolts" for every voltage,
    "femtoteslas" for every flux density, else as in the file, "" where that is unknown. `kinds`
    says in the file's words what each channel records; empty where it does not say. `stamps_s` is
    float64 (n,), seconds, raw: from 0 on for files that MNE reads, as recorded for XDF. An XDF
    stamp counts on the clock of the machine that sent it; adding the stream's offset, given as
    (stamp, offset) pairs in seconds, takes it to the recorder's clock. Other files have one clock
    and no offsets.
    """

    path: Path
    name: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    stamps_s: np.ndarray
    samples: np.ndarray
    markers: tuple[RecordedMarker, ...]
    eeg_offsets: Offsets = ()
    marker_offsets: Offsets = ()
    kinds: tuple[str, ...] = ()

    def signal(self, channels: Iterable[str]) -> Signal:
        """What those of these channels that there are record, for the most part."""
        wanted = {name.casefold() for name in channels}
        at = [i for i, name in enumerate(self.channels) if name.casefold() in wanted]
        kinds = [self.kinds[i] for i in at] if self.kinds else []
        return Signal.of(kinds, [self.units[i] for i in at])

    @property
    def duration_s(self) -> float:
        """From the first sample to the end of the last one."""
        return float(self.stamps_s[-1] - self.stamps_s[0]) + 1 / self.rate_hz

    def slice(self, start_s: float, stop_s: float) -> "Recording":
        """What was recorded from `start_s` up to, without, `stop_s` after the first sample.

        All stamps stay as they are. Raises `Problem` where that leaves no sample.
        """
        eeg_s = self.stamps_s + offsets_at(self.eeg_offsets, self.stamps_s)
        marker_s = np.array([marker.stamp_s for marker in self.markers])
        marker_s += offsets_at(self.marker_offsets, marker_s)
        first_s, last_s = eeg_s[0] + start_s, eeg_s[0] + stop_s
        wanted = (eeg_s >= first_s) & (eeg_s < last_s)
        if not wanted.any():
            raise Problem(
                f"there is no sample from {start_s:g} s to {stop_s:g} s in '{self.path}', "
                f"which lasts {self.duration_s:.1f} s; choose a span inside it"
            )
        wanted_markers = (marker_s >= first_s) & (marker_s < last_s)
        return replace(
            self,
            stamps_s=self.stamps_s[wanted],
            samples=self.samples[wanted],
            markers=tuple(self.markers[i] for i in np.flatnonzero(wanted_markers)),
        )


def offsets_at(offsets: Offsets, stamps_s: Sequence[float] | np.ndarray) -> np.ndarray:
    """The offset in force at each stamp: the last that was taken up to it, else the first."""
    if not offsets:
        return np.zeros(len(stamps_s))
    times_s, offsets_s = np.array(sorted(offsets)).T
    return offsets_s[np.maximum(np.searchsorted(times_s, stamps_s, side="right") - 1, 0)]


def read_recording(
    path: str | Path,
    *,
    stim_channel: str | None = None,
    eeg_stream: str | None = None,
    marker_stream: str | None = None,
) -> Recording:
    """Reads a file in one of the formats `SUFFIXES`; all of it is kept in memory.

    Of what MNE reads, the markers are the annotations, without bad spans, filter edges and joins;
    where there are none, or `stim_channel` is given, they are the events of a stim channel. In
    XDF they are a stream of type Markers; `eeg_stream` and `marker_stream` choose among several
    streams, by name or by id. A recording without markers is read too.

    Raises `Problem` where the file is missing, unknown, damaged, without EEG or without samples,
    and where more than one stream or stim channel could be meant.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(f"there is no file '{path}'; give the path of a recording")
    if path.name.lower().endswith(".xdf"):
        if stim_channel is not None:
            raise Problem(
                f"--stim-channel '{stim_channel}' does not apply to '{path}', as the markers of "
                ".xdf files are a stream; choose it with --marker-stream"
            )
        recording = _read_xdf(path, eeg_stream, marker_stream)
    elif path.name.lower().endswith(MNE_SUFFIXES):
        if (wanted := eeg_stream or marker_stream) is not None:
            raise Problem(
                f"'{path}' has no stream '{wanted}', as only .xdf files hold streams; "
                "leave out --eeg-stream and --marker-stream"
            )
        recording = _read_with_mne(path, stim_channel)
    else:
        raise Problem(
            f"'{path}' ends in '{path.suffix}', which is no known format; "
            f"give a file that ends in one of {', '.join(SUFFIXES)}"
        )
    if not len(recording.samples):
        raise Problem(f"'{path}' has no samples of '{recording.name}'; choose another recording")
    return recording


def _read_with_mne(path: Path, stim_channel: str | None) -> Recording:
    try:
        raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
        types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    except Exception as error:  # damage surfaces in the libraries as anything
        raise _unreadable(path, error) from error
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
    units, factors = _kept(_FIFF_UNITS.get(raw.info["chs"][i]["unit"], "") for i in picks)
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


def _kept(units: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The units in which channels of these units are kept, and the factors (channels,)."""
    names, factors = zip(*map(kept_as, units), strict=True)
    return names, np.array(factors)


def _annotations(raw: mne.io.BaseRaw) -> tuple[RecordedMarker, ...]:
    # The onsets in a Raw count from a zero that is `first_time` before its first sample.
    return _sorted_markers(
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
    return _sorted_markers(zip(onsets_s, events[:, 2].astype(str).tolist(), strict=True))


class _XdfStream:
    """What is used of a stream as pyxdf gives it."""

    def __init__(self, stream: dict[str, Any]):
        info = stream["info"]
        self.stream_id: int = info["stream_id"]
        self.name, self.type = _text_of(info, "name"), _text_of(info, "type")
        self.rate_hz = float(_text_of(info, "nominal_srate"))
        self.format = _text_of(info, "channel_format")
        channels = _described_channels(info)
        self.labels = tuple(_text_of(ch, "label") or str(i) for i, ch in enumerate(channels, 1))
        self.units = tuple(_text_of(channel, "unit") for channel in channels)
        self.kinds = tuple(_text_of(channel, "type") or self.type for channel in channels)
        self.stamps_s: np.ndarray = stream["time_stamps"]
        self.samples: np.ndarray | list[list[str]] = stream["time_series"]
        self.offsets = tuple(zip(stream["clock_times"], stream["clock_values"], strict=True))

    def markers(self) -> tuple[RecordedMarker, ...]:
        return _sorted_markers(zip(self.stamps_s, map(marker_text, self.samples), strict=True))


def _read_xdf(path: Path, eeg_stream: str | None, marker_stream: str | None) -> Recording:
    try:
        streams = _load_xdf(path)
    except Exception as error:  # damage surfaces in the libraries as anything
        raise _unreadable(path, error) from error
    numeric = [stream for stream in streams if stream.format != STRING]
    likely = [stream for stream in numeric if stream.type.lower() == "eeg"]
    likely = likely or [stream for stream in numeric if stream.rate_hz > 0]
    eeg = _choose(path, "EEG", "--eeg-stream", eeg_stream, numeric, likely)
    if eeg is None:
        raise Problem(f"'{path}' has no EEG stream among {_named(streams)}; choose another file")
    if eeg.rate_hz <= 0:
        raise Problem(
            f"the EEG stream {_named([eeg])} in '{path}' says its rate is {eeg.rate_hz:g} Hz, "
            "expected more than 0; choose a regular stream with --eeg-stream"
        )
    irregular = [s for s in streams if s is not eeg and (s.rate_hz == 0 or s.format == STRING)]
    likely = [stream for stream in irregular if stream.type.lower() in ("markers", "marker")]
    likely = likely or [s for s in irregular if s.format.startswith((STRING, "int"))]
    events = _choose(path, "marker", "--marker-stream", marker_stream, irregular, likely)
    units, factors = _kept(eeg.units)
    return Recording(
        path=path,
        name=eeg.name,
        channels=eeg.labels,
        units=units,
        rate_hz=eeg.rate_hz,
        stamps_s=eeg.stamps_s,
        samples=(np.asarray(eeg.samples) * factors).astype(np.float32),
        markers=() if events is None else events.markers(),
        eeg_offsets=eeg.offsets,
        marker_offsets=() if events is None else events.offsets,
        kinds=eeg.kinds,
    )


def _load_xdf(path: Path) -> list[_XdfStream]:
    file = whole_chunks(path)
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError(f"it does not begin with '{MAGIC.decode()}'")
    file.seek(0)
    # As recorded: pyxdf's own mappings look into the future and smooth over lost samples.
    streams, _ = pyxdf.load_xdf(
        file, synchronize_clocks=False, handle_clock_resets=False, dejitter_timestamps=False
    )
    return [_XdfStream(stream) for stream in streams]


def _choose(
    path: Path,
    kind: str,
    option: str,
    wanted: str | None,
    possible: Sequence[_XdfStream],
    likely: Sequence[_XdfStream],
) -> _XdfStream | None:
    """The stream that `wanted` names among the possible ones, else the only likely one."""
    if wanted is not None:
        likely = [stream for stream in possible if wanted in (stream.name, str(stream.stream_id))]
        if not likely:
            raise Problem(
                f"'{path}' has no {kind} stream '{wanted}'; give {option} one of {_named(possible)}"
            )
    if len(likely) > 1:
        raise Problem(
            f"'{path}' has {len(likely)} {kind} streams that could be meant; "
            f"choose one with {option}, by name or id: {_named(likely)}"
        )
    return likely[0] if likely else None


def _described_channels(info: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The XML of each channel, as dictionaries that are empty where the stream tells nothing."""
    channel_count = int(_text_of(info, "channel_count"))
    channels = info
    for tag in ("desc", "channels"):
        channels = (channels.get(tag) or [None])[0] or {}
    described = [channel or {} for channel in channels.get("channel", ())]
    return described if len(described) == channel_count else [{}] * channel_count


def _text_of(element: dict[str, Any], tag: str) -> str:
    return (element.get(tag) or [None])[0] or ""


def _sorted_markers(markers: Iterable[tuple[float, str]]) -> tuple[RecordedMarker, ...]:
    recorded = [RecordedMarker(float(stamp_s), text) for stamp_s, text in markers]
    return tuple(sorted(recorded, key=lambda marker: marker.stamp_s))


def _unreadable(path: Path, error: BaseException) -> Problem:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return Problem(
        f"'{path}' cannot be read ({reason}); check that the file is complete and that those "
        "that belong to it lie beside it"
    )


def _named(streams: Sequence[_XdfStream]) -> str:
    return _listed([f"{stream.name} (id {stream.stream_id})" for stream in streams])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
