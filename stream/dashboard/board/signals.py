"""The EEG as pages show it: pieces of it, trials cut from it, and how good its channels are."""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.client import ChannelQuality, Eeg, MarkerSeen

_KEPT_S = 20.0  # of EEG, from which trials are cut
_KEPT_TRIALS = 200
_MOST_UV = 200.0  # peak to peak, of EEG without artefacts
_MOST_RMS_UV = 75.0
_MOST_LINE = 0.5  # of the rms: the mains are the larger part of it beyond


@dataclass(frozen=True)
class Piece:
    """A piece of EEG, (samples, channels) in microvolts, and the markers that came meanwhile."""

    first_s: float
    rate_hz: float
    samples: np.ndarray
    markers: Sequence[Mapping[str, Any]]
    has_gap: bool
    """Whether samples are missing before it."""
    rejected: Sequence[tuple[float, float]] = ()
    """Spans of trials that held no brain signal, of the last seconds."""

    def frame(self, misses: bool) -> bytes:
        """As it is sent; `misses` says that whoever gets it lacks the piece before."""
        header = {
            "first_s": self.first_s,
            "rate_hz": self.rate_hz,
            "n_samples": self.samples.shape[0],
            "n_channels": self.samples.shape[1],
            "markers": self.markers,
            "rejected": self.rejected,
            "gap_before": self.has_gap or misses,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(5 + len(text)) % 4)  # arrays in browsers begin at multiples of 4
        return b"".join((b"\x01", len(text).to_bytes(4, "little"), text, self.samples.tobytes()))


class Signals:
    """Takes the EEG while somebody watches it, cuts trials from it, and averages them.

    Args:
        window_s: of a trial, around its onset.
    """

    def __init__(self, window_s: tuple[float, float]):
        self._window_s = window_s
        self._pieces: list[Piece] = []
        self._until_s = -np.inf
        self._open: dict[int, float] = {}  # onsets of trials that are not cut yet
        self._onsets: dict[int, float] = {}
        self._rejected: list[tuple[float, float]] = []
        self._cut: OrderedDict[int, np.ndarray] = OrderedDict()
        self._times_s = np.empty(0)
        self._sum: np.ndarray | None = None
        self.n_cut = 0
        self.channels: tuple[str, ...] = ()

    def opened(self, marker: MarkerSeen) -> None:
        """A trial was opened, which is cut once its samples are there."""
        onset_s = marker.about.onset_s
        for kept in (self._open, self._onsets):
            kept[marker.about.trial] = onset_s
            for old in [trial for trial, at_s in kept.items() if at_s < onset_s - _KEPT_S]:
                del kept[old]

    def rejected(self, trial: int) -> None:
        """A trial held no brain signal."""
        if (onset_s := self._onsets.get(trial)) is not None:
            self._rejected.append((onset_s + self._window_s[0], onset_s + self._window_s[1]))
            self._rejected = [span for span in self._rejected if span[1] > onset_s - _KEPT_S]

    def take(self, eeg: Eeg) -> Piece | None:
        """Takes what has come; None where it is nothing that goes on."""
        samples = np.asarray(eeg.array, np.float32)
        if not samples.size or eeg.stamps_s[0] <= self._until_s:
            return None
        if self.channels != (channels := tuple(eeg.channels)):
            self._restart(channels, eeg.rate_hz)
        step_s = 1 / eeg.rate_hz
        is_first = not self._pieces
        has_gap = not is_first and eeg.stamps_s[0] - self._until_s > 2.5 * step_s
        said = zip(eeg.markers_s, eeg.markers, strict=True)
        markers = [
            {"at_s": at_s, "text": text, "trial": self._trial_at(at_s)} for at_s, text in said
        ]
        first_s, spans = eeg.stamps_s[0], tuple(self._rejected)
        piece = Piece(first_s, eeg.rate_hz, samples, markers, has_gap, spans)
        if has_gap:
            self._pieces = []
        self._pieces.append(piece)
        self._until_s = eeg.stamps_s[-1]
        while self._pieces[0].first_s < self._until_s - _KEPT_S:
            del self._pieces[0]
        self._cut_trials()
        return piece

    def rest(self) -> None:
        """Nobody watches any more: what comes next does not go on from here."""
        self._pieces, self._open, self._until_s = [], {}, -np.inf

    def trial(self, number: int) -> dict[str, Any]:
        """The EEG of a trial, or why there is none."""
        told = {"kind": "trial_eeg", "trial": number, "channels": list(self.channels)}
        if number not in self._cut:
            sentence = (
                "Its EEG went by while no page was showing EEG: it can be seen once the session "
                "is over, from its recording."
            )
            return told | {"times_s": [], "uv": None, "sentence": sentence}
        uv = np.round(self._cut[number].T, 2).tolist()
        return told | {"times_s": self._told_times(), "uv": uv, "sentence": ""}

    def evoked(self) -> dict[str, Any]:
        """The mean of all trials that were cut, each less its mean before the onset."""
        mean = np.empty((0, 0)) if self._sum is None else self._sum / self.n_cut
        told = {"kind": "evoked", "n": self.n_cut, "channels": list(self.channels)}
        return told | {"times_s": self._told_times(), "mean_uv": np.round(mean.T, 3).tolist()}

    def _told_times(self) -> list[float]:
        return np.round(self._times_s, 4).tolist()

    def _restart(self, channels: tuple[str, ...], rate_hz: float) -> None:
        first, last = (round(at_s * rate_hz) for at_s in self._window_s)
        self._times_s = np.arange(first, last + 1) / rate_hz
        self.channels, self._pieces = channels, []
        self._cut.clear()
        self._sum, self.n_cut = None, 0

    def _trial_at(self, at_s: float) -> int | None:
        near = [trial for trial, onset_s in self._onsets.items() if abs(onset_s - at_s) < 1e-3]
        return near[0] if near else None

    def _cut_trials(self) -> None:
        begin_s, end_s = self._pieces[0].first_s, self._until_s
        for trial, onset_s in list(self._open.items()):
            from_s, until_s = onset_s + self._times_s[0], onset_s + self._times_s[-1]
            if until_s > end_s:
                continue
            del self._open[trial]
            if from_s >= begin_s and trial not in self._cut:
                self._keep(trial, self._at(onset_s + self._times_s))

    def _at(self, stamps_s: np.ndarray) -> np.ndarray:
        """The EEG at some moments, between the samples that are there."""
        samples = np.concatenate([piece.samples for piece in self._pieces])
        rate_hz = self._pieces[0].rate_hz
        there_s = np.concatenate(
            [one.first_s + np.arange(len(one.samples)) / rate_hz for one in self._pieces]
        )
        low, high = np.searchsorted(there_s, (stamps_s[0], stamps_s[-1]))
        part = slice(max(0, low - 1), high + 1)
        columns = [np.interp(stamps_s, there_s[part], one) for one in samples[part].T]
        return np.stack(columns, axis=1).astype(np.float32)

    def _keep(self, trial: int, samples: np.ndarray) -> None:
        before = samples[self._times_s < 0]
        corrected = samples - (before if len(before) else samples).mean(axis=0)
        self._cut[trial] = corrected
        if len(self._cut) > _KEPT_TRIALS:
            self._cut.popitem(last=False)
        whole = corrected.astype(np.float64)
        self._sum = whole if self._sum is None else self._sum + whole
        self.n_cut += 1


def quality(one: ChannelQuality) -> dict[str, Any]:
    """How each channel was for a second, in a word."""
    values = (one.channels, one.rms_uv, one.peak_to_peak_uv, one.line_uv, one.flat, one.clipped)
    channels = []
    for name, rms_uv, peak_uv, line_uv, is_flat, is_clipped in zip(*values, strict=True):
        level, word = _judged(rms_uv, peak_uv, line_uv, is_flat, is_clipped)
        told = {"name": name, "rms_uv": round(rms_uv, 2), "peak_to_peak_uv": round(peak_uv, 1)}
        told |= {"line_uv": round(line_uv, 2), "flat": is_flat, "clipped": is_clipped}
        channels.append(told | {"level": level, "word": word})
    hz = {"until_s": one.until_s, "line_hz": one.line_hz}
    return {"kind": "quality", **hz, "channels": channels}


def _judged(
    rms_uv: float, peak_uv: float, line_uv: float, is_flat: bool, is_clipped: bool
) -> tuple[str, str]:
    if is_flat:
        return "bad", "flat"
    if is_clipped:
        return "bad", "railed"
    if line_uv > _MOST_LINE * rms_uv and line_uv > 5:
        return "warn", "mains"
    if peak_uv > _MOST_UV or rms_uv > _MOST_RMS_UV:
        return "warn", "large"
    return "ok", "good"
