"""Starts the processes of a session, restarts those that die, and ends them all in order."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from hvf_core.problem import Problem
from stream.pipeline.back_off import BackOff, ending
from stream.pipeline.nodes.node import LINE
from stream.pipeline.wire.asked import Asked, parted, read_asked
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import RESERVED, LiveSource, SessionConfig
from stream.pipeline.wire.keys import lab_endpoint
from stream.pipeline.wire.messages import Message, Noted
from stream.pipeline.wire.nodes import READER, SOURCE, SUPERVISOR, NodeSpec
from stream.pipeline.witness import last_number
from stream.sources.settings import NOTICE

_READY_WAIT_S = 90.0
_SOURCE_END_WAIT_S = 5.0
# A trial is too small to share: on few cores a second thread only spins, and starves the others.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Ctrl-C is for the session alone, which ends its processes in order. Windows calls it otherwise.
_NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
# Elsewhere the node sees to it.
_LOW_PRIORITY = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)
_SILENT_S = 5.0  # after which it is said of a node that is needed
_KILLED = -9  # by a signal that Windows does not have
_AT_ONCE = 1000  # messages: whoever floods the session does not keep it from its work
_WORDS = ("ready", "beat", "done", "failed", "broken", "out_of_memory")


@dataclass
class _Node:
    """A node's process, and what it has said so far."""

    spec: NodeSpec
    process: subprocess.Popen[bytes]
    back_off: BackOff
    line: str
    """The address that this process, and no other, was given."""
    address: bytes | None = None
    """The same, from when on it was heard."""
    orders: list[str] = field(default_factory=list)
    """That it was not there to hear."""
    asked: str | None = None
    """What it was told last; a node that starts later, or again, is told then."""
    ready: bool = False
    done: bool = False
    failure: str = ""
    last_words: str = ""
    """Of what it died; it may do better once it is started again."""
    out_of_memory: bool = False
    was_hung: bool = False
    is_silent: bool = False
    given_up: bool = False
    last_beat_s: float = field(default_factory=time.monotonic)
    started_s: float = field(default_factory=time.monotonic)
    restart_at_s: float | None = None


class Supervisor:
    """One process per node, plus the source of the streams, if the session brings its own.

    Nodes that are optional are waited for by nobody. One that dies is started again after a pause,
    and one that fails is given up; the session goes on.

    Args:
        config: the session; its folder gets the log of every process.
        nodes: in the order in which they start.
        source: command line of a player that waits for the line `go`.
        inherited: file descriptors that every process keeps open while it lives.
    """

    def __init__(
        self,
        config: SessionConfig,
        nodes: Sequence[NodeSpec],
        source: Sequence[str] | None,
        inherited: Sequence[int] = (),
    ):
        self.config = config
        """As it is by now: what a node that is started again is given."""
        self.events: list[str] = []  # what a person should know, not shown yet
        self.asked: list[Asked] = []  # not answered yet
        also = lab_endpoint(config.outputs.listen, "control")
        self._control = open_socket(zmq.ROUTER, config.endpoints.control, bind=True, also=also)
        self._reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
        # The nodes' standard input: it ends with this process, however that ends, and they with it.
        self._stdin, self._held = os.pipe()
        self._inherited = inherited
        self._logs = config.folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._ready_until_s = time.monotonic() + _READY_WAIT_S + config.streams_wait_s
        self._nodes = {
            spec.name: _Node(
                spec,
                self._start(spec, config.folder / "config.json", line := _new_line(spec)),
                BackOff(spec.longest_pause_s),
                line,
            )
            for spec in nodes
        }
        self.source = self._run(SOURCE, source, subprocess.PIPE) if source else None

    def wait_until_ready(self) -> None:
        """Waits until `is_ready`."""
        while not self.is_ready():
            self.listen(100)

    def is_ready(self) -> bool:
        """Whether every node that is not optional has said so.

        Raises:
            Problem: a node failed, died, or took too long.
        """
        needed = [node for node in self._nodes.values() if not node.spec.optional]
        for node in needed:
            self._refuse_dead(node)
        self._refuse_dead_source()
        waiting = ", ".join(node.spec.name for node in needed if not (node.ready or node.done))
        if waiting and time.monotonic() > self._ready_until_s:
            raise Problem(
                f"the nodes {waiting} were not ready within "
                f"{_READY_WAIT_S + self.config.streams_wait_s:g} s; see logs in '{self._logs}'"
            )
        return not waiting

    def go(self) -> None:
        """Lets the source play, and says what it has to say of what it plays."""
        if self.source is not None and self.source.stdin is not None:
            for line in self._source_log():
                if line.startswith(NOTICE):
                    self.report(Noted(node=SOURCE, text=line.removeprefix(NOTICE), facts={}))
            with suppress(BrokenPipeError):  # it has just died, which is seen soon enough
                self.source.stdin.write(b"go\n")
                self.source.stdin.flush()

    def listen(self, wait_ms: int) -> None:
        """Takes what nodes and others say; `asked` holds what is not from a node."""
        for _ in range(_AT_ONCE):
            if not self._control.poll(wait_ms):
                return
            wait_ms = 0
            envelope, words = parted(self._control.recv_multipart())
            try:
                asked = read_asked(envelope, words, self.config.session)
            except Problem as problem:
                self.answer(envelope, "refused", str(problem))
                continue
            node = self._nodes.get(asked.by)
            if asked.verb not in _WORDS:
                self.asked.append(asked)
            elif node is not None and envelope[0] == node.line.encode():
                self._hear(node, envelope[0], asked.verb, asked.argument)
            else:
                text = f"'{asked.by}' is no process of the session's nodes; to look on, say hello"
                self.answer(envelope, "refused", text)

    def look_after(self) -> None:
        """Restarts nodes that died or hang, but for those that were told to stop.

        Raises:
            Problem: a node that is needed cannot go on; it is told once.
        """
        for node in self._nodes.values():
            if self.is_over(node.spec.name):
                continue
            self._kill_if_hung(node)
            if node.asked == "stop" and node.process.poll() is not None:
                self._hear_last_words(node)  # another would only begin anew
                node.given_up = not node.done
            elif node.restart_at_s is not None:
                if time.monotonic() >= node.restart_at_s:
                    try:
                        self._start_again(node)
                    except OSError as error:  # its config or log cannot be written
                        where = error.filename or self.config.folder
                        node.last_words = f"{error.strerror}: '{where}'"
                        node.ready = node.out_of_memory = False  # it has not lived again
                        self._bury(node)
            elif node.process.poll() is not None:
                self._hear_last_words(node)
                if not node.done:
                    self._bury(node)

    def command(self, command: str, *names: str) -> None:
        """Says `finish`, `stop`, `pause` or `resume` to nodes that the session has, or to all.

        One that is started again later is told then.
        """
        for node in self._named(names):
            node.asked = command
            self._tell(node, command)

    def order(self, order: str, *names: str) -> None:
        """Says something to nodes once; those that are started again have it in their config."""
        for node in self._named(names):
            if node.address is None:
                node.orders.append(order)
            else:
                self._tell(node, order)

    def answer(self, envelope: Sequence[bytes], outcome: str, text: str) -> None:
        """Answers somebody who asked."""
        self._control.send_multipart([*envelope, outcome.encode(), text.encode()])

    def report(self, message: Message) -> None:
        """Says something to the results node."""
        send(self._reports, message)

    def is_over(self, name: str) -> bool:
        """Whether a node has come to its end, will not come to one, or is none of the session's."""
        node = self._nodes.get(name)
        return node is None or node.done or node.given_up

    def is_done(self, name: str, wait_s: float) -> bool:
        """Whether a node says, within this time, that it has come to its end."""
        deadline_s = time.monotonic() + wait_s
        while not self._nodes[name].done and time.monotonic() < deadline_s:
            self.listen(20)
        return self._nodes[name].done

    def end(self) -> None:
        """Ends every process that still runs: asks, then terminates, then kills."""
        self.listen(0)
        self.command("stop")
        now_s = time.monotonic()
        deadlines_s: dict[subprocess.Popen[bytes], float] = {}
        for node in self._nodes.values():
            deadlines_s[node.process] = now_s + node.spec.end_wait_s
            if node.address is None:
                node.process.kill()  # it has not got far enough to listen
        if self.source is not None:
            if self.source.stdin is not None:
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
        os.close(self._held)
        os.close(self._stdin)

    def _named(self, names: Sequence[str]) -> list[_Node]:
        return [self._nodes[name] for name in names or self._nodes if name in self._nodes]

    def _start(self, spec: NodeSpec, config_path: Path, line: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", spec.module, str(config_path), "--supervised"]
        flags = _LOW_PRIORITY if spec.has_low_priority else 0
        return self._run(spec.name, command, self._stdin, _ONE_THREAD | {LINE: line}, flags)

    def _run(
        self,
        name: str,
        command: Sequence[str],
        stdin: int,
        env: Mapping[str, str] = {},
        flags: int = 0,
    ) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
                pass_fds=self._inherited,
                process_group=0,  # Ctrl-C is for the session alone, which ends them in order
                creationflags=_NEW_GROUP | flags,
            )

    def _hear(self, node: _Node, address: bytes, word: str, text: str) -> None:
        node.address, node.last_beat_s = address, time.monotonic()
        while node.orders:
            self._tell(node, node.orders.pop(0))
        match word:
            case "ready":
                node.ready = True
                if node.asked is not None:
                    self._tell(node, node.asked)
            case "done":
                node.done = True
            case "failed":
                node.failure = text
            case "broken":
                node.last_words = text
            case "out_of_memory":
                node.out_of_memory = True

    def _hear_last_words(self, node: _Node) -> None:
        """Waits for the words of a dead node, which others speak between; the killed have none."""
        until_s = time.monotonic() + (0.1 if node.process.returncode < 0 else 1.0)
        while time.monotonic() < until_s and not (node.done or node.failure or node.last_words):
            self.listen(20)

    def _tell(self, node: _Node, order: str) -> None:
        if node.address is not None:
            self._control.send_multipart([node.address, order.encode()])

    def _refuse_dead(self, node: _Node) -> None:
        if (code := node.process.poll()) is None:
            return
        self._hear_last_words(node)
        if not node.done:  # in virtual time all may be over before the last node is ready
            raise self._problem(node, f"ended with code {code} before it was ready")

    def _problem(self, node: _Node, what: str) -> Problem:
        name, why = node.spec.name, node.last_words
        look = f"look into '{self._logs / name}.log'"
        return Problem(node.failure or f"the node {name} {what}; " + (why or look))

    def _refuse_dead_source(self) -> None:
        if self.source is None or self.source.poll() is None:
            return
        said = self._source_log()
        why = said[-1] if said else f"it ended with code {self.source.returncode}"
        raise Problem(f"the source of the streams did not start: {why}")

    def _source_log(self) -> list[str]:
        text = (self._logs / f"{SOURCE}.log").read_text(encoding="utf-8", errors="replace")
        return text.strip().splitlines()

    def _kill_if_hung(self, node: _Node) -> None:
        silent_s = time.monotonic() - node.last_beat_s
        longest_s = node.spec.hung_after_s if node.ready else node.spec.load_wait_s
        if silent_s > longest_s and node.process.poll() is None:
            self.say(f"{node.spec.name} has been silent for {silent_s:.0f} s and is killed")
            node.process.kill()
            node.process.wait()
            node.was_hung = True
        elif node.ready and not node.spec.optional and node.is_silent != (silent_s > _SILENT_S):
            node.is_silent = not node.is_silent
            how = f"has been silent for {silent_s:.0f} s" if node.is_silent else "goes on"
            self.say(f"{node.spec.name} {how}")

    def _bury(self, node: _Node) -> None:
        """Says what becomes of a node that died, and when it is started again."""
        name, now_s = node.spec.name, time.monotonic()
        # A process that nobody here has killed was most likely killed by the kernel, for memory.
        killed = node.process.returncode == _KILLED and not node.was_hung
        lived_s = now_s - node.started_s if node.ready else 0.0
        restart = node.back_off.after_death(lived_s, node.out_of_memory or killed)
        node.given_up = bool(node.failure) or restart.nth > node.spec.max_restarts
        if node.given_up and node.spec.optional:
            text = f"{name} is given up, decoding goes on without it: {node.failure}"
            self.say(text, given_up=node.failure)
            return
        if node.given_up:
            raise self._problem(node, f"died {restart.nth} times in a row")
        of_what = f"{ending(node.process)}" + f", {node.last_words}" * bool(node.last_words)
        how = "ran out of memory" if node.out_of_memory else f"died ({of_what})"
        after = ""
        if restart.with_less_memory and node.spec.optional and self.config.painting is not None:
            self.config, after = self.config.with_less_memory(), ", at half the size"
        self.say(f"{name} {how} and is restarted in {restart.pause_s:g} s{after}")
        node.restart_at_s = now_s + restart.pause_s

    def _start_again(self, node: _Node) -> None:
        name, sockets = node.spec.name, self.config.endpoints.folder
        if not sockets.is_dir():
            raise Problem(
                f"{name} cannot be started again: the folder of the session's sockets '{sockets}' "
                "was swept away; set TMPDIR to a place that nobody sweeps"
            )
        if name == READER and isinstance(self.config.source, LiveSource):
            first = last_number(self.config.kept("numbers")) + RESERVED + 1
            self.config = self.config.model_copy(update={"first_trial": first})
        self.config = self.config.model_copy(update={"was_told": node.asked})
        node.line = _new_line(node.spec)
        path = self.config.write(f"config-{name}.json")
        node.process = self._start(node.spec, path, node.line)
        node.started_s = node.last_beat_s = time.monotonic()
        node.ready = node.out_of_memory = node.was_hung = node.is_silent = False
        node.last_words, node.address, node.restart_at_s = "", None, None
        node.orders.clear()

    def say(self, text: str, **facts: Any) -> None:
        """Tells the screen, by way of `events`, and the ledger."""
        self.events.append(text)
        self.report(Noted(node=SUPERVISOR, text=text, facts=facts))


def _new_line(spec: NodeSpec) -> str:
    return f"{spec.name}-{secrets.token_hex(8)}"
