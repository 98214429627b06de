"""Answers of one session in blocks, without somebody and with him, in turn.

A session decodes the demo's simulated subject, over real LSL. In every second block a crowd is
there, in a process of its own. Both halves of the comparison come from the same minutes of the same
machine. A latency is from when the last sample of a trial's window could be read to when the
session gave its answer out, and to when it was at another subscriber, which is there all the time.
"""

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import zmq
from rich.console import Console
from rich.progress import track

from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.bench.beside.pairs import show_pairs
from stream.bench.measured_session import read_whole
from stream.bench.processes import end_with_parent, tied
from stream.pipeline.wire.bus import open_socket, receive
from stream.pipeline.wire.config import read_config
from stream.pipeline.wire.messages import Retrieval

Trials = Annotated[int, typer.Option(min=2, help="with them, and as many without")]
Nice = Annotated[
    int, typer.Option(min=0, max=19, help="Of them; 19: they take no core from the session")
]
Crowd = Callable[[Path, int], AbstractContextManager[None]]
"""So many of somebody, at the session in a folder."""
_ROOT = Path(__file__).parents[3]
_SOA_S, _REPEATS = 0.2, 20
_BLOCK = 50  # answers until they come or go
_SETTLING = 10  # answers after that which are not counted
_START_WAIT_S, _ANSWER_WAIT_S = 120.0, 30.0

_processes = multiprocessing.get_context("spawn")


def compare(
    who: str, crowd: Crowd, n: int, trials: int, nice: int, options: Sequence[str] = ()
) -> None:
    """Answers a subject with a crowd and without, and prints one table.

    Args:
        who: what is said of them.
        trials: answers with them, and as many without.
        options: more of the session.
    """
    n_blocks = 2 * -(-trials // _BLOCK)
    with tempfile.TemporaryDirectory(prefix="hvf-bench-") as base:
        folder = Path(base) / "session"
        command = ["run_realtime.py", "--no-paint", "--headless", "--out", folder, *options]
        command += ["--trials", (n_blocks + 1) * (_BLOCK + _SETTLING), "--repeats", _REPEATS]
        command += ["--soa", _SOA_S]
        with (Path(base) / "log").open("w") as log:
            session = subprocess.Popen(tied(*command), cwd=_ROOT, stdout=log, stderr=log)
        tell, told = _processes.Pipe()
        try:
            _wait_for(folder)
            arguments = (crowd, folder, n, nice, told)
            _processes.Process(target=_come_and_go, args=arguments, daemon=True).start()
            _show(_measure(folder, n_blocks, tell), f"{who} (nice {nice})")
        finally:
            tell.close()
            session.terminate()
            session.wait()


def _come_and_go(crowd: Crowd, folder: Path, n: int, niceness: int, told: Connection) -> None:
    """The process of the crowd: they come when it is told True, and go when it is told False."""
    end_with_parent()
    if hasattr(os, "nice"):
        os.nice(niceness)
    with suppress(EOFError):  # it is over
        while told.recv():
            with crowd(folder, n):
                told.recv()


def _wait_for(folder: Path) -> None:
    deadline_s = time.monotonic() + _START_WAIT_S
    while read_whole(folder) is None:
        if time.monotonic() > deadline_s:
            raise Problem(f"the session has not begun within {_START_WAIT_S:g} s")
        time.sleep(0.05)


def _measure(folder: Path, n_blocks: int, tell: Connection) -> dict[bool, np.ndarray]:
    """Latencies (blocks, answers, out and there) in ms, with them and without."""
    took_ms: dict[bool, list[list[tuple[float, float]]]] = {True: [], False: []}
    endpoint = read_config(folder / "config.json").endpoints.results
    with open_socket(zmq.SUB, endpoint, bind=False, hears=(Retrieval,)) as answers:
        told = f"{n_blocks} blocks of {_SETTLING + _BLOCK} answers"
        for block in track(range(n_blocks), told, console=Console(stderr=True), transient=True):
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


def _show(took_ms: dict[bool, np.ndarray], who: str) -> None:
    show_pairs(
        f"{who}, a trial every {_SOA_S:g} s; {os.cpu_count()} cores (simulated)",
        "readable → ..., ms",
        ("without", "with"),
        {
            where: (took_ms[False][..., at], took_ms[True][..., at])
            for at, where in enumerate(("out of the session, ", "at a subscriber, "))
        },
    )
