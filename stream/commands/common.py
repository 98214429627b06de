"""Running a session from a command: its options, its config, and how it ends.

What runs a session is imported when one is run: help, and what is wrong with options, come at once.
"""

import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hvf_core.options import Flag, onward
from hvf_core.problem import SIGNALLED, NobodyReads, Problem
from stream.pipeline.wire.config import LiveSource, SessionConfig, SessionSettings
from stream.pipeline.wire.endpoints import Endpoints

Out = Annotated[Path | None, typer.Option(help="Session folder; sessions/ID by default")]
Headless = Annotated[bool, Flag("--headless", help="Lines only, no progress and sums below them")]


def new_id() -> str:
    """The id of a new session: when it began, and what no other has."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def folder_of(out: Path | None, session: str) -> Path:
    """The folder of a new session; its absolute path."""
    return (out or Path("sessions") / session).absolute()


def own_streams(kind: str, session: str) -> tuple[LiveSource, str]:
    """The streams that a session plays for itself, and their name, which is its own."""
    name = f"{kind}-{session}"
    return LiveSource(eeg=name, markers=f"{name}-markers", wait_s=60.0), name


@contextmanager
def begun(config: SessionConfig, *files: Path) -> Iterator[None]:
    """Takes a session's folder away, if it holds nothing else, where the session cannot begin."""
    from stream.pipeline.galleries import forget
    from stream.pipeline.trials import TAKEN_ALONG

    try:
        yield
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        forget(config)
        shutil.rmtree(config.folder / TAKEN_ALONG, ignore_errors=True)
        with suppress(OSError):  # something else is in there
            config.folder.rmdir()
        raise


@contextmanager
def new_config(
    settings: SessionSettings, out: Path | None, session: str, **own: Any
) -> Iterator[SessionConfig]:
    """The config of a new session, whose settings are checked and whose folder is made.

    `own` is what the session has beside its settings, or in their place. Its sockets end with it.
    """
    from stream.pipeline.check import check
    from stream.pipeline.galleries import accept
    from stream.pipeline.session import new_folder
    from stream.pipeline.trials import take_along

    values = dict(settings) | own
    trials, decoding, bundle = values["trials"], values["decoding"], values["bundle"]
    if bundle is not None:
        values["gallery"] = values["gallery"] or bundle.parent / "gallery"
    elif decoding.tmax_s:  # nothing is decoded: it is the end of the window
        values["trials"] = trials.model_copy(update={"tmax_s": decoding.tmax_s[0]})
    gallery = check(settings.model_copy(update=values))
    folder = new_folder(folder_of(out, session))
    endpoints = Endpoints.local(settings.transport)
    try:
        config = SessionConfig(**values, session=session, folder=folder, endpoints=endpoints)
        if gallery is not None:
            with begun(config):
                accept(config, gallery, config.decoding.among)
                config = take_along(config)
        yield config
    finally:
        endpoints.remove()


def after_session(config: SessionConfig, summary: Mapping[str, Any]) -> Iterator[str]:
    """What comes next, for which its recording is needed: a model, where the session had none.

    Nothing where no trial has come to anything, as neither has a use for it.
    """
    if not (config.record and summary["decoded"] + summary["cut"]):
        return
    if config.bundle is None:
        yield onward("prepare", recording=config.folder)
    else:
        about = config.about
        known = {"subject": config.subject, "task": about.task, "hz": about.line_hz}
        yield onward("export", folder=config.folder, **known)


def run(
    config: SessionConfig,
    headless: bool,
    title: str,
    *,
    source: Sequence[str] | None = None,
    n_trials: int | None = None,
) -> None:
    """Runs a session to its summary; `source` is the command that plays streams, if one has to."""
    with begun(config):
        from stream.dashboard.beside import dashboard_beside
        from stream.pipeline.books.output import Output
        from stream.pipeline.books.summary import summary_table
        from stream.pipeline.outputs.blind import summary_left
        from stream.pipeline.report.page import REPORT
        from stream.pipeline.session import Session

    output = Output(sys.stdout)
    console = output.console

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    with ExitStack() as last:
        with begun(config):
            last.enter_context(dashboard_beside(config.folder, config.outputs.page, say))
        session = Session(
            config, source, output=output, headless=headless, n_trials=n_trials, title=title
        )
        summary = session.run()
    if summary is None:
        console.print(f"the session was ended before it began; its logs are in {config.folder}")
    else:
        console.print(summary_table(summary_left(summary) if config.outputs.blind else summary))
        what = "seen, retrieved and painted" if config.painting is not None else "report"
        say(f"session folder: {config.folder}")
        for line in (f"{what}: {config.folder / REPORT}", *after_session(session.config, summary)):
            say(line)
    if session.failure is not None:
        raise Problem(session.failure)
    if session.is_unread:
        raise NobodyReads("nobody reads what is printed any more: the session was ended in order")
    if session.asked_by is not None:
        raise SystemExit(SIGNALLED + session.asked_by)
