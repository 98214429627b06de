"""Runs one session from its start to its summary."""

import secrets
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import zmq
from rich.console import Console

from hvf_core.problem import Problem
from stream.pipeline.books.page import write_report
from stream.pipeline.books.terminal import TerminalView
from stream.pipeline.nodes.easel import NODE as PAINTER
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.bus import drain, open_socket
from stream.pipeline.wire.config import Endpoints, FileSource, SessionConfig
from stream.pipeline.wire.messages import NodeState, SessionClosed, StreamHealth

_CLOSE_WAIT_S = 45.0  # from the end of the source to the summary, while nothing moves
_PAINT_WAIT_S = 5.0  # after the last answer, for the image that is being painted
# In virtual time the session may be over before the painter is there, and has nobody waiting.
_LONG_PAINT_WAIT_S = 300.0


def new_session(out: Path | None) -> tuple[str, Path]:
    """The id of a new session and its folder, which is made; `sessions/ID` unless `out` is given.

    Raises:
        Problem: the folder holds a session, or cannot be made.
    """
    session = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = (out or Path("sessions") / session).absolute()
    if (folder / "config.json").exists():
        raise Problem(f"the folder '{folder}' holds a session already; name another with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            f"the session folder '{folder}' cannot be made ({error.strerror}); name another "
            "with --out"
        ) from None
    return session, folder


class Session:
    """The processes of a session, and the person who watches it.

    Ctrl-C ends it in order: what is open is dropped as `shutdown`, and the summary is written.
    """

    def __init__(
        self,
        config: SessionConfig,
        source: Sequence[str] | None,
        *,
        console: Console,
        headless: bool,
        n_trials: int | None,
        title: str,
    ):
        self._config = config
        self._source = source
        self._console = console
        self._headless = headless
        self._n_trials = n_trials
        self._title = title
        self._summary: dict[str, Any] | None = None
        self._optional = [PAINTER] if config.painting is not None else []
        self._is_painted = config.painting is None  # all that will be
        self._paint_until_s: float | None = None
        self._is_broken = False  # a node cannot go on
        self.interrupted = False
        self.failure: str | None = None  # what went wrong, though the session was accounted for

    def run(self) -> dict[str, Any]:
        """Runs to the end and returns the summary.

        Raises:
            Problem: the session could not start, or could not be brought to an end.
        """
        self._config.write()
        results = open_socket(zmq.SUB, self._config.endpoints.results, bind=False)
        supervisor = Supervisor(self._config, self._node_names(), self._source, self._optional)
        view = TerminalView(self._console, self._headless, self._n_trials, self._title)
        try:
            supervisor.wait_until_ready()
            supervisor.go()
            with view:
                self._watch(supervisor, results, view)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            supervisor.end()
            results.close(0)
            remove_endpoints(self._config.endpoints)
        if self._summary is None:
            ended = "was stopped" if self.interrupted else "ended"
            raise Problem(
                f"the session {ended} before its summary; its ledger is in '{self._config.folder}'"
            )
        try:
            write_report(self._config, self._summary)
        except Problem as problem:
            self.failure = self.failure or str(problem)
        return self._summary

    def _node_names(self) -> list[str]:
        names = ["results"]
        if self._config.record:
            names.append("record")
        if self._config.bundle is not None:
            names.append("decode")
        return [*names, "reader"]

    def _watch(self, supervisor: Supervisor, results: zmq.Socket, view: TerminalView) -> None:
        ending_since_s: float | None = None
        while self._summary is None:
            try:
                moved = self._step(supervisor, results, view)
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self.interrupted = True
                view.say("Stopping: what is open is dropped, the summary is written …")
                supervisor.command("stop", "reader", *self._optional)
                ending_since_s = time.monotonic()
                continue
            if ending_since_s is None and self._source_ended(supervisor):
                supervisor.command("finish", "reader")
                ending_since_s = time.monotonic()
            elif ending_since_s is not None and moved:
                ending_since_s = time.monotonic()
            # Once it is quiet: until then there are answers that nobody has seen.
            quiet = self._paint_until_s is not None or not moved
            if quiet and not self._is_painted and supervisor.is_over("reader"):
                self._let_paint(supervisor, view)
            if ending_since_s is not None and time.monotonic() - ending_since_s > _CLOSE_WAIT_S:
                supervisor.command("finish", "results")
                ending_since_s = time.monotonic()

    def _step(self, supervisor: Supervisor, results: zmq.Socket, view: TerminalView) -> bool:
        """Looks at the bus and after the nodes; whether anything came over the bus."""
        moved = False
        for message in drain(results):
            moved = moved or not isinstance(message, NodeState | StreamHealth)
            view.take(message)
            if isinstance(message, SessionClosed):
                self._summary = dict(message.summary)
                return True
        if not self._is_broken:
            try:
                supervisor.look_after(view.last_trial + 1)
            except Problem as problem:
                self.failure, self._is_broken = str(problem), True
                supervisor.command("finish", "results")
        while supervisor.events:
            view.say(supervisor.events.pop(0))
        return moved

    def _let_paint(self, supervisor: Supervisor, view: TerminalView) -> None:
        """No more answers come: the painter finishes what it has, and then all is over."""
        over = self.interrupted or supervisor.is_over(PAINTER)
        if not over and self._paint_until_s is None:
            supervisor.command("finish", PAINTER)
            wait_s = _PAINT_WAIT_S
            if isinstance(self._config.source, FileSource):
                wait_s = _LONG_PAINT_WAIT_S
                view.say("All is decoded; waiting for the last image …")
            self._paint_until_s = time.monotonic() + wait_s
        if over or time.monotonic() >= self._paint_until_s:
            supervisor.command("finish", "results")
            self._is_painted = True

    def _source_ended(self, supervisor: Supervisor) -> bool:
        if supervisor.source is None or supervisor.source.poll() is None:
            return False
        code = supervisor.source.returncode
        if code != 0:
            ending = f"signal {-code}" if code < 0 else f"code {code}"
            self.failure = f"the source of the streams died ({ending})"
        return True


def remove_endpoints(endpoints: Endpoints) -> None:
    """Removes the folder of ipc sockets that `Endpoints.local` made."""
    if endpoints.control.startswith("ipc://"):
        shutil.rmtree(Path(endpoints.control.removeprefix("ipc://")).parent, ignore_errors=True)
