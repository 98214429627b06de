"""All that pages know of a session, kept up to date by its messages."""

import base64
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stream.client import (
    Controlled,
    MarkerSeen,
    NodeState,
    Noted,
    Painted,
    PaintingState,
    Preview,
    Retrieval,
    SessionClosed,
    SessionState,
    Settled,
    StreamHealth,
)
from stream.dashboard.board.scores import Accuracy, Latency
from stream.dashboard.board.trials import LabelOf, TrialCard
from stream.dashboard.board.verdicts import Files, Seen, verdicts
from stream.pipeline.wire.config import SessionConfig

KEPT = 200
"""Trials that pages are shown; older ones are counted."""
_NOTES = 50
_STATES = {
    "starting": "starting",
    "running": "ready",
    "paused": "paused",
    "finishing": "ending",
    "stopping": "ending",
    "painting": "ending",
    "closing": "ending",
    "closed": "ended",
}
"""The session's states in the words of pages."""
_BAD_NOTES = ("cannot", "died", "lost", "failed", "nobody listened")
_ITSELF = "session"
_ENDS = {
    "finish": "came to its end",
    "stop": "was stopped",
    "lost": "was cut off",
    "failed": "failed",
}
_SENTENCES = {
    "starting": "Starting: processes load and streams are looked for.",
    "waiting": "Waiting for the form: fill it in, and start.",
    "paused": "Paused: markers open no trials.",
    "ending": "Ending: what is open is answered, and the books are closed.",
    "sought": "Looking for the session: what is here is from its ledger.",
    "lost": "Nothing more is heard of the session: `finish` with its folder completes its books.",
}


@dataclass
class Board:
    """Takes messages in any order, and each of them again, and tells what they come to.

    Args:
        config: of the session, as it began.
        label_of: what people call an image.

    Attributes:
        changed: trials that have changed since somebody emptied it.
        n_changes: of anything: what was told at an earlier number is out of date.
        values: settings that were changed during the session, by path.
    """

    config: SessionConfig
    label_of: LabelOf
    changed: set[int] = field(default_factory=set)
    n_changes: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    gallery: str = ""
    """The folder of another gallery than it began with."""
    channels: tuple[str, ...] = ()
    rate_hz: float | None = None
    painting: dict[str, Any] | None = None
    notes: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_NOTES))
    trials: OrderedDict[int, TrialCard] = field(default_factory=OrderedDict)
    state: str = "starting"
    since: str = ""
    """Since when it is ready, as people say it."""
    begun_s: float = 0.0
    """When markers began to count; 0 before."""
    until_s: float = 0.0
    """When the last message came."""
    started: bool = False
    """Whether somebody has said `start`, where a session waits for that."""
    lacks_history: bool = False
    """Whether the session has ended more trials than were heard of."""
    damage: str = ""
    """A sentence on lines of its ledger that are damaged."""
    is_simulated: bool = False
    """Whether the EEG is made up."""
    is_sought: bool = False
    """Whether nothing was heard of the session yet, and what is known is its ledger's."""
    is_lost: bool = False
    ended: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.is_simulated = self.config.simulated
        self._seen: set[int] = set()
        self._outcomes: dict[int, tuple[str, str]] = {}
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._accuracy, self._latency = Accuracy(), Latency()
        self._answered: set[int] = set()
        self._streams: dict[str, tuple[StreamHealth, float]] = {}
        self._nodes: dict[str, tuple[NodeState, float]] = {}
        self._painter = ("", "")
        self._is_time_over = False

    def take(self, message: object, now_s: float, clock: str = "") -> None:
        """Takes a message.

        Args:
            now_s: on any clock that goes on, when it came.
            clock: the same as people say it, for what they are told.
        """
        self.n_changes += 1
        self.until_s = now_s
        match message:
            case MarkerSeen(about=about):
                self._saw(about.trial)
                self._card(about.trial).marker = message
            case Retrieval():
                self._answer(message)
            case Settled():
                self.settle(message.trial, message.outcome, message.reason)
                self.lacks_history = len(self._outcomes) < message.markers - message.pending
            case Painted():
                self._painted(message)
            case PaintingState():
                self._painter = (message.state, message.detail)
                self._paint(message.trial, message.state, detail=message.detail)
            case Preview(about=about):
                self._painter = ("preview", "")
                steps = {"step": message.step, "n_steps": message.n_steps}
                self._paint(about.trial, "preview", _uri(message), **steps)
            case StreamHealth():
                self._streams[message.kind] = (message, now_s)
                self.rate_hz = message.rate_hz or self.rate_hz
            case NodeState():
                self._nodes[message.node] = (message, now_s)
                self.n_changes -= 1  # each is alive, once a second
            case SessionState():
                if message.state == "running" and self.state != "running":
                    self.since, self.begun_s = clock, self.begun_s or now_s
                self.state = message.state
            case Noted(text=text) if text:  # of a blind session there is none in the ledger
                self.is_simulated |= bool(message.facts.get("simulated"))
                is_bad = any(word in message.text for word in _BAD_NOTES)
                self._note(now_s, message.node, message.text, "warn" if is_bad else "info")
            case Controlled():
                self._controlled(message)
            case SessionClosed(summary=summary):
                self.state = "closed"
                self.ended = {"end": summary.get("end"), "failure": summary.get("failure")}

    def settle(self, trial: int, outcome: str, reason: str) -> None:
        """A trial has come to its end."""
        self._saw(trial)
        if trial not in self._outcomes:
            self._outcomes[trial] = (outcome, reason)
            self._counts[outcome] += 1
            self._reasons[reason] += outcome == "dropped"
        card = self._card(trial)
        card.outcome, card.reason = self._outcomes[trial]

    def damaged(self, sentence: str) -> None:
        """Lines of the ledger are damaged: its sum is of the others alone."""
        self.damage = sentence
        self._note(self.until_s, "ledger", sentence, "warn")

    def trial(self, number: int) -> dict[str, Any] | None:
        """A trial as it is by now; None where it is not kept any more."""
        if (card := self.trials.get(number)) is None:
            return None
        return card.told(self.label_of, is_timed=self.config.realtime)

    def told(self, now_s: float, files: Files) -> dict[str, Any]:
        """The whole of it that is small."""
        state = self._state()
        until_s = self.until_s if self.ended or self.is_lost else now_s
        seen = self._for_verdicts(until_s, files)
        parts = verdicts(seen)
        wrong = [part["sentence"] for part in parts if part["level"] == "bad"]
        health = seen.health("eeg")
        clock = None
        if health is not None:
            offset_ms, unsure_ms = health.offset_s * 1e3, health.offset_uncertainty_s * 1e3
            clock = {"offset_ms": round(offset_ms, 3), "uncertainty_ms": round(unsure_ms, 3)}
            clock["drift_ppm"] = health.drift_ppm if health.drift_ppm is not None else 0.0
        return {
            "kind": "state",
            "state": state,
            "ready": state == "ready" and not wrong,
            "sentence": wrong[0] if state == "ready" and wrong else self._sentence(state),
            "verdicts": parts,
            "ledger": self.ledger(),
            "accuracy": self._accuracy.told(),
            "latency": self._latency.told() if self.config.realtime else [],
            "newest_sample_age_ms": round(health.age_s * 1e3, 1) if health is not None else None,
            "clock": clock,
            "recorder": {"bytes": files.n_bytes, "file": files.recording}
            if files.recording
            else None,
            "elapsed_s": int(max(0.0, until_s - self.begun_s)) if self.begun_s else 0,
            "ended": self.ended and self.ended | {"report": files.has_report},
        }

    def ledger(self) -> dict[str, Any]:
        """The sum of the markers."""
        sums = {name: self._counts[name] for name in ("decoded", "cut", "dropped")}
        pending = len(self._seen) - len(self._outcomes)
        reasons = {reason: n for reason, n in sorted(self._reasons.items()) if n}
        told = {"markers": len(self._seen), "pending": pending, **sums, "reasons": reasons}
        return told | {"adds_up": not (self.lacks_history or self.damage)}

    def _saw(self, trial: int) -> None:
        self._seen.add(trial)
        self.changed.add(trial)

    def _card(self, trial: int) -> TrialCard:
        if trial not in self.trials:
            self.trials[trial] = TrialCard(trial)
            if len(self.trials) > KEPT:
                oldest, _ = self.trials.popitem(last=False)
                self.changed.discard(oldest)
        self.changed.add(trial)
        return self.trials[trial]

    def _answer(self, answer: Retrieval) -> None:
        trial, is_final = answer.about.trial, not answer.answer.provisional
        card = self._card(trial)
        is_dropped = self._outcomes.get(trial, ("",))[0] == "dropped"
        card.answers[answer.answer.tmax_s] = answer
        if is_final and not is_dropped and trial not in self._answered:
            self._answered.add(trial)
            card.outcome = "decoded"  # the ledger will say so too
            self._accuracy.add(answer)
            self._latency.add(answer.stamps)

    def _painted(self, painted: Painted) -> None:
        trial = painted.about.trial
        if trial in self.trials:
            self._card(trial).painted = painted.file
        self._painter = ("painted", "")
        steps = {"step": painted.steps, "n_steps": painted.steps}
        shape = {"scale": painted.ip_scale, "seed": painted.seed}
        self._paint(trial, "painted", _uri(painted) or f"/{painted.file}", **steps, **shape)

    def _paint(self, trial: int, state: str, image: str | None = None, **more: Any) -> None:
        usual = {"step": None, "n_steps": None, "detail": "", "scale": None, "seed": None}
        told = {"kind": "painting", "trial": trial, "state": state, "image": image}
        self.painting = told | usual | more

    def _controlled(self, done: Controlled) -> None:
        if done.outcome == "done" and done.verb == "set" and "new" in done.facts:
            self.values[done.argument.partition(" ")[0]] = done.facts["new"]
        if done.outcome == "done" and done.verb == "gallery":
            self.gallery = done.facts.get("new", "")
        self.started |= done.outcome == "done" and done.verb == "start"
        # Of its own accord it finishes where what --duration gave it is over.
        self._is_time_over |= (done.verb, done.by) == ("finish", _ITSELF)
        told = f"{done.verb} {done.argument}".strip()
        level: Literal["info", "warn"] = "info" if done.outcome == "done" else "warn"
        self._note(done.stamp_s, done.by, f"{told}: {done.text}", level)

    def _note(self, at_s: float, node: str, text: str, level: str) -> None:
        note = {"kind": "note", "at_s": round(at_s, 3), "node": node, "level": level, "text": text}
        if not any(one | {"at_s": 0} == note | {"at_s": 0} for one in self.notes):
            self.notes.append(note)

    def _state(self) -> str:
        if self.is_lost:
            return "lost"
        if self.is_sought:
            return "sought"
        state = _STATES.get(self.state, self.state)
        is_waiting = state in ("starting", "paused") and self.config.about.form and not self.started
        return "waiting" if is_waiting else state

    def _sentence(self, state: str) -> str:
        if state == "ready":
            return f"READY since {self.since}" if self.since else "READY"
        return self._end() if state == "ended" else _SENTENCES[state]

    def _end(self) -> str:
        ended: Mapping[str, Any] = self.ended or {}
        if ended.get("failure"):
            return f"The session has failed: {ended['failure']}"
        how = f" {_ENDS.get(ended.get('end', ''), 'has ended')}"
        if self._is_time_over and self.config.duration_s is not None:
            how = f"'s time of {self.config.duration_s:g} s was over"
        sums = self.ledger()
        if not sums["markers"]:
            return f"The session{how} before the first marker."
        what, n = ("answered", sums["decoded"]) if self.config.bundle else ("cut", sums["cut"])
        return f"The session{how}: {n} of {sums['markers']} trials were {what}."

    def _for_verdicts(self, now_s: float, files: Files) -> Seen:
        return Seen(
            config=self.config,
            now_s=now_s,
            files=files,
            streams=self._streams,
            nodes=self._nodes,
            painting=self._painter,
            n_markers=len(self._seen),
            n_channels=len(self.channels),
            is_ending=_STATES.get(self.state) == "ending",
            over="unknown" if self.is_sought else "ended" if self.is_lost or self.ended else "",
        )


def _uri(message: Preview | Painted) -> str | None:
    if not message.image:
        return None
    image = base64.b64encode(message.image).decode()
    return f"data:image/{message.image_format};base64,{image}"
