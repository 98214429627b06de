"""Processes of a benchmark, none of which outlives it, also where that is killed (on Linux).

`python -m stream.bench.processes PID SIGNAL PROGRAM ...` is `python PROGRAM ...`, which is sent
SIGNAL once PID has ended.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress

from hvf_core.problem import ASK_TO_END, needed

KILL: signal.Signals = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process that stands still, too; Windows knows no other way to end one."""
_PR_SET_PDEATHSIG = 1
_processes = multiprocessing.get_context("spawn")  # as torch has threads


def end_with_parent() -> None:
    """Has a process of multiprocessing end with the thread that started it, if it stands still too.

    Ctrl-C is for whoever started it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(needed(needed(multiprocessing.parent_process()).pid), KILL)


def end_with(parent: int, by: int) -> None:
    """Has this process sent a signal once the thread of its parent that has started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
        if os.getppid() != parent:  # it is gone already
            raise SystemExit(1)


def tied(*arguments: object, by: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line of a program in Python that is ended with this process, by a signal.

    It can be asked to end, also where this process ignores that, as under nohup or after a shell's
    `&`.
    """
    first = ("-m", __name__, os.getpid(), int(by)) if os.name == "posix" else ()
    return [sys.executable, *map(str, (*first, *arguments))]


def interrupt(program: subprocess.Popen[bytes]) -> None:
    """Sends Ctrl-C to a program in a group of its own, and to all in it; Windows ends it alone."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # they have ended
            os.killpg(program.pid, signal.SIGINT)
    else:
        program.terminate()


@contextmanager
def workers(n: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended in the middle of their work where this one is to end."""
    with ProcessPoolExecutor(n, _processes, end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


if __name__ == "__main__":
    for asked in ASK_TO_END:
        signal.signal(asked, signal.SIG_DFL)
    end_with(*map(int, sys.argv[1:3]))
    os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
