"""Whether clients delay answers: 20 of them, one of which is stalled and one sends rubbish.

`run_realtime.py bench clients`: a session decodes the demo's simulated subject, over real LSL. In
every second block of trials the clients are there: each follows the session by `stream.client`,
and hears all answers, the EEG and how it is; the stalled one has asked for everything and takes
nothing; the other one sends what is no message to the sockets of the session, 200 times a second.
Both halves of the comparison come from the same minutes of the same machine.

A latency is from when the last sample of a trial's window could be read to when the session gave
its answer out, and to when it was at another subscriber, which is there all the time.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import zmq

from stream import client
from stream.bench.beside.blocks import Nice, Trials, compare
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.config import read_config
from stream.pipeline.wire.endpoints import Endpoints

_KINDS = (client.TrialEnd, client.Retrieval, client.StreamHealth, client.Eeg, client.ChannelQuality)


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


def main(
    trials: Trials = 1000,
    clients: Annotated[int, typer.Option(min=3)] = 20,
    nice: Nice = 0,
) -> None:
    """Answers a subject with clients and without, in turn, and prints one table."""
    compare(f"{clients} clients", crowd, clients, trials, nice)
