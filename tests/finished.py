"""A session's folder as a session leaves it, of a recording that is made up, in virtual time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream.acquire.lsl import pylsl
from stream.acquire.trial_stream import TrialStream
from stream.acquire.trials import Drop, Opened, Trial
from stream.pipeline.books.closing import make_whole
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import (
    Endpoints,
    LiveSource,
    SessionConfig,
    TrialSettings,
)
from stream.sources.cut_recording import run_through
from stream.sources.read import read_recording
from tests.recording_files import MARKER_HEADER, write_xdf

RATE_HZ = 250.0
LABELS = ("Cz", "Pz", "Oz", "EOG1", "ACC1")
KINDS = ("EEG", "EEG", "EEG", "EOG", "misc")
UNITS = ("microvolts", "microvolts", "microvolts", "microvolts", "g")
Marker = tuple[float, str]


@dataclass(frozen=True)
class Piece:
    """Samples without a gap.

    Attributes:
        start_s: when the first was taken, on the session's clock.
        n: how many.
        behind_s: by how much the amplifier's clock is behind that.
    """

    start_s: float
    n: int
    behind_s: float = 0.0

    @property
    def true_s(self) -> np.ndarray:
        return self.start_s + np.arange(self.n) / RATE_HZ


@dataclass(frozen=True)
class Session:
    """What was left, and what it was made of.

    Attributes:
        trials: samples (times, channels) of those that were cut.
        true_s, samples: of all samples of the recording.
    """

    config: SessionConfig
    trials: dict[int, np.ndarray]
    true_s: np.ndarray
    samples: np.ndarray

    @property
    def folder(self) -> Path:
        return self.config.folder


def header() -> pylsl.StreamInfo:
    info = pylsl.StreamInfo("EEG", "EEG", len(LABELS), RATE_HZ, "float32", "cap")
    info.set_channel_labels(list(LABELS))
    info.set_channel_types(list(KINDS))
    info.set_channel_units(list(UNITS))
    return info


def record(
    path: Path, pieces: Sequence[Piece], markers: Sequence[Marker], codes: Sequence[Marker] = ()
) -> np.ndarray:
    """A recording; its samples, each of which is another one.

    Codes are in the channel ACC1: 50 ms of their value.
    """
    n = sum(piece.n for piece in pieces)
    noise = np.random.default_rng(n).normal(0, 20, (n, len(LABELS)))
    samples = (noise + np.arange(n)[:, None] / 64).astype(np.float32)
    true_s = np.concatenate([piece.true_s for piece in pieces])
    samples[:, -1] *= not codes
    for at_s, text in codes:
        samples[(at_s <= true_s) & (true_s < at_s + 0.05), -1] = int(text)
    raw_s = np.concatenate([piece.true_s - piece.behind_s for piece in pieces])
    offsets = [(piece.true_s[0] - piece.behind_s, piece.behind_s) for piece in pieces]
    times_s = np.array([at_s for at_s, _ in markers])
    rows = (MARKER_HEADER, times_s, [[text] for _, text in markers])
    write_xdf(path, [(header(), raw_s, samples, *offsets), rows])
    return samples


def finished(
    folder: Path,
    pieces: Sequence[Piece],
    markers: Sequence[Marker],
    codes: Sequence[Marker] = (),
    **settings: object,
) -> Session:
    """A session that has listened to this, and was closed."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = record(folder / "recording.xdf", pieces, markers, codes)
    told = {"trials": TrialSettings(tmin_s=-0.1, tmax_s=0.3), "session": "20261122-101500-ab12"}
    source = LiveSource(eeg="EEG", markers="stimuli")
    config = SessionConfig(
        **{**told, "folder": folder, "endpoints": Endpoints.local(), "source": source, **settings}
    )
    config.write()
    config.endpoints.remove()
    recording = read_recording(folder / "recording.xdf")
    trials = TrialStream(
        recording.channels, recording.rate_hz, trial_plan(config), kinds=recording.kinds
    )
    ledger, cut = Ledger(folder / "ledger.jsonl"), {}
    ledger.note("start", session=config.session, node="results-1")
    for one in run_through(trials, recording):
        event = one.event
        match one:
            case Opened():
                names = ("stimulus", "group", "repeat", "onset_s", "readable_s", "mark")
                told = {name: getattr(event, name) for name in names}
                told |= {"block": event.block, "text": event.text, "sent_s": event.sent_s}
                ledger.announce(one.number, **told)
            case Trial(is_whole=True):
                cut[one.number] = one.samples.copy()
                stamps = {"window_end": one.last_stamp_s, "readable": one.readable_s}
                ledger.settle(one.number, "cut", residual_s=one.residual_s, stamps=stamps)
            case Drop():
                ledger.settle(one.number, "dropped", reason=one.reason, detail=one.detail)
    ledger.close()
    make_whole(config, "the end")
    true_s = np.concatenate([piece.true_s for piece in pieces])
    return Session(config, cut, true_s, samples)
