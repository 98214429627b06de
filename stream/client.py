"""A running session, from another program: what it decodes, as it comes, and what it can be told.

This one file needs pyzmq, msgpack and Python 3.10 or newer, and nothing else of hvf-live: copy it
beside a stimulus program (docs/client.md). A closed loop, in which `show` pushes the marker:

    from client import connect                # stream.client, where hvf-live is installed
    with connect() as session:                # the one session of this machine
        session.wait_ready(deadline_s=120)    # markers count from now on
        for image in images:
            for _ in range(8):
                stamp_s = show(image)         # that of the marker, whose text is `image`
                end = session.wait_for(image, stamp_s, deadline_s=5)
                if end.answer and end.answer.confidence > 0.8:
                    break                     # sure enough: on to the next image
        session.finish()
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partialmethod, wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import msgpack
import zmq

VERSION = 9  # of the format of messages; a session's is the same
SILENT_S = 8.0  # a session that neither says nor answers anything for so long has ended
KEPT = 1000  # trials, and messages that wait to be taken; older ones are in the session's ledger
# Where the sessions of this user say that they run; nobody else can enter.
PLACE = Path(tempfile.gettempdir()) / f"hvf-live-{getattr(os, 'getuid', str)()}"
_MOMENT_S = 0.2  # the longest look; before each, threads that look less often have their turn
_TURN_S, _ASK_S, _QUIET = 1e-4, 0.5, 2.0  # how it stands is asked so often, after such quiet
Outcome = Literal["decoded", "cut", "dropped"]
Got = TypeVar("Got")
P = ParamSpec("P")
Like = tuple[str, str, float]  # an image: its id, label, and cosine with another


class ClientError(Exception):
    """What went wrong, in a sentence."""


class Refused(ClientError):
    """The session does not do what it was asked for; the sentence is its own."""


class SessionEnded(ClientError):
    """The session has ended, and no other takes its place: connect again."""


class TimeOut(ClientError):
    """What was waited for has not come in time."""


# What a session says, as docs/bus.md has it. Stamps and `..._s` are seconds on the LSL clock of the
# session's host; in a --blind session what was shown is "", or 0.


@dataclass(frozen=True)
class TrialRef:
    """The `repeat`-th presentation of `group` in its `block`, from 1; it began at `onset_s`."""

    session: str
    trial: int
    stimulus: str
    group: str
    repeat: int
    onset_s: float
    block: int


@dataclass(frozen=True)
class AnswerRef:
    """How many presentations are in an answer, the last up to `tmax_s` after its onset."""

    n_repeats: int
    tmax_s: float
    provisional: bool  # the final one follows


@dataclass(frozen=True)
class Message:
    """One of those below; `seq` counts what its sender has published."""

    session: str
    seq: int


@dataclass(frozen=True)
class MarkerSeen(Message):
    """A marker has opened a trial: its `text`, and its stamp `sent_s` in the sender's clock."""

    about: TrialRef
    readable_s: float
    text: str
    sent_s: float
    mark: str


@dataclass(frozen=True)
class Retrieval(Message):
    """The answer to a trial: the best images of the gallery, best first.

    `confidence` is the first of `probabilities`, which may be believed if `calibrated`; `rank` is
    the place of the image that was shown, from 1, or 0 where the gallery has it not.
    """

    about: TrialRef
    answer: AnswerRef
    ids: list[str]
    labels: list[str]
    scores: list[float]
    probabilities: list[float]
    confidence: float
    calibrated: bool
    abstain: bool
    rank: int
    stamps: dict[str, float]


@dataclass(frozen=True)
class PaintingState(Message):
    """What becomes of the painting of a trial, except that it is painted."""

    trial: int
    state: Literal["begun", "cancelled", "failed"]
    detail: str


@dataclass(frozen=True)
class Preview(Message):
    """What a painting will look like, after `step` of `n_steps`: an encoded image."""

    about: TrialRef
    answer: AnswerRef
    step: int
    n_steps: int
    image_format: Literal["jpeg", "webp"]
    image: bytes = field(repr=False)
    stamps: dict[str, float]


@dataclass(frozen=True)
class Painted(Message):
    """What was painted of a trial: an encoded image, and the PNG `file` in the session's folder."""

    about: TrialRef
    answer: AnswerRef
    seed: int
    ip_scale: float
    steps: int
    size_px: int
    strength: float
    file: str
    image_format: Literal["jpeg", "webp"]
    image: bytes = field(repr=False)
    stamps: dict[str, float]


@dataclass(frozen=True)
class Settled(Message):
    """The ledger has a trial's outcome; so many `markers` came by then, `pending` have no end."""

    trial: int
    outcome: Outcome
    reason: str
    markers: int
    pending: int


@dataclass(frozen=True)
class NodeState(Message):
    """A process of the session is alive."""

    node: str
    incarnation: str
    since_s: float
    until_s: float
    to: str
    first: int


@dataclass(frozen=True)
class Noted(Message):
    """A process of the session says something that a person should know."""

    node: str
    text: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class StreamHealth(Message):
    """How a stream is: its newest sample is `age_s` old; markers have no rate."""

    stream: str
    kind: Literal["eeg", "markers"]
    state: str
    rate_hz: float | None
    drift_ppm: float | None
    gaps: int
    age_s: float
    flat: list[str]
    clipped: list[str]
    offset_s: float
    offset_uncertainty_s: float


@dataclass(frozen=True)
class SessionClosed(Message):
    """The session has ended, with the `summary` of its folder."""

    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Eeg(Message):
    """EEG at 100 Hz or less, as it is in the stream: `np.asarray(array)` is (samples, channels)."""

    channels: list[str]
    rate_hz: float
    stamps_s: list[float]
    markers: list[str]
    markers_s: list[float]
    array: memoryview = field(repr=False)


@dataclass(frozen=True)
class ChannelQuality(Message):
    """How each channel was in the second until `until_s`; `line_uv` is the mains' part of it."""

    channels: list[str]
    until_s: float
    rms_uv: list[float]
    peak_to_peak_uv: list[float]
    line_uv: list[float]
    line_hz: float
    flat: list[bool]
    clipped: list[bool]


@dataclass(frozen=True)
class SessionState(Message):
    """How far the session is: `running` while markers count."""

    state: str


@dataclass(frozen=True)
class Controlled(Message):
    """Somebody has asked the session for something, and what came of it."""

    verb: str
    argument: str
    by: str
    outcome: Literal["done", "refused"]
    text: str
    stamp_s: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot(Message):
    """How the session stood: its sums, last `trials` of the ledger, and `last` frames."""

    config: Mapping[str, Any]
    markers: int
    pending: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    trials: list[Mapping[str, Any]]
    last: list[bytes] = field(repr=False)


@dataclass(frozen=True)
class TrialEnd:
    """The one end of a marker: `decoded`, `cut`, or `dropped` for a reason."""

    trial: int
    outcome: Outcome
    reason: str
    marker: MarkerSeen | None  # None where it was lost on its way
    answer: Retrieval | None  # the final one, where there is one and it was not lost


@dataclass(frozen=True)
class Running:
    """A session that runs on this machine."""

    session: str
    folder: str
    title: str
    started: str  # in local time
    ready: bool
    endpoints: Mapping[str, str]


# By the bytes that frames begin with; others are for the session's own processes.
KINDS: dict[int, type[Message]] = {
    1: MarkerSeen, 5: Retrieval, 7: PaintingState, 8: Preview, 9: Painted, 10: Settled,
    11: NodeState, 12: Noted, 13: StreamHealth, 16: SessionClosed, 17: Eeg, 18: ChannelQuality,
    19: SessionState, 20: Controlled, 21: Snapshot,
}  # fmt: skip
# By which a session is followed.
_FOLLOWED = (MarkerSeen, Retrieval, Settled, NodeState, SessionClosed, SessionState, Snapshot)
A = TypeVar("A", bound="Message | TrialEnd")
B = TypeVar("B", bound="Message | TrialEnd")
C = TypeVar("C", bound="Message | TrialEnd")


def unpack(frame: bytes) -> Message:
    """The message in a frame."""
    end = 5 + int.from_bytes(frame[1:5], "little")
    header = msgpack.unpackb(frame[5:end])
    if (version := header.pop("v")) != VERSION:
        what = f"the session speaks format {version}, and this client {VERSION}"
        raise ClientError(f"{what}: copy stream/client.py of the session's hvf-live")
    if header.pop("dtype", None):  # float32, in what anybody hears
        header["array"] = memoryview(frame)[end:].cast("f", header.pop("shape"))
    parts = (("about", TrialRef), ("answer", AnswerRef))
    header |= {name: part(**header[name]) for name, part in parts if name in header}
    return KINDS[frame[0]](**header)


def discover() -> list[Running]:
    """The sessions that run here."""
    is_ours = PLACE.is_dir() and (sys.platform == "win32" or PLACE.stat().st_uid == os.getuid())
    said = map(said_in, sorted(PLACE.glob("*.json")) if is_ours else ())
    return [Running(*(one[each.name] for each in fields(Running))) for one in said if one]


def said_in(path: Path) -> dict[str, Any]:
    """What a session says of itself; of one that is gone nothing: it held a lock on the file."""
    said: dict[str, Any] = {}
    try:
        said = json.loads(path.read_bytes())
        if sys.platform != "win32":
            import fcntl

            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        path.unlink()  # Windows has no such locks, and does not remove what somebody has open
    except OSError as it:  # one that is gone stays where a folder can only be read
        return said if type(it) is (PermissionError if os.name == "nt" else BlockingIOError) else {}
    return {}


def connect(
    session: str | Path = "", keys: str = "", by: str = "client", wait_s: float = 5
) -> Session:
    """Joins a session, by its id, its folder, or its address `tcp://HOST:PORT` on another host.

    None need be named where one alone runs here; what is not there yet is waited for. An address
    needs `keys`, a copy of its `hvf-live.keys`. In the ledger, it is `by` who asked for something.
    """
    joined = Session(*_found(str(session), keys, time.monotonic() + wait_s), by)
    if not (joined.until(lambda: joined.in_step or None, wait_s) or joined.is_answered):
        joined.close()  # one that starts has no snapshot yet, but answers
        raise TimeOut(f"nobody answers at '{session or joined.id}': it has ended or has other keys")
    return joined


def _found(wanted: str, keys: str, until_s: float) -> tuple[str, Mapping[str, str]]:
    """A session's id, where it is known, and its endpoints."""
    if wanted.startswith("tcp://"):
        host, _, port = wanted.rpartition(":")
        if not (keys and port.isdigit()):
            raise ClientError(f"'{wanted}': give tcp://HOST:PORT and `keys`, of its hvf-live.keys")
        names = enumerate(("results", "signals", "control", "answers"), int(port))
        return "", {name: f"{host}:{at}#{keys}" for at, name in names}
    while True:
        with suppress(OSError, ValueError, KeyError):  # the session may be about to write it
            config = json.loads((Path(wanted) / "config.json").read_bytes()) if wanted else {}
            return config["session"], config["endpoints"]
        running = discover()
        chosen = [one for one in running if wanted in ("", one.session)]
        if len(chosen) == 1:
            return chosen[0].session, chosen[0].endpoints
        if (running and not wanted) or time.monotonic() > until_s:
            break
        time.sleep(0.1)
    told = "; ".join(f"{one.session} ({one.title}, in {one.folder})" for one in running) or "none"
    what = f"there is no session '{wanted}'" if wanted else f"there are {len(running)} sessions"
    raise ClientError(f"{what} on this machine; give one of those that run: {told}")


def _awaited(
    call: Callable[Concatenate[Session, P], Got],
) -> Callable[Concatenate[Session, P], Coroutine[Any, Any, Got]]:
    """The same for `await`: it waits in a thread, to its deadline even if it is cancelled."""

    @wraps(call)
    async def awaited(session: Session, /, *args: P.args, **more: P.kwargs) -> Got:
        return await asyncio.to_thread(call, session, *args, **more)

    return awaited


class Session(AbstractContextManager["Session"]):
    """A session that was joined, for any thread. `state`, which is `running` while it is ready, and
    `snapshot`, how it stood when this client had to ask for it, are those of the last call."""

    def __init__(self, session: str, endpoints: Mapping[str, str], by: str):
        self.id, self._by, self.state, self._results = session, by, "starting", ""
        self.snapshot: Snapshot | None = None
        self.in_step = self.is_answered = False
        self.over: ClientError | None = None
        self.markers: dict[int, MarkerSeen] = {}
        self.ends: dict[int, TrialEnd] = {}
        self._answered: deque[tuple[int, float]] = deque(maxlen=KEPT)  # trial, tmax
        self._passed: set[int] = set()  # trials that no wait for their text is about
        self._n_markers = self._n_ended = 0
        self._kinds: set[type] = set()  # that somebody listens to
        self._waiting: deque[Any] = deque(maxlen=KEPT)
        self._looked_s = self._heard_s = self._asked_s = 0.0
        self._addresses = {of: each.partition("#")[0] for of, each in endpoints.items()}
        file = endpoints["control"].partition("#")[2]
        try:
            self._keys = json.loads(Path(file).read_text()) if file else {}
        except (OSError, ValueError) as error:
            raise ClientError(f"there are no keys in '{file}' ({error})") from None
        self._context, self._lock = zmq.Context(), threading.RLock()
        self._control = self._socket(zmq.DEALER, "control")
        self._published = self._socket(zmq.SUB, "results", "signals", "answers")
        self._subscribe(_FOLLOWED)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the session, which goes on."""
        with self._lock:
            self.over = self.over or ClientError(f"the session {self.id} was left by `close`")
            self._context.destroy(linger=0)

    def wait_ready(self, *, deadline_s: float) -> None:
        """Waits until markers count: streams, decoder and recorder are there."""
        if not self.until(lambda: (self.in_step and self.state == "running") or None, deadline_s):
            raise TimeOut(f"{self.id} is not ready after {deadline_s:g} s: it is {self.state}")

    def wait_for(
        self, marker: str | int, stamp_s: float | None = None, nth: int = 1, *, deadline_s: float
    ) -> TrialEnd:
        """The end of a marker's trial, whatever it is; it may have come before.

        Args:
            marker: its text, or the number of the trial.
            stamp_s: its stamp as it was sent: this very marker is meant. Without one it is the
                `nth` of this text that came since this client joined and was not waited for yet;
                those before it are passed over from then on, as is one whose time ran out.
        """

        def meant() -> list[int]:
            if isinstance(marker, int):
                return [marker] * nth
            seen = [*self.markers.items()]
            if stamp_s is not None:
                at = [(n, one.text) for n, one in seen if one.sent_s == stamp_s]
                return [n for n, text in at if text in (marker, "")][:1] * nth  # "": --blind
            named = [n for n, one in seen if marker in (one.about.stimulus, one.text)]
            return [n for n in named if n not in self._passed][:nth]

        config = self.snapshot.config if self.snapshot else {}
        if isinstance(marker, str) and stamp_s is None and config.get("outputs", {}).get("blind"):
            raise ClientError(f"{self.id} tells no marker's text, as it is --blind: give its stamp")

        def found() -> TrialEnd | None:
            return self.ends.get(trials[-1]) if len(trials := meant()) == nth else None

        try:
            if (end := self.until(found, deadline_s)) is not None:
                return end
            hears = config.get("source", {}).get("markers") or "any stream"
            what = "has no end" if len(meant()) == nth else f"was not heard by {self.id} on {hears}"
            raise TimeOut(f"{deadline_s:g} s later, marker '{marker}' ({stamp_s or 'any'}) {what}")
        finally:
            self._passed = (self._passed | {*meant()}) & self.markers.keys()

    @overload
    def listen(self, one: type[A], /) -> Iterator[A]: ...
    @overload
    def listen(self, one: type[A], two: type[B], /) -> Iterator[A | B]: ...
    @overload
    def listen(self, one: type[A], two: type[B], three: type[C], /) -> Iterator[A | B | C]: ...
    @overload
    def listen(self, *kinds: type[Message | TrialEnd]) -> Iterator[Message | TrialEnd]: ...
    def listen(self, *kinds: type) -> Iterator[Any]:
        """Messages of these kinds, `TrialEnd` too, as they come, to the session's end.

        They are sent here from now on, and no others are. Where you are slow, you get the newest.
        """
        self._hear(kinds)
        return (one for some in iter(self.some, None) for one in some)

    @overload
    def alisten(self, one: type[A], /) -> AsyncIterator[A]: ...
    @overload
    def alisten(self, one: type[A], two: type[B], /) -> AsyncIterator[A | B]: ...
    @overload
    def alisten(self, a: type[A], b: type[B], c: type[C], /) -> AsyncIterator[A | B | C]: ...
    @overload
    def alisten(self, *kinds: type[Message | TrialEnd]) -> AsyncIterator[Message | TrialEnd]: ...
    async def alisten(self, *kinds: type) -> AsyncIterator[Any]:
        """The same for `async for`."""
        self._hear(kinds)
        while (some := await asyncio.to_thread(self.some)) is not None:
            for one in some:
                yield one

    def ask(self, verb: str, argument: str = "", deadline_s: float = 5.0) -> str:
        """Tells the session something (docs/control.md); its sentence on that, or Refused."""
        if self.over is not None:
            raise self.over
        with self._socket(zmq.DEALER, "control") as socket:
            socket.send_multipart(self._words(verb, argument))
            if not socket.poll(int(deadline_s * 1e3)):
                raise TimeOut(f"session {self.id} has not answered '{verb}' in {deadline_s:g} s")
            *_, outcome, text = socket.recv_multipart()
        if outcome != b"done":
            raise Refused(text.decode())
        return text.decode()

    def more_like(self, id_: str, k: int = 5, deadline_s: float = 5) -> list[Like]:
        """The k images of the gallery that are most like one of it, the most alike first."""
        return [(*one,) for one in json.loads(self.ask("like", f"{k} {id_}", deadline_s))]

    await_ready, await_for, aask = _awaited(wait_ready), _awaited(wait_for), _awaited(ask)
    amore_like = _awaited(more_like)
    start = partialmethod(ask, "start")
    finish = partialmethod(ask, "finish")
    stop = partialmethod(ask, "stop")
    pause = partialmethod(ask, "pause")
    resume = partialmethod(ask, "resume")
    mark = partialmethod(ask, "mark")
    reset_group = partialmethod(ask, "reset_group")
    gallery = partialmethod(ask, "gallery")
    set = partialmethod(ask, "set")

    def some(self) -> list[Any] | None:
        """What has come of what is listened to, after a moment at most; None when it is over."""
        time.sleep(_TURN_S)
        with self._lock:
            if self.over is None:
                self._look(0.0 if self._waiting else _MOMENT_S)
            some = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if some or self.over is None:
            return some
        if self.state != "closed":
            raise self.over
        return None

    def until(self, found: Callable[[], Got | None], deadline_s: float) -> Got | None:
        """What is found, looked for whenever something has come; None where it is too late."""
        until_s, wait_s = time.monotonic() + deadline_s, 0.0
        while wait_s >= 0:
            time.sleep(_TURN_S)
            with self._lock:
                if self.over is None:
                    self._look(wait_s)
                if (got := found()) is not None:
                    return got
            if self.over is not None:
                raise self.over
            wait_s = min(until_s - time.monotonic(), _MOMENT_S)
        return None

    def _look(self, wait_s: float) -> None:
        """Takes what comes; asks how it stands where something was missed, or nothing comes."""
        if time.monotonic() > self._looked_s + 1:  # what came meanwhile waits in the sockets
            self._heard_s = time.monotonic()
        came = bool(self._published.poll(int(wait_s * 1e3)))
        while self._control.poll(0):
            came = self.is_answered = bool(self._control.recv_multipart())
        now_s = time.monotonic()
        self._looked_s, self._heard_s = now_s, now_s if came else self._heard_s
        while self._published.poll(0):
            self._take(unpack(self._published.recv()))
        if now_s > self._asked_s + _ASK_S and (not self.in_step or now_s > self._heard_s + _QUIET):
            self._asked_s = now_s
            self._control.send_multipart(self._words("hello"))
        if now_s > self._heard_s + SILENT_S:
            self._ended(f"nothing was heard of the session {self.id} for {SILENT_S:g} s")

    def _take(self, message: Message) -> None:
        self.id = self.id or message.session
        if message.session != self.id:
            at = f"the session {message.session} is at its address now"
            self._ended(f"{self.id} has ended: {at}")
            return
        if isinstance(message, Retrieval):  # from the decoder, and again from the ledger
            answer = (message.about.trial, message.answer.tmax_s)
            if answer in self._answered:
                return
            self._answered.append(answer)
        match message:
            case MarkerSeen():
                self._saw(message)
            case Retrieval(answer=AnswerRef(provisional=False)):
                self._end(message.about.trial, "decoded", answer=message)
            case Settled():
                self._settle(message)
            case NodeState(node="results"):  # one that was restarted says less
                self.in_step &= self._results in ("", message.incarnation)
                self._results = message.incarnation
            case SessionState():
                self.state = message.state
            case SessionClosed():
                self.state, how = "closed", map(message.summary.get, ("end", "failure"))
                self._ended(f"the session {self.id} has ended ({': '.join(filter(None, how))})")
            case Snapshot() if not self.in_step:  # else somebody else has asked for it
                self._stand(message)
        if type(message) in self._kinds:
            self._waiting.append(message)

    def _ended(self, sentence: str) -> None:
        self.over = self.over or SessionEnded(sentence)

    def _saw(self, marker: MarkerSeen) -> None:
        self._n_markers += marker.about.trial not in self.markers
        self.markers.setdefault(marker.about.trial, marker)
        if (end := self.ends.get(marker.about.trial)) and end.marker is None:  # it was heard first
            self.ends[end.trial] = replace(end, marker=marker)
        if len(self.markers) > KEPT:
            del self.markers[next(iter(self.markers))]

    def _end(
        self, trial: int, outcome: Outcome, reason: str = "", answer: Retrieval | None = None
    ) -> None:
        if trial not in self.ends:
            end = TrialEnd(trial, outcome, reason, self.markers.get(trial), answer)
            self.ends[trial] = end
            if TrialEnd in self._kinds:
                self._waiting.append(end)
        if len(self.ends) > KEPT:
            del self.ends[next(iter(self.ends))]

    def _settle(self, told: Settled) -> None:
        if told.outcome != "decoded":
            self._end(told.trial, told.outcome, told.reason)
        # What has happened by its words, and was not heard, is in a snapshot.
        n_ended = told.markers - told.pending
        is_missed = told.trial not in self.ends or told.markers > self._n_markers
        self.in_step = self.in_step and not (is_missed or n_ended > self._n_ended + 1)
        self._n_ended = max(self._n_ended, n_ended)

    def _stand(self, snapshot: Snapshot) -> None:
        for frame in snapshot.last:
            if frame[0] in KINDS:  # a kind that was added since does not change the others
                self._take(unpack(frame))
        for record in snapshot.trials:  # of an answer that was lost the end is there
            self._end(record["trial"], record["event"], record.get("reason", ""))
        self._n_markers, self._n_ended = snapshot.markers, snapshot.markers - snapshot.pending
        if self.snapshot is None:  # what is waited for by its text comes from now on
            self._passed |= self.markers.keys()
        self.snapshot, self.in_step = snapshot, True

    def _words(self, verb: str, argument: str = "") -> list[bytes]:
        return [b"", *(word.encode() for word in (self._by, verb, argument, self.id))]

    def _hear(self, kinds: tuple[type, ...]) -> None:
        if unknown := {*kinds} - {*KINDS.values(), TrialEnd}:
            there = ", ".join(kind.__name__ for kind in (*KINDS.values(), TrialEnd))
            raise ClientError(f"{unknown} are no classes of messages; there are {there}")
        with self._lock:
            self._kinds |= {*kinds}
            self._subscribe(kinds)

    def _subscribe(self, kinds: tuple[type, ...]) -> None:
        for number in (number for number, kind in KINDS.items() if kind in kinds):
            self._published.subscribe(bytes([number]))

    def _socket(self, kind: int, *names: str) -> zmq.SyncSocket:
        socket: zmq.SyncSocket = self._context.socket(kind)
        socket.linger, socket.rcvhwm = 0, 10_000
        for option, key in self._keys.items():
            setattr(socket, option, key.encode())
        for name in self._addresses.keys() & names:  # an older session has no `answers`
            socket.connect(self._addresses[name])
        return socket
