"""Running a session from a command: its options, its config, and how it ends.

What runs a session is imported when one is run: help, and what is wrong with options, come at once.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from hvf_core.options import Flag
from hvf_core.problem import SIGNALLED, NobodyReads, Problem
from stream.pipeline.wire.config import SessionConfig, SessionSettings
from stream.pipeline.wire.endpoints import Endpoints

Out = Annotated[Path | None, typer.Option(help="Session folder; sessions/ID by default")]
Headless = Annotated[bool, Flag("--headless", help="Lines only, no progress and sums below them")]


def new_config(settings: SessionSettings, out: Path | None, **own: Any) -> SessionConfig:
    """The config of a new session, whose settings are checked and whose folder is made.

    `own` is what the session has beside its settings, or in their place.
    """
    from stream.pipeline.check import check
    from stream.pipeline.session import new_session

    values = dict(settings) | own
    trials, decoding, bundle = values["trials"], values["decoding"], values["bundle"]
    if bundle is not None:
        values["gallery"] = values["gallery"] or bundle.parent / "gallery"
    elif decoding.tmax_s:  # nothing is decoded: it is the end of the window
        values["trials"] = trials.model_copy(update={"tmax_s": decoding.tmax_s[0]})
    check(settings.model_copy(update=values))
    session, folder = new_session(out)
    endpoints = Endpoints.local(settings.transport)
    return SessionConfig(**values, session=session, folder=folder, endpoints=endpoints)


def run(
    config: SessionConfig,
    headless: bool,
    title: str,
    *,
    source: Sequence[str] | None = None,
    n_trials: int | None = None,
) -> None:
    """Runs a session to its summary; `source` is the command that plays streams, if one has to."""
    from stream.pipeline.books.output import Output
    from stream.pipeline.books.page import REPORT
    from stream.pipeline.books.summary import summary_table
    from stream.pipeline.session import Session

    output = Output(sys.stdout)
    console = output.console
    with ExitStack() as last:
        last.callback(config.endpoints.remove)
        session = Session(
            config, source, output=output, headless=headless, n_trials=n_trials, title=title
        )
        summary = session.run()
    if summary is None:
        console.print(f"the session was ended before it began; its logs are in {config.folder}")
    else:
        console.print(summary_table(summary))
        console.print(f"session folder: {config.folder}", highlight=False)
        what = "seen, retrieved and painted" if config.painting is not None else "report"
        console.print(f"{what}: {config.folder / REPORT}", highlight=False)
    if session.failure is not None:
        raise Problem(session.failure)
    if session.is_unread:
        raise NobodyReads("nobody reads what is printed any more: the session was ended in order")
    if session.asked_by is not None:
        raise SystemExit(SIGNALLED + session.asked_by)
