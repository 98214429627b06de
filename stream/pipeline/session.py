"""Runs one session from its start to its summary."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import zmq

from hvf_core.problem import Problem, asked_to_end, sentence_of
from stream.acquire.lsl import local_clock
from stream.pipeline.back_off import ending
from stream.pipeline.books.closing import begin_books, lost, make_whole
from stream.pipeline.books.output import Output
from stream.pipeline.books.terminal import SHOWN, TerminalView
from stream.pipeline.control import QUIET, SESSION, Control
from stream.pipeline.galleries import open_accepted
from stream.pipeline.lock import held
from stream.pipeline.outputs.blind import leaving
from stream.pipeline.presence import Presence
from stream.pipeline.states import ORDERS, Event, Lifecycle, Seen, State
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.asked import Asked
from stream.pipeline.wire.bus import Listener, open_socket
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.pipeline.wire.keys import lab_keys, make_lab_keys, write_keys
from stream.pipeline.wire.messages import (
    Controlled,
    Noted,
    SessionClosed,
    SessionState,
    StreamHealth,
)
from stream.pipeline.wire.nodes import PAINT, READER, RESULTS, SUPERVISOR, nodes_of
from stream.pipeline.witness import FAILED, LOST, Parting

# In virtual time the session may be over before the painter is there, and has nobody waiting.
_LONG_PAINT_WAIT_S = 300.0
_LAST_WORDS_S = 2.0
_TRIALS_COME = (State.RUNNING, State.PAUSED)
_GOING = (State.STARTING, *_TRIALS_COME)
_UNFINISHED = (
    "the reader did not come to its end, so that markers may be missing; look into 'reader.log'"
)


def new_folder(folder: Path) -> Path:
    """The folder of a new session, which is made; its absolute path.

    Raises:
        Problem: the folder holds a session, or cannot be made.
    """
    folder = folder.absolute()
    if os.path.exists(folder / "config.json"):  # False also of a name that is too long
        raise Problem(f"the folder '{folder}' holds a session already; name another with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            f"the session folder '{folder}' cannot be made ({error.strerror}); name another "
            "with --out"
        ) from None
    return folder


class Session:
    """The processes of a session, and the person who watches it.

    Signals that ask for an end, and a closed pipe of what is printed, end it in order: what is open
    is dropped as `shutdown`, and summary and report are written. The second signal ends it at once,
    and they still are.
    """

    def __init__(
        self,
        config: SessionConfig,
        source: Sequence[str] | None,
        *,
        output: Output,
        headless: bool,
        n_trials: int | None,
        title: str,
    ):
        self._config = config
        self._source = source
        self._is_virtual = isinstance(config.source, FileSource)
        gallery = open_accepted(config) if config.gallery is not None else None
        shown = (headless, n_trials, title, gallery, not self._is_virtual)
        self._view = TerminalView(output.console, *shown, config.outputs.blind)
        self._title = title
        paint_wait_s = _LONG_PAINT_WAIT_S if self._is_virtual else None
        self._life = Lifecycle(time.monotonic(), paint_wait_s)
        self._output, self._folder = output, config.folder
        self._has_begun = False  # so that its nodes keep the books
        self._is_on = False  # and its trials have begun
        self._until_s = self._left_s = float("inf")
        self._is_ended = self._is_aborted = False  # by whoever watches it
        self.asked_by: int | None = None  # the signal that ended it
        self.is_unread = False  # and was ended for that
        self.failure: str | None = None  # what went wrong, though the session was accounted for

    @property
    def config(self) -> SessionConfig:
        """As it is by now: while it runs settings change, and its form is filled in."""
        return self._supervisor.config

    def run(self) -> Mapping[str, Any] | None:
        """Runs to the end and returns the summary; None where it was ended before it began.

        Raises:
            Problem: the session could not start, or its books could not be closed.
        """
        heard, endpoints, folder = (*SHOWN, SessionClosed), self._config.endpoints, self._folder
        with ExitStack() as last:
            signals = last.enter_context(asked_to_end())
            write_keys(endpoints.control)
            if (listen := self._config.outputs.listen) is not None:
                make_lab_keys()
                self._view.say(f"other hosts are let in at {listen}, with a copy of {lab_keys()}")
            try:
                self._config.write()
            except OSError as error:
                raise Problem(
                    f"the session folder '{folder}' cannot be written ({error.strerror}); name "
                    "another with --out"
                ) from None
            inherited = last.enter_context(held(folder))
            self._presence = Presence(self._config, self._title)
            last.callback(self._presence.end)
            if self._presence.trouble:
                self._view.say(self._presence.trouble)
            with ExitStack() as processes:
                results = open_socket(zmq.SUB, endpoints.results, bind=False, hears=heard)
                self._results = Listener(results, self._config.session, self._view.say)
                processes.callback(self._results.close)
                nodes = nodes_of(self._config)
                names = ", ".join(node.name for node in nodes)
                self._view.say(f"starting {names} (some seconds, more the first time) …")
                self._supervisor = Supervisor(self._config, nodes, self._source, inherited)
                processes.callback(self._supervisor.end)
                processes.callback(self._view.close)
                self._control = Control(self._supervisor, self._life, self._on)
                while not self._is_over(signals):
                    self._step()
                if self._has_begun and not (self._is_aborted or self.failure):
                    done = self._supervisor.is_done(READER, _LAST_WORDS_S)
                    self.failure = None if done else _UNFINISHED
            return self._closed()

    def _closed(self) -> Mapping[str, Any] | None:
        """Closes what the nodes have left open, now that they are gone; the summary."""
        end = "stop" if self._is_ended else FAILED if self.failure else LOST
        try:
            if not self._has_begun:
                begin_books(self._config)
            detail = "no answer when the session ended"
            made = make_whole(self._supervisor.config, detail, end, self.failure)
        except Problem as problem:
            told = [self.failure] if self.failure else []
            if not told or self._folder.is_dir():  # else there is nothing to be closed any more
                told.append(str(problem))
            raise Problem("; ".join(told)) from None
        if not self._has_begun:
            if self.failure is not None:
                raise Problem(self.failure)
            return None
        for line in made.said:
            self._view.say(line)
        self.failure = self.failure or made.failure or lost(made.summary)
        return made.summary

    def _is_over(self, signals: list[int]) -> bool:
        """Whether the session is closed, once whoever asks for its end is heard.

        That comes before a look at the processes: one that was being started may have died of it.
        """
        while signals:
            self.asked_by = self.asked_by or signals[0]
            self._end_by(sentence_of(signals.pop(0)))
        if self._output.is_lost and not self._is_ended:
            self.is_unread = True
            self._end_by("nobody reads what is printed any more")
        return self._life.state is State.CLOSED

    def _end_by(self, why: str) -> None:
        """Ends in order; whoever asks again does not want to wait for that."""
        # To the ledger: on the screen it is the last line, of the program.
        self._supervisor.report(Noted(node=SUPERVISOR, text=why, facts={}))
        self._is_aborted, self._is_ended = self._is_ended, True
        self._on(Event.ABORT if self._is_aborted else Event.STOP)

    def _step(self) -> None:
        """Looks at the bus, after the nodes and at the source, and says what that leads to."""
        moved = self._hear()
        self._supervisor.listen(20)
        while self._supervisor.asked:
            self._control.obey(self._supervisor.asked.pop(0))
        self._control.look()
        while self._control.told:
            self._tell(*self._control.told.pop(0))
        ready = broken = False
        try:
            if self._life.state is not State.STARTING:
                self._supervisor.look_after()
            else:
                ready = self._supervisor.is_ready()
        except Problem as problem:
            self.failure = self.failure or str(problem)
            broken = True
        if not self._folder.is_dir():
            self.failure = f"the session folder '{self._folder}' is gone, and its books with it"
            self._on(Event.ABORT)
        while self._supervisor.events:
            self._view.say(self._supervisor.events.pop(0))
        over = frozenset(filter(self._supervisor.is_over, (RESULTS, READER, PAINT)))
        source_ended = self._life.can(Event.FINISH) and self._source_ended()
        if ready and not self._control.is_started:
            ready = not self._on(Event.WAIT)
            self._view.say("all is ready: it begins with the form of its page, or a `start`")
        if self._life.state in _TRIALS_COME and time.monotonic() > self._until_s:
            self._until_s = float("inf")
            self._supervisor.say(f"the {self._config.duration_s:g} s of --duration are over")
            self._control.obey(Asked((), SESSION, "finish", ""))
        seen = Seen(moved, ready, broken, over, source_ended)
        for event in self._life.events(seen, time.monotonic()):
            self._on(event)

    def _tell(self, asked: Asked, done: Controlled) -> None:
        self._supervisor.answer(asked.envelope, done.outcome, done.text)
        if asked.verb not in QUIET:
            seen = leaving(self._config)(done)
            told = f"{done.by}: {done.verb} {seen.argument}".rstrip()
            refused = " refused" if done.outcome == "refused" else ""
            self._view.say(f"{told}{refused} ({seen.text})")
            self._supervisor.report(done)
            if done.outcome == "done" and done.verb in ("gallery", "set") and self._view.gallery:
                with suppress(Problem):  # it is gone already: pictures are of the one before
                    self._view.gallery = open_accepted(self._supervisor.config)

    def _hear(self) -> bool:
        """Takes what is on the bus; whether anything moved."""
        moved = False
        for message in self._results.drain():
            moved = moved or not isinstance(message, StreamHealth)
            self._view.take(message)
            if isinstance(message, SessionClosed):
                self._on(Event.SUMMARY)
        return moved

    def _on(self, event: Event) -> bool:
        """Goes where an event leads to, and tells everybody; False if it leads nowhere."""
        before = self._life.state
        if not self._life.on(event, time.monotonic()):
            return False
        state = self._life.state
        is_broken = event is Event.BROKEN and before is not State.STOPPING
        if is_broken or state is State.STOPPING or (before in _GOING and state not in _GOING):
            self._left_s = min(self._left_s, local_clock())
            end, why = "stop" if event in (Event.STOP, Event.ABORT) else "finish", ""
            if self.failure is not None and state is not State.STOPPING:
                end, why = FAILED, self.failure
            Parting(end, self._left_s, why).keep(self._config.kept("parting"))
        if before is State.STARTING and state in _TRIALS_COME:
            self._has_begun = True
            self._view.open()
        if state is State.RUNNING and not self._is_on:
            self._is_on = True
            self._until_s = time.monotonic() + (self._config.duration_s or float("inf"))
            self._supervisor.go()
            self._presence.say(ready=True)
            self._view.ready()
        for order, name in ORDERS.get(state, ()):
            self._supervisor.command(order, name)
        self._supervisor.report(SessionState(state=state))
        if state is State.STOPPING:
            self._view.say("Stopping: what is open is dropped, the summary is written …")
        elif state is State.PAINTING and self._is_virtual and not self._supervisor.is_over(PAINT):
            self._view.say("All is decoded; waiting for the last image …")
        return True

    def _source_ended(self) -> bool:
        source = self._supervisor.source
        if source is None or source.poll() is None:
            return False
        if source.returncode != 0:
            self.failure = f"the source of the streams died ({ending(source)})"
        return True
