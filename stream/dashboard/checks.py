"""The doctor's checks for pages: a process of its own that gives way, and one run at a time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Lock, Thread, Timer
from typing import IO, Any

from hvf_core.problem import Problem, needed

_DOCTOR = "stream.doctor.beside"
_LONGEST_S = 180.0  # each check has a limit of its own, and few need it
_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_FLAGS |= getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)


class Checks:
    """Has a session looked at, and keeps what was found last.

    Attributes:
        told: what pages are told: the kind `checks`.
    """

    def __init__(self, folder: Path):
        self.told: dict[str, Any] = {"kind": "checks", "state": "never", "at": "", "verdicts": []}
        self._folder, self._lock = folder, Lock()

    def begin(self, *, is_over: bool) -> str:
        """Begins to look; a sentence that says so.

        Args:
            is_over: whether the session has ended: then its folder is looked at.

        Raises:
            Problem: the last look is not over.
        """
        with self._lock:
            if self.told["state"] == "running":
                raise Problem("the checks run already: their verdicts come as they are found")
            self._tell(state="running", at=f"{datetime.now():%H:%M:%S}", verdicts=[])
        Thread(target=self._look, args=(is_over,), daemon=True).start()
        return "the checks have begun"

    def _look(self, is_over: bool) -> None:
        command = [sys.executable, "-m", _DOCTOR, str(self._folder), *["--over"] * is_over]
        try:
            with TemporaryFile() as log, _started(command, log) as process:
                self._hear(process, log)
        except (OSError, RuntimeError) as error:  # of a full disk, or where no process can begin
            self._add(_failure(f"cannot run ({error})"))
        finally:
            self._tell(state="done")

    def _hear(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        is_late = Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = Timer(_LONGEST_S, end)
        timer.daemon = True
        timer.start()
        for line in needed(process.stdout):
            with suppress(ValueError, TypeError, KeyError):  # a library's words are no verdict
                said = json.loads(line)
                self._add({name: said[name] for name in ("section", "state", "text")})
        code = process.wait()
        timer.cancel()
        if is_late.is_set():
            self._add(_failure(f"did not end within {_LONGEST_S:g} s"))
        elif code:
            self._add(_failure(f"ended with code {code}{_last_of(log)}"))

    def _add(self, verdict: dict[str, str]) -> None:
        if verdict not in self.told["verdicts"]:  # one fault may fail several checks
            self._tell(verdicts=[*self.told["verdicts"], verdict])

    def _tell(self, **news: Any) -> None:
        self.told = self.told | news


def _started(command: Sequence[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it ends with this process, however that ends
        stdout=subprocess.PIPE,
        stderr=log,
        process_group=0,  # Ctrl-C is for the page, which ends it
        creationflags=_FLAGS,
    )


def _last_of(log: IO[bytes]) -> str:
    log.seek(0)
    *_, last = [b"", *log.read().splitlines()]
    return f" ({last.decode('utf-8', 'replace')})" if last else ""


def _failure(why: str) -> dict[str, str]:
    """A verdict on checks that came to no end of their own."""
    text = f"the checks {why}: run `doctor` in a terminal, which says more"
    return {"section": "checks", "state": "FAIL", "text": text}
