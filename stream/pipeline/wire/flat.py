"""A message as one map of all its fields, those of its trial and answer among them."""

import json
from typing import Any, get_type_hints

from stream.pipeline.wire.messages import NESTED, Message, Retrieval


def types_of(kind: type) -> dict[str, Any]:
    """The types of all fields of a message by name, those of its trial and answer among them."""
    types: dict[str, Any] = {}
    for name, type_ in get_type_hints(kind, include_extras=True).items():
        types |= types_of(type_) if name in NESTED else {name: type_}
    return types


def flat(message: Message) -> dict[str, Any]:
    """All fields of a message by name, those of its trial and answer among them."""
    fields: dict[str, Any] = {}
    for name, value in vars(message).items():
        fields |= vars(value) if name in NESTED else {name: value}
    return fields


def as_json(retrieval: Retrieval) -> str:
    """An answer for programs that have LSL only, and for the recording."""
    return json.dumps(flat(retrieval), separators=(",", ":"), ensure_ascii=False)
