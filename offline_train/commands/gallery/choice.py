"""Which images of a gallery a command is about: ids, a file of them, or a pattern."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvf_core.problem import Problem, WrongUsage

if TYPE_CHECKING:
    from index.gallery import Gallery

Folder = Annotated[Path, typer.Argument(help="Folder of the gallery")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of images")]
IdFile = Annotated[Path | None, typer.Option("--ids", help="File with an id in each line")]
Pattern = Annotated[
    str | None, typer.Option("--match", help="Pattern that ids match, such as 'cat_*'")
]


def chosen(
    gallery: "Gallery", ids: list[str] | None, file: Path | None, match: str | None
) -> list[int]:
    """The rows of the images that are chosen, in the order in which they were named.

    Raises:
        Problem: an id is not in the gallery, nothing matches, or the file cannot be read.
        WrongUsage: nothing is chosen.
    """
    if not ids and file is None and match is None:
        raise WrongUsage("say which images: by their ids, with --ids FILE or with --match PATTERN")
    from index.gallery.names import same_id

    rows = []
    for id_ in (*(ids or ()), *(_lines(file) if file is not None else ())):
        row = gallery.row_of(id_)
        if row is None:
            raise Problem(f"{id_!r} is not in the gallery '{gallery.folder}': leave it out")
        rows.append(row)
    if match is not None:
        counted = gallery.rows.tolist()
        pattern = same_id(match)
        found = [row for row in counted if fnmatchcase(same_id(gallery.ids[row]), pattern)]
        if not found:
            raise Problem(f"no id in the gallery '{gallery.folder}' matches '{match}'")
        rows += found
    return list(dict.fromkeys(rows))


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # ids may hold other breaks
    except OSError as error:
        raise Problem(f"the ids '{file}' cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Problem(f"the ids '{file}' are no UTF-8: save the file so") from None
    return [line for line in lines if line.strip()]
