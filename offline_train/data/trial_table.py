"""The table of a trial set: what is known of each trial, a column at a time.

A column keeps every name once and a number for each trial, so that a table of a million trials is
some arrays, not millions of objects.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hvf_core.problem import Problem
from hvf_core.text import some_of

ColumnName = Literal["stimulus", "subject", "session", "run", "split", "image", "category"]
"""`image` is the picture's path in the data set, `category` its concept or class."""

_NAMES = "names of "  # beside a column's numbers in the file


@dataclass(frozen=True, eq=False)
class Column:
    """One value for each trial, or None where it is not known."""

    names: tuple[str, ...]
    """Every value that there is, once, and perhaps some that no trial has."""
    codes: np.ndarray
    """int32 (trials,): where in `names` a trial's value is, -1 where it is not known."""

    @classmethod
    def of(cls, values: Iterable[str | None]) -> "Column":
        """The column with these values."""
        places: dict[str | None, int] = {None: -1}
        codes = [places.setdefault(value, len(places) - 1) for value in values]
        names = tuple(value for value in places if value is not None)
        return cls(names, np.array(codes, np.int32))

    @property
    def values(self) -> tuple[str | None, ...]:
        """The value of each trial."""
        return tuple(np.array([*self.names, None], object)[self.codes])

    def at(self, row: int) -> str | None:
        """The value of one trial."""
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else None

    @property
    def present(self) -> set[str]:
        """The values that trials have."""
        return {self.names[code] for code in np.unique(self.codes) if code >= 0}


Table = Mapping[ColumnName, Column]
"""The columns that are known."""


def shown_by_split(table: Table) -> dict[str | None, dict[str, str]]:
    """The stimuli of each split, with their concepts: their categories, or else they themselves."""
    stimulus, split, category = (table.get(name) for name in ("stimulus", "split", "category"))
    if stimulus is None or split is None:
        return {}
    shown: dict[str | None, dict[str, str]] = {}
    _, rows = np.unique([split.codes, stimulus.codes], axis=1, return_index=True)
    for row in rows.tolist():
        name, concept = stimulus.at(row) or "", category and category.at(row)
        shown.setdefault(split.at(row), {})[name] = concept or name
    return shown


def check_splits(shown: Mapping[str | None, Mapping[str, str]]) -> None:
    """Refuses splits that share a stimulus or a concept, of which whoever learnt one knows more.

    Args:
        shown: the concept of each stimulus of each split, as `shown_by_split` gives it.
    """
    learnt = {**shown.get(None, {}), **shown.get("train", {})}
    concepts = set(learnt.values())
    for split, stimuli in shown.items():
        if split in (None, "train"):
            continue
        if again := sorted(learnt.keys() & stimuli.keys()):
            raise Problem(
                f"{len(again)} of the {len(stimuli)} stimuli of the split '{split}' are in "
                f"training too ({some_of(again)}): a model would be asked for what it has learnt; "
                "take them out of one of both or, where stimuli are classes, give --classes"
            )
        if leaks := {name: concept for name, concept in stimuli.items() if concept in concepts}:
            named = sorted(f"{concept}: {name}" for name, concept in leaks.items())
            raise Problem(
                f"{len(leaks)} of the {len(stimuli)} images of the split '{split}' are of "
                f"{len({*leaks.values()})} concepts that training shows too ({some_of(named)}): "
                "other images of a concept tell what it looks like; take these concepts out of "
                "training or, where stimuli are classes, give --classes"
            )


def write_table(path: Path, table: Table) -> None:
    """Writes a table as .npz, without pickle."""
    arrays: dict[str, Any] = {name: column.codes for name, column in table.items()}
    arrays |= {_NAMES + name: np.array(column.names, str) for name, column in table.items()}
    np.savez_compressed(path, **arrays)


def read_table(path: Path) -> Table:
    """Reads what `write_table` wrote.

    Raises:
        ValueError: it is no table of numbers, each the place of a name.
        KeyError: a column has no names.
    """
    with np.load(path, allow_pickle=False) as arrays:
        table = {
            name: Column(tuple(arrays[_NAMES + name].tolist()), arrays[name])
            for name in arrays
            if not name.startswith(_NAMES)
        }
    for name, column in table.items():
        codes, n_names = column.codes, len(column.names)
        is_column = codes.dtype == np.int32 and codes.ndim == 1
        if not is_column or not ((codes >= -1) & (codes < n_names)).all():
            raise ValueError(f"the {name} of its trials is not among the {n_names} names")
    return table
