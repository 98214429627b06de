"""`export`: a session as BIDS, MNE's epochs or Parquet, for programs that are not this one."""

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hvf_core.options import Asked, Flag, onward, with_settings
from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Given, settings_of
from stream.exports.settings import REQUIRED, BidsFacts


@with_settings(BidsFacts)
def export(
    folder: Annotated[Path, typer.Argument(help="Of a session that is over")],
    asked: Asked[BidsFacts],
    bids: Annotated[Path | None, typer.Option(help="Data set to write it into")] = None,
    epochs: Annotated[Path | None, typer.Option(help="File NAME-epo.fif of its trials")] = None,
    parquet: Annotated[Path | None, typer.Option(help="File of the table of its trials")] = None,
    overwrite: Annotated[bool, Flag("--overwrite", help="Replace what is there")] = False,
) -> None:
    """Writes a session as a BIDS data set, as MNE's epochs, or its table of trials as Parquet.

    Example: python run_realtime.py export sessions/20261122-101500-ab12 --epochs s1-epo.fif
    """
    if bids is None and epochs is None and parquet is None:
        raise WrongUsage("say what to make: --bids DIR, --epochs NAME-epo.fif, --parquet FILE")
    if epochs is not None and not epochs.name.endswith(("-epo.fif", "_epo.fif")):
        raise WrongUsage(f"--epochs '{epochs}' must end in -epo.fif, as MNE's files do")
    for path in (epochs, parquet):
        _check_file(path, overwrite)

    from hvf_core.screen import Screen
    from stream.exports.finished import finished_session, needs_recording

    console = Screen()

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, soft_wrap=True)

    with finished_session(folder, say) as session:
        if session.is_simulated:
            say("the subject of this session is simulated, which the files say too")
        if bids is not None or epochs is not None:
            needs_recording(session)
        faults: list[str] = []
        if bids is not None:
            facts = _asked_for(asked, session.facts).settings()
            with _going_on(faults):
                from stream.exports.bids import export_bids

                for path in export_bids(session, bids, facts, overwrite, say):
                    say(f"BIDS: {path}")
        if epochs is not None:
            with _going_on(faults):
                from stream.exports.epochs import export_epochs

                say(f"epochs: {epochs} ({export_epochs(session, epochs, say)} trials)")
        if parquet is not None:
            with _going_on(faults):
                from stream.exports.parquet import export_parquet

                say(f"table: {parquet} ({export_parquet(session, parquet)} markers)")
        if faults:
            raise Problem("; and ".join(faults))
        if session.config.bundle is not None:
            say(onward("decode-again", folder=folder))


@contextmanager
def _going_on(faults: list[str]) -> Iterator[None]:
    """Notes why one of the things asked for cannot be made: the others can, and are told."""
    try:
        yield
    except Problem as problem:
        faults.append(str(problem))
    except (OSError, MemoryError) as error:
        is_full = isinstance(error, MemoryError) or error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "make room" if is_full else "see to that"
        faults.append(
            f"the session cannot be exported ({error or 'no memory'}): {way}, and export it again"
        )


def _check_file(path: Path | None, overwrite: bool) -> None:
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise Problem(f"'{path}' cannot be written: make the folder '{path.parent}' first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise Problem(f"'{path}' is there already: name another, or give --overwrite")


def _asked_for(asked: Asked[BidsFacts], known: Mapping[str, Any]) -> Asked[BidsFacts]:
    """With what a data set cannot do without, which a person at a terminal is asked for.

    Args:
        known: what the session says of itself.
    """
    declared = settings_of(BidsFacts)
    said = {path: value for path, value in known.items() if asked.given(path) is None}
    asked = asked.also(
        {
            p: Given(value, f"the session's {declared[p].option} (give another)")
            for p, value in said.items()
        }
    )
    missing = [declared[path] for path in REQUIRED if asked.given(path) is None]
    if not missing:
        return asked
    if not is_terminal():
        named = ", ".join(f"{one.option} ({one.help})" for one in missing)
        raise WrongUsage(f"a data set needs to know more of the session: give {named}")
    told = {
        one.path: Given(typer.prompt(f"{one.help} ({one.option})"), one.option) for one in missing
    }
    return asked.also(told)


def is_terminal() -> bool:
    """Whether there is somebody to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
