"""What a ledger tells, as messages for programs outside; docs/results.md is their table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from hvf_core.problem import Problem
from index.gallery import Gallery
from stream.pipeline.books.ledger import Record
from stream.pipeline.galleries import open_accepted
from stream.pipeline.outputs.blind import record_left
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.pipeline.wire.orders import changed

FORMAT = 1
"""Of the messages: it goes up with a change that who knows the one before would misread."""
Told = Mapping[str, Any]
"""A message: `event`, `n`, and the facts of this kind."""
ENDS = ("decoded", "cut", "dropped")
_STATES = {"starting": "starting", "running": "ready", "paused": "paused"}
_FLOWS = ("streaming", "recovered")
_MARKER = ("sent_s", "onset_s", "stimulus", "group", "repeat", "block")
_ANSWER = ("ids", "scores", "probabilities", "calibrated", "abstain", "rank", "n_repeats", "tmax_s")


class Story:
    """Turns the records of a ledger, in their order, into messages, which are numbered from 1 on.

    The same records give the same messages, whoever reads them: the numbers of a node that was
    started again are those of the one before.

    Args:
        config: of the session as it began.

    Attributes:
        n: number of the last message.
        is_over: whether that was the last one of all.
    """

    def __init__(self, config: SessionConfig):
        self.n, self.is_over = 0, False
        self._config, self._is_blind = config, config.outputs.blind
        self._is_timed = not isinstance(config.source, FileSource)  # else nobody waits
        self._galleries = _gallery_of(config)
        self._state = "starting"
        self._open: dict[int, Record] = {}  # markers without an end
        self._early: defaultdict[int, list[Record]] = defaultdict(list)  # before their marker
        self._lost: set[str] = set()  # streams

    def hello(self, at_s: float) -> Told:
        """What is said to whoever has just come."""
        return self._message("hello", at_s) | {"state": self._state}

    def told(self, at_s: float, record: Record) -> Iterator[Told]:
        """The messages of a record, of which most have none.

        Args:
            at_s: when it was entered.
            record: of the ledger.
        """
        if record["event"] == "control" and record["outcome"] == "done":
            with suppress(Problem):  # a gallery that is gone: answers have no places in it
                self._config = changed(self._config, record["verb"], record["argument"])
                # An answer that is on its way may be of the one before.
                self._galleries = (*_gallery_of(self._config), *self._galleries[:1])
        for event, facts in self._facts(record_left(record) if self._is_blind else record):
            self.n += 1
            yield self._message(event, at_s) | facts

    def _message(self, event: str, at_s: float) -> dict[str, Any]:
        told = {"format": FORMAT, "session": self._config.session, "n": self.n}
        return told | {"event": event, "at_s": at_s}

    def _facts(self, record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
        match record:
            case {"event": "marker", "trial": trial}:
                self._open[trial] = record
                for answer in self._early.pop(trial, ()):
                    yield "provisional", self._answer(trial, answer)
            case {"event": "provisional", "of_trial": trial} if trial in self._open:
                yield "provisional", self._answer(trial, record)
            case {"event": "provisional", "of_trial": trial}:
                self._early[trial].append(record)
            case {"event": "decoded", "trial": trial}:
                yield "decoded", self._answer(trial, record)
                self._open.pop(trial, None)
            case {"event": "cut" | "dropped" as event, "trial": trial}:
                names = ("residual_s", "stamps") if event == "cut" else ("reason", "detail")
                yield event, self._marker(trial) | {name: record.get(name) for name in names}
                self._open.pop(trial, None)
            case {"event": "session", "state": state}:
                before, self._state = self._state, _STATES.get(state, "ending")
                if self._state != before and self._state in ("ready", "paused"):
                    yield self._state, {}
            case {"event": "stream", "name": name, "state": "lost"} if name not in self._lost:
                self._lost.add(name)
                yield "lost", {"stream": name, "age_s": record.get("age_s")}
            case {"event": "stream", "name": name, "state": state} if name in self._lost:
                if state in _FLOWS:
                    self._lost.remove(name)
                    yield "back", {"stream": name, "age_s": record.get("age_s")}
            case {"event": "unheard"}:
                yield "unheard", {name: record[name] for name in ("from_s", "until_s")}
            case {"event": "end"}:
                self.is_over = True
                yield "ended", {"reason": record["reason"]}

    def _marker(self, trial: int) -> dict[str, Any]:
        marker = self._open.get(trial, {})  # the ledger may have lost its line
        told = {"trial": trial, "marker": marker.get("text")}
        return told | {name: marker.get(name) for name in _MARKER}

    def _answer(self, trial: int, record: Record) -> dict[str, Any]:
        stamps, places = record["stamps"], [self._place(id_) for id_ in record["ids"]]
        latency_ms = None
        if self._is_timed and "published" in stamps:  # a ledger from before may be damaged
            latency_ms = (stamps["published"] - stamps["window_end"]) * 1e3
        return (
            self._marker(trial)
            | {name: record.get(name) for name in _ANSWER}
            | {
                "labels": [label for label, _ in places],
                "numbers": [number for _, number in places],
                "confidence": record["probabilities"][0],
                "provisional": record["event"] == "provisional",
                "latency_ms": latency_ms,
                "stamps": stamps,
            }
        )

    def _place(self, id_: str) -> tuple[str | None, int | None]:
        """Label and number of an image."""
        for gallery in self._galleries:
            if (row := gallery.row_of(id_)) is not None:
                return gallery.labels[row], row + 1
        return None, None


def _gallery_of(config: SessionConfig) -> tuple[Gallery, ...]:
    return (open_accepted(config),) if config.gallery is not None else ()
