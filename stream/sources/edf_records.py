"""What EDF+ and BDF+ say in their annotation signals: when each record began, and what happened.

MNE reads records as if each followed the one before, and passes over what lies after the last of
them; https://www.edfplus.info/specs/edfplus.html has the format.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
"""Signals that hold no samples but texts."""

_COLUMNS = {  # of the header, and their widths in bytes for each signal
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "physical_min": 8,
    "physical_max": 8,
    "digital_min": 8,
    "digital_max": 8,
    "filter": 80,
    "samples": 8,
    "reserved": 32,
}
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14([^\x00]*)\x14")


class Annotation(NamedTuple):
    """What a file says of a moment or a span, in seconds from its first sample on."""

    onset_s: float
    duration_s: float
    text: str


class Records(NamedTuple):
    """Of an EDF+ or BDF+ file.

    Attributes:
        is_discontinuous: EDF+D or BDF+D: time may pass between two records.
        starts_s: of each record (n,), after the first one's; NaN where it does not say.
        annotations: in the order of the file.
    """

    is_discontinuous: bool
    starts_s: np.ndarray
    annotations: list[Annotation]


def text_columns(path: Path, name: str) -> list[str]:
    """A column of the header of EDF and BDF: the text of each signal, an 8-bit one."""
    with path.open("rb") as file:
        n_signals = int(file.read(256)[252:256])
        signals = file.read(n_signals * sum(_COLUMNS.values())).decode("latin-1")
    start, width = 0, _COLUMNS[name]
    for before, its_width in _COLUMNS.items():
        if before == name:
            break
        start += n_signals * its_width
    return [signals[start + width * i :][:width].strip() for i in range(n_signals)]


def edf_records(path: Path) -> Records | None:
    """The records of a file; None for plain EDF and BDF, which say nothing of theirs."""
    data = np.memmap(path, np.uint8, "r")
    head = bytes(data[:256]).decode("latin-1")
    if head[192:196] not in ("EDF+", "BDF+"):
        return None
    labels, counts = text_columns(path, "label"), map(int, text_columns(path, "samples"))
    width = 3 if data[0] == 0xFF else 2  # bytes of a sample
    edges = width * np.cumsum([0, *counts])
    told = [slice(edges[i], edges[i + 1]) for i, name in enumerate(labels) if name in ANNOTATIONS]
    body = data[int(head[184:192]) :]
    records = body[: len(body) // edges[-1] * edges[-1]].reshape(-1, edges[-1])
    starts_s = np.full(len(records), np.nan)
    annotations: list[Annotation] = []
    for number, record in enumerate(records):
        for at in told:
            for onset, duration, texts in _TAL.findall(bytes(record[at])):
                if not texts and np.isnan(starts_s[number]):
                    starts_s[number] = float(onset)
                annotations += [
                    Annotation(float(onset), float(duration or 0), text)
                    for text in texts.decode("utf-8", "replace").split("\x14")
                    if text
                ]
    first_s = starts_s[0] if len(starts_s) and np.isfinite(starts_s[0]) else 0.0
    return Records(
        head[196] == "D",
        starts_s - first_s,
        [one._replace(onset_s=one.onset_s - first_s) for one in annotations],
    )
