"""trials.csv: one row a marker, with what became of it; docs/exports.md describes its columns."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from hvf_core.problem import Problem
from stream.pipeline.books.ledger import Record, read_ledger
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.pipeline.wire.fields import Outcome
from stream.sources.xdf import first_stamp_s, recordings_in

TABLE = "trials.csv"
TrialRow = Mapping[str, Any]
"""What is known of a marker, by columns; what is not known is left out, or None."""
_N_ANSWERS = 5  # that there is always room for: tables of several sessions then fit together
_MARKER = {"trial": int, "onset_s": float, "recording_s": float, "recording": str}
_MARKER |= {"sent_s": float, "marker": str, "stimulus": str, "group": str}
_MARKER |= {"repeat": int, "block": int}
_END = {"fate": str, "reason": str, "detail": str}
_ANSWER = {"rank": int, "calibrated": bool, "abstain": bool, "tmax_s": float, "n_repeats": int}
_ANSWER |= {"n_provisional": int, "latency_ms": float, "residual_s": float, "painted": str}
_STAMPS = ("window_end", "readable", "cut", "received", "embedded", "searched", "published")
# What a spreadsheet would take for a formula; a number is none, nor is a sign alone.
_FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?!(?:\d+\.?\d*)?\Z))")


@dataclass(frozen=True)
class TrialsTable:
    """Columns, with the type of what is in each, and rows in the order of their numbers."""

    columns: Mapping[str, type]
    rows: Sequence[TrialRow]

    def column(self, name: str) -> list[Any]:
        """The values of a column, None where there is none."""
        return [row.get(name) for row in self.rows]


def trials_table(config: SessionConfig, records: Iterable[Record]) -> TrialsTable:
    """The table of a ledger's records."""
    is_timed = not isinstance(config.source, FileSource)  # in virtual time nobody waits
    begun = [(first_stamp_s(file), file.name) for file in recordings_in(config.folder)]
    recordings = [(first_s, name) for first_s, name in begun if first_s is not None]
    rows: dict[int, dict[str, Any]] = {}
    n = _N_ANSWERS
    for record in records:
        event, trial = record["event"], record.get("trial", record.get("of_trial"))
        if trial is None:
            continue
        row = rows.setdefault(trial, {"trial": trial, "n_provisional": 0})
        if event == "marker":
            onset_s, readable_s = record.get("onset_s"), record.get("readable_s")
            row |= _chosen(record, _MARKER) | {"marker_readable_s": readable_s}
            row["marker"] = record.get("text")
            if onset_s is not None and recordings:
                row |= _place_of(onset_s, recordings)
        elif event in get_args(Outcome):
            row |= _chosen(record, _END | _ANSWER) | {"fate": event}
            ids = record.get("ids", ())
            row |= _numbered("answer", ids) | _numbered("probability", record.get("probabilities"))
            row |= _stamps(record.get("stamps", {}), is_timed and event == "decoded")
            n = max(n, len(ids))
        elif event == "provisional":
            row["n_provisional"] += 1
        elif event == "painted":
            row["painted"] = record["file"]
    answers = dict(_answers(n))
    stamps = dict.fromkeys(("marker_readable_s", *map(_stamp, _STAMPS)), float)
    columns = _MARKER | _END | answers | _ANSWER | stamps
    return TrialsTable(columns, [rows[trial] for trial in sorted(rows)])


def write_trials_table(config: SessionConfig) -> None:
    """Writes the table of a session whose ledger is closed into its folder.

    Raises:
        Problem: it cannot be written.
    """
    path = config.folder / TABLE
    draft = path.with_name(f".{TABLE}.draft")
    table = trials_table(config, read_ledger(config.folder / "ledger.jsonl"))
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)  # RFC 4180: commas, quotes where they are needed, CR LF
            writer.writerow(table.columns)
            for row in table.rows:
                writer.writerow(_cell(row.get(name)) for name in table.columns)
        draft.replace(path)
    except OSError as error:
        raise Problem(
            f"'{path}' cannot be written ({error.strerror}): make room, then "
            f"`python run_realtime.py finish {config.folder}`"
        ) from None


def _place_of(onset_s: float, recordings: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """Where an onset is: in the recording that had begun last, or else in the first one.

    Args:
        recordings: the first stamp of each, and its name, in the order of time.
    """
    first_s, name = ([one for one in recordings if one[0] <= onset_s] or recordings[:1])[-1]
    return {"recording_s": onset_s - first_s, "recording": name}


def _chosen(record: Record, columns: Iterable[str]) -> dict[str, Any]:
    return {name: record[name] for name in columns if name in record}


def _numbered(name: str, values: Sequence[Any] | None) -> dict[str, Any]:
    return {f"{name}_{k}": value for k, value in enumerate(values or (), 1)}


def _answers(n: int) -> Iterable[tuple[str, type]]:
    for name, kind in (("answer", str), ("probability", float)):
        yield from ((f"{name}_{k}", kind) for k in range(1, n + 1))


def _stamp(name: str) -> str:
    return f"stamp_{name}_s"


def _stamps(stamps: Mapping[str, float], is_timed: bool) -> dict[str, Any]:
    row = {_stamp(name): stamps[name] for name in _STAMPS if name in stamps}
    if is_timed and {"window_end", "published"} <= stamps.keys():
        row["latency_ms"] = (stamps["published"] - stamps["window_end"]) * 1e3
    return row


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value
