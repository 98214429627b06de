"""Processes of a benchmark, none of which outlives it, also where that is killed (on Linux).

`python -m stream.bench.processes PID PROGRAM ...` is `python PROGRAM ...`, which ends with PID.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
_processes = multiprocessing.get_context("spawn")  # as torch has threads


def end_with_parent(pid: int | None = None) -> None:
    """Has this process sent SIGTERM once the thread that has started it is gone.

    Args:
        pid: of its parent; None where that is multiprocessing's.
    """
    parent = multiprocessing.parent_process()
    if pid is None and parent is not None:
        pid = parent.pid
    if sys.platform == "linux":
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # as it was where this was started
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != pid:  # it is gone already
            raise SystemExit(1)


def tied(*arguments: object) -> list[str]:
    """The command line of a program in Python that ends with this process."""
    first = ("-m", __name__, os.getpid()) if sys.platform == "linux" else ()
    return [sys.executable, *map(str, (*first, *arguments))]


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
    end_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
