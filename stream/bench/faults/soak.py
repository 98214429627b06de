"""A long session of RSVP that meets the faults of the fault bench at random moments.

`run_realtime.py bench soak`: the faults that can come among others come one after the other, each
once before any comes again, in an order and at moments that a seed decides. Each is promised the
same as alone (`docs/reliability.md`); of the whole session it is promised that every marker ends
once, that its recordings lack nothing, and that its processes do not grow. Ctrl-C, or another wish
that it end, ends the session, and what was so far is told.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hvf_core.problem import Problem
from hvf_core.screen import Screen
from stream.acquire.lsl import local_clock
from stream.bench.endurance.promises import Promise, all_kept, append_json, is_flat, table
from stream.bench.faults.recordings import Span, recorded
from stream.bench.faults.session import Fault, FaultySession, refuse_elsewhere
from stream.bench.faults.table import (
    AS_ASKED,
    FAULTS,
    LOST,
    WINDOW_S,
    Outcome,
    accounts,
    broken,
    judge_trials,
)
from stream.bench.faults.watch import Watch
from stream.bench.machine import header, load, machine
from stream.bench.paths import check_file, workplace
from stream.pipeline.wire.nodes import PAINT

SOA_S = 0.1
AMONG_OTHERS = {n: f for n, f in FAULTS.items() if f.steps and f.ends_s is None and not f.alone}
_GAP_S = (5.0, 25.0)  # from when a fault has to be over to the next one
_HOLD_S = 2.0  # answers are on time again once they were for so long
_MARGIN_S = 1.0  # what a process had not handed on when it was killed, or not got when it was back
_LOOKS = 2000  # at the processes, at most; not more than one a second


@dataclass
class Met:
    """A fault that was put in, when, why it could not be, and what became of it."""

    fault: Fault
    at_s: float
    failure: str = ""
    load: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)


def plan(faults: Sequence[Fault], length_s: float, seed: int) -> Iterator[tuple[float, Fault]]:
    """Which fault comes how many seconds after the beginning."""
    rng = np.random.default_rng(seed)
    at_s = rng.uniform(*_GAP_S)
    while True:
        for nth in rng.permutation(len(faults)):
            over_s = at_s + max(faults[nth].within_s, faults[nth].steps_s) + _HOLD_S
            if over_s > length_s:
                return
            yield at_s, faults[nth]
            at_s = over_s + rng.uniform(*_GAP_S)


class Soak:
    """A session that meets what is planned.

    Attributes:
        met: what it has met so far.
        missing: nodes that were not there when the next fault was to come.
    """

    def __init__(self, session: FaultySession, length_s: float):
        self.session, self.met = session, list[Met]()
        self.missing: list[str] = []
        self._n_planned, self._began_s = 0, local_clock()
        self._watch = Watch(session.session.pid, max(1.0, length_s / _LOOKS))
        self._length_s = length_s

    def run(self, planned: Sequence[tuple[float, Fault]]) -> None:
        """Puts the faults in, and ends the session, however that comes."""
        self._n_planned, self._began_s = len(planned), local_clock()
        try:
            with self._watch as watch:
                names = watch.there()
                for at_s, fault in planned:
                    if not self._is_there_at(self._began_s + at_s):
                        break
                    self.missing += [
                        f"{n} at {at_s:.0f} s" for n in names - watch.there() - {PAINT}
                    ]
                    typer.echo(f"{at_s:8.1f} s  {fault.what}")
                    met = Met(fault, local_clock(), load=load())
                    self.met.append(met)
                    met.failure = self.session.put_in(fault)
                self._is_there_at(self._began_s + self._length_s)
                self.missing += [f"{n} at the end" for n in names - watch.there()]
        finally:
            self.session.do("tell mute markers")
            time.sleep(WINDOW_S + _HOLD_S)  # what is open is answered
            self.session.end()
            self.session.wait_for_end()

    def _is_there_at(self, moment_s: float) -> bool:
        while local_clock() < moment_s and self.session.session.poll() is None:
            time.sleep(min(0.5, max(0.0, moment_s - local_clock())))
        return self.session.session.poll() is None

    def promises(self) -> Iterator[Promise]:
        """What was promised of the session, which is over."""
        session = self.session
        records = session.records()
        sent, ends, wrong = accounts(session, records)
        for met, until_s in zip(self.met, [*(m.at_s for m in self.met[1:]), np.inf], strict=False):
            among = [one for one in sent if met.at_s < one[0] + WINDOW_S <= until_s]
            judge_trials(met.outcome, met.fault, met.at_s, among, _HOLD_S)
        lost = [sent_s for sent_s, end in sent if end is LOST]
        unheard = [(r["from_s"], r["until_s"]) for r in records if r["event"] == "unheard"]
        n_lost = sum(not any(a <= sent_s <= b for a, b in unheard) for sent_s in lost)
        wrong = [f"{n_lost} markers lost"] * bool(n_lost) + wrong
        seen = f"{len(sent)} sent, {len(lost) - n_lost} while nobody listened, which is told"
        yield _promise("every marker ends once", wrong, seen)
        others = [*broken(session, Outcome(), ends)]
        yield _promise("sums, books, exit, nothing left", others, f"{len(ends)} in the ledger")
        yield _promise("faults put in", self._not_put_in(), f"{len(self.met)} of {self._n_planned}")
        seen = f"{max((m.outcome.back_s or 0 for m in self.met), default=0):.1f} s at most"
        yield _promise("back as promised, each", [*self._not_back()], seen)
        yield _promise("trials dropped as promised only", [*self._dropped()], self._n_dropped())
        there = ", ".join(f"{name} {n}" for name, n in self._watch.n_processes.items())
        yield _promise("every node there again", self.missing, f"one after the other: {there}")
        yield self._recorded()
        for name, rows in self._watch.usage().items():
            yield from is_flat(name, rows, SOA_S)

    def _not_put_in(self) -> list[str]:
        return [f"{met.fault.name}: {met.failure}" for met in self.met if met.failure]

    def _not_back(self) -> Iterator[str]:
        for met in self.met:
            back_s, promised_s = met.outcome.back_s, met.fault.within_s
            if back_s is None or back_s > promised_s:
                after = "never" if back_s is None else f"after {back_s:.1f} s"
                where = f"{met.fault.name} at {met.at_s - self._began_s:.0f} s"
                yield f"{where}: {after}, promised {promised_s:g} s (load {met.load:.1f})"

    def _dropped(self) -> Iterator[str]:
        for met in self.met:
            for reason in sorted(met.outcome.dropped.keys() - {*met.fault.drops, *AS_ASKED}):
                where = f"{met.fault.name} at {met.at_s - self._began_s:.0f} s"
                yield f"{where}: {met.outcome.dropped[reason]} {reason}"

    def _n_dropped(self) -> str:
        dropped = sum((met.outcome.dropped for met in self.met), Counter[str]())
        late = sum(met.outcome.n_late for met in self.met)
        return ", ".join([*(f"{n} {why}" for why, n in sorted(dropped.items())), f"{late} late"])

    def _recorded(self) -> Promise:
        """Whether the recordings can be read, and hold all that came while a recorder was there."""
        what = "recordings readable and whole"
        try:
            found = recorded(
                self.session.folder, self.session.said("source.out"), [*self._absences()]
            )
        except Problem as problem:
            return Promise(what, False, str(problem))
        wrong = [
            f"lacks {(end_s - start_s) * 1e3:.0f} ms at {start_s - self._began_s:.1f} s"
            for start_s, end_s in found.lacking
        ]
        wrong += [f"{found.n_twice} samples twice"] * bool(found.n_twice)
        return _promise(what, wrong, f"{found.n_samples} samples in {found.n_files} files")

    def _absences(self) -> Iterator[Span]:
        """When the recorder or the reader was away."""
        for met in self.met:
            if {"KILL record", "KILL reader"} & {*met.fault.steps}:
                away_s = max(met.outcome.back_s or 0.0, met.fault.within_s)
                yield met.at_s - _MARGIN_S, met.at_s + away_s + _MARGIN_S


def _promise(what: str, wrong: Sequence[str], seen: str) -> Promise:
    return Promise(what, not wrong, "; ".join([*wrong, seen]))


def main(
    minutes: Annotated[float, typer.Option(min=0.2, help="how long images are seen")] = 30.0,
    seed: Annotated[int | None, typer.Option(help="of the faults and their moments")] = None,
    only: Annotated[str | None, typer.Option(help="faults to choose from: NAME,NAME")] = None,
    keep: Annotated[Path | None, typer.Option(help="where the session is kept")] = None,
    json: Annotated[Path | None, typer.Option(help="gets all of it, as a line")] = None,
) -> None:
    """Soaks a session in faults, and prints each promise; 1 if one was broken."""
    names = list(AMONG_OTHERS) if only is None else only.split(",")
    if unknown := set(names) - AMONG_OTHERS.keys():
        there = ", ".join(AMONG_OTHERS)
        raise typer.BadParameter(f"'{unknown.pop()}' cannot come among others: {there} can")
    refuse_elsewhere()
    check_file(json)
    seed = time.time_ns() % 2**32 if seed is None else seed
    length_s = 60 * minutes
    planned = [*plan([AMONG_OTHERS[name] for name in names], length_s, seed)]
    facts: dict[str, Any] = {
        "bench": "soak",
        "seed": seed,
        "minutes": minutes,
        "machine": machine(),
    }
    Screen().print(header(facts["machine"]), highlight=False)
    typer.echo(
        f"seed {seed}: {len(planned)} faults in {minutes:g} minutes, an image every {SOA_S} s"
    )
    what = Fault(
        name="soak",
        what="many",
        paints=any(AMONG_OTHERS[name].paints for name in names),
        soa_s=SOA_S,
        play_s=2 * length_s,
        within_s=0,
    )
    with workplace("soak-", keep) as base, FaultySession(what, base) as session:
        if not session.begin():
            raise Problem(
                f"the session did not begin: {' '.join(session.said('session.err')[-1:])}"
            )
        bath = Soak(session, length_s)
        try:
            bath.run(planned)
        finally:  # Ctrl-C leaves what there is
            promises = [*bath.promises()]
            met = [
                {"fault": m.fault.name, "at_s": m.at_s, "load": m.load, "back_s": m.outcome.back_s}
                | {"late": m.outcome.n_late, "dropped": m.outcome.dropped, "failure": m.failure}
                for m in bath.met
            ]
            append_json(json, promises, facts | {"met": met})
            typer.echo(table(promises))
    raise SystemExit(not all_kept(promises))
