"""The XDF format, and the whole chunks of a file that was cut short or damaged.

XDF 1.0 (https://github.com/sccn/xdf/wiki/Specifications): four magic bytes, then chunks, each
`[bytes of length: 1, 4 or 8] [length] [tag, uint16] [content]`, little-endian.
"""

import io
import logging
from enum import IntEnum
from pathlib import Path

logger = logging.getLogger(__name__)

MAGIC = b"XDF:"
Tag = IntEnum("Tag", "FILE_HEADER STREAM_HEADER SAMPLES CLOCK_OFFSET BOUNDARY STREAM_FOOTER")

# Readers look for these bytes to find their way back into a damaged file.
BOUNDARY_UUID = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")

STRING = "string"
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
            logger.warning("'%s' is damaged; left out bytes %d to %d", path, position, end)
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
