"""The names of a gallery's images: a line for each in a file, and an index to find one by its id.

`names.jsonl` has an id, a label and the path of an image (or null) in each line. `names.index` has,
for each block of rows, three columns of 64-bit numbers: where each row's line ends, the hashes of
the ids in rising order, and the row of each hash. Both are mapped, so that a million names cost
nothing until they are asked for.
"""

import hashlib
import json
import mmap
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import index
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # which pydantic asks for

from hvf_core.problem import Problem
from hvf_core.specs import first_fault
from index.gallery.manifest import IMAGES, Block

T = TypeVar("T")
COLUMNS = 3
ROW_BYTES = 8 * COLUMNS
_AT_HAND = 4096  # names that are not read again when the next answer holds them
_IMAGE = rf"^{IMAGES}/([0-9]+/)?[^/\\:]*[^/\\:.]$"
"""Below the gallery's folder, and nowhere else."""


class _Line(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    id: str
    label: str
    image: Annotated[str, Field(pattern=_IMAGE)] | None


_LINE = TypeAdapter(_Line)


class Name(NamedTuple):
    """What is known of an image."""

    id: str
    label: str
    image: str | None
    """Path below the gallery's folder."""


def same_id(id_: str) -> str:
    """An id in the one form of Unicode in which ids are compared."""
    return unicodedata.normalize("NFC", id_)


def hash_of(id_: str) -> int:
    """A number by which an id is found; ids may share it."""
    code = same_id(id_).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(code, digest_size=8).digest(), "little")


def line_of(name: Name) -> bytes:
    """A line of `names.jsonl`, which `name_in` reads.

    Raises:
        Problem: id or label are no Unicode, or the image lies elsewhere.
    """
    try:
        line = json.dumps(name._asdict(), ensure_ascii=False).encode() + b"\n"
        name_in(line)
    except UnicodeEncodeError:
        raise Problem(
            f"the id {name.id!a} or the label {name.label!a} is no Unicode: rename it"
        ) from None
    except ValueError as error:
        raise Problem(
            f"the image of {name.id!r} cannot be kept as {name.image!r} ({error}): rename its file"
        ) from None
    return line


def name_in(line: bytes) -> Name:
    """What a line says.

    Raises:
        ValueError: it is none of `line_of`, or its image lies elsewhere.
    """
    try:
        found = _LINE.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"a line is not valid {first_fault(error)}") from None
    return Name(found["id"], found["label"], found["image"])


def index_of(
    hashes: Sequence[int], lengths: Sequence[int], first: int, start: int
) -> NDArray[np.uint64]:
    """A block of `names.index`, (3, n).

    Args:
        hashes: of the ids, row by row.
        lengths: bytes of each line.
        first: the first of these rows.
        start: where its line begins.
    """
    found = np.array(hashes, np.uint64)
    order = np.argsort(found, kind="stable")
    ends = np.fromiter(accumulate(lengths), np.uint64, len(lengths)) + np.uint64(start)
    return np.stack([ends, found[order], order.astype(np.uint64) + np.uint64(first)])


class Names:
    """The names of the rows that count, in their files.

    Raises:
        OSError: a file is missing.
        ValueError: it is shorter than the blocks say.
    """

    def __init__(self, path: Path, index_path: Path, blocks: Sequence[Block]) -> None:
        self._path = path
        self._firsts = [0, *accumulate(block.n for block in blocks)]
        self._starts = [0, *accumulate(block.names_bytes for block in blocks)]
        self._at = lru_cache(_AT_HAND)(self._read)
        with self._path.open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), self._starts[-1], access=mmap.ACCESS_READ)
        index = np.memmap(index_path, "<u8", "r", 0, (COLUMNS * len(self),)).view(np.ndarray)
        self._blocks = [
            index[COLUMNS * first : COLUMNS * (first + block.n)].reshape(COLUMNS, block.n)
            for first, block in zip(self._firsts, blocks, strict=False)
        ]

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, row: int) -> Name:
        return self._at(row)

    def _read(self, row: int) -> Name:
        number = bisect_right(self._firsts, row) - 1
        ends, place = self._blocks[number][0], row - self._firsts[number]
        start = int(ends[place - 1]) if place else self._starts[number]
        return self._name(self._lines[start : int(ends[place])], row)

    def __iter__(self) -> Iterator[Name]:
        for number, block in enumerate(self._blocks):
            start = self._starts[number]
            for row, end in enumerate(block[0].tolist(), self._firsts[number]):
                yield self._name(self._lines[start:end], row)
                start = end

    def rows_of(self, id_: str) -> Iterator[int]:
        """The rows of an id, in either form of Unicode, rising."""
        wanted, code = same_id(id_), np.uint64(hash_of(id_))
        for _, hashes, rows in self._blocks:
            place = int(hashes.searchsorted(code))
            while place < len(hashes) and hashes[place] == code:
                row = int(rows[place])
                if row < len(self) and same_id(self[row].id) == wanted:
                    yield row
                place += 1

    def hashes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """All hashes, and the row of each."""
        hashes = np.concatenate([block[1] for block in self._blocks])
        return hashes, np.concatenate([block[2] for block in self._blocks]).astype(np.int64)

    def _name(self, line: bytes, row: int) -> Name:
        try:
            return name_in(line)
        except ValueError as error:
            raise Problem(
                f"{self._path} is damaged at row {row} ({error}): copy the whole gallery again, "
                "or make it again"
            ) from None


class Column(Sequence[T]):
    """One column of the names, of which each value is read when it is asked for."""

    def __init__(self, names: Names, value: Callable[[Name], T]) -> None:
        self.names, self._value = names, value

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, rows: int) -> T: ...
    @overload
    def __getitem__(self, rows: slice) -> tuple[T, ...]: ...
    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return tuple(self[row] for row in range(*rows.indices(len(self))))
        row = index(rows)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f"row {rows} of {len(self)}")
        return self._value(self.names[row])

    def __iter__(self) -> Iterator[T]:
        return map(self._value, self.names)
