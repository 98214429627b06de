"""A ledger as the messages that it was made of, for a session that ran, or was joined late."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from stream.client import (
    AnswerRef,
    Controlled,
    MarkerSeen,
    Message,
    Noted,
    Painted,
    PaintingState,
    Retrieval,
    SessionState,
    Settled,
    TrialRef,
)
from stream.dashboard.board.trials import LabelOf
from stream.pipeline.books.ledger import Record
from stream.pipeline.outputs.blind import WORDS, record_left

_KINDS: dict[str, type[Message]] = {
    "marker": MarkerSeen,
    "provisional": Retrieval,
    "decoded": Retrieval,
    "painting": PaintingState,
    "painted": Painted,
    "note": Noted,
    "control": Controlled,
    "session": SessionState,
}
_USUAL: dict[str, Any] = {"int": 0, "float": 0.0, "bool": False, "bytes": b"", "str": ""}
"""What a fact is that a record has not, by the name of its type."""


def told_by(
    records: Iterable[Record], label_of: LabelOf, *, blind: bool
) -> Iterator[tuple[Message, float]]:
    """The messages of a ledger, and when each came, as far as is known.

    Args:
        records: in the order of the ledger.
        label_of: what people call an image.
        blind: leave out what was shown, as the session's own messages do.
    """
    markers: dict[int, TrialRef] = {}
    n_ended, at_s = 0, 0.0
    for whole in records:
        record = {name: value for name, value in whole.items() if value is not None}
        if blind and (record["event"] != "control" or record["verb"] in WORDS):
            record = record_left(record)
        stamps = [record[name] for name in ("readable_s", "stamp_s", "at_s") if name in record]
        at_s = max([at_s, *stamps])
        event, number = record["event"], record.get("trial", record.get("of_trial", 0))
        if event == "marker" or number not in markers:
            markers[number] = _made(TrialRef, {"trial": number, **record})
        if (kind := _KINDS.get(event)) is not None:
            answer = {"provisional": event == "provisional", **record}
            more = {"about": markers[number], "answer": _made(AnswerRef, answer), "trial": number}
            if kind is Retrieval:
                more["labels"] = [label_of(id_) for id_ in record["ids"]]
                more["confidence"] = record["probabilities"][0]
            yield _made(kind, {**record, **more}), at_s
        if event in ("decoded", "cut", "dropped"):
            n_ended += 1
            ended = {"trial": number, "outcome": event, "reason": record.get("reason", "")}
            yield _made(Settled, {**ended, "markers": n_ended, "pending": 0}), at_s


def _made(kind: type, facts: dict[str, Any]) -> Any:
    """Something of a kind with those of the facts that it has."""
    given = {}
    for one in fields(kind):
        usual = _USUAL.get(str(one.type))
        given[one.name] = facts.get(one.name, {} if usual is None else usual)
    return kind(**given)
