"""datasets: the data sets that `prepare` takes, and whether they lie here whole."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer
from rich.table import Table

from hvf_core.options import TRAIN, Flag
from hvf_core.problem import Problem
from offline_train.commands.options import console

_USUAL = Path("data")


def datasets(
    root: Annotated[
        Path, typer.Option("--in", help="Folder with a folder for each data set, called as it is")
    ] = _USUAL,
    pickles: Annotated[
        bool, Flag("--pickles", help="Also open what is saved as a pickle; no code of it runs")
    ] = False,
) -> None:
    """Lists the data sets that `prepare` takes: source, size, licence, and whether they are here.

    Example: python -m offline_train datasets --in /data
    """
    from offline_train.data.catalogue import DATA_SETS, NO_FILES, faults

    if root != _USUAL and not root.is_dir():
        raise Problem(f"there is no folder '{root}': give the one in which data sets lie with --in")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("folder", "size", "licence", "here"):  # what fits into 80 columns as it is
        table.add_column(title, no_wrap=True)
    told, there = [], []
    for one in DATA_SETS:
        folder = root / one.folder
        wrong = list(faults(folder, one.n_subjects, pickles)) if folder.is_dir() else None
        table.add_row(one.folder, one.size, one.licence, _here(wrong))
        if wrong is not None and wrong != [NO_FILES]:
            there.append(folder)
        for sentence in (wrong or ())[:5]:
            told.append(f"{one.folder}: {sentence}")
        if wrong and len(wrong) > 5:
            told.append(f"{one.folder}: and {len(wrong) - 5} more")
    console.print(table)
    console.print()
    for one in DATA_SETS:
        _print(f"{one.folder}: {one.about}")
        _print(f"    from {one.source},")
        _print(f"    into '{root / one.folder}'")
    for line in told:
        _print(line)
    console.print()
    _print(
        "beside these: any BIDS data set whose events have stim_file or stim_id, MNE's epochs with "
        "a table, and your own sessions (docs/datasets.md)"
    )
    # A command, to be copied: in one line, however long.
    console.print(f"next: {TRAIN} prepare {there[0] if there else 'FOLDER'} ...", soft_wrap=True)


def _here(wrong: Sequence[str] | None) -> str:
    """In a word or two, what of a data set is here."""
    if not wrong:
        return "no" if wrong is None else "whole"
    n_of, _, names = wrong[0].partition(" are there: ")
    return n_of if names and len(wrong) == 1 else "in part"


def _print(line: str) -> None:
    """Prints a line as lines of the screen's width, in which no word is broken."""
    more = "    " + " " * (len(line) - len(line.lstrip()))
    lines = wrap(
        line,
        console.width,
        subsequent_indent=more,
        break_long_words=False,
        break_on_hyphens=False,
    )
    console.print("\n".join(lines), soft_wrap=True, highlight=False)
