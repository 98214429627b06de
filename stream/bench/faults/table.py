"""What live sessions do when something breaks: puts faults in, one a session, and makes a table.

`run_realtime.py bench faults`: a simulated subject is decoded over real LSL while a process is
killed, stands still or gets odd input; then the books are held against what the source has sent.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hvf_core.options import Flag
from hvf_core.specs import read_presets
from stream.bench.faults.session import N_BESIDE, Fault, FaultySession, refuse_elsewhere
from stream.bench.paths import workplace
from stream.pipeline.books.ledger import Record, read_ledger

LOST: Record = {"event": "lost"}
Sent = Sequence[tuple[float, Record]]
"""When each marker was sent, in order, and its end, which may be `LOST`."""
FAULTS = read_presets(Path(__file__).with_name("faults.toml"), Fault)
WINDOW_S = 1.0
_ON_TIME_S = 0.25  # from the window's end to its answer
AS_ASKED = ("unknown_stimulus", "shutdown")  # drops that are no sign of a fault
_HEAD = (
    "| fault | what the operator sees | recovered after, s | trials late | trials dropped "
    "| lost without account | promises |\n" + 7 * "|---" + "|"
)


@dataclass
class Outcome:
    """What became of a session.

    Attributes:
        sees: what a person was told, from the fault on.
        back_s: after which time answers were on time again for good, or the session was over.
        n_late: answers that came later than `_ON_TIME_S` after their window.
        n_lost: markers that were sent and have no end in the ledger.
        broken: promises that were not kept.
    """

    sees: list[str] = field(default_factory=list)
    back_s: float | None = None
    n_late: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    n_lost: int = 0
    broken: list[str] = field(default_factory=list)


def outcome_of(fault: Fault, base: Path) -> Outcome:
    """Runs a session that meets the fault."""
    with FaultySession(fault, base) as session:
        began = session.run()
        return judged(session) if began else _refused(session)


def _refused(session: FaultySession) -> Outcome:
    words = session.said("session.err")
    outcome = Outcome(sees=words[-1:])
    is_refusal = session.fault.may_refuse and session.session.returncode in (1, 2)
    if not is_refusal or len(words) != 1:
        outcome.broken.append("it did not begin, and not for a sentence")
    return outcome


def judged(session: FaultySession) -> Outcome:
    """What became of each marker that was sent, and what that says."""
    fault, records = session.fault, session.records()
    outcome = Outcome(sees=[*_told(records[session.met], str(session.base))])
    if session.session.returncode not in (0, 130, None):
        outcome.sees += session.said("session.err")[-1:]
    met, ends, wrong = accounts(session, records)
    if fault.ends_s is not None:  # what is sent later is sent to a session that is over
        met = [(sent_s, end) for sent_s, end in met if sent_s < session.fault_s]
    judge_trials(outcome, fault, session.fault_s, met)
    outcome.n_lost = sum(end is LOST for _, end in met)
    if fault.ends_s is not None:
        outcome.back_s = session.over_s - session.fault_s
    outcome.broken = [*broken(session, outcome, ends), *wrong]
    return outcome


def accounts(
    session: FaultySession, records: Sequence[Record]
) -> tuple[Sent, list[Record], list[str]]:
    """What was sent with its ends, all ends, and sentences on what has too many of them."""
    onsets_s = {r["trial"]: r["onset_s"] for r in records if r["event"] == "marker"}
    ends = [r for r in records if r["event"] in ("cut", "decoded", "dropped")]
    end_of = {_nanoseconds(onsets_s[end["trial"]]): end for end in ends}
    sent_s, wrong = session.sent_s(), list[str]()
    if n_twice := len(ends) - len(end_of):
        wrong.append(f"{n_twice} markers entered twice")
    if n_strange := len(end_of.keys() - set(map(_nanoseconds, sent_s))):
        wrong.append(f"{n_strange} markers entered that were not sent")
    return [(at_s, end_of.get(_nanoseconds(at_s), LOST)) for at_s in sent_s], ends, wrong


def judge_trials(
    outcome: Outcome,
    fault: Fault,
    fault_s: float,
    met: Sent,
    for_s: float = math.inf,
) -> None:
    """Looks when trials whose windows ended after a fault were on time again, and at the others.

    Args:
        for_s: how long they have to stay on time.
    """
    good_s: list[float] = []
    bad_s = [0.0]
    for sent_s, end in met:
        if sent_s + WINDOW_S <= fault_s:
            continue
        is_good = _is_good(end)
        (good_s if is_good else bad_s).append(
            sent_s - fault_s + WINDOW_S * (fault.back_by == "window_end")
        )
        outcome.n_late += end["event"] == "decoded" and not is_good
        if end["event"] == "dropped":
            outcome.dropped[end["reason"]] += 1
    for bad, next_bad in pairwise([*sorted(bad_s), math.inf]):
        back_s = min((at for at in good_s if at > bad), default=math.inf) if bad else 0.0
        if back_s < math.inf and next_bad >= max(back_s, fault.steps_s) + for_s:
            outcome.back_s = back_s
            return


def _nanoseconds(stamp_s: float) -> int:
    return round(stamp_s * 1e9)


def _is_good(end: Record) -> bool:
    """Whether a trial was answered on time, or ended as it has to."""
    if "stamps" in end:
        return bool(end["stamps"]["published"] - end["stamps"]["window_end"] < _ON_TIME_S)
    return end.get("reason") in AS_ASKED


def _told(records: Sequence[Record], base: str) -> Iterator[str]:
    for record in records:
        if record["event"] == "note":
            yield record["text"].replace(base, "…")
        elif record["event"] == "stream":
            yield f"stream is {record['state']}"


def broken(session: FaultySession, outcome: Outcome, ends: Sequence[Record]) -> Iterator[str]:
    """Promises that a session has not kept, whose trials have these ends."""
    fault, code = session.fault, session.session.poll()
    if session.failure:
        yield session.failure
    limit_s = fault.ends_s or fault.within_s
    if limit_s and not (outcome.back_s is not None and outcome.back_s <= limit_s):
        yield f"not within {limit_s:g} s"
    if outcome.n_lost and fault.leaves:
        yield f"{outcome.n_lost} markers lost"
    if wrong := outcome.dropped.keys() - {*fault.drops, *AS_ASKED}:
        yield f"dropped as {', '.join(sorted(wrong))}"
    if code not in fault.exits:
        yield f"exit status {code}"
    if "Traceback" in "".join(session.said("session.out") + session.said("session.err")):
        yield "a traceback on the screen"
    missing = [name for name in fault.leaves if not (session.folder / name).exists()]
    if missing:
        yield f"no {' and no '.join(missing)}"
    elif "summary.json" in fault.leaves:
        summary = json.loads((session.folder / "summary.json").read_text())
        if summary["markers"] != len({end["trial"] for end in ends}):
            yield "the summary has another sum"
    if left := len(session.left()):
        yield f"{left} processes left"
    # Where this user's sessions say that they run stays, empty.
    if any("hvf-live-" not in p.name or any(p.iterdir()) for p in session.tmp.glob("hvf-*")):
        yield "files left in the temporary folder"
    beside = session.base / "beside" / "ledger.jsonl"
    if beside.exists() and str(read_ledger(beside)).count("'decoded'") != N_BESIDE:
        yield "the other session has not decoded what it has shown"
    for name in (word for word in fault.arguments if word.endswith(".npz")):
        file = session.base / name
        saved = set(np.load(file)["trial"].tolist()) if file.exists() else set()
        if not {end["trial"] for end in ends if end["event"] == "decoded"} <= saved:
            yield "trials that were decoded are not saved"


def row(fault: Fault, outcome: Outcome) -> str:
    """A line of the table."""
    sees = "; ".join(dict.fromkeys(outcome.sees)) or "nothing"
    back = "" if outcome.back_s is None else f"{outcome.back_s:.1f}"
    dropped = ", ".join(f"{n} {why}" for why, n in sorted(outcome.dropped.items()))
    lost = outcome.n_lost if fault.leaves else "its books"
    kept = "; ".join(outcome.broken) or "kept"
    cells = [fault.what, sees, back, outcome.n_late, dropped or 0, lost, kept]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def main(
    only: Annotated[str | None, typer.Option(help="one fault, or several: NAME,NAME")] = None,
    into: Annotated[Path | None, typer.Option(help="a page with this table, for new rows")] = None,
    keep: Annotated[Path | None, typer.Option(help="where the sessions are kept")] = None,
    names: Annotated[bool, Flag("--list", help="Says what faults there are")] = False,
) -> None:
    """Puts every fault into a session of its own, and prints the table; 1 if a promise broke."""
    wanted = only.split(",") if only else list(FAULTS)
    if unknown := set(wanted) - FAULTS.keys():
        raise typer.BadParameter(f"no fault is called '{unknown.pop()}': --list names them all")
    if names:
        for name in wanted:
            typer.echo(f"{name:20}{FAULTS[name].what}")
        return
    refuse_elsewhere()
    rows: dict[str, str] = {}
    is_broken = False
    typer.echo(_HEAD)
    for name in wanted:
        with workplace("faults-", keep) as base:
            outcome = outcome_of(FAULTS[name], base)
        is_broken = is_broken or bool(outcome.broken)
        rows[name] = row(FAULTS[name], outcome)
        typer.echo(rows[name])
    measured = f"Measured with {os.cpu_count()} cores at a load of {os.getloadavg()[2]:.1f}."
    typer.echo(measured)
    if into is not None:
        into.write_text(_with_rows(into.read_text(encoding="utf-8"), rows, measured), "utf-8")
    raise SystemExit(is_broken)


def _with_rows(page: str, rows: Mapping[str, str], measured: str) -> str:
    """The page, whose table has these rows; others stay that it had, and are faults still."""
    before, after = page.partition("| fault |")[0], page.rpartition(" |\n")[2]
    before = re.sub(r"^Measured with .*$", measured, before, flags=re.MULTILINE)
    had = {line.split(" | ")[0]: line for line in page.splitlines() if line.startswith("| ")}
    kept = {name: had.get(f"| {fault.what}") for name, fault in FAULTS.items()}
    lines = [line for name in FAULTS if (line := rows.get(name, kept[name])) is not None]
    return before + "\n".join([_HEAD, *lines]) + "\n" + after
