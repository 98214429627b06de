"""Calls a command line in this process, for what ends before it starts another one."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer.main

import offline_train.__main__
import run_realtime
from hvf_core.problem import ASK_TO_END
from tests import forked

# A program makes its command line once; here every call would, with all of its 400 options.
typer.main.get_command = cache(typer.main.get_command)
ROOT = Path(__file__).parents[1]
EEGLAB = ROOT.parent / "shared" / "data" / "eeglab_data.set"
_MAINS: Mapping[str, Callable[[], None]] = {
    "run_realtime.py": run_realtime.main,
    "offline_train": offline_train.__main__.main,
}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    def one_sentence(self) -> str:
        """What it said was wrong, which must be one line and no traceback."""
        assert "Traceback" not in self.out + self.err
        (line,) = self.err.strip().splitlines()
        return line


@contextlib.contextmanager
def signals_as_before() -> Iterator[None]:
    """A program that was interrupted ignores signals, and so would all that is started later."""
    before = {number: signal.getsignal(number) for number in ASK_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def environment_as_before() -> Iterator[None]:
    """What a program tells libraries by it is for that program alone."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before.items() - os.environ.items())


def call(*arguments: object, module: str = "run_realtime.py") -> Done:
    """What `tests.sessions.run` gives, but for a traceback, which is raised here."""
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as out,
        contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8")) as err,
        pytest.MonkeyPatch.context() as patch,
        signals_as_before(),
        environment_as_before(),
    ):
        patch.chdir(ROOT)
        patch.setenv("COLUMNS", "200")
        for hook in ("excepthook", "unraisablehook"):  # which a program sets
            patch.setattr(sys, hook, getattr(sys, hook))
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        patch.setattr(subprocess, "Popen", forked.Popen)
        with pytest.raises(SystemExit) as ended:
            _MAINS[module]()
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())
    return Done(ended.value.code or 0, *said)
