"""Writes XDF files that a killed process, a full disk or a pulled plug leaves readable."""

import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hvf_core.problem import Problem
from stream.sources.xdf import BOUNDARY_UUID, LENGTH_FORMATS, MAGIC, STRING, Tag

BOUNDARY_EVERY_S = 10.0
STAMP_FOLLOWS = 8
NUMBER_TYPES = {"float32": "<f4", "double64": "<f8"}
NUMBER_TYPES |= {f"int{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)}


class XdfWriter:
    """Writes one new XDF file, for one thread; it has to be closed.

    A chunk is handed to the system whole or not at all, so what was written when the process is
    killed opens in any XDF reader; `flush` saves it from a power cut too. What a power cut leaves
    may end inside a chunk: `whole_chunks` gives readers what is before that.

    Raises `Problem` where the file exists already or cannot be written; what was written before
    stays readable. `clock` (seconds, any origin) times the boundary chunks.

    Attributes:
        size_bytes: of the file by now.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.monotonic):
        self._path = Path(path)
        self._clock = clock
        self._streams: dict[int, _Stream] = {}
        self.size_bytes = 0
        with self._named_errors():
            self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        self._append(MAGIC)
        self._append(_chunk(Tag.FILE_HEADER, _xml({"version": 1.0})))
        self._write_boundary()

    def add_stream(self, stream_id: int, header: str) -> None:
        """Announces a stream; must come before its samples.

        `stream_id` is any unused uint32, `header` the XML in which LSL describes a stream
        (`StreamInfo.as_xml`), and is kept as it is. Raises `ValueError` where it is none.
        """
        if stream_id in self._streams:
            raise ValueError(f"stream {stream_id} was added before")
        stream = described(header)
        self._append(_chunk(Tag.STREAM_HEADER, header.encode(), stream_id))
        self._streams[stream_id] = stream

    def write_samples(
        self,
        stream_id: int,
        stamps_s: np.ndarray,
        samples: np.ndarray | Sequence[Sequence[str]],
    ) -> None:
        """Appends n samples as one chunk.

        `stamps_s` is (n,), seconds on the stream's own clock. `samples` is (n, channels) in the
        stream's number type, or n lists of strings. Raises `ValueError` at another shape.
        """
        stream = self._streams[stream_id]
        stamps_s = np.asarray(stamps_s, np.float64)
        if not len(stamps_s):
            return
        content = stream.encode(stamps_s, samples)
        self._append(_chunk(Tag.SAMPLES, _length(len(stamps_s)) + content, stream_id))
        stream.count(stamps_s)
        if self._clock() >= self._next_boundary_s:
            self._write_boundary()

    def write_offset(self, stream_id: int, time_s: float, offset_s: float) -> None:
        """Appends a clock offset, both in seconds.

        At `time_s` on the stream's own clock, the recorder's clock showed `time_s + offset_s`.
        """
        self._append(_chunk(Tag.CLOCK_OFFSET, struct.pack("<dd", time_s, offset_s), stream_id))
        self._streams[stream_id].offsets.append((time_s, offset_s))

    def flush(self) -> None:
        """Returns when everything written so far is on the disk, safe from a power cut."""
        with self._named_errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes the stream footers and closes the file; a second call does nothing."""
        if self._file.closed:
            return
        try:
            for stream_id, stream in self._streams.items():
                self._append(_chunk(Tag.STREAM_FOOTER, stream.footer(), stream_id))
            self.flush()
        finally:
            self._file.close()

    def _write_boundary(self) -> None:
        self._append(_chunk(Tag.BOUNDARY, BOUNDARY_UUID))
        self._next_boundary_s = self._clock() + BOUNDARY_EVERY_S

    def _append(self, data: bytes) -> None:
        start = self._file.tell()
        rest = memoryview(data)
        with self._named_errors():
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                # A full disk takes the first part of a chunk; without the rest it would hide
                # every chunk that is written after space was made.
                self._file.seek(start)
                self._file.truncate()
                raise
        self.size_bytes = start + len(data)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise Problem(
                f"the recording '{self._path}' exists already and is not overwritten; "
                "move it away or name another file"
            ) from None
        except OSError as error:
            raise Problem(
                f"the recording '{self._path}' cannot be written ({error.strerror}); "
                "choose a folder that can be written to and has space"
            ) from error


def free_path(path: Path) -> Path:
    """The path, or where something is there NAME-2.xdf and so on: no recording is overwritten."""
    free, n = path, 1
    while free.exists():
        n += 1
        free = path.with_stem(f"{path.stem}-{n}")
    return free


@dataclass
class _Stream:
    """A stream of the file, and what its footer will say."""

    n_channels: int
    number_type: str | None
    """None: its samples are strings."""
    sample_count: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    offsets: list[tuple[float, float]] = field(default_factory=list)

    def encode(self, stamps_s: np.ndarray, samples: np.ndarray | Sequence[Sequence[str]]) -> bytes:
        n_samples, n_channels = len(stamps_s), self.n_channels
        if self.number_type is None:
            if len(samples) != n_samples or any(len(values) != n_channels for values in samples):
                raise ValueError(f"expected {n_samples} samples of {n_channels} strings")
            return b"".join(map(_string_sample, stamps_s, samples))
        if np.shape(samples) != (n_samples, n_channels):
            raise ValueError(f"expected {(n_samples, n_channels)} samples, not {np.shape(samples)}")
        data = ("data", self.number_type, (n_channels,))
        records = np.empty(n_samples, [("flag", "u1"), ("stamp", "<f8"), data])
        records["flag"] = STAMP_FOLLOWS
        records["stamp"] = stamps_s
        np.copyto(records["data"], samples, casting="same_kind")
        return records.tobytes()

    def count(self, stamps_s: np.ndarray) -> None:
        if not self.sample_count:
            self.first_s = float(stamps_s[0])
        self.last_s = float(stamps_s[-1])
        self.sample_count += len(stamps_s)

    def footer(self) -> bytes:
        facts: dict[str, float] = {"sample_count": self.sample_count}
        if self.sample_count:
            facts |= {"first_timestamp": self.first_s, "last_timestamp": self.last_s}
        if self.last_s > self.first_s:
            facts["measured_srate"] = (self.sample_count - 1) / (self.last_s - self.first_s)
        offsets = "".join(
            f"<offset><time>{at_s}</time><value>{value_s}</value></offset>"
            for at_s, value_s in self.offsets
        )
        return _xml(facts, f"<clock_offsets>{offsets}</clock_offsets>")


def described(header: str) -> _Stream:
    """The stream of a header. Raises `ValueError` where it describes none that can be written."""
    try:
        told = ElementTree.fromstring(header)
        n_channels = int(told.findtext("channel_count", ""))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"a header that describes no stream ({error})") from None
    channel_format = told.findtext("channel_format", "")
    if channel_format != STRING and channel_format not in NUMBER_TYPES:
        raise ValueError(f"samples of the format '{channel_format}' cannot be written")
    return _Stream(n_channels, NUMBER_TYPES.get(channel_format))


def _string_sample(stamp_s: float, values: Sequence[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return struct.pack("<Bd", STAMP_FOLLOWS, stamp_s) + b"".join(
        _length(len(value)) + value for value in encoded
    )


def _chunk(tag: int, content: bytes, stream_id: int | None = None) -> bytes:
    address = b"" if stream_id is None else struct.pack("<I", stream_id)
    body = struct.pack("<H", tag) + address + content
    return _length(len(body)) + body


def _length(number: int) -> bytes:
    size = next(size for size in LENGTH_FORMATS if number < 256**size)
    return struct.pack("<B", size) + struct.pack(LENGTH_FORMATS[size], number)


def _xml(numbers: Mapping[str, float], more: str = "") -> bytes:
    said = "".join(f"<{name}>{number}</{name}>" for name, number in numbers.items())
    return f'<?xml version="1.0"?><info>{said}{more}</info>'.encode()
