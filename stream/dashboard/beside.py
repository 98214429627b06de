"""The dashboard beside a session: a process of its own, that lives no longer and slows nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread

from hvf_core.problem import needed
from stream.dashboard.ports import announce, doors_of, listening
from stream.pipeline.outputs.settings import PageSettings

_LOG = Path("logs/dashboard.log")
_ENDS_S = 5.0
_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_FLAGS |= getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextmanager
def dashboard_beside(
    folder: Path, page: PageSettings | None, say: Callable[[str], object]
) -> Iterator[None]:
    """Has a page of the session in a folder, if one is asked for, while that runs.

    Raises:
        Problem: no page can be served at the address.
    """
    if page is None:
        yield
        return
    bound = listening(page.address)
    doors = doors_of(page.address, bound)
    with bound:
        bound.set_inheritable(True)  # under the same number, elsewhere than on Linux too
        process = _start(folder, bound.fileno())
        announce(bound, doors, say, opens=folder if page.browser else None)
    with suppress(OSError):  # it has died, which ends no session
        needed(process.stdin).write(f"{json.dumps(asdict(doors))}\n".encode())
        needed(process.stdin).flush()
    is_ending = Event()

    def watch() -> None:
        code = process.wait()  # or it would stay a zombie
        if not is_ending.is_set():
            say(
                f"the page has ended by itself ({code}), and the session goes on: `dashboard "
                f"{folder}` serves it again; {folder / _LOG} may say why"
            )

    Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        is_ending.set()
        _end(process)


def _start(folder: Path, handle: int) -> "subprocess.Popen[bytes]":
    (folder / _LOG).parent.mkdir(exist_ok=True)
    with (folder / _LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stream.dashboard.run", str(folder), str(handle)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **_ONE_THREAD},
            close_fds=False,  # others than this one are not inheritable
            process_group=0,  # Ctrl-C is for the session, which ends it in order
            creationflags=_FLAGS,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Lets it tell pages how the session has ended."""
    with suppress(OSError):
        needed(process.stdin).close()
    try:
        process.wait(_ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
