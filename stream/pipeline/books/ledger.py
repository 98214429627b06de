"""The ledger: the end of every marker, in a JSON-lines file that survives a crash, and its sum.

At every moment markers = pending + decoded + cut + dropped. `cut` is how a trial ends in a session
without a decoder; in a session with one, markers = decoded + dropped once it is over.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NotRequired, get_args

from pydantic import TypeAdapter

from hvf_core.problem import Problem, naming
from stream.pipeline.wire.config import NUMBERS, RESERVED
from stream.pipeline.wire.fields import Number, Outcome
from stream.pipeline.wire.flat import flat, types_of
from stream.pipeline.wire.frames import map_of
from stream.pipeline.wire.messages import (
    Controlled,
    MarkerSeen,
    Message,
    Noted,
    Painted,
    PaintingState,
    Retrieval,
    SessionState,
    TrialCut,
    TrialDropped,
)

Record = dict[str, Any]
"""A line of the ledger: its `event`, the facts that this kind has, and the `trial` that it opens or
ends; of what happens to a trial on its way, the number is `of_trial`."""
_ANSWER = "n_repeats* tmax_s* rank* ids* scores probabilities* calibrated* abstain* stamps*"
_IMAGE = "n_repeats tmax_s* provisional* seed* ip_scale steps size_px strength file* stamps*"
_KINDS = {
    "start": "session node at_s",
    "marker": "trial* stimulus group repeat onset_s block readable_s text sent_s mark",
    "provisional": f"of_trial* stimulus {_ANSWER}",
    "decoded": f"trial* stimulus* {_ANSWER}",
    "cut": "trial* residual_s stamps*",
    "dropped": "trial* reason* detail",
    "painting": "of_trial* state* detail",
    "painted": f"of_trial* stimulus {_IMAGE}",
    "stream": "name state age_s at_s",
    "session": "state* at_s",
    "listening": "node* since_s* first",
    "node_lost": "node at_s",
    "unheard": "from_s* until_s*",
    "note": "node* text facts* at_s",
    "control": "verb* argument* by outcome* text stamp_s facts",
    "end": "reason*",
}
"""Who reads a ledger needs facts with a star; of others another version may have more or fewer."""
FACTS: Mapping[str, frozenset[str]] = {
    event: frozenset(names.replace("*", "").split()) for event, names in _KINDS.items()
}
"""The kinds of records, and the facts of each."""
_FROM: Mapping[str, type] = {
    "marker": MarkerSeen,
    "provisional": Retrieval,
    "decoded": Retrieval,
    "cut": TrialCut,
    "dropped": TrialDropped,
    "painting": PaintingState,
    "painted": Painted,
    "note": Noted,
    "control": Controlled,
    "session": SessionState,
}
"""Of what message the facts of a record are; those of others are texts and numbers."""


def _check_of(event: str) -> TypeAdapter[Record]:
    types: dict[str, Any] = dict.fromkeys(("trial", "of_trial", "first"), Number)
    types |= dict.fromkeys(("age_s", "at_s", "since_s", "from_s", "until_s"), float)
    types |= types_of(_FROM[event]) if event in _FROM else {}
    known = {}
    for name in _KINDS[event].split():
        type_ = types.get(name.rstrip("*"), str)
        known[name.rstrip("*")] = type_ if name.endswith("*") else NotRequired[type_ | None]
    return TypeAdapter(map_of(event, known | {"event": str}, "ignore"))


_CHECKS = {event: _check_of(event) for event in FACTS}


def told(event: str, message: Message) -> Record:
    """The facts of a record that are in a message, but for the trial's number."""
    facts = FACTS[event] - {"trial"}
    return {name: value for name, value in flat(message).items() if name in facts}


class Ledger:
    """The one writer of a session's ledger.

    Outcomes may overtake the announcement of their marker, since the two come by different ways,
    and may come twice, since a trial is sent again to a node that was restarted. Opened on an
    existing file, it goes on where that one ended: with what of it is whole.

    Args:
        path: of the file.
        entered: is given each record that the file holds, those from before and every further one,
            once it is written: whatever else is counted is counted there.

    Attributes:
        damage: a sentence on lines of the file that are damaged, and left out; "" where none is.
    """

    def __init__(self, path: Path, entered: Callable[[Record], None] = lambda record: None):
        self.markers = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._pending: dict[int, float] = {}  # when their markers could be read
        self._settled: dict[int, tuple[Outcome, str]] = {}
        self._ends: dict[tuple[Outcome, str], tuple[Outcome, str]] = {}  # of many trials, each once
        self._early: dict[int, tuple[Outcome, dict[str, Any]]] = {}
        self._free: set[range] = set()  # numbers that readers have left free
        self._entered = entered
        n_damaged = 0
        for record in _resume(path):
            if record is None:
                n_damaged += 1
            else:
                self._take(record)
        self.damage = _damage(n_damaged, path)
        self._file = path.open("a", encoding="utf-8", newline="\n")

    @property
    def pending(self) -> tuple[int, ...]:
        """Numbers of the trials that have no outcome yet."""
        return tuple(self._pending)

    def pending_before(self, moment_s: float) -> tuple[int, ...]:
        """Those of them whose marker could be read before a moment."""
        return tuple(trial for trial, at_s in self._pending.items() if at_s < moment_s)

    def outcome_of(self, trial: int) -> tuple[Outcome, str] | None:
        """The outcome of a trial and, where it was dropped, the reason; None while it is open."""
        return self._settled.get(trial)

    def has(self, trial: int) -> bool:
        """Whether the marker of a trial is entered."""
        return trial in self._pending or trial in self._settled

    def has_outcome(self, trial: int) -> bool:
        """Whether a trial has an outcome, or one that waits for its marker."""
        return trial in self._settled or trial in self._early

    def same(self, trial: int, entered: int) -> None:
        """This trial's marker is `entered` under another number, whose outcome it has."""
        self._early.pop(trial, None)
        self._settled[trial] = self._settled[entered]

    def announce(self, trial: int, **facts: Any) -> bool:
        """Enters a marker; False if it was entered before."""
        if self.has(trial):
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
        if self.has_outcome(trial):
            return False
        if trial not in self._pending:
            self._early[trial] = (outcome, facts)
            return True
        self._write({"event": outcome, "trial": trial} | facts)
        return True

    def note(self, event: str, **facts: Any) -> None:
        """Enters something that is no trial, such as the start of a session or a lost node."""
        self._write({"event": event} | facts)

    @property
    def unannounced(self) -> tuple[int, ...]:
        """Numbers of the trials whose outcome came, and whose marker did not; they are no trials
        of the session, as far as it knows, and not in its sums."""
        return tuple(self._early)

    def faults(self, known: Iterable[int] = ()) -> list[str]:
        """Sentences on what it lacks, if anything: its sums are then lower bounds.

        Args:
            known: numbers of trials that were found elsewhere.
        """
        there = self._pending.keys() | self._settled.keys()
        free = (range(NUMBERS + 1, 2**53), *self._free)
        numbers = sorted(n for n in there.union(known) if not any(n in span for span in free))
        # Where a reader was started again, more of them are passed over than may be lacking.
        longest = RESERVED if len(self._free) > 1 else math.inf
        leaps = (after - before - 1 for before, after in pairwise([0, *numbers]))
        n_passed_over = sum(leap for leap in leaps if leap < longest)
        # One that a reader announced late may stand there under a number that was left free.
        n_lacking = n_passed_over + len(numbers) - len(there)
        told = [self.damage] * bool(self.damage)
        if n_lacking > 0:
            markers = "a marker" if n_lacking == 1 else f"{n_lacking} markers"
            told.append(f"the ledger lacks {markers}, as the numbers of the trials show")
        return told

    def close(self) -> None:
        """Ends the file."""
        with naming(self._file.name):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _write(self, record: Record) -> None:
        try:
            line = json.dumps(record, separators=(",", ":"), allow_nan=False)
        except ValueError:  # JSON has no such numbers, as a marker's stamp may be
            record = finite(record)
            line = json.dumps(record, separators=(",", ":"))
        with naming(self._file.name):
            self._file.write(line + "\n")
            self._file.flush()  # to the system: a killed process loses nothing
        self._take(record)

    def _take(self, record: Record) -> None:
        """Counts what the file holds. An outcome whose marker's line is damaged stands for both."""
        event = record["event"]
        if event == "marker" and record["trial"] not in self._settled:
            self.markers += 1
            self._pending[record["trial"]] = record.get("readable_s") or 0.0
        elif event in get_args(Outcome):
            if record["trial"] in self._pending:
                del self._pending[record["trial"]]
            else:
                self.markers += 1
            end = (event, record.get("reason", ""))
            self._settled[record["trial"]] = self._ends.setdefault(end, end)
            self.outcomes[event] += 1
            if event == "dropped":
                self.reasons[record["reason"]] += 1
        elif event == "listening":
            first = record.get("first") or 1
            self._free.add(range(first - RESERVED, first))
        if self.markers != len(self._pending) + self.outcomes.total():
            raise RuntimeError(
                f"the ledger does not sum: {self.markers} markers, {len(self._pending)} pending, "
                f"{dict(self.outcomes)}"
            )
        self._entered(record)


def finite(value: Any) -> Any:
    """The same, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _resume(path: Path) -> Iterator[Record | None]:
    """The lines of a file to go on with. One that a crash cut short is taken off."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
            file.seek(0)
            yield from _records(file)


def _records(lines: Iterable[bytes]) -> Iterator[Record | None]:
    """The record in each whole line; None where it is damaged, or says again what only one can."""
    said: dict[str, set[int]] = {"marker": set(), "outcome": set()}  # of which trials
    for line in lines:
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line.decode())
            event = record["event"]
            _CHECKS[event].validate_python(record)
        except (ValueError, KeyError, TypeError, RecursionError):  # whatever the bytes are
            yield None
            continue
        kind = "outcome" if event in get_args(Outcome) else event
        if kind in said:
            trial = record["trial"]
            record = None if trial in said[kind] else record
            said[kind].add(trial)
        yield record


def _damage(n: int, path: Path) -> str:
    if not n:
        return ""
    what = f"a line of {path.name} is" if n == 1 else f"{n} lines of {path.name} are"
    return f"{what} damaged and left out; what is whole is used"


def read_ledger(path: Path, say: Callable[[str], object] = lambda sentence: None) -> list[Record]:
    """The whole records of a ledger; a last line that a crash cut short is left out.

    Args:
        path: of the file.
        say: hears of lines that are damaged, and left out.

    Raises:
        Problem: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            records = list(_records(file))
    except OSError as error:
        raise Problem(
            f"the ledger '{path}' cannot be read ({error.strerror}); give the folder of a session"
        ) from None
    if damage := _damage(records.count(None), path):
        say(damage)
    return [record for record in records if record is not None]
