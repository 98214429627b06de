"""datasets: the data sets that `prepare` takes, and whether they lie here whole."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hvf_core.options import Flag
from offline_train.commands.options import TRAIN, console


def datasets(
    root: Annotated[
        Path, typer.Option("--in", help="Folder with a folder for each data set, called as it is")
    ] = Path("data"),
    pickles: Annotated[
        bool, Flag("--pickles", help="Also open what is saved as a pickle; no code of it runs")
    ] = False,
) -> None:
    """Lists the data sets that `prepare` takes: source, size, licence, and whether they are here.

    Example: python -m offline_train datasets --in /data
    """
    from offline_train.data.catalogue import DATA_SETS, faults

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("folder", "size", "licence", "here"):  # what fits into 80 columns as it is
        table.add_column(title, no_wrap=True)
    told = []
    for one in DATA_SETS:
        folder = root / one.folder
        wrong = list(faults(folder, one.n_subjects, pickles)) if folder.is_dir() else None
        here = "no" if wrong is None else "in part" if wrong else "whole"
        table.add_row(one.folder, one.size, one.licence, here)
        for sentence in (wrong or ())[:5]:
            told.append(f"{one.folder}: {sentence}")
        if wrong and len(wrong) > 5:
            told.append(f"{one.folder}: and {len(wrong) - 5} more")
    console.print(table)
    console.print()
    for one in DATA_SETS:
        console.print(f"{one.folder}: {one.about}", soft_wrap=True, highlight=False)
        line = f"    from {one.source}, into '{root / one.folder}'"
        console.print(line, soft_wrap=True, highlight=False)
    for line in told:
        console.print(line, soft_wrap=True, highlight=False)
    console.print(
        f"\nbeside these: any BIDS data set whose events have stim_file or stim_id, MNE's epochs "
        f"with a table, and your own sessions (docs/datasets.md); next: {TRAIN} prepare FOLDER ..."
    )
