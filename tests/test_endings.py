"""However a session is ended, its books are closed, its report is there, nothing else is left."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvf_core.problem import Problem
from stream.client import PLACE
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.lock import held
from tests.calling import ROOT, call
from tests.sessions import (
    amplifier,
    check_accounted,
    finish,
    listen,
    node_pid,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)
from tests.tiny_bundle import tiny_recording
from tests.tiny_painting import write_recording
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sockets of sessions that are started."""
    folder = Path(tmp_path, "t")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def cap() -> Iterator[str]:
    name = f"amp-{uuid.uuid4().hex[:8]}"
    with amplifier(name):
        yield name


def left_in(temporary: Path) -> list[Path]:
    """What is there but for the folder in which the sessions of a user say that they run."""
    return [one for one in temporary.iterdir() if one.name != PLACE.name]


def processes_of(*names: str) -> list[str]:
    """What runs with one of these names on its command line."""
    lines = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
    return [line for line in lines.splitlines() if any(name in line for name in names)]


def runs(folder: Path) -> bool:
    """Whether any process of a session lives."""
    try:
        with held(folder):
            return False
    except Problem:
        return True


@pytest.mark.parametrize(
    ("signals", "status"),
    [(["SIGTERM"], 143), (["SIGHUP"], 129), (["SIGINT", "SIGINT"], 130), (["SIGKILL"], -9)],
)
def test_a_session_that_a_signal_ends(tmp_path, temporary, signals: list[str], status: int) -> None:
    end = "lost" if signals == ["SIGKILL"] else "stop"  # nobody has asked for it
    folder = tmp_path / "session"
    recording = write_recording(tmp_path / "toy_raw.fif", 60 * "abcd")
    process = start("replay", recording, "--headless", "--out", folder)
    wait_for_decoded(folder, 2)
    for name in signals:
        process.send_signal(getattr(signal, name))
        time.sleep(0.1)
    done = finish(process)
    wait_until(lambda: not processes_of(str(tmp_path)) and not runs(folder))  # source, too
    assert done.code == status, done.err
    assert "Traceback" not in done.out + done.err
    if signals in (["SIGTERM"], ["SIGHUP"]):  # once, on a terminal that shows both
        assert (done.out + done.err).count(f"ended by {signals[0]}") == 1
    assert check_accounted(folder)["end"] == end
    assert (folder / "report.html").is_file()
    assert left_in(temporary) == []
    again = call("finish", folder)
    assert again.out.startswith("nothing is missing")


def test_a_session_whose_lines_nobody_reads_any_more(cap: str, tmp_path, temporary) -> None:
    folder = tmp_path / "session"
    process = listen(cap, folder)
    wait_for_decoded(folder, 1)
    assert process.stdout is not None
    process.stdout.close()
    os.kill(node_pid(folder, "results"), signal.SIGKILL)  # of which a line would be printed
    process.wait(200)
    assert process.stderr is not None
    said = process.stderr.read()
    # It may end before the results node is back: then nobody has listened for a moment.
    is_back = said.startswith("nobody reads what is printed any more")
    assert (process.returncode, said.count("\n")) == (141 if is_back else 1, 1), said
    assert is_back or said.startswith(("nobody listened", "the ledger lacks a marker")), said
    check_accounted(folder)
    assert (folder / "report.html").is_file()


def test_a_session_whose_terminal_is_closed(cap: str, tmp_path, temporary) -> None:
    """Without it nothing more is said; what moves on the screen is stopped."""
    import pty

    folder = tmp_path / "session"
    streams = ("--eeg", cap, "--markers", f"{cap}-markers", "--tmin", "0", "--tmax", "0.2")
    command = [sys.executable, "run_realtime.py", "live", *streams, "--wait", "100"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(command[0], [*command, "--out", str(folder)])
    wait_for_decoded(folder, 1)  # which prints less than a terminal keeps
    os.close(terminal)
    _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 129
    check_accounted(folder)
    assert (folder / "report.html").is_file()
    assert left_in(temporary) == []


def test_a_session_whose_folder_is_gone_ends_in_a_sentence(cap: str, tmp_path, temporary) -> None:
    folder = tmp_path / "session"
    process = listen(cap, folder)
    wait_for_decoded(folder, 1)
    shutil.rmtree(folder)
    done = finish(process)
    assert done.code == 1
    assert done.one_sentence() == f"the session folder '{folder}' is gone, and its books with it"
    assert left_in(temporary) == []


def test_a_session_whose_ledger_cannot_be_written_ends_and_is_finished_later(
    cap: str, tmp_path, temporary
) -> None:
    import resource

    folder = tmp_path / "session"
    process = listen(cap, folder, "--set", "record=false")
    wait_for_decoded(folder, 1)
    full = (folder / "ledger.jsonl").stat().st_size
    pids = [process.pid, node_pid(folder, "results")]
    for pid in pids:  # as of a disk that is full
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, full))
    done = finish(process)
    assert done.code == 1
    assert f"File too large: '{folder}" in done.one_sentence()
    assert f"finish {folder}" in done.one_sentence()
    assert call("finish", folder).code == 0
    check_accounted(folder)


def test_sessions_in_a_row_leave_nothing_behind(tmp_path, monkeypatch) -> None:
    """In this process: what a session forgets to give back is still there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recording = tiny_recording(tmp_path)

    def run(n: int) -> list[str]:
        folder = tmp_path / f"session-{n}"
        done = call("replay", recording, "--speed", "max", "--headless", "--out", folder)
        assert done.code == 0, done.err
        check_accounted(folder)
        assert sorted(folder.iterdir()) == [
            *(folder / name for name in ("config.json", "ledger.jsonl", "logs", "recording.xdf")),
            *(folder / name for name in ("report.html", "summary.json", "trials.csv")),
        ]
        shutil.rmtree(folder)
        assert processes_of(str(tmp_path)) == []
        gc.collect()  # what is only not collected yet is not forgotten
        return sorted(os.listdir(tmp_path))

    def n_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    names, n_first = run(0), n_files()
    for n in (1, 2):
        assert run(n) == names
        wait_until(lambda: n_files() <= n_first)  # ZeroMQ closes sockets when it comes to it


def test_two_sessions_at_once_hear_their_own_streams_alone(tmp_path: Path) -> None:
    shown = {"one": "abcdefgh", "two": "nopqrstu"}
    processes = [
        start("replay", recording, "--headless", "--out", tmp_path / name)
        for name, stimuli in shown.items()
        for recording in [write_recording(tmp_path / f"{name}_raw.fif", stimuli)]
    ]
    for process in processes:
        done = finish(process)
        assert done.code == 0, done.err
    for name, stimuli in shown.items():
        check_accounted(tmp_path / name)
        assert [r["stimulus"] for r in trials_of(tmp_path / name, "marker")] == list(stimuli)
        assert len(trials_of(tmp_path / name, "cut")) == len(stimuli)


def test_all_processes_that_are_killed_leave_what_finish_makes_whole(
    cap: str, tmp_path, temporary
) -> None:
    folder = tmp_path / "session"
    process = listen(cap, folder, "--save-trials", tmp_path / "t.npz")
    wait_for_ledger(folder, lambda records: any(r["event"] == "cut" for r in records))
    assert "runs still" in call("finish", folder).one_sentence()
    for pid in (process.pid, *(node_pid(folder, node) for node in ("results", "reader", "record"))):
        os.kill(pid, signal.SIGKILL)
    finish(process)
    wait_until(lambda: not runs(folder))  # what is killed is there for a moment more
    done = call("finish", folder)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert read_ledger(folder / "ledger.jsonl")[-1] == {"event": "end", "reason": "lost"}
    assert told["cut"] >= 1
    assert (tmp_path / "t.npz").is_file()
    assert "saved" in done.out
