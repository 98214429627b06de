"""When the light came: a photodiode's or trigger channel's rises against markers and answers."""

from pathlib import Path

import numpy as np

from stream.acquire.triggers import TriggerSettings, trigger_reader
from stream.bench.live.figures import Steady
from stream.bench.measured_session import MeasuredSession
from stream.pipeline.books.ledger import read_ledger
from stream.sources.read import read_recording
from stream.sources.settings import ReadSettings
from stream.sources.xdf import recordings_in

MARKER, ANSWER = "marker → light", "light → answer at a subscriber"
_APART_S = 0.2  # what is further from its marker is no light of it


def steadiness(measured: MeasuredSession, eeg: str, channel: str) -> dict[str, Steady]:
    """How light and markers, and light and final answers, lie to each other.

    The rises are those in the session's recordings, whose stamps are taken to this machine's clock.
    """
    files = recordings_in(measured.folder) or [measured.folder / "recording.xdf"]
    lit_s = np.concatenate([rises(file, eeg, channel) for file in files])
    records = read_ledger(measured.folder / "ledger.jsonl")
    onset_s = {one["trial"]: one["onset_s"] for one in records if one["event"] == "marker"}
    answered = {one.trial: one.moments["received"] for one in measured.finals}
    trials = [trial for trial in onset_s if trial in answered]
    markers_s = np.array([onset_s[trial] for trial in trials])
    if not len(lit_s) or not trials:
        return {}
    nearest = lit_s[np.abs(lit_s[:, None] - markers_s).argmin(axis=0)]
    seen = np.abs(nearest - markers_s) <= _APART_S
    at_s, received_s = nearest[seen], np.array([answered[trial] for trial in trials])[seen]
    offsets = {MARKER: at_s - markers_s[seen], ANSWER: received_s - at_s}
    found = {name: Steady.of(at_s, 1e3 * values_s) for name, values_s in offsets.items()}
    return {name: one for name, one in found.items() if one is not None}


def rises(recording: Path, eeg: str, channel: str) -> np.ndarray:
    """When the channel rose (n,), in seconds on the recorder's clock."""
    found = read_recording(recording, ReadSettings(eeg_stream=eeg))
    reader, column = trigger_reader(TriggerSettings(channel=channel), found.channels)
    rows = [row for row, _ in reader.read(found.samples[:, column])]
    stamps_s = found.stamps_s[rows]
    if found.eeg_offsets:
        at_s, offset_s = np.array(found.eeg_offsets).T
        stamps_s = stamps_s + np.interp(stamps_s, at_s, offset_s)
    return stamps_s
