"""What a session makes of a source that freezes, dies, and comes back the same or changed."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.pipeline.books.ledger import read_ledger
from tests.sessions import ROOT, check_accounted, finish, interrupt, start, trials_of


@contextmanager
def outlet(name: str, n_channels: int = 4, rate_hz: float = 250.0) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "tests.outlet", name, str(n_channels), str(rate_hz)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def name() -> str:
    return f"amp-{uuid.uuid4().hex[:8]}"


def listen(name: str, folder: Path, *more: str | Path) -> subprocess.Popen:
    streams = ("--eeg", name, "--markers", f"{name}-markers", "--tmin", "0", "--tmax", "0.2")
    return start("live", *streams, "--wait", "20", "--headless", "--out", folder, *more)


def states(folder: Path) -> list[str]:
    path = folder / "ledger.jsonl"
    records = read_ledger(path) if path.exists() else []
    changes = [r["state"] for r in records if r["event"] == "stream"]
    return [state for state in changes if state != "waiting"]  # told where it lasts long enough


def wait_for_state(folder: Path, state: str, n: int = 1, timeout_s: float = 30) -> float:
    """When the session has been in a state for the n-th time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if states(folder).count(state) >= n:
            return time.monotonic()
        time.sleep(0.01)
    raise AssertionError(f"{states(folder)} has no {n} times '{state}' after {timeout_s} s")


def test_a_source_that_freezes_is_stalled_then_lost_and_loses_no_trial(name, tmp_path) -> None:
    folder = tmp_path / "session"
    with outlet(name) as source:
        session = listen(name, folder)
        wait_for_state(folder, "streaming")
        time.sleep(2)
        os.kill(source.pid, signal.SIGSTOP)
        wait_for_state(folder, "lost")
        os.kill(source.pid, signal.SIGCONT)
        wait_for_state(folder, "streaming", n=2)
        time.sleep(1)
        interrupt(session)
        assert finish(session).code == 130
    assert states(folder)[:5] == ["streaming", "stalled", "lost", "recovered", "streaming"]
    told = check_accounted(folder)
    # A frozen source sends later what it could not send: late, but whole.
    assert set(told["dropped"]) <= {"shutdown", "no_data"}
    assert told["streams"]["gaps"] == 0


def test_a_source_that_dies_and_returns_is_decoded_again_without_a_restart(name, tmp_path) -> None:
    folder = tmp_path / "session"
    with outlet(name):
        session = listen(name, folder)
        wait_for_state(folder, "streaming")
        time.sleep(1)
    wait_for_state(folder, "stalled")
    before = len(trials_of(folder, "cut"))
    with outlet(name):
        returned_s = wait_for_state(folder, "recovered")
        deadline_s = returned_s + 10
        while len(trials_of(folder, "cut")) == before and time.monotonic() < deadline_s:
            time.sleep(0.01)
        resumed_s = time.monotonic()
        interrupt(session)
        assert finish(session).code == 130
    assert len(trials_of(folder, "cut")) > before
    assert resumed_s - returned_s < 3  # a second until its first marker, and the window
    told = check_accounted(folder)
    assert told["streams"]["gaps"] == 1


@pytest.mark.parametrize(
    ("n_channels", "rate_hz", "expected"),
    [
        (6, 250.0, "came back with 6 channels, the session began with 4"),
        (4, 500.0, "came back at 500 Hz, the session began at 250 Hz"),
    ],
)
def test_a_source_that_returns_changed_is_refused(
    name, tmp_path, n_channels: int, rate_hz: float, expected: str
) -> None:
    folder = tmp_path / "session"
    with outlet(name):
        session = listen(name, folder)
        wait_for_state(folder, "streaming")
        time.sleep(1)
    with outlet(name, n_channels, rate_hz):
        done = finish(session, timeout_s=60)
    assert done.code == 1
    assert expected in done.one_sentence()
    check_accounted(folder)
