"""The one kind of error that is shown to a person instead of a traceback."""

import signal
import sys
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from threading import Timer
from typing import ClassVar, TypeVar

T = TypeVar("T")


class Problem(Exception):
    """A fault that the user can mend.

    Its text is one sentence that names the thing, its value, what was expected and the way out.
    Command lines print it and exit with its status; anything else that is raised is a bug.
    """

    exit_status: ClassVar[int] = 1


class WrongUsage(Problem):
    """A command line that cannot be understood, or asks for what does not fit together."""

    exit_status = 2


INTERRUPTED = 130
"""The status of a program that Ctrl-C has ended."""


class Interrupted(Problem):
    """What Ctrl-C has left undone."""

    exit_status = INTERRUPTED


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program, after a `Problem` or Ctrl-C, with a line on standard error and a status.

    Every program begins with it, and imports the rest inside.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what took its place may be anything
            stream.reconfigure(errors="replace")  # a console that lacks a sign shows another
    sys.unraisablehook = _raise_later
    try:
        yield
        return
    except Problem as problem:
        line, status = str(problem), problem.exit_status
    except (KeyboardInterrupt, ImportError, SystemExit) as end:
        if not _is_ctrl_c(end):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        line, status = "interrupted", INTERRUPTED
    print(line, file=sys.stderr)
    raise SystemExit(status)


def _is_ctrl_c(end: BaseException | None) -> bool:
    if isinstance(end, ImportError):  # modules in C make one of what stops their import
        return _is_ctrl_c(end.__cause__)
    return isinstance(end, KeyboardInterrupt) or (
        isinstance(end, SystemExit) and end.code == INTERRUPTED
    )


def _raise_later(lost: "sys.UnraisableHookArgs") -> None:
    """Has a Ctrl-C come again that came where Python can raise nothing, as often in an import."""
    if lost.exc_type is KeyboardInterrupt:
        Timer(0.05, interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def needed(value: T | None) -> T:
    """A value that is there by now, whatever its type says: None is a bug, and no `Problem`."""
    assert value is not None
    return value
