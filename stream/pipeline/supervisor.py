"""Starts the processes of a session, restarts those that die, and ends them all in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import zmq

from hvf_core.problem import Problem
from stream.pipeline.back_off import BackOff
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.messages import Noted

SUPERVISOR = "supervisor"
"""Under which name it notes what it does; a person has been told by then."""
_READY_WAIT_S = 90.0
_RESTART_PAUSE_S = 0.5
_MAX_RESTARTS = 5  # of one node in one session
_SOURCE_END_WAIT_S = 5.0
# A trial is too small to share: on few cores a second thread only spins, and starves the others.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class _Node:
    hung_after_s: ClassVar = 15.0  # without a heartbeat; nodes beat every second
    end_wait_s: ClassVar = 5.0

    name: str
    process: subprocess.Popen
    ready: bool = False
    done: bool = False
    failure: str = ""
    last_beat_s: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at_s: float | None = None
    was_hung: bool = False
    asked: str | None = None
    """What it was told last; a node that starts later, or again, is told then."""


@dataclass
class _OptionalNode(_Node):
    """A node that the session can do without."""

    hung_after_s: ClassVar = 120.0  # a step of a large model may take long
    end_wait_s: ClassVar = 0.5  # it had its time before

    back_off: BackOff = field(default_factory=BackOff)
    started_s: float = field(default_factory=time.monotonic)
    out_of_memory: bool = False
    given_up: bool = False


class Supervisor:
    """One process per node, plus the source of the streams, if the session brings its own.

    Args:
        config: the session; its folder gets the log of every process.
        nodes: modules of `stream.pipeline.nodes`, in the order in which they start.
        source: command line of a player that waits for the line `go`.
        optional: further nodes, which nothing waits for. One that dies is started again after a
            pause, and one that fails is given up; the session goes on.
        package: where the nodes' modules are.
    """

    def __init__(
        self,
        config: SessionConfig,
        nodes: Sequence[str],
        source: Sequence[str] | None,
        optional: Sequence[str] = (),
        package: str = "stream.pipeline.nodes",
    ):
        self._config = config
        self._control = open_socket(zmq.ROUTER, config.endpoints.control, bind=True)
        self._reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
        self._logs = config.folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._addresses: dict[str, bytes] = {}
        self._package = package
        self._nodes: dict[str, _Node] = {}
        for name in nodes:
            self._nodes[name] = _Node(name, self._start(name))
        for name in optional:
            self._nodes[name] = _OptionalNode(name, self._start(name))
        self.source = self._start_source(source) if source else None
        self.events: list[str] = []  # what a person should know, not shown yet

    def wait_until_ready(self) -> None:
        """Waits for every node that is not optional.

        Raises:
            Problem: a node failed, died, or took too long.
        """
        deadline_s = time.monotonic() + _READY_WAIT_S
        needed = [node for node in self._nodes.values() if not isinstance(node, _OptionalNode)]
        while not all(node.ready or node.done for node in needed):
            self._listen(100)
            for node in needed:
                self._refuse_dead(node)
            self._refuse_dead_source()
            if time.monotonic() > deadline_s:
                waiting = ", ".join(node.name for node in needed if not node.ready)
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
            if self.is_over(node.name):
                continue
            self._kill_if_hung(node)
            if node.process.poll() is None:
                continue
            if isinstance(node, _OptionalNode):
                self._restart_later(node)
            else:
                self._restart(node, next_trial)

    def command(self, command: str, *names: str) -> None:
        """Sends `finish` or `stop` to the nodes named, or to all."""
        for name in names or self._nodes:
            self._nodes[name].asked = command
            self._tell(name)

    def pid_of(self, name: str) -> int:
        """The process id of a node."""
        return self._nodes[name].process.pid

    def is_over(self, name: str) -> bool:
        """Whether a node has come to its end, or will not come to one."""
        node = self._nodes[name]
        return node.done or (isinstance(node, _OptionalNode) and node.given_up)

    def end(self) -> None:
        """Ends every process that still runs: asks, then terminates, then kills."""
        self._listen(0)
        self.command("stop")
        now_s = time.monotonic()
        deadlines_s: dict[subprocess.Popen, float] = {}
        for node in self._nodes.values():
            deadlines_s[node.process] = now_s + node.end_wait_s
            if node.name not in self._addresses:
                node.process.terminate()  # it has not got far enough to listen
        if self.source is not None:
            self.source.stdin.close()
            self.source.terminate()
            deadlines_s[self.source] = now_s + _SOURCE_END_WAIT_S
        for process, deadline_s in sorted(deadlines_s.items(), key=lambda item: item[1]):
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._control.close(0)
        self._reports.close(0)

    def _start(self, name: str, config_path: Path | None = None) -> subprocess.Popen:
        config_path = config_path or self._config.folder / "config.json"
        command = [sys.executable, "-m", f"{self._package}.{name}", str(config_path)]
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
                    self._tell(node.name)
                case b"done":
                    node.done = True
                case b"failed":
                    node.failure = text.decode()
                case b"out_of_memory":
                    node.out_of_memory = True

    def _tell(self, name: str) -> None:
        asked = self._nodes[name].asked
        if asked is not None and name in self._addresses:
            self._control.send_multipart([self._addresses[name], asked.encode()])

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
        if node.ready and silent_s > node.hung_after_s and node.process.poll() is None:
            self._say(f"{node.name} has been silent for {silent_s:.0f} s and is killed")
            node.process.kill()
            node.process.wait()
            node.was_hung = True

    def _lost_with(self, name: str) -> str:
        """What a node knew that a new one will not."""
        if name == "decode":
            return "; what earlier repeats have shown is forgotten, so that they count anew"
        if name == "reader" and self._config.decoding.adaptation is not None:
            return "; the adaptation begins anew"
        return ""

    def _restart(self, node: _Node, next_trial: int) -> None:
        now_s = time.monotonic()
        if node.failure or node.restarts >= _MAX_RESTARTS:
            raise Problem(
                node.failure
                or f"the node {node.name} died {node.restarts + 1} times; look into "
                f"'{self._logs / node.name}.log'"
            )
        if node.restart_at_s is None:
            lost = self._lost_with(node.name)
            self._say(f"{node.name} died ({_ending(node.process)}) and is restarted{lost}")
            node.restart_at_s = now_s + _RESTART_PAUSE_S
            node.ready = False
        elif now_s >= node.restart_at_s:
            config_path = None
            if node.name == "reader":
                config = self._config.model_copy(update={"first_trial": next_trial})
                config_path = config.write(f"config-from-{next_trial}.json")
            self._start_again(node, config_path)

    def _start_again(self, node: _Node, config_path: Path | None) -> None:
        self._addresses.pop(node.name, None)  # of the dead one
        node.process = self._start(node.name, config_path)
        node.last_beat_s = time.monotonic()
        node.restart_at_s = None
        node.restarts += 1

    def _restart_later(self, node: _OptionalNode) -> None:
        if node.restart_at_s is None:
            self._listen(100)  # its last words
            if not node.done:
                self._bury(node)
        elif time.monotonic() >= node.restart_at_s:
            node.started_s = time.monotonic()
            path = self._config.folder / f"config-{node.name}.json"
            self._start_again(node, path if path.exists() else None)

    def _bury(self, node: _OptionalNode) -> None:
        if node.failure:
            node.given_up = True
            text = f"{node.name} is given up, decoding goes on without it: {node.failure}"
            self._say(text, given_up=node.failure)
            return
        # A process that nobody here has killed was most likely killed by the kernel, for memory.
        killed = node.process.returncode == -signal.SIGKILL and not node.was_hung
        now_s = time.monotonic()
        lived_s = now_s - node.started_s
        restart = node.back_off.after_death(lived_s, node.out_of_memory or killed)
        how = "ran out of memory" if node.out_of_memory else f"died ({_ending(node.process)})"
        less = ""
        if restart.with_less_memory and self._config.painting is not None:
            self._config = self._config.with_less_memory()
            self._config.write(f"config-{node.name}.json")
            less = ", at half the size"
        self._say(f"{node.name} {how} and is restarted in {restart.pause_s:g} s{less}")
        node.restart_at_s = now_s + restart.pause_s
        node.ready = node.out_of_memory = node.was_hung = False

    def _say(self, text: str, **facts: Any) -> None:
        self.events.append(text)
        noted = Noted(session=self._config.session, node=SUPERVISOR, text=text, facts=facts)
        send(self._reports, noted)


def _ending(process: subprocess.Popen) -> str:
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"code {code}"
