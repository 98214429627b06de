"""Runs the command line as a person would, and reads what a session left behind."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from stream.pipeline.books.ledger import FACTS, read_ledger
from stream.pipeline.wire.config import read_config
from tests import forked
from tests.calling import ROOT, Done
from tests.waiting import wait_until

PATIENCE_S = 240.0  # whatever else the machine does, only what hangs takes longer

_started: list[subprocess.Popen[str]] = []


def run(*arguments: str | Path, module: str = "run_realtime.py") -> Done:
    """Runs `python run_realtime.py ARGUMENTS`, or `python -m MODULE ARGUMENTS`."""
    return finish(start(*arguments, module=module))


def start(
    *arguments: str | Path, module: str = "run_realtime.py", anew: bool = False
) -> subprocess.Popen[str]:
    """Starts what `run` runs, in a process group of its own, which ends with the test.

    With `anew` every process of a session does its own imports, as in life.
    """
    program = [module] if module.endswith(".py") else ["-m", module]
    process = (subprocess.Popen if anew else forked.Popen)(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    _started.append(process)
    return process


def end_what_was_left() -> None:
    """Kills the sessions of a test that failed before it ended them: some would run for ever."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@contextmanager
def amplifier(
    name: str, n_channels: int = 4, rate_hz: float = 250.0, text: str = "stim"
) -> Iterator[subprocess.Popen[bytes]]:
    """`tests.outlet` in a process of its own: the streams NAME and NAME-markers."""
    command = [sys.executable, "-m", "tests.outlet", name, str(n_channels), str(rate_hz), text]
    process = forked.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def listen(name: str, folder: Path, *more: str | Path) -> subprocess.Popen[str]:
    """Starts a session that cuts the trials of an amplifier, which may come after it."""
    streams = ("--eeg", name, "--markers", f"{name}-markers", "--tmin", "0", "--tmax", "0.2")
    return start("live", *streams, "--wait", str(PATIENCE_S), "--headless", "--out", folder, *more)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the signal goes to every process of the terminal."""
    os.killpg(process.pid, signal.SIGINT)


def finish(process: subprocess.Popen[str]) -> Done:
    """Waits for the end of a command."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out, err)


def wait_for_decoded(folder: Path, n: int) -> None:
    """Waits until a session has decoded or cut `n` trials, and is ready."""

    def enough(records: Sequence[dict[str, Any]]) -> bool:
        events = Counter(record["event"] for record in records)
        return events["decoded"] + events["cut"] >= n

    wait_for_ledger(folder, enough)
    wait_until(lambda: is_ready(folder), PATIENCE_S)


def is_ready(folder: Path) -> bool:
    """Whether all nodes of a session are, or it is over.

    Trials may be cut before that; a node that dies then ends the session, and it obeys nobody.
    """
    if (folder / "summary.json").exists():
        return True
    path = folder / "config.json"
    if not (path.exists() and path.read_bytes().endswith(b"}\n")):  # it is being written
        return False
    session = read_config(path).session
    temporary = next((os.environ[n] for n in ("TMPDIR", "TEMP", "TMP") if n in os.environ), "/tmp")
    said = Path(temporary).glob(f"hvf-live-*/{session}.json")
    return any(json.loads(one.read_text())["ready"] for one in said)


def wait_for_ledger(folder: Path, holds: Callable[[Sequence[dict[str, Any]]], bool]) -> None:
    """Waits until something holds for the ledger of a running session."""
    path = folder / "ledger.jsonl"
    wait_until(lambda: path.exists() and holds(read_ledger(path)), PATIENCE_S)


def node_pid(folder: Path, node: str) -> int:
    """The process id of a running node of the session, once that is ready."""
    wait_until(lambda: is_ready(folder), PATIENCE_S)
    wanted = f"stream.pipeline.nodes.{node}"
    return _pid(lambda line: wanted in line and str(folder) in line)


def source_pid(folder: Path, module: str) -> int:
    """The process id of the source of the session: the only one of its module's."""
    parent = _pid(lambda line: "run_realtime.py" in line and str(folder) in line)
    for child in psutil.Process(parent).children(recursive=True):
        if module in _command_line(child.pid):
            return child.pid
    raise AssertionError(f"no process of {module}")


def _pid(matches: Any) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and matches(_command_line(int(entry.name))):
            return int(entry.name)
    raise AssertionError("no such process")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def check_accounted(folder: Path) -> dict[str, Any]:
    """Every marker of a session has exactly one outcome, in the ledger and in the summary."""
    records = read_ledger(folder / "ledger.jsonl")
    assert all(set(record) == {"event"} | FACTS[record["event"]] for record in records)
    markers = [r["trial"] for r in records if r["event"] == "marker"]
    outcomes = [r["trial"] for r in records if r["event"] in ("decoded", "cut", "dropped")]
    assert sorted(outcomes) == sorted(markers)
    assert len(set(markers)) == len(markers)
    told = summary(folder)
    assert told["markers"] == len(markers)
    assert told["markers"] == told["decoded"] + told["cut"] + sum(told["dropped"].values())
    return told


def trials_of(folder: Path, event: str) -> Sequence[dict[str, Any]]:
    return [r for r in read_ledger(folder / "ledger.jsonl") if r["event"] == event]
