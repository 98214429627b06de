"""The XDF format, and the whole chunks of a file that was cut short or damaged.

XDF 1.0 (https://github.com/sccn/xdf/wiki/Specifications): four magic bytes, then chunks, each
`[bytes of length: 1, 4 or 8] [length] [tag, uint16] [content]`, little-endian.
"""

import io
import logging
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.text import printable
from stream.acquire.chunk import RESULTS

logger = logging.getLogger(__name__)

MAGIC = b"XDF:"
Tag = IntEnum("Tag", "FILE_HEADER STREAM_HEADER SAMPLES CLOCK_OFFSET BOUNDARY STREAM_FOOTER")

# Readers look for these bytes to find their way back into a damaged file.
BOUNDARY_UUID = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")

STRING = "string"
# What a header says of its stream itself, before anything that describes it.
_TOLD = re.compile(r"<(type|eeg)>([^<]*)</")
_BACK_S = 1.0  # stamps that go back by more are of a clock that began anew
_JUMP_S = 5e-3  # of one measured offset, between two that agree

LENGTH_FORMATS = {1: "<B", 4: "<I", 8: "<Q"}


def whole_chunks(path: str | Path) -> io.BytesIO:
    """The file at `path` without what was cut short or damaged; `pyxdf.load_xdf` takes it.

    pyxdf itself stops with an error where a file ends inside a tag or a clock offset, and makes
    values up where it ends inside the last sample of a chunk.
    """
    data = Path(path).read_bytes()
    position = len(MAGIC)
    chunks = [data[:position]]
    while position < len(data):
        end = _chunk_end(data, position)
        if end is not None and end <= len(data):
            chunks.append(data[position:end])
        else:
            end = _after_next_boundary(data, position)
            name = printable(str(path))
            logger.warning("'%s' is damaged; left out bytes %d to %d", name, position, end)
        position = end
    return io.BytesIO(b"".join(chunks))


def _chunk_end(data: bytes, start: int) -> int | None:
    """Where the chunk at `start` says that it ends, None where there cannot be a chunk."""
    length_size = data[start]
    if length_size not in LENGTH_FORMATS:
        return None
    body = start + 1 + length_size
    return body + int.from_bytes(data[start + 1 : body], "little")


def _after_next_boundary(data: bytes, start: int) -> int:
    found = data.find(BOUNDARY_UUID, start)
    return len(data) if found < 0 else found + len(BOUNDARY_UUID)


def recordings_in(folder: Path) -> list[Path]:
    """The recordings of a session, in the order of time; none where its folder has none.

    recording-2.xdf begins where a stream came back as another, or a recorder was started again.
    """
    return sorted(folder.glob("recording*.xdf"), key=lambda file: (len(file.name), file.name))


def first_stamp_s(path: Path) -> float | None:
    """When the first sample of the EEG in a session's recording was taken, on the reader's clock.

    The file is read no further; None where there is no sample.
    """
    eeg: set[bytes] = set()
    read = b""  # which of them the session has read, where it says so: whatever else is EEG
    offsets_s: dict[bytes, float] = {}
    with path.open("rb") as file, suppress(struct.error, IndexError, ValueError):  # at damage
        file.seek(len(MAGIC))
        while (head := file.read(1)) and (size := head[0]) in LENGTH_FORMATS:
            end = int.from_bytes(file.read(size), "little") + file.tell()
            tag, stream = int.from_bytes(file.read(2), "little"), file.read(4)
            if tag == Tag.STREAM_HEADER:
                header = file.read(end - file.tell()).decode(errors="replace")
                told = dict(reversed(_TOLD.findall(header)))
                if told.get("type") == RESULTS and "eeg" in told:
                    read = int(told["eeg"]).to_bytes(4, "little")
                elif told.get("type", "").lower() == "eeg":
                    eeg.add(stream)
            elif tag == Tag.CLOCK_OFFSET:
                offsets_s.setdefault(stream, struct.unpack("<dd", file.read(16))[1])
            elif tag == Tag.SAMPLES and (stream == read if read else stream in eeg):
                file.seek(file.read(1)[0] + 1, io.SEEK_CUR)  # their number; a stamp follows
                return float(struct.unpack("<d", file.read(8))[0]) + offsets_s.get(stream, 0.0)
            file.seek(end)
    return None


def write_excerpt(path: Path, to: Path, most_bytes: float, n_pieces: int = 6) -> None:
    """Writes a smaller file: of numbers pieces from all over the file, and all else it has.

    Args:
        most_bytes: of numbers, about.
        n_pieces: of them, as far from each other as they can be.

    Raises:
        OSError: a file cannot be read or written.
    """
    n_bytes, texts = path.stat().st_size, set()
    with path.open("rb") as source, to.open("wb") as excerpt:
        excerpt.write(source.read(len(MAGIC)))
        while (start := source.tell()) < n_bytes:
            head = source.read(15)  # a length, a tag, and the number of a stream
            body = 1 + head[0]
            end = start + body + int.from_bytes(head[1:body], "little")
            if head[0] not in LENGTH_FORMATS or end > n_bytes:
                return  # damage: what comes after it is not looked for
            tag, stream = head[body : body + 2], head[body + 2 : body + 6]
            is_samples = int.from_bytes(tag, "little") == Tag.SAMPLES
            is_inside = start % (n_bytes / n_pieces) < most_bytes / n_pieces
            source.seek(start)
            if not is_samples or is_inside or stream in texts:
                chunk = source.read(end - start)
                if f"<channel_format>{STRING}<".encode() in chunk and not is_samples:
                    texts.add(stream)
                excerpt.write(chunk)
            source.seek(end)


def on_one_clock(
    stamps_s: Sequence[float] | np.ndarray,
    times_s: Sequence[float] | np.ndarray,
    offsets_s: Sequence[float] | np.ndarray,
) -> tuple[np.ndarray, tuple[tuple[float, float], ...]]:
    """A stream's stamps, and its clock offsets as (time, offset), on one clock of its sender.

    Where the sender was started again, its stamps and the times of its offsets go back, and the
    offsets say where that is on the recorder's clock, which stays as it is: what comes after is put
    on the clock from before. An offset that jumps for one measurement is left out.

    Args:
        stamps_s: (n,), in the order of the file, as are `times_s` and `offsets_s`.
    """
    stamps_s = np.array(stamps_s, np.float64)
    taken = list(zip(map(float, times_s), map(float, offsets_s), strict=True))
    runs = [_believed(run) for run in _split(taken, [time_s for time_s, _ in taken], 0.0)]
    if len(runs) < 2:
        return stamps_s, tuple(*runs)
    moved, shifts_s = list(runs[0]), [0.0]
    for run in runs[1:]:
        shifts_s.append(run[0][1] - moved[-1][1])
        moved += [(time_s + shifts_s[-1], offset_s - shifts_s[-1]) for time_s, offset_s in run]
    start, at = 0, 0
    for part in _split(stamps_s, stamps_s, _BACK_S):
        # Without a stamp from before, or an offset from after, nothing goes back: the nearest.
        later = range(min(at, len(runs) - 1), len(runs))
        at = min(later, key=lambda k: _distance_s(part, runs[k]))
        stamps_s[start : start + len(part)] = part + shifts_s[at]
        start, at = start + len(part), at + 1
    return stamps_s, tuple(moved)


def _split(values: Any, times_s: Any, back_s: float) -> list[Any]:
    """Parts of `values` at whose beginnings the times go back by more than `back_s`."""
    edges = np.flatnonzero(np.diff(times_s) < -back_s) + 1
    return [values[a:b] for a, b in pairwise([0, *edges.tolist(), len(values)])]


def _believed(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
    around = [*zip(run, run[1:], run[2:], strict=False)]
    odd = {
        here
        for before, here, after in around
        if abs(before[1] - after[1])
        < _JUMP_S
        < min(abs(here[1] - before[1]), abs(here[1] - after[1]))
    }
    return [one for one in run if one not in odd]


def _distance_s(part_s: np.ndarray, run: list[tuple[float, float]]) -> float:
    middle_s = float(np.median(part_s)) if len(part_s) else 0.0
    return max(run[0][0] - middle_s, middle_s - run[-1][0], 0.0)
