"""The tables and JSON files of BIDS: tab-separated, UTF-8, n/a for what is not known."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from hvf_core.problem import naming

Column = Mapping[str, Any]
"""What a sidecar says of a column: `Description`, and where they apply `Units` and `Levels`."""


def cell(value: Any) -> str | int | float:
    """A value as it stands in a table: on one line, without tabs, and never empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "".join(map(_kept, value)) or "n/a"
    return "n/a" if value is None else value


def _kept(one: str) -> str:
    """A character, or how Python writes it where it would break a line, a cell or the encoding."""
    return ascii(one)[1:-1] if category(one) in ("Cc", "Cs", "Zl", "Zp") else one


def write_tsv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table; what a row lacks is n/a."""
    names = list(columns)
    lines = [names, *([str(cell(row.get(name))) for name in names] for row in rows)]
    _write(path, "".join("\t".join(line) + "\n" for line in lines))


def read_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a table; none where there is no such file."""
    if not path.is_file():
        return [], []
    head, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    names = head.split("\t")
    return names, [dict(zip(names, line.split("\t"), strict=False)) for line in lines if line]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file."""
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def described(columns: Sequence[str], known: Mapping[str, Column]) -> dict[str, Column]:
    """What is known of these columns."""
    return {name: known[name] for name in columns if name in known}


def _write(path: Path, text: str) -> None:
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
