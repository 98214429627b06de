"""`finish`: makes whole what a crash or a power cut has left of a session."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.problem import Problem


def finish(folder: Annotated[Path, typer.Argument(help="That a session left")]) -> None:
    """Ends every open trial in the ledger of a session that was cut off; writes what is missing.

    That is its summary, the trials of --save-trials, its trials.csv, and its report.

    Example: python run_realtime.py finish sessions/20261122-101500-ab12
    """
    from stream.commands.common import after_session
    from stream.pipeline.books.closing import make_whole
    from stream.pipeline.books.output import Output
    from stream.pipeline.books.summary import summary_table
    from stream.pipeline.lock import held
    from stream.pipeline.report.page import REPORT
    from stream.pipeline.wire.config import read_config

    folder = folder.absolute()
    with held(folder):
        config = read_config(folder / "config.json").model_copy(update={"folder": folder})
        made = make_whole(config, "completed by finish")
        config.endpoints.remove()
    if made.was_whole:
        lacking = list(made.summary.get("ledger_faults", ()))
        if n_lost := (made.summary.get("saved_trials") or {}).get("n_lost"):
            lacking.append(f"{n_lost} trials that were cut could not be written to their file")
        if lacking:
            raise Problem(f"no more can be made of '{folder}': {'; '.join(lacking)}")
        print(f"nothing is missing in '{folder}': it has its summary and its report")
        for line in after_session(config, made.summary):
            print(line)
        return
    console = Output(sys.stdout).console
    console.print(summary_table(made.summary))
    for line in (*made.said, f"report: {folder / REPORT}", *after_session(config, made.summary)):
        console.print(line, highlight=False, soft_wrap=True)
    if made.failure is not None:
        raise Problem(made.failure)
