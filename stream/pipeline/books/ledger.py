"""The ledger: the end of every marker, in a JSON-lines file that survives a crash, and its sum.

At every moment markers = pending + decoded + cut + dropped. `cut` is how a trial ends in a session
without a decoder; in a session with one, markers = decoded + dropped once it is over.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from stream.pipeline.wire.messages import Message, Outcome, flat

Record = dict[str, Any]
"""A line of the ledger: its `event`, the facts that this kind has, and the `trial` that it opens or
ends; of what happens to a trial on its way, the number is `of_trial`."""
_ANSWER = "stimulus n_repeats tmax_s rank ids scores probabilities calibrated abstain stamps"
_IMAGE = "stimulus n_repeats tmax_s provisional seed ip_scale steps size_px strength file stamps"
FACTS: Mapping[str, frozenset[str]] = {
    event: frozenset(names.split())
    for event, names in {
        "start": "session node",
        "marker": "trial stimulus group repeat onset_s readable_s mark",
        "provisional": f"of_trial {_ANSWER}",
        "decoded": f"trial {_ANSWER}",
        "cut": "trial residual_s stamps",
        "dropped": "trial reason detail",
        "painting": "of_trial state detail",
        "painted": f"of_trial {_IMAGE}",
        "stream": "name state age_s",
        "node_lost": "node",
        "note": "node text facts",
        "control": "verb argument by outcome text stamp_s facts",
        "end": "reason",
    }.items()
}
"""The kinds of records, and the facts of each."""


def told(event: str, message: Message) -> Record:
    """The facts of a record that are in a message, but for the trial's number."""
    facts = FACTS[event] - {"trial"}
    return {name: value for name, value in flat(message).items() if name in facts}


class Ledger:
    """The one writer of a session's ledger.

    Outcomes may overtake the announcement of their marker, since the two come by different ways,
    and may come twice, since a trial is sent again to a node that was restarted. Opened on an
    existing file, it goes on where that one ended.

    Args:
        path: of the file.
        entered: is given each record that the file holds, those from before and every further one,
            once it is written: whatever else is counted is counted there.
    """

    def __init__(self, path: Path, entered: Callable[[Record], None] = lambda record: None):
        self.markers = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._pending: dict[int, None] = {}
        self._settled: dict[int, tuple[Outcome, str]] = {}
        self._early: dict[int, tuple[Outcome, dict[str, Any]]] = {}
        self._entered = entered
        for record in _resume(path):
            self._take(record)
        self._file = path.open("a", encoding="utf-8", newline="\n")

    @property
    def pending(self) -> tuple[int, ...]:
        """Numbers of the trials that have no outcome yet."""
        return tuple(self._pending)

    def outcome_of(self, trial: int) -> tuple[Outcome, str] | None:
        """The outcome of a trial and, where it was dropped, the reason; None while it is open."""
        return self._settled.get(trial)

    def announce(self, trial: int, **facts: Any) -> bool:
        """Enters a marker; False if it was entered before."""
        if trial in self._pending or trial in self._settled:
            return False
        self._write({"event": "marker", "trial": trial} | facts)
        if trial in self._early:
            outcome, early_facts = self._early.pop(trial)
            self.settle(trial, outcome, **early_facts)
        return True

    def settle(self, trial: int, outcome: Outcome, **facts: Any) -> bool:
        """Enters the outcome of a trial, or keeps it until its marker is announced.

        False if the trial has an outcome already.
        """
        if trial in self._settled or trial in self._early:
            return False
        if trial not in self._pending:
            self._early[trial] = (outcome, facts)
            return True
        self._write({"event": outcome, "trial": trial} | facts)
        return True

    def note(self, event: str, **facts: Any) -> None:
        """Enters something that is no trial, such as the start of a session or a lost node."""
        self._write({"event": event} | facts)

    def close(self) -> None:
        """Ends the file.

        Raises:
            RuntimeError: an outcome whose marker never came.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._early:
            raise RuntimeError(f"outcomes of trials that no marker announced: {list(self._early)}")

    def _write(self, record: Record) -> None:
        try:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()  # to the system: a killed process loses nothing
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from None
        self._take(record)

    def _take(self, record: Record) -> None:
        """Counts what the file holds."""
        event = record["event"]
        if event == "marker":
            self.markers += 1
            self._pending[record["trial"]] = None
        elif event in get_args(Outcome):
            del self._pending[record["trial"]]
            self._settled[record["trial"]] = (event, record.get("reason", ""))
            self.outcomes[event] += 1
            if event == "dropped":
                self.reasons[record["reason"]] += 1
        if self.markers != len(self._pending) + self.outcomes.total():
            raise RuntimeError(
                f"the ledger does not sum: {self.markers} markers, {len(self._pending)} pending, "
                f"{dict(self.outcomes)}"
            )
        self._entered(record)


def _resume(path: Path) -> Iterator[Record]:
    """The records of a file to go on with. A line that a crash cut short is taken off."""
    if path.exists():
        text = path.read_bytes()
        os.truncate(path, text.rfind(b"\n") + 1)
        yield from map(json.loads, text.split(b"\n")[:-1])


def read_ledger(path: Path) -> list[Record]:
    """The records of a ledger; a last line that a crash cut short is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
