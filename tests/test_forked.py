"""A process that is a copy is to its parent, and to the machine, what one started anew is."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.calling import ROOT
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is copied"),
]
STARTS = (subprocess.Popen, forked.Popen)


def started(start: Any, *words: str, **more: Any) -> Any:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, "text": True}
    return start([sys.executable, *words], **pipes | more)


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "stream.pipeline.nodes.results"),
        ("run_realtime.py", "config"),
        ("run_realtime.py", "replay", "nobody.fif"),
        ("run_realtime.py", "replay", "--no-such-option"),
        ("-m", "tests.outlet"),
    ],
)
def test_it_says_and_returns_the_same(words: tuple[str, ...]) -> None:
    told = []
    for start in STARTS:
        with started(start, *words) as process:
            out, err = process.communicate(timeout=100)
            told.append((process.returncode, out, err.strip().splitlines()[-1:]))
    assert told[0] == told[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_has_its_own_line_group_and_end(number: signal.Signals) -> None:
    words = ("-m", "tests.outlet", f"copy-{os.getpid()}", "4", "250", "x")
    told = []
    for start in STARTS:
        with started(start, *words, process_group=0) as process:
            told_by = Path(f"/proc/{process.pid}/cmdline")
            wait_until(told_by.read_bytes)  # the kernel says so a moment after the start
            line = told_by.read_bytes().rstrip(b"\0")
            assert process.poll() is None
            group = os.getpgid(process.pid) == process.pid
            process.send_signal(number)
            told.append((line, group, process.wait(100)))
    assert told[0] == told[1]
    assert told[0][2] == -number
