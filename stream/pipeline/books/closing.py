"""How the books of a session are closed where its results node could not close them itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvf_core.problem import Problem
from index.gallery import open_gallery
from stream.pipeline.books.ledger import Ledger, Record
from stream.pipeline.books.summary import Tally
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.nodes import READER, SOURCE
from stream.pipeline.wire.orders import changed

SUMMARY = "summary.json"
_LOST = "lost"  # how a session ended that did not get to say it


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`, whole or not at all."""
    draft = folder / f".{SUMMARY}.draft"
    draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / SUMMARY)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What `summary.json` has; None where a session has not got to its summary."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # a crash has cut it short
        return None
    return found


def close_books(config: SessionConfig, detail: str, end: str = _LOST) -> dict[str, Any]:
    """Ends what is open in the ledger of a session that is over, and writes its summary.

    Trials without an outcome are dropped: as `shutdown` where somebody has ended the session, that
    is `end` is "stop", else as `node_lost`; `detail` says why.

    Raises:
        Problem: the ledger or the summary cannot be written.
    """
    records: list[Record] = []
    path = config.folder / "ledger.jsonl"
    try:
        ledger = Ledger(path, records.append)
        reason = "shutdown" if end == "stop" else "node_lost"
        for trial in ledger.pending:
            ledger.settle(trial, "dropped", reason=reason, detail=detail)
        ends = [record["reason"] for record in records if record["event"] == "end"]
        if not ends:
            ledger.note("end", reason=end)
        ledger.close()
        tally = _tally(config, records)
        notices = [
            record["text"]
            for record in records
            if record["event"] == "note" and record["node"] in (SOURCE, READER)
        ]
        summary = tally.summary(ledger, [*ends, end][0]) | {"streams": {"notices": notices}}
        write_summary(config.folder, summary)
    except OSError as error:
        raise Problem(
            f"the books of the session cannot be closed ({error.strerror}: '{error.filename}'): "
            f"make room, then `run_realtime.py finish {config.folder}`"
        ) from None
    return summary


def lost(summary: Mapping[str, Any]) -> str | None:
    """What a session has lost by its own fault, in a sentence."""
    n = summary["dropped"].get("node_lost", 0)
    if not n:
        return None
    return (
        f"{n} of {summary['markers']} trials were lost with a process of the session that ended "
        "(node_lost); look into its log"
    )


def _tally(config: SessionConfig, records: list[Record]) -> Tally:
    """All that was entered, added up; what the session was told to change is changed."""
    for record in records:
        if record["event"] == "control" and record["outcome"] == "done":
            config = changed(config, record["verb"], record["argument"])
    tally = Tally(config, len(open_gallery(config.gallery)) if config.gallery else 0)
    for record in records:
        tally.count(record)
    return tally
