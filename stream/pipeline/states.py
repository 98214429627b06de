"""The states of a session, and the one table of what leads from each to the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto

from stream.pipeline.wire.nodes import PAINT, READER, RESULTS


class State(StrEnum):
    """Where a session is on its way."""

    STARTING = auto()
    RUNNING = auto()
    PAUSED = auto()  # no further trials are opened
    FINISHING = auto()  # no more samples come: the reader waits for the answers that are due
    STOPPING = auto()  # what is open is dropped
    PAINTING = auto()  # all is decoded; the last image may still come
    CLOSING = auto()  # the ledger is closed and the summary written
    CLOSED = auto()


class Event(StrEnum):
    """What happens to a session."""

    READY = auto()  # all nodes that are needed
    WAIT = auto()  # they are, and a person has still to say that it begins
    PAUSE = auto()
    RESUME = auto()
    FINISH = auto()  # the source has ended, or somebody asked for an end in order
    STOP = auto()  # somebody asked for an end now
    READER_OVER = auto()  # and nothing is on its way any more
    PAINTER_OVER = auto()
    BROKEN = auto()  # a node that is needed cannot go on
    TIME_UP = auto()  # the state has lasted for too long
    RESULTS_OVER = auto()  # whoever writes the summary
    SUMMARY = auto()  # the summary is there
    ABORT = auto()  # a person will not wait for it, or there is nothing to be closed any more


_END = dict.fromkeys((Event.SUMMARY, Event.RESULTS_OVER, Event.ABORT), State.CLOSED)
_GOING = _END | {
    Event.FINISH: State.FINISHING,
    Event.STOP: State.STOPPING,
    Event.READER_OVER: State.PAINTING,
    Event.BROKEN: State.CLOSING,
}
_CLOSE = dict.fromkeys((Event.BROKEN, Event.TIME_UP), State.CLOSING)
TABLE: Mapping[State, Mapping[Event, State]] = {
    State.STARTING: _END
    | {
        Event.READY: State.RUNNING,
        Event.WAIT: State.PAUSED,
        Event.STOP: State.CLOSED,
        Event.BROKEN: State.CLOSED,
    },
    State.RUNNING: _GOING | {Event.PAUSE: State.PAUSED},
    State.PAUSED: _GOING | {Event.RESUME: State.RUNNING},
    State.FINISHING: _END
    | _CLOSE
    | {Event.STOP: State.STOPPING, Event.READER_OVER: State.PAINTING},
    State.STOPPING: _END | _CLOSE | {Event.READER_OVER: State.CLOSING},
    State.PAINTING: _END | _CLOSE | {Event.STOP: State.CLOSING, Event.PAINTER_OVER: State.CLOSING},
    State.CLOSING: _END | {Event.TIME_UP: State.CLOSED},
    State.CLOSED: {},
}
"""An event that a state does not name leads nowhere."""

ORDERS: Mapping[State, tuple[tuple[str, str], ...]] = {
    State.RUNNING: (("resume", READER),),
    State.PAUSED: (("pause", READER),),
    State.FINISHING: (("finish", READER),),
    State.STOPPING: (("stop", READER), ("stop", PAINT)),
    State.PAINTING: (("finish", PAINT),),
    State.CLOSING: (("finish", RESULTS),),
}
"""What is said to which node when a state is entered; also to one that is started again later."""


@dataclass(frozen=True)
class Seen:
    """What is seen of a session in one look."""

    moved: bool = False
    """Something came over the bus."""
    ready: bool = False
    """All nodes that are needed, of a session that starts."""
    broken: bool = False
    """One of them cannot go on."""
    over: frozenset[str] = frozenset()
    """Nodes that have come to their end, will not come to one, or are none of the session's."""
    source_ended: bool = False


_QUIET_S = 45.0  # the longest silence on the way to the end
_WAITS_S = {
    State.FINISHING: _QUIET_S,
    State.STOPPING: _QUIET_S,
    State.PAINTING: 5.0,  # after the last answer, for the image that is being painted
    State.CLOSING: _QUIET_S,
}
_MOVE = (State.FINISHING, State.STOPPING)  # these last while something moves


class Lifecycle:
    """A session's state. It knows no clock but the moments, in seconds, that it is given.

    Args:
        paint_wait_s: for the last image, where that is another than usual.
    """

    def __init__(self, now_s: float, paint_wait_s: float | None = None):
        self.state = State.STARTING
        self._since_s = now_s
        self._waits_s = dict(_WAITS_S)
        if paint_wait_s is not None:
            self._waits_s[State.PAINTING] = paint_wait_s

    def can(self, event: Event) -> bool:
        """Whether an event leads anywhere."""
        return event in TABLE[self.state]

    def on(self, event: Event, now_s: float) -> bool:
        """Goes where an event leads to; False if it leads nowhere."""
        if not self.can(event):
            return False
        self.state, self._since_s = TABLE[self.state][event], now_s
        return True

    def events(self, seen: Seen, now_s: float) -> Iterator[Event]:
        """What happens, in turn: each is to have led on before the next is asked for."""
        if seen.broken:
            yield Event.BROKEN
        elif seen.ready:
            yield Event.READY
        if seen.moved:
            if self.state in _MOVE:
                self._since_s = now_s
        elif RESULTS in seen.over:
            yield Event.RESULTS_OVER
        elif READER in seen.over:  # before it is quiet, there are answers to come
            yield Event.READER_OVER
        if seen.source_ended:
            yield Event.FINISH
        if PAINT in seen.over:
            yield Event.PAINTER_OVER
        if now_s - self._since_s > self._waits_s.get(self.state, float("inf")):
            yield Event.TIME_UP
