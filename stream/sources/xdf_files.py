"""What pyxdf reads, as a recording."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyxdf

from hvf_core.problem import Problem
from stream.acquire.chunk import RESULTS
from stream.acquire.markers import marker_text
from stream.acquire.units import kept_as
from stream.sources.recording import RecordedMarker, Recording, sorted_markers, unreadable
from stream.sources.xdf import MAGIC, STRING, on_one_clock, whole_chunks


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
        self.stamps_s, self.offsets = on_one_clock(
            stream["time_stamps"], stream["clock_times"], stream["clock_values"]
        )
        self.samples: np.ndarray | list[list[str]] = stream["time_series"]
        desc = (info.get("desc") or [None])[0] or {}
        recorded = desc.get("recorded", [{}])[0] or {}
        self.is_simulated = desc.get("simulated") == ["true"]
        self.is_joined = desc.get("joined") == ["true"]
        self.is_of_session = self.type == RESULTS and bool(recorded)
        """Whether it holds a session's answers; it names the streams that the session read."""
        self.read_ids = {kind: _text_of(recorded, kind) for kind in ("eeg", "markers")}

    def markers(self) -> tuple[RecordedMarker, ...]:
        return sorted_markers(zip(self.stamps_s, map(marker_text, self.samples), strict=True))


def read_xdf(path: Path, eeg_stream: str | None, marker_stream: str | None) -> Recording:
    try:
        streams = _load_xdf(path)
    except Exception as error:  # damage surfaces in the libraries as anything
        raise unreadable(path, error) from error
    sessions = [stream for stream in streams if stream.is_of_session]
    streams = [stream for stream in streams if stream not in sessions]
    numeric = [stream for stream in streams if stream.format != STRING]
    likely = [stream for stream in numeric if stream.type.lower() == "eeg"]
    likely = likely or [stream for stream in numeric if stream.rate_hz > 0]
    likely = _read_live("eeg", numeric, sessions) or likely
    notices: list[str] = []
    eeg = _choose(path, "EEG", "--eeg-stream", eeg_stream, numeric, likely, notices)
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
    likely = _read_live("markers", irregular, sessions) or likely
    events = _choose(path, "marker", "--marker-stream", marker_stream, irregular, likely, notices)
    if eeg.is_simulated:
        notices.append(f"'{path.name}': the EEG of stream '{eeg.name}' is simulated")
    made = list(map(kept_as, eeg.units, eeg.kinds))
    return Recording(
        path=path,
        name=eeg.name,
        channels=eeg.labels,
        units=tuple(unit for unit, _ in made),
        rate_hz=eeg.rate_hz,
        stamps_s=eeg.stamps_s,
        samples=(np.asarray(eeg.samples) * [factor for _, factor in made]).astype(np.float32),
        markers=() if events is None else events.markers(),
        eeg_offsets=eeg.offsets,
        marker_offsets=() if events is None else events.offsets,
        kinds=eeg.kinds,
        notices=tuple(notices),
        simulated=eeg.is_simulated,
        joined=eeg.is_joined,
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
    notices: list[str],
) -> _XdfStream | None:
    """The stream that `wanted` names among the possible ones, else the only likely one.

    Of several it is the only one that holds anything, which is told.
    """
    if wanted is not None:
        likely = [stream for stream in possible if wanted in (stream.name, str(stream.stream_id))]
        if not likely:
            raise Problem(
                f"'{path}' has no {kind} stream '{wanted}'; give {option} one of {_named(possible)}"
            )
    empty = [stream for stream in likely if not len(stream.stamps_s)]
    if len(likely) - len(empty) == 1 and empty:
        notices.append(f"'{path.name}': empty {kind} streams are passed over: {_named(empty)}")
        likely = [stream for stream in likely if stream not in empty]
    if len(likely) > 1:
        raise Problem(
            f"'{path}' has {len(likely)} {kind} streams that could be meant; "
            f"choose one with {option}, by name or id: {_named(likely)}"
        )
    return likely[0] if likely else None


def _read_live(
    kind: str, possible: Sequence[_XdfStream], sessions: Sequence[_XdfStream]
) -> list[_XdfStream]:
    """The stream that a session read as this kind, where the file is the session's own."""
    ids = {session.read_ids[kind] for session in sessions}
    return [stream for stream in possible if str(stream.stream_id) in ids]


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


def _named(streams: Sequence[_XdfStream]) -> str:
    return ", ".join(f"{stream.name} (id {stream.stream_id})" for stream in streams) or "none"
