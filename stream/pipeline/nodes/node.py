"""The life of a node: one process, started by a supervisor or alone, that says how it is."""

import os
import signal
import sys
import threading
import time
from _thread import interrupt_main
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast, get_args

import zmq

from hvf_core.problem import ASK_TO_END, Problem
from hvf_core.swift import wake_on_time
from hvf_core.text import printable
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.config import SessionConfig, read_config

Command = Literal["finish", "stop"]
LINE = "HVF_LIVE_LINE"
"""The variable with the address of a node's line: only what comes from there is believed."""
_BEAT_S = 1.0
_LOOK_S = 0.01  # how often the supervisor's line is looked at, however often the node asks


class Lifeline:
    """A node's line to its supervisor.

    The node calls `command` at least once a second: this sends its heartbeat and returns `finish`
    (the source has ended: bring the session to its end) or `stop` (end now), once asked to.
    `orders` are what is to be done on the way there. Signals that ask for an end are for the
    session, which ends its nodes in order; started alone, a node is stopped by them.

    Attributes:
        is_orphan: whether the supervisor has ended, which stops the node: what is left to do for
            the session is done by its nodes.
    """

    def __init__(self, node: str, endpoint: str, supervised: bool):
        self.incarnation = f"{node}-{os.getpid()}"
        self.is_orphan = self._is_ready = False
        self._command: Command | None = None
        self._orders: deque[tuple[str, str]] = deque()
        self._next_beat_s = 0.0
        self._next_look_s = 0.0
        self._socket = None
        if supervised:
            self._socket = open_socket(zmq.DEALER, endpoint, bind=False, line=os.environ[LINE])
        self._node = node.encode()
        for number in ASK_TO_END:
            signal.signal(number, self._leave if supervised else self._stop)

    def _stop(self, *_: object) -> None:
        self._command = "stop"

    def _leave(self, *_: object) -> None:
        """Ends an orphan that still loads, which may take long and is for nobody any more."""
        if self.is_orphan and not self._is_ready:
            raise SystemExit(1)

    def outlive_nobody(self) -> None:
        """Stops when standard input ends: it does with the supervisor, whatever became of him."""
        if self._socket is not None:
            threading.Thread(target=self._wait_for_the_end, daemon=True).start()

    def _wait_for_the_end(self) -> None:
        while os.read(0, 1):
            pass
        self.is_orphan = True
        self._stop()
        interrupt_main()

    def say(self, word: str, text: str = "") -> None:
        """Tells the supervisor `ready`, `beat`, `done`, `failed` or `broken`, with a sentence."""
        if self._socket is not None:
            self._socket.send_multipart([self._node, word.encode(), text.encode()])

    def ready(self) -> None:
        self._is_ready = True
        self.say("ready", self.incarnation)

    def command(self) -> Command | None:
        """What the node is to do, None while it is to go on."""
        now_s = time.monotonic()
        if self._socket is None or now_s < self._next_look_s:
            return self._command
        self._next_look_s = now_s + _LOOK_S
        if now_s >= self._next_beat_s:
            self._next_beat_s = now_s + _BEAT_S
            self.say("beat")
        while self._socket.poll(0):
            verb, _, argument = self._socket.recv().decode().partition(" ")
            if verb in get_args(Command):
                self._command = cast(Command, verb)
            else:
                self._orders.append((verb, argument))
        return self._command

    def orders(self) -> Iterator[tuple[str, str]]:
        """Orders that `command` has come across, verb and argument, for between two trials."""
        while self._orders:
            yield self._orders.popleft()


def run_node(node: str, run: Callable[[SessionConfig, Lifeline], None]) -> None:
    """The main program of a node: `python -m stream.pipeline.nodes.NODE CONFIG [--supervised]`."""
    arguments = [a for a in sys.argv[1:] if a != "--supervised"]
    if len(arguments) != 1:
        print(f"usage: python -m stream.pipeline.nodes.{node} SESSION/config.json", file=sys.stderr)
        raise SystemExit(2)
    lifeline = None
    wake_on_time()
    try:
        config = read_config(Path(arguments[0]))
        lifeline = Lifeline(node, config.endpoints.control, "--supervised" in sys.argv)
        lifeline.outlive_nobody()
        run(config, lifeline)
        lifeline.say("done")
    except Problem as problem:
        print(printable(str(problem)), file=sys.stderr)
        if lifeline is not None:
            lifeline.say("failed", str(problem))
        raise SystemExit(1) from None
    except OSError as error:  # as of a full disk, on which there may be room again
        if lifeline is not None:
            lifeline.say("broken", f"{error.strerror or error}: '{error.filename or node}'")
        raise
    finally:
        if lifeline is not None and lifeline.is_orphan:
            config.endpoints.remove()
