"""`record`: all streams, or some, into one XDF file."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import LIVE, Asked, Flag, onward, with_settings
from hvf_core.problem import SIGNALLED, NobodyReads, WrongUsage
from stream.commands.common import Headless
from stream.recorder.settings import RecordSettings


@with_settings(RecordSettings)
def record(
    asked: Asked[RecordSettings],
    out: Annotated[
        Path | None, typer.Option(help="File; recordings/DATE-TIME.xdf by default")
    ] = None,
    headless: Headless = False,
    dashboard: Annotated[bool, Flag("--dashboard", hidden=True)] = False,
) -> None:
    """Records streams as they are sent, each under its own name, without decoding anything.

    Example: python run_realtime.py record --require BrainVision --require PsychoPy --out s01.xdf
    """
    from stream.pipeline.books.output import Output
    from stream.recorder.run import record as record_streams
    from stream.recorder.view import View

    if dashboard:
        raise WrongUsage(
            "record has no page: `live` without --bundle records too, and has one, as in "
            f"`{LIVE} live --eeg BrainVision --markers PsychoPy --dashboard`"
        )
    if out is not None and out.suffix != ".xdf":
        raise WrongUsage(f"--out '{out}': the recording is an XDF file, call it '{out}.xdf'")
    path = out or Path("recordings") / f"{datetime.now():%Y%m%d-%H%M%S}.xdf"
    output = Output(sys.stdout)
    view = View(output.console, headless)
    made = record_streams(asked.settings(), path, view, lambda: not output.is_lost)
    if made.path is not None:
        view.say(onward("prepare", recording=made.path))
    if output.is_lost:
        raise NobodyReads("nobody reads what is printed any more: the recording was ended in order")
    if made.ended_by:
        raise SystemExit(SIGNALLED + made.ended_by)
