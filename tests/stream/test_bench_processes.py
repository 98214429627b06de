"""What a benchmark has started ends with it, in whatever way that is ended."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hvf_core.problem import ASK_TO_END
from tests.sessions import ROOT
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a process of it"),
]
WORKERS = """
import os, time
from hvf_core.problem import one_sentence
from stream.bench.processes import workers
with one_sentence(), workers() as pool:
    pool.submit(os.getpid).result()
    print("begun", flush=True)
    pool.submit(time.sleep, 600).result()
"""
PEER = """
import sys, time
from pathlib import Path
from stream.bench.peers.job import Job
from stream.bench.peers.peers import Peer, RunningPeer
folder = Path(sys.argv[1])
names = dict.fromkeys(("eeg", "markers", "answers"), "nowhere")
paths = dict.fromkeys(("session", "bundle", "gallery", "said"), folder)
with RunningPeer(
    Peer((), "stream.bench.peers.subscriber", "lsl"),
    Job(**names, **paths, channels=(), rate_hz=250.0),
    folder,
):
    print("begun", flush=True)
    time.sleep(600)
"""
FAULTS = """
import sys, time
from pathlib import Path
from hvf_core.problem import one_sentence
from stream.bench.faults.session import FaultySession
from stream.bench.faults.table import FAULTS
with one_sentence(), FaultySession(FAULTS["none"], Path(sys.argv[1])) as session:
    assert session.begin()
    for step in ("STOP source", "STOP decode", "spin"):
        session.do(step)
    print("begun", flush=True)
    time.sleep(600)
"""
CLIENTS = """
import time
from stream.bench.beside import blocks, clients
def measure(folder, n_blocks, tell):
    tell.send(True)
    print("begun", flush=True)
    time.sleep(600)
blocks._measure = measure
clients.main(100, 5, 0)
"""
PAINTER = """
import time
from stream.bench.beside import painter
def measure(bench, process, n_trials):
    process.suspend()
    print("begun", flush=True)
    time.sleep(600)
painter.measure = measure
painter.main(2)
"""


def ended_by(number: int, script: str, *arguments: object) -> tuple[int, list[psutil.Process]]:
    """What is left of a script's processes: its exit status and what it had started."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == b"begun\n"
        children = psutil.Process(bench.pid).children(recursive=True)
        bench.send_signal(number)
        try:
            bench.wait(60)
        finally:
            bench.kill()
    return bench.returncode, children


def is_over(process: psutil.Process) -> bool:
    """Whether it has ended; what no parent has asked after stays as a zombie."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_for_ends(children: Sequence[psutil.Process]) -> None:
    """Waits until all have ended, and kills those that do not."""
    try:
        wait_until(lambda: all(map(is_over, children)), 60)
    finally:
        for one in children:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.mark.parametrize(
    ("number", "status"), [(n, 128 + n) for n in ASK_TO_END] + [(signal.SIGKILL, -9)]
)
def test_a_worker_ends_in_the_middle_of_its_work(number: int, status: int) -> None:
    returned, children = ended_by(number, WORKERS)
    assert returned == status
    assert children
    wait_for_ends(children)


@pytest.mark.parametrize(("script", "least"), [(PEER, 2), (FAULTS, 7), (CLIENTS, 2), (PAINTER, 2)])
def test_nothing_outlives_a_killed_bench(script: str, least: int, tmp_path: Path) -> None:
    _, children = ended_by(signal.SIGKILL, script, tmp_path)
    assert len(children) >= least
    wait_for_ends(children)
