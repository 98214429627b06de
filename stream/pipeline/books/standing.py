"""How a session stands, for whoever joins it late: its sums, its last trials, its last messages."""

from collections import deque
from typing import get_args

from stream.pipeline.books.ledger import Ledger, Record
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.fields import Outcome
from stream.pipeline.wire.frames import pack
from stream.pipeline.wire.messages import MarkerSeen, Message, Retrieval, Settled, Snapshot

_TRIALS = 200
"""Outcomes that a snapshot holds; older ones are in the ledger."""
_OF_TRIALS = (MarkerSeen, Retrieval, Settled)
"""Kinds of messages of which a snapshot holds all of these trials."""


class Standing:
    """Follows what is published and what is entered, and keeps a bounded part of it."""

    def __init__(self) -> None:
        self._last: dict[tuple[type, str], tuple[int, Message]] = {}
        self._trials: deque[Record] = deque(maxlen=_TRIALS)
        self._of_trials: deque[tuple[int, Message]] = deque(maxlen=_TRIALS * len(_OF_TRIALS))

    def published(self, seq: int, message: Message) -> None:
        """Takes a message: the last of its kind, and of its node, stream or trial, is kept."""
        is_early = isinstance(message, Retrieval) and message.answer.provisional
        if isinstance(message, _OF_TRIALS) and not is_early:
            self._of_trials.append((seq, message))
            return
        whose = getattr(message, "node", "") or getattr(message, "stream", "")
        self._last[type(message), whose] = (seq, message)

    def entered(self, record: Record) -> None:
        """Takes a record of the ledger."""
        if record["event"] in get_args(Outcome):
            self._trials.append(record)

    def snapshot(self, config: SessionConfig, ledger: Ledger) -> Snapshot:
        """All that was taken so far, in the order in which it was published."""
        numbered = (*self._last.values(), *self._of_trials)
        last = sorted(numbered, key=lambda one: one[0])
        return Snapshot(
            config=config.model_dump(mode="json"),
            markers=ledger.markers,
            pending=len(ledger.pending),
            outcomes=dict(ledger.outcomes),
            reasons=dict(ledger.reasons),
            trials=list(self._trials),
            last=[pack(message, seq, config.session) for seq, message in last],
        )
