"""`doctor`: whether this machine, and what is named, will do for a session."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from hvf_core.options import Asked, Flag, onward, with_settings
from hvf_core.screen import Screen
from hvf_core.text import printable
from stream.pipeline.wire.config import SessionSettings

if TYPE_CHECKING:
    from stream.doctor.verdict import Named, Verdict

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


@with_settings(
    SessionSettings,
    without=(
        *("demo", "replay.speed", "replay.start_s", "replay.duration_s"),
        "about.session",  # here --session is a folder
    ),
)
def doctor(
    asked: Asked[SessionSettings],
    recording: Annotated[Path | None, typer.Option(help="That `replay` would play")] = None,
    session: Annotated[Path | None, typer.Option(help="Folder of a session that ran")] = None,
    bug_report: Annotated[
        Path | None, typer.Option(metavar="FILE.zip", help="To write one")
    ] = None,
    as_json: Annotated[
        bool, Flag("--json", help="For programs: a line of JSON for each verdict, and no other")
    ] = False,
) -> None:
    """Looks at this machine and at what is named, and says what to do.

    It takes the options of `live`, and looks at every model and stream that they name.

    Example: python run_realtime.py doctor --eeg BrainVision --markers PsychoPy --bundle my-bundle
    """
    from stream.doctor.bug_report import check_target, write_bug_report
    from stream.doctor.run import examine
    from stream.doctor.verdict import Named, Verdict, as_line

    if bug_report is not None:
        check_target(bug_report)
    settings = asked.settings()
    if settings.bundle is not None and settings.gallery is None:  # as in `live`
        settings = settings.model_copy(update={"gallery": settings.bundle.parent / "gallery"})
    named = Named(settings, recording, session)
    # Lines are broken for people only.
    width = None if sys.stdout.isatty() else 10_000
    console = Screen(width=width, highlight=False, quiet=as_json)
    said: dict[Verdict, str] = {}  # each once: one fault may fail several checks
    with tempfile.TemporaryFile() as errors:
        with _errors_to(errors), console.status("") as status:
            for section, verdict in examine(named, status.update):
                if verdict in said:
                    continue
                if section not in said.values():
                    console.print(section, style="bold")
                said[verdict] = section
                if as_json:
                    print(as_line(section, verdict), flush=True)
                line = Table.grid(padding=(0, 1))
                state = Text(f"{verdict.state:<4}", _STYLES[verdict.state])
                line.add_row(state, Text(printable(verdict.text), overflow="fold"))
                console.print(line)
        errors.seek(0)
        log = errors.read().decode("utf-8", "replace")
    counts = Counter[str](verdict.state for verdict in said)
    console.print(", ".join(f"{counts[state]} {state}" for state in _STYLES), style="bold")
    if not counts["FAIL"]:
        console.print(_onward(named, said), soft_wrap=True)
    if bug_report is not None:
        write_bug_report(bug_report, named, list(said), log)
        console.print(f"Look into '{bug_report}' before you send it.")
    raise typer.Exit(1 if counts["FAIL"] else 0)


def _onward(named: "Named", said: Iterable["Verdict"]) -> str:
    """What comes next where nothing failed, by what was named."""
    from stream.doctor.verdict import FINISH

    source, bundle = named.settings.source, named.settings.bundle
    eeg, markers = (None, None) if source is None else (source.eeg, source.markers)
    if named.session is not None:
        is_whole = not any(FINISH in verdict.text for verdict in said)
        return onward("export" if is_whole else "finish", folder=named.session)
    if bundle is not None:
        return onward("live", bundle=bundle, eeg=eeg, markers=markers)
    if named.recording is not None:
        return onward("prepare", recording=named.recording)
    return onward("record", eeg=eeg, markers=markers)


@contextmanager
def _errors_to(file: IO[bytes]) -> Iterator[None]:
    """Sends into a file what is written to standard error, so that it is not among the lines.

    liblsl writes there from threads of its own, whatever Python makes of `sys.stderr`.
    """
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
