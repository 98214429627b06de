"""Running a session from a command: its options, its config, and how it ends.

What runs a session is imported when one is run: help, and what is wrong with options, come at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hvf_core.options import Flag
from hvf_core.problem import Problem
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
    from stream.pipeline.books.page import REPORT
    from stream.pipeline.books.summary import summary_table
    from stream.pipeline.session import Session

    # What it prints are names, as `[left]` or `:left:`, and no markup.
    console = Console(markup=False, emoji=False)
    session = Session(
        config, source, console=console, headless=headless, n_trials=n_trials, title=title
    )
    summary = session.run()
    console.print(summary_table(summary))
    console.print(f"session folder: {config.folder}", highlight=False)
    what = "seen, retrieved and painted" if config.painting is not None else "report"
    console.print(f"{what}: {config.folder / REPORT}", highlight=False)
    if session.failure is not None:
        raise Problem(session.failure)
    if session.interrupted:
        raise SystemExit(130)
