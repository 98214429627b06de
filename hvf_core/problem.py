"""How programs end: the one kind of error that is shown to a person, and signals that ask."""

import os
import signal
import sys
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from threading import Thread, main_thread
from typing import IO, ClassVar, TypeVar

from hvf_core.text import printable

T = TypeVar("T")


class Problem(Exception):
    """A fault that the user can mend.

    Its text is one sentence that names the thing, its value, what was expected and the way out.
    Command lines print it and exit with its status; anything else that is raised is a bug.
    """

    exit_status: ClassVar[int] = 1


class NobodyReads(Problem):
    """What is printed goes into a pipe, or to a terminal, that was closed."""

    exit_status = 141  # that of a program that SIGPIPE has ended


class WrongUsage(Problem):
    """A command line that cannot be understood, or asks for what does not fit together."""

    exit_status = 2


@contextmanager
def naming(file: str | Path) -> Iterator[None]:
    """Errors of the system, as that of a full disk, name the file that was written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None


_FIRST_PACKAGE = "typer"
"""Of those that are not Python's own, what every command line imports first."""
SIGNALLED = 128
"""The status of a program that a signal has ended is the signal's number above this."""
INTERRUPTED = SIGNALLED + signal.SIGINT
"""The status of a program that Ctrl-C has ended."""
ASK_TO_END = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, `kill`, and a terminal that is closed; Windows has no SIGHUP."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program, after a `Problem` or a signal, with a line on standard error and a status.

    Every program begins with it, and imports the rest inside. Standard input and output that were
    closed, as a service may have them, are empty.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # what is opened next would take its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what took its place may be anything
            stream.reconfigure(errors="replace")  # a console that lacks a sign shows another
    sys.unraisablehook = _raise_later
    for number in ASK_TO_END:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    try:
        yield
        return
    except BaseException as end:
        if (asked_by := _asked_by(end)) is not None:
            for number in ASK_TO_END:
                signal.signal(number, signal.SIG_IGN)  # once is enough
            line, status = sentence_of(asked_by), SIGNALLED + asked_by
        elif isinstance(end, Problem):
            line, status = str(end), end.exit_status
        elif isinstance(end, ImportError) and end.name == _FIRST_PACKAGE:
            line, status = (
                (
                    f"the program's packages, as {_FIRST_PACKAGE}, are not in '{sys.executable}': "
                    "call the Python of its environment instead, as .venv/bin/python"
                ),
                Problem.exit_status,
            )
        else:
            raise
    try:
        print(printable(line), file=sys.stderr, flush=True)
    except OSError:
        let_go(sys.stderr)
    raise SystemExit(status)


@contextmanager
def asked_to_end() -> Iterator[list[int]]:
    """Signals that ask the program to end, in the order in which they come, instead of its end."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in ASK_TO_END}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sentence_of(asked_by: int) -> str:
    """What is said where a signal has ended something."""
    name = signal.Signals(asked_by).name
    return "interrupted" if asked_by == signal.SIGINT else f"ended by {name}"


def let_go(stream: IO[str]) -> None:
    """Sends what is written to a stream, now that nobody is there to read it, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _end(number: int, _: object) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(SIGNALLED + number)


def _asked_by(end: BaseException | None) -> int | None:
    """The signal that has led to an exception, if one has: what it stops may make another of it."""
    if end is None:
        return None
    if isinstance(end, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(end, SystemExit):
        return next((number for number in ASK_TO_END if end.code == SIGNALLED + number), None)
    return _asked_by(end.__cause__ or (None if end.__suppress_context__ else end.__context__))


def _raise_later(lost: "sys.UnraisableHookArgs") -> None:
    """Has a signal come again that came where Python can raise nothing, as often in an import."""
    if (asked_by := _asked_by(lost.exc_value)) is not None:
        Thread(target=_raise_outside, args=(asked_by,), daemon=True).start()
    else:
        sys.__unraisablehook__(lost)


def _raise_outside(number: int) -> None:
    """Has a signal come again once the main thread is out of `_raise_later`, however slow it is."""
    while True:
        time.sleep(0.05)
        frame = sys._current_frames().get(main_thread().ident or 0)
        while frame is not None and frame.f_code is not _raise_later.__code__:
            frame = frame.f_back
        if frame is None:
            break
    interrupt_main(signal.Signals(number))


def needed(value: T | None) -> T:
    """A value that is there by now, whatever its type says: None is a bug, and no `Problem`."""
    assert value is not None
    return value
