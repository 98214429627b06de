"""Control: orders to a session from anybody, a sentence to each, and an entry for every one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from hvf_core.problem import Problem, needed
from hvf_core.swift import Aside
from index.gallery import Gallery
from stream.acquire.lsl import local_clock
from stream.pipeline.galleries import (
    NICENESS,
    Stamp,
    accept,
    alike,
    candidates_of,
    is_accepted,
    open_accepted,
    open_whole,
    refuse_without_index,
    stamp_of,
    usable,
)
from stream.pipeline.states import Event, Lifecycle, State
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.asked import Asked
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.messages import Controlled
from stream.pipeline.wire.nodes import DECODE, PAINT, READER, RESULTS
from stream.pipeline.wire.orders import changed

_LEADS: Mapping[str, tuple[Event, str]] = {
    "finish": (Event.FINISH, "what is open is answered, then the session ends"),
    "stop": (Event.STOP, "what is open is dropped, and the session ends"),
    "pause": (Event.PAUSE, "markers open no trials until `resume`"),
    "resume": (Event.RESUME, "markers open trials again"),
}
VERBS = (*_LEADS, "start", "mark", "reset_group", "gallery", "set", "like", "hello")
QUIET = ("like", "hello")
"""Verbs of those who only look on, which leave no trace."""
SESSION = "session"
"""Who asks where the session has seen by itself that its gallery has changed."""
_LOOK_S = 1.0
_TRIALS_COME = (State.RUNNING, State.PAUSED)
_LOOK_UP = ("decoding.search", "decoding.among")
"""Settings of how and where images are looked up."""
_WHO_KNOWS = (READER, DECODE, PAINT, RESULTS)  # of galleries and settings that change

Answered = tuple[str, Mapping[str, Any]]
"""What is said, and facts for the ledger."""
T = TypeVar("T")
_Begun = tuple[Asked, Future[Any], Callable[[Any], Answered]]


class Control:
    """Obeys, or says why not; whatever it is asked, it raises nothing.

    Args:
        nodes: who orders go to.
        life: the session's.
        on: lets an event happen to the session.
        clock: seconds, that of all stamps.
    """

    def __init__(
        self,
        nodes: Supervisor,
        life: Lifecycle,
        on: Callable[[Event], bool],
        clock: Callable[[], float] = local_clock,
    ):
        self._nodes, self._life, self._on, self._clock = nodes, life, on, clock
        self._aside, self._begun = Aside(NICENESS), list[_Begun]()
        self._next_look_s, self._said = 0.0, ""
        self._seen: Stamp | None = ()
        self._looked_at: Stamp | None = ()
        self.is_started = not nodes.config.about.form
        """Whether a session that waits for its form may begin."""
        self.told: list[tuple[Asked, Controlled]] = []
        """What has become of what was asked, not passed on yet."""

    def obey(self, asked: Asked) -> None:
        """Does what is asked between two trials, or begins what takes longer."""
        self._tell(asked, lambda: self._do(asked))

    def look(self) -> None:
        """Finishes what was begun and is ready, and looks whether the gallery has changed."""
        self._look_for_images()
        while self._begun and self._begun[0][1].done():
            asked, future, then = self._begun.pop(0)
            self._tell(asked, partial(_finished, future, then))

    def _look_for_images(self) -> None:
        """Looks once a second whether somebody has added images to the gallery, or removed some.

        A gallery that is being copied has its manifest before all its rows: it is looked at again
        whenever a file of it has changed. What is wrong with it is told once.
        """
        now_s, config = self._clock(), self._nodes.config
        if self._begun or now_s < self._next_look_s or config.bundle is None:
            return
        self._next_look_s = now_s + _LOOK_S
        before, self._seen = self._seen, stamp_of(needed(config.gallery))
        is_new = self._seen != self._looked_at
        # While one takes the place of another, there is none for a moment.
        if is_new and (self._seen or not before) and self._life.state in _TRIALS_COME:
            self._looked_at = self._seen
            if not is_accepted(config):
                self.obey(Asked((), SESSION, "gallery", str(config.gallery)))

    def _tell(self, asked: Asked, do: Callable[[], Answered | None]) -> None:
        stamp_s = self._clock()
        outcome: Literal["done", "refused"] = "done"
        try:
            if (answered := do()) is None:
                return
            text, facts = answered
        except (Problem, OSError) as problem:  # as where the session folder is full
            outcome, text, facts = "refused", str(problem), {}
        done = Controlled(
            verb=asked.verb,
            argument=asked.argument,
            by=asked.by,
            outcome=outcome,
            text=text,
            stamp_s=stamp_s,
            facts=facts,
        )
        said = asked.by == SESSION and text
        if not said or said != self._said:  # what it asks itself again and again is told once
            self.told.append((asked, done))
        self._said = said or self._said

    def _do(self, asked: Asked) -> Answered | None:
        verb, argument = asked.verb, asked.argument.strip()
        if verb not in VERBS:
            raise Problem(f"there is no verb '{verb}'; there are {', '.join(VERBS)}")
        if self._life.state is State.CLOSING:
            raise Problem(f"the session is being closed, which is too late for '{verb}'")
        if verb == "resume" and not self.is_started:
            raise Problem("a session that waits for its form is resumed by nothing but `start`")
        if verb in _LEADS:
            event, text = _LEADS[verb]
            if verb == "finish" and self._life.can(event):
                self._nodes.order("pause", READER)  # the source goes on: it opens no more trials
            if not self._on(event):
                raise Problem(f"a session that is {self._life.state} has nothing to {verb}")
            return text, {}
        if verb == "start":
            is_early = self._life.state is State.STARTING
            if self.is_started or not (is_early or self._on(Event.RESUME)):
                raise Problem(f"a session that is {self._life.state} does not wait to be started")
            self.is_started = True
            when = "once its processes are ready" if is_early else "now"
            return f"the session begins {when}", {}
        if verb == "hello":
            self._nodes.order("hello", RESULTS)
            return "a snapshot follows on the results", {}
        if not argument.isprintable() or not argument:
            raise Problem(f"'{verb}' says nothing of what: give it one line of text")
        match verb:
            case "reset_group":
                self._refuse_without_decoder()
                self._nodes.order(f"reset_group {argument}", DECODE)
                return f"the next repeat of '{argument}' is its first", {}
            case "gallery":
                self._refuse_without_decoder()
                folder = Path(argument).absolute()
                task = partial(usable, folder, self._nodes.config)
                self._begin(asked, task, partial(self._change_gallery, folder))
                return None
            case "like":
                self._refuse_without_decoder()
                self._begin(asked, partial(alike, self._nodes.config, argument), _said)
                return None
            case "set":
                if not self._looks_up(argument):
                    return self._set(argument)
                config = changed(self._nodes.config, "set", argument)
                check = partial(_refuse_without_index, config)
                self._begin(asked, check, lambda _: self._set(argument))
                return None
        return "marked", {}

    def _refuse_without_decoder(self) -> None:
        if self._nodes.config.bundle is None:
            raise Problem("this session has no bundle, so that nothing is decoded; give --bundle")

    def _begin(self, asked: Asked, task: Callable[[], T], then: Callable[[T], Answered]) -> None:
        """Has a task done beside the session's loop, which does `then` with what comes of it."""
        self._begun.append((asked, self._aside.begin(task), then))

    def _change_gallery(self, folder: Path, gallery: Gallery) -> Answered:
        old = self._nodes.config
        n_old = len(open_accepted(old))
        new = changed(old, "gallery", str(folder))
        chosen = accept(new, gallery, candidates_of(old))
        self._change("gallery", str(folder))
        facts = {"old": str(old.gallery), "new": str(folder), "n_old": n_old, "n_new": len(chosen)}
        text = f"answers are now among the {len(chosen)} images of '{folder}', before among {n_old}"
        return text, facts | {"revision": gallery.revision}

    def _set(self, argument: str) -> Answered:
        path = argument.partition(" ")[0]
        old, new = self._nodes.config, changed(self._nodes.config, "set", argument)
        facts: dict[str, Any] = {}
        if looks_up := self._looks_up(argument):
            n_old = len(open_accepted(old))
            chosen = accept(new, open_whole(new), new.decoding.among)
            facts = {"n_old": n_old, "n_new": len(chosen)} if len(chosen) != n_old else {}
        self._change("set", argument)
        if looks_up:
            self._nodes.order(f"gallery {new.gallery}", *_WHO_KNOWS)
        before, now = (_value_at(config, path) for config in (old, new))
        return f"{path} is now {now}; it was {before}", {"old": before, "new": now} | facts

    def _looks_up(self, argument: str) -> bool:
        """Whether a setting is one of how and where this session looks up."""
        return self._nodes.config.bundle is not None and argument.partition(" ")[0] in _LOOK_UP

    def _change(self, verb: str, argument: str) -> None:
        self._nodes.config = changed(self._nodes.config, verb, argument)  # for a later restart
        self._nodes.order(f"{verb} {argument}", *_WHO_KNOWS)


def _finished(future: Future[T], then: Callable[[T], Answered]) -> Answered:
    return then(future.result())


def _refuse_without_index(config: SessionConfig) -> None:
    refuse_without_index(open_whole(config), config.decoding.search)


def _said(text: str) -> Answered:
    return text, {}


def _value_at(config: SessionConfig, path: str) -> Any:
    """The value of a setting, as JSON has it."""
    at = config.model_dump(mode="json")
    for name in path.split("."):
        at = at[name]
    return at
