"""What a ledger tells of a session: its trials, and what happened beside them, in order of time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stream.pipeline.books.ledger import Record, read_ledger

SILENT, ENDED = ("stalled", "lost"), "ended"  # states of a stream
_EARLY_S = 10.0  # before the session, at most; an onset before that is of another clock


@dataclass
class Trial:
    """A marker, and what became of it."""

    number: int
    at_s: float
    """Its onset; where that is not known, that of the trial before."""
    stimulus: str
    group: str
    """Of the repeats that it belongs to."""
    fate: str = "open"
    """`decoded`, `cut` or `dropped`."""
    reason: str = ""
    detail: str = ""
    answer: Record | None = None
    early: list[Record] = field(default_factory=list)
    """Provisional answers."""
    image: Record | None = None
    """Of the last one that was painted."""
    painting: str = "not painted"
    """Why there is none."""
    run: int = 0
    """Of the repeats that its answer is made of: those of one run share EEG."""


class Happened(NamedTuple):
    """Something that is no trial."""

    at_s: float
    kind: str
    """The event of the ledger's record."""
    who: str
    """The stream or node that it is about, or who asked for it."""
    text: str
    until_s: float | None = None


@dataclass(frozen=True)
class Story:
    """A session from its start to its end, in seconds of its clock."""

    trials: Sequence[Trial]
    """By onset."""
    happened: Sequence[Happened]
    start_s: float
    end_s: float
    damage: str
    """A sentence on lines of the ledger that are left out; "" where none is."""

    @property
    def decoded(self) -> list[Trial]:
        """Trials with a final answer."""
        return [trial for trial in self.trials if trial.answer is not None]


class _Clock:
    """When a record was made: by its stamps, else as the one before it."""

    def __init__(self, is_timed: bool):
        self._is_timed = is_timed
        self.first_s, self.newest_s = math.inf, -math.inf

    def of(self, record: Record) -> float:
        # An onset may be of a wrong clock; but of what is played it is the only one.
        names = ("readable_s", "since_s", "stamp_s", "at_s") if self._is_timed else ("onset_s",)
        told = [record[name] for name in names if record.get(name)]
        told += (record.get("stamps") or {}).values() if self._is_timed else []
        self.first_s = min([*told, self.first_s])
        self.newest_s = max([*told, self.newest_s])
        return max(told, default=self.newest_s)


def read_story(folder: Path, is_timed: bool) -> Story:
    """Reads the ledger of a session that is over.

    Args:
        is_timed: whether stamps and clock run together; else records without stamps stand where
            they are in the file.

    Raises:
        Problem: there is no ledger that can be read.
    """
    damage: list[str] = []
    clock = _Clock(is_timed)
    trials: dict[int, Trial] = {}
    happened: list[Happened] = []
    for record in read_ledger(folder / "ledger.jsonl", damage.append):
        at_s = clock.of(record)
        number = record.get("trial", record.get("of_trial"))
        if number is None:
            happened += _told(record, at_s)
            continue
        if number not in trials:
            stimulus = record.get("stimulus") or ""
            group = record.get("group") or stimulus
            trials[number] = Trial(number, record.get("onset_s") or at_s, stimulus, group)
        _add(record, trials[number])
    ordered = sorted(trials.values(), key=lambda trial: (trial.at_s, trial.number))
    number_runs(ordered)
    start_s, end_s = (clock.first_s, clock.newest_s) if clock.first_s < math.inf else (0.0, 0.0)
    heard = [one.at_s for one in happened if one.kind == "listening"]
    start_s = max(start_s, min(heard, default=start_s))  # before it, processes were starting
    start_s = min([start_s, *(t.at_s for t in ordered if t.at_s > start_s - _EARLY_S)])
    for trial in ordered:
        trial.at_s = start_s if math.isinf(trial.at_s) else trial.at_s
    happened = [one._replace(at_s=max(one.at_s, start_s)) for one in happened]
    return Story(ordered, _with_ends(happened, ordered), start_s, end_s, "".join(damage))


def _with_ends(happened: Sequence[Happened], trials: Sequence[Trial]) -> list[Happened]:
    """A stream that is silent to the end, after the last trial was whole, has `ended`."""
    if not trials or trials[-1].fate not in ("decoded", "cut"):
        return list(happened)
    last = {one.who: one for one in happened if one.kind == "stream"}
    over = [h for h in last.values() if h.text in SILENT and h.at_s > trials[-1].at_s]
    return [one._replace(text=ENDED) if one in over else one for one in happened]


def _add(record: Record, trial: Trial) -> None:
    """Adds to a trial what a record tells of it."""
    match record["event"]:
        case "decoded" | "cut" | "dropped" as fate:
            trial.fate = fate
            trial.reason, trial.detail = record.get("reason") or "", record.get("detail") or ""
            trial.answer = record if fate == "decoded" else None
            trial.stimulus = trial.stimulus or record.get("stimulus") or ""
        case "provisional":
            trial.early.append(record)
        case "painted":
            trial.image = record
        case "painting":
            trial.painting = f"{record['state']}: {record.get('detail') or ''}"


def _told(record: Record, at_s: float) -> list[Happened]:
    kind = record["event"]
    match kind:
        case "stream":
            return [Happened(at_s, kind, record.get("name") or "", record.get("state") or "")]
        case "note":
            return [Happened(at_s, kind, record["node"], record.get("text") or "")]
        case "start" | "listening" | "node_lost":
            return [Happened(at_s, kind, record.get("node") or "", kind.replace("_", " "))]
        case "control":
            told = f"{record['verb']} {record['argument']}".strip()
            text = f"{told} ({record['outcome']})"
            return [Happened(at_s, kind, record.get("by") or "", text)]
        case "unheard":
            span = (record["from_s"], record["until_s"])
            return [Happened(span[0], kind, "", "nobody listened to the markers", span[1])]
        case "end":
            return [Happened(at_s, kind, "", f"the session ended ({record['reason']})")]
    return []


def number_runs(trials: Sequence[Trial]) -> None:
    """Answers to a group share EEG until it begins again with its first repeat."""
    n_runs = 0
    last: dict[str, tuple[int, int]] = {}  # of each group: repeats in its last answer, its run
    for trial in trials:
        if trial.answer is not None:
            n_repeats, run = last.get(trial.group, (0, 0))
            if trial.answer["n_repeats"] <= n_repeats or not run:
                n_runs += 1
                run = n_runs
            last[trial.group] = (trial.answer["n_repeats"], run)
            trial.run = run


def n_runs(trials: Sequence[Trial]) -> int:
    """How many runs of repeats these answers come from: as many count as independent."""
    return len({trial.run for trial in trials})
