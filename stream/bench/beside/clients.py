"""Whether clients delay answers: 20 of them, one of which is stalled and one sends rubbish.

`run_realtime.py bench clients`: a session decodes the demo's simulated subject, over real LSL. In
every second block of trials the clients are there: each follows the session by `stream.client`,
and hears all answers, the EEG and how it is; the stalled one has asked for everything and takes
nothing; the other one sends what is no message to the sockets of the session, 200 times a second.
Both halves of the comparison come from the same minutes of the same machine.

A latency is from when the last sample of a trial's window could be read to when the session gave
its answer out, and to when it was at another subscriber, which is there all the time.
"""

import multiprocessing
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import zmq

from hvf_core.problem import Problem
from stream import client
from stream.acquire.lsl import local_clock
from stream.bench.beside.pairs import show_pairs
from stream.bench.measured_session import read_whole
from stream.bench.processes import end_with_parent, tied
from stream.pipeline.wire.bus import open_socket, receive
from stream.pipeline.wire.config import read_config
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.messages import Retrieval

_ROOT = Path(__file__).parents[3]
_SOA_S, _REPEATS = 0.2, 20
_BLOCK = 50  # answers until clients come or go
_SETTLING = 10  # answers after that which are not counted
_KINDS = (client.TrialEnd, client.Retrieval, client.StreamHealth, client.Eeg, client.ChannelQuality)
_START_WAIT_S, _ANSWER_WAIT_S = 120.0, 30.0

_processes = multiprocessing.get_context("spawn")


@contextmanager
def crowd(folder: Path, n: int) -> Iterator[None]:
    """Clients of a session: `n`, of which two behave badly."""
    endpoints, done = read_config(folder / "config.json").endpoints, threading.Event()
    with ExitStack() as left:
        _start(_send_rubbish, endpoints, done)
        for endpoint in (endpoints.results, endpoints.signals):
            left.enter_context(open_socket(zmq.SUB, endpoint, bind=False, queue=1))  # is stalled
        for _ in range(n - 2):
            _start(_follow, left.enter_context(client.connect(str(folder))))
        yield
        done.set()


def _start(target: Any, *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _follow(session: client.Session) -> None:
    with suppress(client.ClientError):  # it leaves
        for _ in session.listen(*_KINDS):
            pass


def _send_rubbish(endpoints: Endpoints, done: threading.Event) -> None:
    rng = np.random.default_rng(0)
    reports = open_socket(zmq.PUSH, endpoints.reports, bind=False)
    control = open_socket(zmq.DEALER, endpoints.control, bind=False)
    with reports, control:
        while not done.wait(0.005):
            for socket in (reports, control):
                with suppress(zmq.Again):
                    socket.send(rng.bytes(200), zmq.NOBLOCK)
            while control.poll(0):
                control.recv_multipart()


def come_and_go(folder: Path, n: int, niceness: int, told: Connection) -> None:
    """The process of the clients: they come when it is told True, and go when it is told False."""
    end_with_parent()
    if hasattr(os, "nice"):
        os.nice(niceness)
    with suppress(EOFError):  # it is over
        while told.recv():
            with crowd(folder, n):
                told.recv()


def main(
    trials: Annotated[int, typer.Option(min=2, help="with clients, and as many without")] = 1000,
    clients: Annotated[int, typer.Option(min=3)] = 20,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="Of clients; 19: they take no core from the session")
    ] = 0,
) -> None:
    """Answers a subject with clients and without, in turn, and prints one table."""
    n_blocks = 2 * -(-trials // _BLOCK)
    with tempfile.TemporaryDirectory(prefix="hvf-bench-") as base:
        folder = Path(base) / "session"
        command = ["run_realtime.py", "--no-paint", "--headless", "--out", folder]
        command += ["--trials", (n_blocks + 1) * (_BLOCK + _SETTLING), "--repeats", _REPEATS]
        command += ["--soa", _SOA_S]
        with (Path(base) / "log").open("w") as log:
            session = subprocess.Popen(tied(*command), cwd=_ROOT, stdout=log, stderr=log)
        tell, told = _processes.Pipe()
        try:
            _wait_for(folder)
            arguments = (folder, clients, nice, told)
            _processes.Process(target=come_and_go, args=arguments, daemon=True).start()
            show(measure(folder, n_blocks, tell), clients, nice)
        finally:
            tell.close()
            session.terminate()
            session.wait()


def _wait_for(folder: Path) -> None:
    deadline_s = time.monotonic() + _START_WAIT_S
    while read_whole(folder) is None:
        if time.monotonic() > deadline_s:
            raise Problem(f"the session has not begun within {_START_WAIT_S:g} s")
        time.sleep(0.05)


def measure(folder: Path, n_blocks: int, tell: Connection) -> dict[bool, np.ndarray]:
    """Latencies (blocks, answers, out and there) in ms, with clients and without."""
    took_ms: dict[bool, list[list[tuple[float, float]]]] = {True: [], False: []}
    endpoint = read_config(folder / "config.json").endpoints.results
    with open_socket(zmq.SUB, endpoint, bind=False, hears=(Retrieval,)) as answers:
        for block in range(n_blocks):
            are_there = block % 4 in (1, 2)  # without, with, with, without ...
            if block % 2:
                tell.send(are_there)
            wait_s = _ANSWER_WAIT_S if block else _START_WAIT_S
            of_block = [_next_ms(answers, wait_s) for _ in range(_SETTLING + _BLOCK)]
            took_ms[are_there].append(of_block[_SETTLING:])
    return {are_there: np.array(blocks) for are_there, blocks in took_ms.items()}


def _next_ms(answers: zmq.SyncSocket, wait_s: float) -> tuple[float, float]:
    message = receive(answers, int(wait_s * 1e3))
    if not isinstance(message, Retrieval):
        raise Problem(f"no answer within {wait_s:g} s")
    there_s, stamps = local_clock(), message.stamps
    out_s, readable_s = stamps["published"], stamps["readable"]
    return (out_s - readable_s) * 1e3, (there_s - readable_s) * 1e3


def show(took_ms: dict[bool, np.ndarray], clients: int, nice: int) -> None:
    """Prints what was seen."""
    cores = f"{os.cpu_count()} cores"
    show_pairs(
        f"{clients} clients (nice {nice}), a trial every {_SOA_S:g} s; {cores} (simulated)",
        "readable → ..., ms",
        ("without", "with"),
        {
            where: (took_ms[False][..., at], took_ms[True][..., at])
            for at, where in enumerate(("out of the session, ", "at a subscriber, "))
        },
    )
