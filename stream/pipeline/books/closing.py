"""How a session's folder is made whole once it is over: books, saved trials, table, report."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.pipeline.books.ledger import Ledger, Record, told
from stream.pipeline.books.summary import Tally, read_summary, write_summary
from stream.pipeline.books.trial_file import complete, numbers_of
from stream.pipeline.books.trials_table import TABLE, write_trials_table
from stream.pipeline.galleries import open_accepted
from stream.pipeline.report.page import REPORT, write_report
from stream.pipeline.wire.config import KEPT, SessionConfig
from stream.pipeline.wire.messages import MarkerSeen
from stream.pipeline.wire.nodes import READER, RECORD, SOURCE, SUPERVISOR
from stream.pipeline.wire.orders import changed
from stream.pipeline.witness import FAILED, LOST, Attendance, last_announced, read_parting


class Made(NamedTuple):
    """A session's folder that is whole by now."""

    summary: Mapping[str, Any]
    was_whole: bool
    """Whether nothing was missing."""
    said: Sequence[str]
    """Of what was missing."""
    failure: str | None
    """What could not be made, though the books are closed."""


def make_whole(config: SessionConfig, detail: str, end: str = LOST, why: str | None = None) -> Made:
    """Closes books that are open, and makes what is missing of saved trials, table and report.

    Args:
        config: of a session none of whose processes lives.
        detail: why trials without an end are dropped.
        end: "stop" where somebody has asked for the end.
        why: the session failed; the summary tells it.

    Raises:
        Problem: the books cannot be closed.
    """
    said: list[str] = []
    failures: list[str] = []
    summary = read_summary(config.folder)
    if summary is None:
        summary, n_open = _close_books(config, detail, end)
        said.append(f"the books are closed; trials without an end, dropped ({detail}): {n_open}")
    is_told = why is None or summary.get("failure") == why
    if not is_told:
        summary |= {"end": FAILED, "failure": why}
        try:
            write_summary(config.folder, summary)
        except OSError as error:
            failures.append(f"summary.json does not say that the session failed ({error.strerror})")
    try:
        summary = _save_trials(config, summary, said, failures)
    except Problem as problem:
        failures.append(str(problem))
    is_there = all((config.folder / name).is_file() for name in (TABLE, REPORT))
    was_whole = is_told and not (said or failures) and is_there
    if not was_whole:
        failures += summary.get("ledger_faults", ())
        try:
            write_pages(config, summary)
        except Problem as problem:
            failures.append(str(problem))
    shutil.rmtree(config.folder / KEPT, ignore_errors=True)  # nobody will go on from it
    return Made(summary, was_whole, said, "; ".join(failures) or None)


def begin_books(config: SessionConfig) -> None:
    """Begins the ledger of a session that ended before its results node could.

    Raises:
        Problem: it cannot be written.
    """
    path = config.folder / "ledger.jsonl"
    if not path.exists():
        with _room_for(config):
            ledger = Ledger(path)
            ledger.note("start", session=config.session, node=SUPERVISOR, at_s=local_clock())
            ledger.close()


def write_pages(config: SessionConfig, summary: Mapping[str, Any]) -> None:
    """Writes what is made of closed books for people and programs: the table and the report."""
    write_trials_table(config)
    write_report(config, summary)


def _save_trials(
    config: SessionConfig, summary: dict[str, Any], said: list[str], failures: list[str]
) -> dict[str, Any]:
    """Makes the file of the trials, once; the summary that says so."""
    if config.save_trials is None or summary.get("saved_trials") is not None:
        return summary
    # Sessions of before have not entered it.
    if "saved_trials" not in summary and not numbers_of(config.folder):
        return summary
    saved = complete(config.folder, config.save_trials, config.session)
    if saved is None:
        return summary
    said.append(str(saved))
    if saved.n_lost:
        failures.append(f"trials that were cut are not in the file: {saved}")
    facts = {"path": str(saved.path), "n": saved.n, "n_lost": saved.n_lost}
    summary = summary | {"saved_trials": facts}
    with _room_for(config):
        write_summary(config.folder, summary)
    return summary


def lost(summary: Mapping[str, Any]) -> str | None:
    """What a session has lost by its own fault, in a sentence."""
    n, unheard_s = summary["dropped"].get("node_lost", 0), summary.get("unheard_s", ())
    said = []
    if n:
        said.append(f"{n} of {summary['markers']} trials were lost (node_lost)")
    if unheard_s:
        deaf_s = sum(until_s - from_s for from_s, until_s in unheard_s)
        said.append(f"nobody listened to the markers for {deaf_s:.1f} s")
    if not said:
        return None
    return f"{' and '.join(said)}, as a process of the session ended; look into its log"


def _close_books(config: SessionConfig, detail: str, end: str) -> tuple[dict[str, Any], int]:
    """Ends what is open in the ledger, and writes the summary; how many trials were open."""
    records: list[Record] = []
    with _room_for(config):
        ledger = Ledger(config.folder / "ledger.jsonl", records.append)
        for message in _announced(config):
            ledger.announce(message.about.trial, **told("marker", message))
        pending = ledger.pending
        for trial in pending:
            reason = "shutdown" if end == "stop" else "node_lost"
            ledger.settle(trial, "dropped", reason=reason, detail=detail)
        ends = [record["reason"] for record in records if record["event"] == "end"]
        if not ends:
            if (span := _unheard(config)) is not None:
                ledger.note("unheard", from_s=span[0], until_s=span[1])
            ledger.note("end", reason=end)
        ledger.close()
        notices = [
            record.get("text", "")
            for record in records
            if record["event"] == "note" and record["node"] in (SOURCE, READER, RECORD)
        ]
        faults = ledger.faults(numbers_of(config.folder))
        if not any(record["event"] == "start" for record in records):
            faults.append("the ledger has lost its beginning")
        summary = _tally(config, records).summary(ledger, [*ends, end][0], faults)
        summary["streams"] = {"notices": notices}
        write_summary(config.folder, summary)
    return summary, len(pending)


@contextmanager
def _room_for(config: SessionConfig) -> Iterator[None]:
    """Says what is to be done where the books cannot be written."""
    try:
        yield
    except OSError as error:
        raise Problem(
            f"the books of the session cannot be closed ({error.strerror}: '{error.filename}'): "
            f"make room, then `python run_realtime.py finish {config.folder}`"
        ) from None


def _announced(config: SessionConfig) -> Iterator[MarkerSeen]:
    """What readers have announced, and perhaps told to no results node."""
    for path in config.kept(READER).parent.glob(f"{READER}-*"):
        yield from last_announced(path)


def _unheard(config: SessionConfig) -> tuple[float, float] | None:
    """From when until the session left for its end nobody is known to have heard its markers."""
    parting = read_parting(config.kept("parting"))
    since_s = Attendance(config.kept("attendance")).until_s
    return (since_s, parting.at_s) if parting is not None and since_s < parting.at_s else None


def _tally(config: SessionConfig, records: Sequence[Record]) -> Tally:
    """All that was entered, added up; what the session was told to change is changed."""
    for record in records:
        if record["event"] == "control" and record["outcome"] == "done":
            config = changed(config, record["verb"], record["argument"])
    tally = Tally(config, len(open_accepted(config)) if config.gallery else 0)
    for record in records:
        tally.count(record)
    return tally
