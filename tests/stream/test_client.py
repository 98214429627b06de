"""The client: one file, that knows of every marker's end once, and says why where it cannot."""

import ast
import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, get_type_hints

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream import client
from stream.client import (
    ClientError,
    Refused,
    Session,
    SessionEnded,
    TimeOut,
    TrialEnd,
    connect,
    discover,
    unpack,
)
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.standing import Standing
from stream.pipeline.outputs.blind import INSIDE, leaving
from stream.pipeline.outputs.settings import OutputSettings
from stream.pipeline.presence import Presence
from stream.pipeline.wire import frames
from stream.pipeline.wire.asked import parted, read_asked
from stream.pipeline.wire.bus import Publisher, open_socket
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.endpoints import Endpoints, Transport
from stream.pipeline.wire.keys import lab_endpoint, lab_keys, make_lab_keys, write_keys
from stream.pipeline.wire.messages import (
    NESTED,
    MarkerSeen,
    Message,
    NodeState,
    Noted,
    Retrieval,
    SessionClosed,
    SessionState,
    Settled,
    Snapshot,
    StreamHealth,
)
from tests.ports import free_port
from tests.refs import about, answer
from tests.stream.test_messages import EXAMPLES
from tests.waiting import wait_until

FILE = Path(client.__file__)
SOON_S = 60.0  # however busy the machine is
NEVER_S = 0.2  # for what must not come


# --- one file ------------------------------------------------------------------------------------


def test_it_is_python_3_10_and_imports_pyzmq_msgpack_and_what_python_has() -> None:
    tree = ast.parse(FILE.read_text(), feature_version=(3, 10))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - {"zmq", "msgpack"} <= sys.stdlib_module_names
    assert len(FILE.read_text().splitlines()) <= 691


def test_it_works_copied_alone_into_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(FILE.read_text())
    program = (
        "import sys; sys.path.insert(0, '.'); import client; client.discover(); "
        "print(sorted({'numpy', 'stream', 'hvf_core', 'pydantic'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-I", "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- frames --------------------------------------------------------------------------------------


def same(decoded: object, sent: object) -> bool:
    if isinstance(sent, np.ndarray):
        return np.array_equal(np.asarray(decoded), sent) and np.shape(decoded) == sent.shape
    if is_dataclass(sent):
        of_frame = {"session", "seq"} if isinstance(sent, Message) else set()
        assert vars(decoded).keys() == vars(sent).keys() | of_frame
        assert type(decoded).__name__ == type(sent).__name__
        return all(same(getattr(decoded, name), value) for name, value in vars(sent).items())
    if isinstance(sent, Snapshot | tuple | list):
        return len(decoded) == len(sent) and all(map(same, decoded, sent))
    return decoded == sent


@pytest.mark.parametrize(
    "message",
    [message for message in EXAMPLES if not isinstance(message, INSIDE)],
    ids=lambda message: type(message).__name__,
)
def test_every_kind_of_message_is_read_as_it_was_sent(message: Message) -> None:
    assert same(unpack(frames.pack(message, 7, "söß")), message)
    assert unpack(frames.pack(message, 7, "söß")).session == "söß"


def plain(hint: object) -> object:
    """A field's type as it stands in the client, which has no NumPy and no pydantic."""
    if hint == np.ndarray:
        return memoryview
    if hint == get_type_hints(Noted)["facts"]:
        return Mapping[str, Any]
    return hint.__name__ if is_dataclass(hint) else hint


def shape(kind: type) -> dict[str, object]:
    return {name: plain(hint) for name, hint in get_type_hints(kind).items()}


def test_its_classes_are_the_messages_of_the_session() -> None:
    published = {n: kind for n, kind in frames.KINDS.items() if kind not in INSIDE}
    assert {number: kind.__name__ for number, kind in client.KINDS.items()} == {
        number: kind.__name__ for number, kind in published.items()
    }
    of_frame = shape(client.Message)
    for number, kind in published.items():
        assert shape(client.KINDS[number]) == of_frame | shape(kind), kind.__name__
    for name, part in NESTED.items():
        assert shape(getattr(client, part.__name__)) == shape(part), name
    assert of_frame == {"session": str, "seq": int}


def test_it_knows_the_version_of_the_session() -> None:
    assert client.VERSION == frames.VERSION
    frame = frames.pack(SessionState(state="running"), 1, "s")
    with pytest.raises(ClientError, match=r"speaks format 99, and this client \d+: copy stream/cl"):
        unpack(frame.replace(b"\xa1v" + bytes([frames.VERSION]), b"\xa1v\x63"))


finite = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def answers(draw: st.DrawFn) -> Retrieval:
    n = draw(st.integers(1, 4))
    numbers = st.lists(finite, min_size=n, max_size=n)
    return Retrieval(
        about=about(draw(st.integers(0, 2**53 - 1)), stimulus=draw(texts), onset_s=draw(finite)),
        answer=answer(draw(finite), draw(st.integers(0, 99))),
        ids=draw(st.lists(texts, min_size=n, max_size=n)),
        labels=draw(st.lists(texts, min_size=n, max_size=n)),
        scores=draw(numbers),
        probabilities=draw(numbers),
        confidence=draw(finite),
        calibrated=draw(st.booleans()),
        abstain=draw(st.booleans()),
        rank=draw(st.integers(0, 10**6)),
        stamps={"window_end": draw(finite)} | draw(st.dictionaries(texts, finite, max_size=3)),
    )


@given(
    answers() | st.builds(Noted, node=texts, text=texts, facts=st.dictionaries(texts, json_values)),
    st.integers(0, 2**63),
)
def test_whatever_is_in_a_message_is_read_as_it_was_sent(message: Message, seq: int) -> None:
    assert same(unpack(frames.pack(message, seq, "s")), message)


# --- a session, as far as a client sees it -------------------------------------------------------


def an_answer(trial: int, tmax_s: float, confidence: float) -> Retrieval:
    facts = {"stamps": {"window_end": 1.0}, "calibrated": True, "abstain": False, "rank": 1}
    told = {"ids": ["a"], "labels": ["A"], "scores": [1.0], "probabilities": [confidence]}
    shown = {"about": about(trial), "answer": answer(tmax_s), "confidence": confidence}
    return Retrieval(**shown, **told, **facts)


class Books:
    """What the results node publishes of trials, and the ends that a client has to know."""

    early: Callable[[Message], None]
    """What the decoder gives out, before it is in the books."""

    def __init__(self, folder: Path, endpoints: Endpoints, send: Callable[[Message, int], None]):
        self._send, self.seq, self.truth = send, 0, dict[int, str]()
        self.standing = Standing()
        (folder / "ledger.jsonl").unlink(missing_ok=True)
        self.ledger = Ledger(folder / "ledger.jsonl", self.standing.entered)
        source = LiveSource(eeg="EEG", markers="m")
        self.config = SessionConfig(session="s", folder=folder, endpoints=endpoints, source=source)

    def publish(self, message: Message) -> None:
        message = leaving(self.config)(message)
        self.seq += 1
        self.standing.published(self.seq, message)
        self._send(message, self.seq)

    def hello(self) -> None:
        self.seq += 1
        self._send(leaving(self.config)(self.standing.snapshot(self.config, self.ledger)), self.seq)

    def marker(self, text: str = "cat", stamp_s: float = 1.0) -> int:
        trial = self.ledger.markers + 1
        self.ledger.announce(trial)
        seen = about(trial, stimulus=text)
        self.publish(MarkerSeen(about=seen, readable_s=0, text=text, sent_s=stamp_s, mark="x"))
        return trial

    def answer(self, trial: int, confidence: float = 0.5) -> None:
        for tmax_s in (0.5, 1.0):
            self.publish(an_answer(trial, tmax_s, confidence))
        self.settle(trial, "decoded")

    def answer_early(self, trial: int) -> None:
        self.early(an_answer(trial, 1.0, 0.5))

    def settle(self, trial: int, outcome: str, reason: str = "gap") -> None:
        facts = {"reason": reason} if outcome == "dropped" else {}
        self.ledger.settle(trial, outcome, **facts)
        self.truth[trial] = outcome
        sums = {"markers": self.ledger.markers, "pending": len(self.ledger.pending)}
        told = {"trial": trial, "outcome": outcome, "reason": facts.get("reason", "")}
        self.publish(Settled(**told, **sums))


class Running(threading.Thread):
    """A session with sockets of its own, that does what a test tells it, in its own thread."""

    def __init__(self, folder: Path, endpoints: Endpoints, listen: str | None = None):
        super().__init__(daemon=True)
        self.endpoints, self.folder, self.listen = endpoints, folder, listen
        self.told, self.asked = SimpleQueue[Callable[[], object] | None](), list[tuple[str, str]]()
        self.lost = 0  # of the next messages, so many

    def run(self) -> None:
        also = {name: lab_endpoint(self.listen, name) for name in ("results", "control")}
        publisher = Publisher(self.endpoints.results, "s", also=also["results"])
        answers = Publisher(self.endpoints.answers, "s")
        control = self.endpoints.control
        control = open_socket(zmq.ROUTER, control, bind=True, also=also["control"])

        def send(message: Message, seq: int) -> None:
            publisher.seq = seq - 1
            if self.lost:
                self.lost -= 1
            else:
                publisher.publish(message)

        self.books = Books(self.folder, self.endpoints, send)
        self.books.early = answers.publish
        while True:
            is_asked = control.poll(2)
            while not self.told.empty():  # what was told before is done before
                if (do := self.told.get()) is None:
                    publisher.close()
                    answers.close()
                    control.close(0)
                    return
                do()
            if is_asked:
                envelope, words = parted(control.recv_multipart())
                control.send_multipart([*envelope, *self._answer(words)])

    def _answer(self, words: list[bytes]) -> list[bytes]:
        try:
            asked = read_asked((), words, "s")
            if asked.verb == "hello":
                self.books.hello()
            else:
                self.asked.append((asked.verb, asked.argument))
            if asked.verb == "gallery":
                raise Problem("no such gallery")
            if asked.verb == "like":
                return [b"done", b'[["pear","Birne",0.5],["kiwi","Kiwi",0.25]]']
        except Problem as problem:
            return [b"refused", str(problem).encode()]
        return [b"done", asked.by.encode()]

    def do(self, *what: object) -> None:
        """Has something done: `do("marker", "cat")`."""
        name, *arguments = what
        self.told.put(lambda: getattr(self.books, str(name))(*arguments))

    def end(self) -> None:
        self.told.put(None)
        self.join(SOON_S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions say that they run: here none of others does."""
    monkeypatch.setattr(client, "PLACE", tmp_path / "running")
    return client.PLACE


@pytest.fixture(autouse=True)
def _questions_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ASK_S", 0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    endpoints = Endpoints.local()
    session = Running(tmp_path, endpoints)
    session.start()
    yield session
    session.end()
    endpoints.remove()


@pytest.fixture
def joined(running: Running, tmp_path: Path) -> Iterator[Session]:
    running.do("publish", NodeState(node="results", incarnation="one"))
    running.do("publish", SessionState(state="running"))
    with Session("s", running.endpoints.model_dump(), "a test") as session:
        session.wait_ready(deadline_s=SOON_S)
        yield session


# --- the end of a marker -------------------------------------------------------------------------


def test_an_answer_is_heard_from_the_decoder_at_once_and_not_again_from_the_ledger(
    running: Running, joined: Session
) -> None:
    heard = joined.listen(client.Retrieval, TrialEnd)
    running.do("marker")
    while not joined.ends:  # until it is subscribed to what the decoder says
        running.do("answer_early", 1)
        joined.until(lambda: joined.ends or None, 0.05)
    assert joined.wait_for(1, deadline_s=SOON_S).answer is not None  # no ledger has it yet
    running.do("answer", 1)
    running.do("marker", "dog", 2.0)
    running.do("answer", 2)
    told: list[tuple[str, int, float]] = []
    while len(told) < 6:
        match next(heard):
            case TrialEnd(trial=trial):
                told.append(("end", trial, 1.0))
            case client.Retrieval(about=of, answer=how):
                told.append(("answer", of.trial, how.tmax_s))
    assert told == [
        *(("end", 1, 1.0), ("answer", 1, 1.0), ("answer", 1, 0.5)),
        *(("answer", 2, 0.5), ("end", 2, 1.0), ("answer", 2, 1.0)),
    ]


def test_the_end_is_found_whether_it_comes_before_or_after_and_whatever_it_is(
    running: Running, joined: Session
) -> None:
    for trial, (text, end) in enumerate(
        [("a", ("answer", 1, 0.9)), ("b", ("settle", 2, "cut")), ("c", ("settle", 3, "dropped"))], 1
    ):
        running.do("marker", text, float(trial))
        running.do(*end)
    last = joined.wait_for("c", 3.0, deadline_s=SOON_S)  # those before came before it was asked
    told = (last.trial, last.outcome, last.reason, last.answer)
    assert told == (3, "dropped", "gap", None)
    first = joined.wait_for("a", 1.0, deadline_s=SOON_S)
    assert (first.outcome, first.answer.confidence, first.answer.labels) == ("decoded", 0.9, ["A"])
    assert first.answer.answer.provisional is False
    assert first.marker.about.stimulus == "a"
    assert joined.wait_for(2, deadline_s=SOON_S).outcome == "cut"
    threading.Timer(0.05, lambda: [running.do("marker", "d"), running.do("answer", 4)]).start()
    assert joined.wait_for("d", deadline_s=SOON_S).trial == 4


def test_the_same_stimulus_again_and_again_is_told_apart(running: Running, joined: Session) -> None:
    for trial in range(1, 8):
        running.do("marker", "cat", float(trial))
        running.do("answer", trial)
    assert joined.wait_for("cat", 4.0, deadline_s=SOON_S).trial == 4  # by its stamp
    assert joined.wait_for("cat", deadline_s=SOON_S).trial == 1  # the first not waited for
    assert joined.wait_for("cat", deadline_s=SOON_S).trial == 2
    assert joined.wait_for("cat", nth=2, deadline_s=SOON_S).trial == 5  # 4 was waited for
    assert joined.wait_for("cat", deadline_s=SOON_S).trial == 6
    assert joined.wait_for("cat", 4.0, deadline_s=SOON_S).trial == 4  # and may be again


def test_a_wait_whose_time_ran_out_is_not_answered_by_that_marker_later(
    running: Running, joined: Session
) -> None:
    running.do("marker", "cat", 1.0)
    joined.until(lambda: joined.markers or None, SOON_S)
    with pytest.raises(TimeOut, match=r"0.2 s later, marker 'cat' \(any\) has no end"):
        joined.wait_for("cat", deadline_s=NEVER_S)
    running.do("answer", 1)
    running.do("marker", "cat", 2.0)
    running.do("settle", 2, "cut")
    assert joined.wait_for("cat", deadline_s=SOON_S).trial == 2
    with pytest.raises(TimeOut, match=r"'dog' \(2.5\) was not heard by s on m"):
        joined.wait_for("dog", 2.5, deadline_s=NEVER_S)


def test_who_joins_late_knows_what_was_and_waits_for_what_comes(running: Running) -> None:
    running.do("publish", SessionState(state="running"))
    for trial in (1, 2):
        running.do("marker", "cat", float(trial))
    running.do("answer", 1, 0.75)
    with Session("s", running.endpoints.model_dump(), "late") as late:
        late.wait_ready(deadline_s=SOON_S)
        assert late.wait_for("cat", 1.0, deadline_s=SOON_S).answer.confidence == 0.75
        running.do("marker", "cat", 3.0)
        running.do("settle", 2, "cut")
        running.do("settle", 3, "cut")
        assert late.wait_for("cat", deadline_s=SOON_S).trial == 3
        assert late.wait_for("cat", 2.0, deadline_s=SOON_S).outcome == "cut"
        assert (late.snapshot.markers, late.snapshot.config["session"]) == (2, "s")


def test_in_a_blind_session_a_marker_is_known_by_its_stamp(running: Running) -> None:
    blind = {"outputs": OutputSettings(blind=True)}
    running.told.put(
        lambda: setattr(running.books, "config", running.books.config.model_copy(update=blind))
    )
    running.do("publish", SessionState(state="running"))
    with Session("s", running.endpoints.model_dump(), "a test") as joined:
        joined.wait_ready(deadline_s=SOON_S)
        for trial in (1, 2):
            running.do("marker", "cat", float(trial))
            running.do("settle", trial, "cut")
        assert joined.wait_for("cat", 2.0, deadline_s=SOON_S).trial == 2
        with pytest.raises(ClientError, match="s tells no marker's text, as it is --blind"):
            joined.wait_for("cat", deadline_s=SOON_S)


@pytest.mark.parametrize("n_lost", [1, 2, 3, 4, 5, 7, 8])
def test_what_was_lost_on_the_way_is_asked_for(running: Running, joined: Session, n_lost) -> None:
    running.do("marker", "a", 1.0)
    joined.until(lambda: joined.markers or None, SOON_S)
    running.told.put(lambda: setattr(running, "lost", n_lost))
    running.do("answer", 1)  # two answers, one of them provisional, and that it is settled
    running.do("marker", "b", 2.0)
    running.do("settle", 2, "dropped")
    running.do("marker", "c", 3.0)
    running.do("marker", "d", 4.0)
    running.do("settle", 4, "cut")
    if n_lost == 8:  # all of it, as where the results node was restarted
        running.do("publish", NodeState(node="results", incarnation="another"))
    assert joined.wait_for("a", 1.0, deadline_s=SOON_S).answer.confidence == 0.5
    assert joined.wait_for("b", 2.0, deadline_s=SOON_S).outcome == "dropped"
    assert joined.wait_for("d", 4.0, deadline_s=SOON_S).outcome == "cut"


def test_what_was_lost_before_the_session_ended_is_told_at_its_end(
    running: Running, joined: Session
) -> None:
    ends = joined.listen(TrialEnd)
    for trial in (1, 2, 3):
        running.told.put(lambda trial=trial: setattr(running, "lost", 2 * (trial == 2)))
        running.do("marker", "a", float(trial))
        running.do("settle", trial, "cut")
    running.do("hello")  # as the results node does before its last word
    running.do("publish", CLOSED)
    assert {end.trial for end in ends} == {1, 2, 3}


def test_an_end_that_was_heard_first_has_its_marker_too(running: Running, joined: Session) -> None:
    running.told.put(lambda: setattr(running, "lost", 1))
    running.do("marker", "a", 1.0)
    running.do("settle", 1, "cut")  # from this on a snapshot is asked for
    end = joined.wait_for("a", 1.0, deadline_s=SOON_S)
    assert end.marker is not None
    assert end.marker == joined.markers[1]


acts = st.sampled_from(["marker", "marker", "answer", "cut", "drop", "lose", "hello", "again"])


@given(st.lists(acts, max_size=50), st.randoms(use_true_random=False))
def test_whoever_is_in_step_knows_the_end_of_every_marker_once(nowhere, steps, random) -> None:
    folder, endpoints = nowhere
    queue: list[bytes] = []
    books = Books(folder, endpoints, lambda m, seq: queue.append(frames.pack(m, seq, "s")))
    with Session("s", endpoints.model_dump(), "a test") as follows:
        follows._kinds.add(TrialEnd)
        books.hello()
        for step in [*steps, "marker", "cut"]:  # a loss of the last would be seen later
            pending = books.ledger.pending
            match step:
                case "marker":
                    books.marker()
                case "answer" if pending:
                    books.answer(random.choice(pending))
                case "cut" if pending:
                    books.settle(random.choice(pending), "cut")
                case "drop" if pending:
                    books.settle(random.choice(pending), "dropped")
                case "again" if books.truth:  # as to a node that had not heard it
                    sums = {"markers": books.ledger.markers, "pending": len(pending)}
                    trial = random.choice([*books.truth])
                    told = {"trial": trial, "outcome": books.truth[trial], "reason": ""}
                    books.publish(Settled(**told, **sums))
                case "hello":
                    books.hello()
                case "lose" if queue:
                    del queue[random.randrange(len(queue))]
            if random.random() < 0.5 or step == "cut":
                for frame in queue:
                    follows._take(unpack(frame))
                queue.clear()
        if not follows.in_step:
            books.hello()
            follows._take(unpack(queue.pop()))
        assert {trial: end.outcome for trial, end in follows.ends.items()} == books.truth
        assert all(bool(end.answer) == (end.outcome == "decoded") for end in follows.ends.values())
        told = [end.trial for end in follows._waiting]
        assert sorted(told) == sorted(books.truth)
        assert follows.over is None


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Endpoints]]:
    endpoints = Endpoints.local()
    yield tmp_path_factory.mktemp("nowhere"), endpoints
    endpoints.remove()


def test_memory_is_bounded(nowhere) -> None:
    folder, endpoints = nowhere
    with Session("s", endpoints.model_dump(), "a test") as follows:
        books = Books(
            folder, endpoints, lambda m, seq: follows._take(unpack(frames.pack(m, seq, "s")))
        )
        for _ in range(3 * client.KEPT):
            books.settle(books.marker(), "cut")
        assert len(follows.ends) == len(follows.markers) == client.KEPT
        assert max(follows.ends) == 3 * client.KEPT


# --- listening -----------------------------------------------------------------------------------

HEALTH = next(message for message in EXAMPLES if isinstance(message, StreamHealth))
CLOSED = SessionClosed(summary={"end": "finish"})


def test_what_is_listened_to_comes_and_nothing_else_until_the_session_ends(
    running: Running, joined: Session
) -> None:
    heard = joined.listen(client.StreamHealth, TrialEnd)
    while not joined._waiting:  # until the session knows that it is listened to
        running.do("publish", NodeState(node="decode", incarnation="x"))
        running.do("publish", HEALTH)
        joined._look(0.05)
    running.do("marker", "a")
    running.do("settle", 1, "cut")
    wait_until(lambda: 1 in joined.ends or joined._look(0.01))
    running.do("publish", CLOSED)
    *health, end = heard
    assert {type(one) for one in health} == {client.StreamHealth}
    assert health[0].stream == HEALTH.stream
    assert isinstance(end, TrialEnd)
    with pytest.raises(SessionEnded, match=r"the session s has ended \(finish\)"):
        joined.wait_for("b", deadline_s=SOON_S)
    assert joined.wait_for("a", deadline_s=SOON_S).outcome == "cut"  # what is known is told
    with pytest.raises(SessionEnded):
        joined.pause()


def test_messages_without_such_a_name_are_refused(joined: Session) -> None:
    with pytest.raises(ClientError, match=r"{'Cat'} are no classes of messages; there are Mark"):
        joined.listen("Cat")
    with pytest.raises(ClientError, match=r"{.*TrialRef'>} are no classes of messages"):
        joined.listen(client.TrialRef, TrialEnd)


def test_it_all_works_under_asyncio_several_waits_at_once(
    running: Running, joined: Session
) -> None:
    async def loop() -> list[TrialEnd]:
        async def ends() -> list[TrialEnd]:
            return [end async for end in joined.alisten(TrialEnd)]

        heard = asyncio.create_task(ends())
        await asyncio.sleep(0.05)
        await joined.await_ready(deadline_s=SOON_S)
        waits = [joined.await_for(text, deadline_s=SOON_S) for text in ("a", "b", "c")]
        waits = [asyncio.create_task(wait) for wait in waits]
        for trial, text in enumerate("cab", 1):
            running.do("marker", text)
            running.do("settle", trial, "cut")
        assert [(await wait).trial for wait in waits] == [2, 3, 1]
        assert await joined.aask("mark", "x") == "a test"
        with pytest.raises(Refused, match="no such gallery"):
            await joined.aask("gallery", "/none")
        running.do("publish", CLOSED)
        return await heard

    assert [end.trial for end in asyncio.run(loop())] == [1, 2, 3]


# --- control -------------------------------------------------------------------------------------


def test_the_verbs_are_those_of_the_session(running: Running, joined: Session) -> None:
    from stream.pipeline.control import VERBS

    said = [
        ask() for ask in (joined.start, joined.finish, joined.stop, joined.pause, joined.resume)
    ]
    assert said == ["a test"] * 5
    assert joined.mark("half time") == joined.reset_group("a") == joined.set("top_k 3") == "a test"
    with pytest.raises(Refused, match="no such gallery"):
        joined.gallery("/none")
    alike = [("pear", "Birne", 0.5), ("kiwi", "Kiwi", 0.25)]
    assert joined.more_like("red apple", 2) == alike
    assert asyncio.run(joined.amore_like("red apple")) == alike
    assert [verb for verb, _ in running.asked] == [
        *("start", "finish", "stop", "pause", "resume", "mark", "reset_group", "set", "gallery"),
        *("like", "like"),
    ]
    assert running.asked[-2:] == [("like", "2 red apple"), ("like", "5 red apple")]
    assert set(VERBS) - {"hello"} == {verb for verb, _ in running.asked}
    assert ("mark", "half time") in running.asked


def test_a_word_for_another_session_is_refused_and_one_that_is_away_is_a_time_out(
    running: Running, joined: Session
) -> None:
    joined.id = "another"
    with pytest.raises(Refused, match="this is the session 's', not 'another'"):
        joined.stop()
    assert running.asked == []
    joined.id = "s"
    running.end()
    with pytest.raises(TimeOut, match=r"session s has not answered 'stop' in 0.2 s"):
        joined.ask("stop", deadline_s=NEVER_S)


# --- its end -------------------------------------------------------------------------------------


def test_a_session_that_died_is_noticed_and_one_that_only_is_silent_goes_on(
    running: Running, joined: Session, monkeypatch
) -> None:
    monkeypatch.setattr(client, "_QUIET", 0.1)  # it is asked after that, and answers
    n_before, heard_s = running.books.seq, joined._heard_s
    joined.until(lambda: running.books.seq > n_before + 9 or None, SOON_S)
    assert joined._heard_s > heard_s
    monkeypatch.setattr(client, "SILENT_S", 1.6)
    running.end()
    with pytest.raises(SessionEnded, match=r"nothing was heard of the session s for 1.6 s"):
        joined.wait_for("a", deadline_s=SOON_S)
    with pytest.raises(SessionEnded, match="nothing was heard"):
        list(joined.listen(client.StreamHealth))


def test_another_session_at_the_same_address_is_not_joined(joined: Session, running) -> None:
    joined._take(unpack(frames.pack(SessionState(state="running"), 1, "t")))
    with pytest.raises(SessionEnded, match=r"s has ended: the session t is at its address now"):
        joined.wait_for("a", deadline_s=SOON_S)


def test_who_has_left_is_told_so(joined: Session) -> None:
    joined.close()
    with pytest.raises(ClientError, match="the session s was left by `close`"):
        joined.wait_for("a", deadline_s=SOON_S)


def test_a_session_that_is_not_ready_in_time_says_what_it_is(running: Running) -> None:
    running.do("publish", SessionState(state="paused"))
    with Session("s", running.endpoints.model_dump(), "a test") as session:
        session.until(lambda: session.in_step or None, SOON_S)
        with pytest.raises(TimeOut, match=r"s is not ready after 0.2 s: it is paused"):
            session.wait_ready(deadline_s=NEVER_S)


# --- which one -----------------------------------------------------------------------------------


def config_of(folder: Path, session: str, endpoints: Endpoints) -> SessionConfig:
    source = LiveSource(eeg="EEG", markers="m")
    return SessionConfig(session=session, folder=folder, endpoints=endpoints, source=source)


def test_one_session_is_found_several_are_listed_and_none_is_said(place, running) -> None:
    with pytest.raises(ClientError, match=r"there are 0 sessions on this machine; .*: none"):
        connect(wait_s=NEVER_S)
    first = Presence(config_of(running.folder, "s", running.endpoints), "live 'EEG'")
    (found,) = discover()
    assert (found.session, found.title, found.ready) == ("s", "live 'EEG'", False)
    assert (found.folder, found.endpoints["results"]) == (
        str(running.folder),
        running.endpoints.results,
    )
    assert discover() == discover()
    first.say(ready=True)
    assert discover()[0].ready
    with connect() as session:
        assert session.id == "s"
    second = Presence(config_of(running.folder, "t", running.endpoints), "replay 'x'")
    both = r"s \(live 'EEG', in .*\); t \(replay 'x', in .*\)"
    with pytest.raises(ClientError, match=f"there are 2 sessions on this machine; .*: {both}"):
        connect()
    with pytest.raises(ClientError, match=f"there is no session 'u' on this machine; .*{both}"):
        connect("u", wait_s=NEVER_S)
    with connect("s") as session:
        assert session.id == "s"
    second.end()
    first.end()
    assert discover() == []
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("named", ["", "s"])
def test_one_that_is_not_there_yet_is_waited_for(place, running: Running, named: str) -> None:
    begun = []
    config = config_of(running.folder, "s", running.endpoints)
    begins = threading.Timer(NEVER_S, lambda: begun.append(Presence(config, "x")))
    begins.start()
    with connect(named, wait_s=SOON_S) as session:
        assert session.id == "s"
    begins.join()


def test_a_folder_that_is_not_there_yet_is_waited_for(place, running: Running) -> None:
    folder = running.folder / "new"

    def begin() -> None:
        folder.mkdir()
        config = config_of(folder, "s", running.endpoints).model_dump_json()
        for text in (config[:100], config):  # which is written while somebody looks
            (folder / "config.json").write_text(text)
            threading.Event().wait(NEVER_S)

    begins = threading.Timer(NEVER_S, begin)
    begins.start()
    with connect(folder, wait_s=SOON_S) as session:
        assert session.id == "s"
    begins.join()


def test_what_a_dead_session_left_is_passed_over_and_removed(place: Path, tmp_path: Path) -> None:
    endpoints = Endpoints.local()
    living = Presence(config_of(tmp_path, "living", endpoints), "x")
    (place / "dead.json").write_text((place / "living.json").read_text().replace("living", "dead"))
    assert [one.session for one in discover()] == ["living"]
    assert [path.name for path in place.iterdir()] == ["living.json"]
    assert place.stat().st_mode & 0o077 == 0
    assert not {"secret", "public", "#"} & set(json.loads((place / "living.json").read_text()))
    living.end()
    endpoints.remove()


def test_a_folder_that_others_can_enter_is_not_used(place: Path, tmp_path: Path) -> None:
    place.mkdir(mode=0o755)
    endpoints = Endpoints.local()
    presence = Presence(config_of(tmp_path, "s", endpoints), "x")
    assert "do not find this one (others can enter it: " in presence.trouble
    presence.say(ready=True)
    presence.end()
    assert list(place.iterdir()) == []
    endpoints.remove()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_what_somebody_else_says_is_not_believed(place: Path, tmp_path: Path) -> None:
    endpoints = Endpoints.local()
    living = Presence(config_of(tmp_path, "s", endpoints), "x")
    os.chown(place, 12345, -1)
    assert discover() == []
    living.end()
    endpoints.remove()


def test_a_session_is_joined_by_its_folder_and_one_that_is_over_says_so(running: Running) -> None:
    config_of(running.folder, "s", running.endpoints).write()
    with connect(str(running.folder)) as session:
        assert (session.id, session.in_step) == ("s", True)
    running.end()
    with pytest.raises(TimeOut, match=r"nobody answers at '.*': it has ended or has other keys"):
        connect(str(running.folder), wait_s=NEVER_S)


# --- another host --------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The keys of a lab, that are made at their first use."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    make_lab_keys()
    return lab_keys()


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_another_host_is_let_in_with_the_keys_of_the_lab(
    lab: Path, tmp_path: Path, transport: Transport
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    endpoints = Endpoints.local(transport)
    write_keys(endpoints.control)
    far = Running(tmp_path, endpoints, listen)
    far.start()
    far.do("publish", SessionState(state="running"))
    far.do("marker", "cat", 5.5)
    copied = tmp_path / "hvf-live.keys"
    copied.write_bytes(lab.read_bytes())
    with connect(f"tcp://{listen}", keys=str(copied), wait_s=SOON_S) as session:
        session.wait_ready(deadline_s=SOON_S)
        assert session.id == "s"
        assert session.mark("from afar") == "client"
        far.do("answer", 1)
        assert session.wait_for("cat", 5.5, deadline_s=SOON_S).answer.confidence == 0.5
    with Session("s", endpoints.model_dump(), "near") as near:  # those of this host as before
        near.wait_ready(deadline_s=SOON_S)
    if transport == "tcp":  # and with its own keys alone
        stranger = {name: f"{each.partition('#')[0]}#{lab}" for name, each in endpoints}
        with Session("s", stranger, "far") as refused:
            assert refused.until(lambda: refused.in_step or None, NEVER_S) is None
    far.end()
    endpoints.remove()


def test_without_these_keys_nobody_is_let_in(lab: Path, tmp_path: Path, monkeypatch) -> None:
    listen = f"127.0.0.1:{free_port()}"
    endpoints = Endpoints.local()
    far = Running(tmp_path, endpoints, listen)
    far.start()
    address = f"tcp://{listen}"
    with pytest.raises(ClientError, match=r"give tcp://HOST:PORT and `keys`, of its hvf"):
        connect(address)
    with pytest.raises(ClientError, match="there are no keys in '/none'"):
        connect(address, keys="/none")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another lab"))
    make_lab_keys()
    with pytest.raises(TimeOut, match=r"nobody answers at 'tcp://.*': it has ended or ha"):
        connect(address, keys=str(lab_keys()), wait_s=NEVER_S)
    bare = zmq.Context.instance().socket(zmq.DEALER)  # who has no keys at all
    bare.linger = 0
    bare.connect(f"tcp://127.0.0.1:{int(listen.partition(':')[2]) + 2}")
    bare.send_multipart([b"me", b"stop", b""])
    assert not bare.poll(int(NEVER_S * 1e3))
    bare.close()
    assert far.asked == []
    far.end()
    endpoints.remove()


def test_the_keys_of_a_lab_are_kept_and_nobody_else_reads_them(lab: Path) -> None:
    before = lab.read_text()
    make_lab_keys()
    assert lab.read_text() == before
    assert {path.name for path in lab.parent.iterdir()} == {"hvf-live.keys", "server.json"}
    assert {path.stat().st_mode & 0o777 for path in lab.parent.iterdir()} == {0o600}
    assert lab.parent.stat().st_mode & 0o077 == 0
    secret = json.loads((lab.parent / "server.json").read_text())["curve_secretkey"]
    assert secret not in before


def test_a_port_that_somebody_has_is_said(lab: Path) -> None:
    endpoints = Endpoints.local()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        also = lab_endpoint(f"127.0.0.1:{taken.getsockname()[1]}", "results")
        with pytest.raises(Problem, match=r"already in use.*: give another address with --listen"):
            Publisher(endpoints.results, "s", also=also)
    endpoints.remove()
    with pytest.raises(Problem, match="65533 is the first of four ports"):
        OutputSettings(listen="0.0.0.0:65533")
