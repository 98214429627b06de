"""The table of a trial set: what is known of each trial, a column at a time.

A column keeps every name once and a number for each trial, so that a table of a million trials is
some arrays, not millions of objects.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

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

    @property
    def present(self) -> set[str]:
        """The values that trials have."""
        return {self.names[code] for code in np.unique(self.codes) if code >= 0}


Table = Mapping[ColumnName, Column]
"""The columns that are known."""


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
