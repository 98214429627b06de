"""The rows of a run as the tables of docs/benchmarks.md."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from stream.bench.machine import header

_COLUMNS = {
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "rested_p50_ms": "p50 after 20 ms, ms",
    "floor_ms": "least, ms",
    "times_floor": "times that",
    "copy_gb_per_s": "copy, GB/s",
    "half_tflops": "float16, TFLOP/s",
    "single_tflops": "float32, TFLOP/s",
    "peak_gib": "allocated, GiB",
    "held_gib": "held, GiB",
    "used_gib": "of the card, GiB",
    "context_gib": "CUDA itself, GiB",
    "fits": "fits a card of",
    "same_top5": "same five as by the CPU",
    "how": "how",
}
"""Of what rows have, what tables show."""


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table for each section, with the columns that it has, and what it was measured on."""
    tables = []
    machine: Mapping[str, Any] = {}
    for section, found in groupby(rows, key=lambda row: row["section"]):
        of_section = list(found)
        machine = of_section[0].get("machine", machine)
        lines = [line for row in of_section for line in _lines(row)]
        tables.append("\n".join([f"### {section}\n", *_table(section, lines)]))
    card = f"{machine.get('card', 'no card')}, torch {machine['torch']}; {header(machine)}"
    return "\n\n".join([f"Measured on {card}.", *tables])


def _lines(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row, or one for each of the conditions in it."""
    parts = {name: value for name, value in row.items() if isinstance(value, Mapping)}
    parts.pop("machine", None)
    own = {name: value for name, value in row.items() if not isinstance(value, Mapping)}
    if not parts:
        yield own
    for name, part in parts.items():
        yield {**own, **part, "what": f"{own['what']}: {name}"}


def _table(section: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = [name for name in _COLUMNS if any(name in line for line in lines)]
    says_why = any("why_not" in line for line in lines)
    head = [section, *(_COLUMNS[name] for name in columns), *(["not measured, as"] * says_why)]
    table = [head, ["---", *["---:"] * len(columns), *(["---"] * says_why)]]
    for line in lines:
        cells = [_shown(line.get(name)) for name in columns]
        table.append([str(line["what"]), *cells, *([str(line.get("why_not", ""))] * says_why)])
    return [f"| {' | '.join(cells)} |" for cells in table]


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
