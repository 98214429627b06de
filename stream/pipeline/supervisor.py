"""Starts the processes of a session, restarts those that die, and ends them all in order."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from decoder.problem import Problem
from stream.pipeline.bus import open_socket
from stream.pipeline.config import SessionConfig

_READY_WAIT_S = 90.0
_HUNG_AFTER_S = 15.0  # without a heartbeat; nodes beat every second
_RESTART_PAUSE_S = 0.5
_MAX_RESTARTS = 5  # of one node in one session
_END_WAIT_S = 5.0
# A trial is too small to share: on few cores a second thread only spins, and starves the others.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class _Node:
    name: str
    process: subprocess.Popen
    ready: bool = False
    done: bool = False
    failure: str = ""
    last_beat_s: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at_s: float | None = None


class Supervisor:
    """One process per node, plus the source of the streams, if the session brings its own.

    Args:
        config: the session; its folder gets the log of every process.
        nodes: modules of `stream.pipeline`, in the order in which they start.
        source: command line of a player that waits for the line `go`.
    """

    def __init__(self, config: SessionConfig, nodes: Sequence[str], source: Sequence[str] | None):
        self._config = config
        self._control = open_socket(zmq.ROUTER, config.endpoints.control, bind=True)
        self._logs = config.folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._addresses: dict[str, bytes] = {}
        self._nodes = {name: _Node(name, self._start(name)) for name in nodes}
        self.source = self._start_source(source) if source else None
        self.events: list[str] = []  # what a person should know, not shown yet

    def wait_until_ready(self) -> None:
        """Waits for every node.

        Raises:
            Problem: a node failed, died, or took too long.
        """
        deadline_s = time.monotonic() + _READY_WAIT_S
        while not all(node.ready or node.done for node in self._nodes.values()):
            self._listen(100)
            for node in self._nodes.values():
                self._refuse_dead(node)
            self._refuse_dead_source()
            if time.monotonic() > deadline_s:
                waiting = ", ".join(n.name for n in self._nodes.values() if not n.ready)
                raise Problem(
                    f"the nodes {waiting} were not ready within {_READY_WAIT_S:g} s; look into "
                    f"their logs in '{self._logs}'"
                )

    def go(self) -> None:
        """Lets the source play."""
        if self.source is not None:
            self.source.stdin.write(b"go\n")
            self.source.stdin.flush()

    def look_after(self, next_trial: int) -> None:
        """Restarts nodes that died or hang; `next_trial` is the first number of a new reader.

        Raises:
            Problem: a node cannot go on.
        """
        self._listen(20)
        for node in self._nodes.values():
            if node.done:
                continue
            self._kill_if_hung(node)
            if node.process.poll() is not None:
                self._restart(node, next_trial)

    def command(self, command: str, *names: str) -> None:
        """Sends `finish` or `stop` to the nodes named, or to all."""
        for name in names or self._nodes:
            if name in self._addresses:
                self._control.send_multipart([self._addresses[name], command.encode()])

    def end(self) -> None:
        """Ends every process that still runs: asks, then terminates, then kills."""
        self._listen(0)
        self.command("stop")
        processes = [node.process for node in self._nodes.values()]
        for node in self._nodes.values():
            if node.name not in self._addresses:
                node.process.terminate()  # it has not got far enough to listen
        if self.source is not None:
            self.source.stdin.close()
            self.source.terminate()
            processes.append(self.source)
        deadline_s = time.monotonic() + _END_WAIT_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._control.close(0)

    def _start(self, name: str, config_path: Path | None = None) -> subprocess.Popen:
        config_path = config_path or self._config.folder / "config.json"
        command = [sys.executable, "-m", f"stream.pipeline.{name}", str(config_path)]
        with (self._logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--supervised"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | _ONE_THREAD,
            )

    def _start_source(self, command: Sequence[str]) -> subprocess.Popen:
        with (self._logs / "source.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def _listen(self, wait_ms: int) -> None:
        while self._control.poll(wait_ms):
            wait_ms = 0
            address, name, word, text = (part for part in self._control.recv_multipart())
            node = self._nodes[name.decode()]
            self._addresses[node.name] = address
            node.last_beat_s = time.monotonic()
            match word:
                case b"ready":
                    node.ready = True
                case b"done":
                    node.done = True
                case b"failed":
                    node.failure = text.decode()

    def _refuse_dead(self, node: _Node) -> None:
        code = node.process.poll()
        if code is None:
            return
        self._listen(100)  # its last words
        if node.done:
            return  # in virtual time all may be over before the last node is ready
        raise Problem(
            node.failure
            or f"the node {node.name} ended with code {code} before it was ready; look into "
            f"'{self._logs / node.name}.log'"
        )

    def _refuse_dead_source(self) -> None:
        if self.source is None or self.source.poll() is None:
            return
        said = (self._logs / "source.log").read_text(encoding="utf-8").strip().splitlines()
        why = said[-1] if said else f"it ended with code {self.source.returncode}"
        raise Problem(f"the source of the streams did not start: {why}")

    def _kill_if_hung(self, node: _Node) -> None:
        silent_s = time.monotonic() - node.last_beat_s
        if node.ready and silent_s > _HUNG_AFTER_S and node.process.poll() is None:
            self.events.append(f"{node.name} has been silent for {silent_s:.0f} s and is killed")
            node.process.kill()
            node.process.wait()

    def _restart(self, node: _Node, next_trial: int) -> None:
        now_s = time.monotonic()
        if node.failure or node.restarts >= _MAX_RESTARTS:
            raise Problem(
                node.failure
                or f"the node {node.name} died {node.restarts + 1} times; look into "
                f"'{self._logs / node.name}.log'"
            )
        if node.restart_at_s is None:
            self.events.append(f"{node.name} died ({_ending(node.process)}) and is restarted")
            node.restart_at_s = now_s + _RESTART_PAUSE_S
            node.ready = False
        elif now_s >= node.restart_at_s:
            config_path = None
            if node.name == "reader":
                config = self._config.model_copy(update={"first_trial": next_trial})
                config_path = config.write(f"config-from-{next_trial}.json")
            node.process = self._start(node.name, config_path)
            node.last_beat_s = now_s
            node.restart_at_s = None
            node.restarts += 1


def _ending(process: subprocess.Popen) -> str:
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"code {code}"
