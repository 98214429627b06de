"""One recording, whose samples are their own numbers, in every format that is read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np

from tests.recording_files import (
    MARKER_HEADER,
    RATE_HZ,
    eeg_header,
    make_raw,
    save_fif,
    write_brainvision,
    write_edf_plus,
    write_set,
    write_xdf,
)


@dataclass(frozen=True)
class Take:
    """A recording of one channel.

    Attributes:
        n: samples; a multiple of RATE_HZ.
        texts: of the markers, by the samples on which they are.
        joins: first samples of pieces that were joined to the one before; of records in EDF, BDF.
        bad: spans marked bad: first sample and length.
        unit: of the samples, where the format names one.
    """

    n: int
    texts: Mapping[int, str]
    joins: tuple[int, ...] = ()
    bad: tuple[tuple[float, int], ...] = ()
    unit: str = "uV"

    @property
    def numbers(self) -> np.ndarray:
        return np.arange(float(self.n))

    def time_s(self, at: float | np.ndarray) -> float | np.ndarray:
        """Of a sample, where 1.5 s passed between two pieces."""
        return at / RATE_HZ + 1.5 * np.searchsorted(sorted(self.joins), np.floor(at), "right")

    def spans_s(self) -> list[tuple[float, float]]:
        """Start and duration of what is marked bad, likewise."""
        starts_s = [(self.time_s(at), self.time_s(at + count)) for at, count in self.bad]
        return [(start_s, stop_s - start_s) for start_s, stop_s in starts_s]


def _fif(take: Take, path: Path) -> Path:
    raw = make_raw(("eeg",), take.n)
    raw._data[0] = take.numbers * 1e-6
    rows = [(at, 0, text) for at, text in take.texts.items()]
    rows += [(join, 0, "EDGE boundary") for join in take.joins]
    rows += [(*span, "bad_blink") for span in take.bad]
    starts, counts, texts = zip(*rows, strict=True)
    spans_s = np.array(starts) / RATE_HZ, np.array(counts) / RATE_HZ
    return save_fif(raw.set_annotations(mne.Annotations(*spans_s, texts)), path)


def _eeglab(take: Take, path: Path) -> Path:
    events = [(text, at + 1) for at, text in take.texts.items()]
    events += [("boundary", join + 0.5) for join in take.joins]
    events += [("bad_blink", at + 1, count) for at, count in take.bad]
    return write_set(path, take.numbers[None], events)


def _brainvision(take: Take, path: Path) -> Path:
    rows = [f"Comment,{text},{at + 1},1,0" for at, text in take.texts.items()]
    rows += [f"New Segment,,{join + 1},1,0" for join in take.joins]
    rows += [f"Bad Interval,Bad Min-Max,{at + 1:.0f},{count},0" for at, count in take.bad]
    return write_brainvision(path.parent, take.numbers[None], rows, take.unit)


def _edf_or_bdf(take: Take, path: Path) -> Path:
    told = [(take.time_s(at), text) for at, text in take.texts.items()]
    told += [(start_s, "bad_blink", duration_s) for start_s, duration_s in take.spans_s()]
    kind = path.suffix[1:].upper() + ("+D" if take.joins else "+C")
    starts_s = take.time_s(take.numbers[:: int(RATE_HZ)])
    return write_edf_plus(path, take.numbers * 10, starts_s, told, kind, take.unit)


def _xdf(take: Take, path: Path) -> Path:
    rows = [(take.time_s(at), text) for at, text in take.texts.items()]
    for start_s, duration_s in take.spans_s():
        rows.append((start_s, json.dumps({"bad": "blink", "duration_s": duration_s})))
    samples = take.numbers[:, None].astype(np.float32)
    stamps_s = take.time_s(take.numbers)
    eeg = (eeg_header(n_channels=1, labels=("Cz",), units=(take.unit,)), 50 + stamps_s, samples)
    markers = (
        MARKER_HEADER,
        np.array([50 + at_s for at_s, _ in rows]),
        [[text] for _, text in rows],
    )
    return write_xdf(path, [eeg, markers])


FORMATS: dict[str, Callable[[Take, Path], Path]] = {
    "_raw.fif": _fif,
    ".set": _eeglab,
    ".vhdr": _brainvision,
    ".edf": _edf_or_bdf,
    ".bdf": _edf_or_bdf,
    ".xdf": _xdf,
}
"""Writes a take to a path with this ending; of BrainVision only the folder counts."""
