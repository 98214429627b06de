"""One message as one frame.

A frame is a byte for the kind of its message, by which sockets filter, a little-endian uint32
(length of the header), the header (msgpack: format version `v`, number `seq`, id of the `session`,
the message's fields, and dtype and shape of its array) and the array's bytes. One frame, because
latest-only sockets would lose the rest of a message of several; msgpack and raw bytes, because a
pickle from a socket is a program. docs/bus.md has the table of all kinds.
"""

import struct
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, NotRequired, get_type_hints

import msgpack
import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # which pydantic asks for

from hvf_core.problem import Problem
from hvf_core.specs import first_fault
from stream.pipeline.wire.messages import NESTED, Message, TrialRef

VERSION = 9
_PREFIX = struct.Struct("<BI")  # kind, length of the header
# What a frame that was changed anywhere can end in; NumPy parses a dtype's name as Python.
_DAMAGE = (struct.error, msgpack.UnpackException, ValueError, KeyError, TypeError, SyntaxError)
KINDS: Mapping[int, type[Message]] = dict(enumerate(Message.__subclasses__(), start=1))
"""By the byte that their frames begin with."""
_NUMBERS = {kind: number for number, kind in KINDS.items()}
_typed_dict: Any = TypedDict  # of fields that are known at run time only


def _shape_of(kind: type, **more: Any) -> Any:
    """A dataclass as the map that it is in a header, with `more` in it, for pydantic to check."""
    hints = get_type_hints(kind, include_extras=True) | more
    hints |= {name: _shape_of(part) for name, part in NESTED.items() if name in hints}
    for one in fields(kind):
        if one.default is not MISSING:
            hints[one.name] = NotRequired[hints[one.name]]
    return map_of(kind.__name__, hints, "forbid")


def map_of(name: str, types: Mapping[str, Any], extra: Literal["forbid", "ignore"]) -> Any:
    """A map of strictly these types by name, for pydantic to check; what of an `extra` name."""
    config = ConfigDict(strict=True, extra=extra, arbitrary_types_allowed=True)
    return with_config(config)(_typed_dict(name, dict(types)))


_SENT = {"seq": NotRequired[int], "session": NotRequired[str]}
_CHECKS = {kind: TypeAdapter[dict[str, Any]](_shape_of(kind, **_SENT)) for kind in _NUMBERS}


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


def unpack(frame: bytes, session: str = "") -> Message:
    """The message in a frame, as `unpack_numbered`."""
    return unpack_numbered(frame, session)[1]


def unpack_numbered(frame: bytes, session: str = "") -> tuple[int, Message]:
    """The number of a frame, 0 where its sender does not count, and the message in it.

    Its array is a read-only view of the frame.

    Args:
        frame: as it came.
        session: whose messages alone are wanted; "" where any session's are.

    Raises:
        Problem: another format version, an unknown kind, a field that is none of this kind's or of
            another type, a damaged frame, or a message of another session.
    """
    try:
        kind, length = _PREFIX.unpack_from(frame)
        start = _PREFIX.size + length
        header = msgpack.unpackb(frame[_PREFIX.size : start])
        if not isinstance(header, dict):
            raise ValueError("its header is no map")
        if (version := header.pop("v")) != VERSION:
            raise Problem(
                f"a message of format {repr(version)[:40]} arrived, this program speaks format "
                f"{VERSION}; run the same version of hvf-live on every machine of the session"
            )
        if "dtype" in header:
            numbers = np.frombuffer(frame, np.dtype(header.pop("dtype")), offset=start)
            header["array"] = numbers.reshape(header.pop("shape"))
        header = _CHECKS[KINDS[kind]].validate_python(header)
        seq, senders = header.pop("seq", 0), [header.pop("session", "")]
        for name, part in NESTED.items():
            if name in header:
                header[name] = part(**header[name])
        message = KINDS[kind](**header)
    except _DAMAGE as error:
        why = first_fault(error) if isinstance(error, ValidationError) else repr(error)
        if isinstance(error, struct.error):
            why = f"it is shorter than the {_PREFIX.size} bytes that every frame begins with"
        raise Problem(
            f"a frame of {len(frame)} bytes is no message of hvf-live ({why[:120]}); check that no "
            "other program uses this session's sockets"
        ) from None
    if isinstance(about := header.get("about"), TrialRef):
        senders.append(about.session)
    for sender in senders:
        if session and sender not in (session, ""):
            raise Problem(
                f"a message of the session '{sender[:40]}' arrived in '{session}'; end what sends "
                "it"
            )
    return seq, message
