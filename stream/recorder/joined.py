"""Recordings one after the other in one XDF file, with a pause wherever two of them meet."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from hvf_core.problem import Problem
from stream.recorder.header import made
from stream.sources.recording import JOIN_PAUSE_S, Recording, offsets_at
from stream.sources.xdf_writer import XdfWriter

_EEG, _MARKERS = 1, 2
_BLOCK = 1 << 14  # samples written at a time


def write_joined(path: Path, name: str, recordings: Iterable[Recording], stop_s: float) -> None:
    """Writes them to a new file, one in memory at a time, until it lasts `stop_s`.

    Time begins with the first sample, on one clock; spans that were marked bad become markers.

    Raises:
        Problem: one has other channels than the first, or another rate; or the disk is full.
    """
    first: Recording | None = None
    begin_s = 0.0
    with closing(XdfWriter(path)) as xdf:
        for one in recordings:
            if first is None:
                first = one
                kind = one.signal(one.channels).kind.upper() or "EEG"
                told = (one.channels, one.kinds, one.units, one.simulated)
                xdf.add_stream(_EEG, made(name, kind, one.rate_hz, "float32", *told, joined=True))
                xdf.add_stream(_MARKERS, made(f"{name}-markers", "Markers", 0.0, "string"))
            _check_alike(one, first)
            eeg_s = one.stamps_s + offsets_at(one.eeg_offsets, one.stamps_s)
            shift_s = begin_s - float(eeg_s[0])
            for start in range(0, len(eeg_s), _BLOCK):
                block = slice(start, start + _BLOCK)
                xdf.write_samples(_EEG, eeg_s[block] + shift_s, one.samples[block])
            offsets_s = offsets_at(one.marker_offsets, [marker.stamp_s for marker in one.markers])
            said = [
                (marker.stamp_s + offset_s, marker.text)
                for marker, offset_s in zip(one.markers, offsets_s.tolist(), strict=True)
            ]
            said = sorted([*said, *((span.start_s, span.text) for span in one.bad_spans)])
            stamps_s = np.array([stamp_s + shift_s for stamp_s, _ in said])
            xdf.write_samples(_MARKERS, stamps_s, [[text] for _, text in said])
            begin_s = float(eeg_s[-1]) + shift_s + 1 / one.rate_hz + JOIN_PAUSE_S
            if begin_s > stop_s:
                break


def _check_alike(one: Recording, first: Recording) -> None:
    for what in ("channels", "units", "rate_hz"):
        has, wanted = getattr(one, what), getattr(first, what)
        if has != wanted:
            raise Problem(
                f"'{one.path}' has other {what} than '{first.path}', {has} and not {wanted}: "
                "one stream cannot be both, play them apart"
            )
