"""One message as one frame.

A frame is a byte for the kind of its message, by which sockets filter, a little-endian uint32
(length of the header), the header (msgpack: format version `v`, number `seq`, id of the `session`,
the message's fields, and dtype and shape of its array) and the array's bytes. One frame, because
latest-only sockets would lose the rest of a message of several; msgpack and raw bytes, because a
pickle from a socket is a program. docs/bus.md has the table of all kinds.
"""

import struct
from collections.abc import Mapping

import msgpack
import numpy as np

from hvf_core.problem import Problem
from stream.pipeline.wire.messages import NESTED, Message

VERSION = 7
_PREFIX = struct.Struct("<BI")  # kind, length of the header
# What a frame that was changed anywhere can end in; NumPy parses a dtype's name as Python.
_DAMAGE = (struct.error, msgpack.UnpackException, ValueError, KeyError, TypeError, SyntaxError)
KINDS: Mapping[int, type[Message]] = dict(enumerate(Message.__subclasses__(), start=1))
"""By the byte that their frames begin with."""
_NUMBERS = {kind: number for number, kind in KINDS.items()}


def prefix(kind: type) -> bytes:
    """What every frame of a kind of message begins with, and no other."""
    return bytes([_NUMBERS[kind]])


def pack(message: Message, seq: int = 0, session: str = "") -> bytes:
    """The message as one frame; a publisher says its place among its own, and the session."""
    header = dict(vars(message))
    array = header.pop("array", None)
    body = b""
    if array is not None:
        array = np.ascontiguousarray(array)
        header["dtype"] = array.dtype.newbyteorder("<").str
        header["shape"] = array.shape
        body = array.astype(header["dtype"], copy=False).tobytes()
    packed = msgpack.packb(header | {"v": VERSION, "seq": seq, "session": session}, default=vars)
    return _PREFIX.pack(_NUMBERS[type(message)], len(packed)) + packed + body


def unpack(frame: bytes) -> Message:
    """The message in a frame, as `unpack_numbered`."""
    return unpack_numbered(frame)[1]


def unpack_numbered(frame: bytes) -> tuple[int, Message]:
    """The number of a frame, 0 where its sender does not count, and the message in it.

    Its array is a read-only view of the frame.

    Raises:
        Problem: another format version, an unknown kind, or a damaged frame.
    """
    try:
        kind, length = _PREFIX.unpack_from(frame)
        start = _PREFIX.size + length
        header = msgpack.unpackb(frame[_PREFIX.size : start])
        if not isinstance(header, dict):
            raise ValueError("its header is no map")
        version, seq = header.pop("v"), header.pop("seq", 0)
        header.pop("session", None)  # for listeners that are no part of it
        if version != VERSION:
            raise Problem(
                f"a message of format {repr(version)[:40]} arrived, this program speaks format "
                f"{VERSION}; run the same version of hvf-live on every machine of the session"
            )
        if "dtype" in header:
            numbers = np.frombuffer(frame, np.dtype(header.pop("dtype")), offset=start)
            header["array"] = numbers.reshape(header.pop("shape"))
        for name, part in NESTED.items():
            if name in header:
                header[name] = part(**header[name])
        return seq, KINDS[kind](**header)
    except _DAMAGE as error:
        raise Problem(
            f"a frame of {len(frame)} bytes is no message of hvf-live ({repr(error)[:80]}); check "
            "that no other program uses this session's sockets"
        ) from None
