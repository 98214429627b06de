"""Tables of images: an id, a file and a label in each row, as CSV, TSV or Parquet."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.images import Pictures, pictures_in

_COLUMNS = ("id", "path", "label", "sha256")
_MANY = 1_000_000_000
"""Characters of a cell: the csv module gives up at 131,072, as at a quote that is not closed."""


@dataclass(frozen=True)
class ImageTable:
    """What a table says of images, by their ids."""

    labels: Mapping[str, str]
    files: Mapping[str, Path]
    contents: Mapping[str, str]
    """SHA-256 of the bytes of those that have no file here: their features are in the cache."""

    def pictures(
        self,
        wanted: Mapping[str, str],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Pictures:
        """Some of the images, each by the name that it is `wanted` by: the keys to their ids."""
        files = {item: self.files[id_] for item, id_ in wanted.items() if id_ in self.files}
        read = pictures_in(files, progress)
        contents = {i: read.contents.get(i) or self.contents[id_] for i, id_ in wanted.items()}
        return Pictures(read.files, contents)


def read_image_table(file: Path) -> ImageTable:
    """Reads a table of images; relative paths are taken from its folder.

    Its columns are `path` or, for images whose features are in the cache, `sha256`, of which the
    latter is looked at only where there is no path; `id`, a file's name where it is missing; and
    `label`, the id where it is missing. Others are passed over.

    Raises:
        Problem: it cannot be read, lacks a column or a value, or has an id twice.
    """
    labels: dict[str, str] = {}
    files: dict[str, Path] = {}
    contents: dict[str, str] = {}
    for number, row in enumerate(_rows(file), 1):
        where = f"row {number} of '{file}'"
        path, content = row.get("path", ""), row.get("sha256", "")
        if not path and not re.fullmatch("[0-9a-f]{64}", content):
            raise Problem(f"{where} has no path, nor a sha256 in its place: add it")
        id_ = unicodedata.normalize("NFC", row.get("id") or Path(path).stem)
        if not id_:
            raise Problem(f"{where} has no id: add it")
        if id_ in labels:
            raise Problem(f"{where} has the id {id_!r}, which a row before has: ids are unique")
        labels[id_] = row.get("label") or id_
        if path:
            files[id_] = file.parent / path
        else:
            contents[id_] = content
    if not labels:
        raise Problem(f"the table '{file}' has no rows: add images")
    return ImageTable(labels, files, contents)


def pictures_of_table(
    file: Path,
    items: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pictures:
    """The images of these stimuli, or all that a table names; every file is read once.

    Raises:
        Problem: as `read_image_table` does, or it has no row of a stimulus.
    """
    table = read_image_table(file)
    wanted = {
        i: unicodedata.normalize("NFC", i) for i in (table.labels if items is None else items)
    }
    absent = next((item for item, id_ in wanted.items() if id_ not in table.labels), None)
    if absent is not None:
        raise Problem(f"the table '{file}' has no row of stimulus '{absent}'; add it")
    return table.pictures(wanted, progress)


def _rows(file: Path) -> Sequence[Mapping[str, str]]:
    try:
        if file.suffix.lower() == ".parquet":
            return _parquet(file)
        text = file.read_text(encoding="utf-8-sig")  # as spreadsheets write it
    except OSError as error:
        raise Problem(f"the table '{file}' cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Problem(f"the table '{file}' is no UTF-8: save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]  # of which some have ; between the columns
    separator = max("\t;,", key=first.count)
    csv.field_size_limit(_MANY)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    _check_columns(file, reader.fieldnames or ())
    try:
        return [{k: v.strip() for k, v in row.items() if k in _COLUMNS and v} for row in reader]
    except csv.Error as error:
        raise Problem(f"the table '{file}' is no CSV ({error}): save it again") from None


def _parquet(file: Path) -> Sequence[Mapping[str, str]]:
    try:
        import pandas as pd
    except ImportError:
        raise Problem(
            f"Parquet needs pandas and pyarrow: install them with `pip install pandas pyarrow`, or "
            f"save '{file}' as CSV"
        ) from None
    try:
        table = pd.read_parquet(file)
    except (ValueError, ImportError) as error:
        raise Problem(f"the table '{file}' is no Parquet that can be read ({error})") from None
    _check_columns(file, list(map(str, table.columns)))
    wanted = table[[name for name in _COLUMNS if name in table]]
    return [
        {name: str(value) for name, value in row.items() if value is not None and value == value}
        for row in wanted.to_dict("records")
    ]


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    if not {"path", "sha256"} & {*columns}:
        raise Problem(
            f"the table '{file}' has the columns {', '.join(columns)}: it needs `path`, and takes "
            "`id` and `label`"
        )
