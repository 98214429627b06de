"""Observers come late, miss nothing, hear nothing twice, and leave without a trace."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from index.gallery import Gallery, load_gallery, save_gallery
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.standing import Standing
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig, read_config
from stream.pipeline.wire.frames import unpack_numbered
from stream.pipeline.wire.messages import (
    Controlled,
    Message,
    NodeState,
    Noted,
    SessionState,
    Settled,
    Snapshot,
)
from tests.sessions import (
    check_accounted,
    finish,
    run,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)
from tests.tiny_painting import write_models, write_recording


class Observer:
    """Counts what is settled: from a snapshot, then from what follows it. A gap: it asks again."""

    def __init__(self) -> None:
        self.seq: int | None = None
        self.settled: list[int] = []
        self.states: dict[str, str] = {}

    def hear(self, seq: int, message: Message) -> None:
        if isinstance(message, Snapshot):
            self.seq, self.states = seq, {}
            self.settled = [record["trial"] for record in message.trials]
            for frame in message.last:
                self._note(unpack_numbered(frame)[1])
        elif self.seq is not None:
            if seq != self.seq + 1:
                self.seq = None
                return
            self.seq = seq
            self._note(message)
            if isinstance(message, Settled):
                self.settled.append(message.trial)

    def _note(self, message: Message) -> None:
        if isinstance(message, NodeState):
            self.states[message.node] = message.incarnation
        elif isinstance(message, SessionState):
            self.states["session"] = message.state


class Publishing:
    """A results node without sockets: whoever listens gets what is published from then on."""

    def __init__(self, folder: Path, first: int):
        self.seq, self.truth = first, Observer()
        self.standing = Standing()
        (folder / "ledger.jsonl").unlink(missing_ok=True)
        self.ledger = Ledger(folder / "ledger.jsonl", self.standing.entered)
        self.config = SessionConfig(
            session="s",
            folder=folder,
            endpoints=Endpoints.local(),
            source=LiveSource(eeg="EEG", markers="m"),
        )
        self.listening: list[list[tuple[int, Message]]] = []
        self.truth.seq = first

    def settle(self) -> None:
        trial = self.ledger.markers + 1
        self.ledger.announce(trial)
        self.ledger.settle(trial, "decoded")
        told = {"trial": trial, "outcome": "decoded", "reason": ""}
        self.publish(Settled(**told, markers=trial, pending=0))

    def publish(self, message: Message) -> None:
        self.seq += 1
        self.truth.hear(self.seq, message)
        self.standing.published(self.seq, message)
        self._send(message)

    def hello(self) -> None:
        self.seq += 1
        self.truth.seq = self.seq
        self._send(self.standing.snapshot(self.config, self.ledger))

    def _send(self, message: Message) -> None:
        for queue in self.listening:
            queue.append((self.seq, message))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("observed")


acts = st.sampled_from(["settle", "settle", "node", "state", "join", "hello", "hear", "lose"])


@given(st.lists(acts, max_size=60), st.integers(0, 2**50), st.randoms(use_true_random=False))
def test_whoever_is_in_step_knows_all_that_there_is_to_know(folder, steps, first, random) -> None:
    results = Publishing(folder, first)
    observers: list[tuple[Observer, list]] = []

    def hear(observer: Observer, queue: list, n: int) -> None:
        for seq, message in queue[:n]:
            observer.hear(seq, message)
        del queue[:n]

    for n, step in enumerate(steps):
        match step:
            case "settle":
                results.settle()
            case "node":
                name = random.choice(["reader", "decode"])
                results.publish(NodeState(node=name, incarnation=f"{name}-{n}"))
            case "state":
                results.publish(SessionState(state=random.choice("ab")))
            case "join":
                observers.append((Observer(), []))
                results.listening.append(observers[-1][1])
            case "hello":
                results.hello()
            case "hear" if observers:
                observer, queue = random.choice(observers)
                hear(observer, queue, random.randint(0, len(queue)))
            case "lose" if observers and (queue := random.choice(observers)[1]):
                del queue[random.randrange(len(queue))]
    results.publish(SessionState(state="c"))  # a loss of the last would be seen later
    for observer, queue in observers:
        hear(observer, queue, len(queue))
        if observer.seq is None:  # it has not asked, or has lost something: it asks, and knows
            results.hello()
            hear(observer, queue, len(queue))
        assert observer.settled == results.truth.settled
        assert observer.states == results.truth.states


def test_a_snapshot_is_bounded_and_says_how_many_there_were(folder: Path) -> None:
    results = Publishing(folder, 0)
    for _ in range(500):
        results.settle()
        results.publish(Noted(node="decode", text="x", facts={}))
    snapshot = results.standing.snapshot(results.config, results.ledger)
    assert [record["trial"] for record in snapshot.trials] == list(range(301, 501))
    assert (snapshot.markers, snapshot.pending, snapshot.outcomes) == (500, 0, {"decoded": 500})
    assert len(snapshot.last) == 2
    assert snapshot.config["session"] == "s"


# --- with a session ------------------------------------------------------------------------------


class Caller:
    """Anybody: a socket to hear with, a socket to ask with."""

    def __init__(self, folder: Path):
        endpoints = read_config(folder / "config.json").endpoints
        self._ask = open_socket(zmq.REQ, endpoints.control, bind=False)
        self._ask.setsockopt(zmq.LINGER, 0)
        self._hear = open_socket(zmq.SUB, endpoints.results, bind=False)

    def ask(self, verb: str, argument: str = "") -> tuple[str, str]:
        self._ask.send_multipart([b"a test", verb.encode(), argument.encode()])
        assert self._ask.poll(10_000), verb
        outcome, text = self._ask.recv_multipart()
        return outcome.decode(), text.decode()

    def join(self) -> Observer:
        """Says hello until it is heard: a socket that was opened just now may miss the first."""
        observer = Observer()
        deadline_s = time.monotonic() + 20
        while observer.seq is None and time.monotonic() < deadline_s:
            assert self.ask("hello")[0] == "done"
            self.hear(observer, 0.5)
        return observer

    def hear(self, observer: Observer, for_s: float) -> list[Message]:
        heard, deadline_s = [], time.monotonic() + for_s
        while time.monotonic() < deadline_s:
            if self._hear.poll(50):
                seq, message = unpack_numbered(self._hear.recv())
                observer.hear(seq, message)
                heard.append(message)
        return heard

    def close(self) -> None:
        self._ask.close(0)
        self._hear.close(0)


@pytest.fixture
def amplifier() -> Iterator[str]:
    from tests.test_stream_faults import outlet

    name = f"amp-{uuid.uuid4().hex[:8]}"
    with outlet(name):
        yield name


def test_a_session_is_watched_steered_and_ended_from_outside(amplifier, tmp_path) -> None:
    folder = tmp_path / "session"
    streams = ("--eeg", amplifier, "--markers", f"{amplifier}-markers", "--wait", "20")
    process = start("live", *streams, "--tmin", "0", "--tmax", "0.2", "--headless", "--out", folder)
    wait_for_ledger(folder, lambda records: sum(r["event"] == "cut" for r in records) >= 2)
    passing, caller = Caller(folder), Caller(folder)
    passing.join()
    observer = caller.join()
    assert observer.states.keys() >= {"results", "reader", "session"}
    assert observer.states["session"] == "running"
    passing.close()

    assert caller.ask("dance") == (
        "refused",
        "there is no verb 'dance'; there are finish, stop, pause, resume, mark, reset_group, "
        "gallery, set, hello",
    )
    assert caller.ask("set", "nonsense 1")[0] == "refused"
    assert caller.ask("mark", "half time")[0] == "done"
    assert caller.ask("pause")[0] == "done"
    wait_for_ledger(folder, lambda records: any(r.get("reason") == "paused" for r in records))
    heard = caller.hear(observer, 0.5)
    assert observer.states["session"] == "paused"
    assert [m.argument for m in heard if isinstance(m, Controlled) and m.verb == "mark"]
    assert caller.ask("pause")[0] == "refused"
    assert caller.ask("resume")[0] == "done"
    n_cut = len(trials_of(folder, "cut"))
    wait_for_ledger(folder, lambda records: sum(r["event"] == "cut" for r in records) > n_cut)
    caller.hear(observer, 0.5)
    assert caller.ask("finish")[0] == "done"
    done = finish(process)
    caller.hear(observer, 0.2)
    caller.close()

    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert set(told["dropped"]) == {"paused"}
    assert observer.seq is not None
    outcomes = [r["trial"] for e in ("cut", "dropped") for r in trials_of(folder, e)]
    # What a node had not heard is said again: it is the same outcome.
    assert sorted(set(observer.settled)) == sorted(outcomes)
    entries = [(r["verb"], r["outcome"]) for r in trials_of(folder, "control")]
    assert entries == [
        ("dance", "refused"),
        ("set", "refused"),
        ("mark", "done"),
        ("pause", "done"),
        ("pause", "refused"),
        ("resume", "done"),
        ("finish", "done"),
    ]


def test_answers_change_with_galleries_settings_and_groups_that_begin_anew(tmp_path) -> None:
    models, folder = write_models(tmp_path), tmp_path / "session"
    whole = load_gallery(models / "gallery")
    kept = slice(0, 3)
    fewer = Gallery(
        *(whole.ids[kept], whole.labels[kept], whole.embeddings[kept]),
        *(whole.space, whole.image_encoders, "test"),
    )
    save_gallery(tmp_path / "fewer", fewer)
    recording = write_recording(tmp_path / "toy_raw.fif", 60 * "abcd")
    options = ("--bundle", models / "bundle", "--headless", "--out", folder)
    process = start("replay", recording, *options)

    def wait_for_more(n: int) -> int:
        """Waits for n further answers, and says how many there were before them."""
        before = len(trials_of(folder, "decoded"))
        wait_for_decoded(folder, before + n)
        return before

    wait_for_decoded(folder, 9)  # each at least twice
    caller = Caller(folder)
    assert caller.ask("set", "top_k 2") == ("done", "top_k is now 2; it was 5")
    assert caller.ask("reset_group", "a")[0] == "done"
    assert caller.ask("gallery", str(tmp_path / "fewer"))[0] == "done"
    assert caller.ask("gallery", str(tmp_path / "fewer" / "none"))[0] == "refused"
    before = wait_for_more(6)
    assert caller.ask("stop")[0] == "done"
    done = finish(process)
    caller.close()
    assert done.code == 0, done.err
    told = check_accounted(folder)
    decoded = trials_of(folder, "decoded")
    assert {len(record["ids"]) for record in decoded[: before - 1]} == {4}
    assert {len(record["ids"]) for record in decoded[before + 2 :]} == {2}
    repeats = [record["n_repeats"] for record in decoded if record["stimulus"] == "a"]
    assert repeats.count(1) == 2
    assert [record["n_repeats"] for record in decoded if record["stimulus"] == "b"].count(1) == 1
    assert {"d"} == {r["stimulus"] for r in _dropped_as_unknown(folder)}
    assert told["n_way"] == 3
    again = run("evaluate", "--session", folder, module="offline_train")
    orders = f"told 'set top_k 2', 'reset_group a', 'gallery {tmp_path / 'fewer'}' while it ran"
    assert (again.code, orders in again.one_sentence()) == (1, True)


def _dropped_as_unknown(folder: Path) -> list[dict]:
    dropped = {r["trial"] for r in trials_of(folder, "dropped") if r["reason"][:7] == "unknown"}
    return [r for r in trials_of(folder, "marker") if r["trial"] in dropped]


def test_nonsense_on_the_control_socket_is_answered_and_ends_nothing(amplifier, tmp_path) -> None:
    folder = tmp_path / "session"
    streams = ("--eeg", amplifier, "--markers", f"{amplifier}-markers", "--wait", "20")
    process = start("live", *streams, "--tmin", "0", "--tmax", "0.2", "--headless", "--out", folder)
    wait_for_ledger(folder, lambda records: any(r["event"] == "cut" for r in records))
    socket = open_socket(
        zmq.DEALER, read_config(folder / "config.json").endpoints.control, bind=False
    )
    for frames in (
        [b""],
        [b"x", b"y"],
        [b"\xff", b"\xfe", b"\xfd"],
        [b"dashboard", b"beat", b""],
        [b"x", b"mark", b"y" * 2**17],
    ):
        socket.send_multipart(frames)
        assert socket.poll(10_000), frames
        assert socket.recv_multipart()[0] == b"refused"
    for frames in ([b"x"], [b"x", b"y"], [b"\xff", b"\xfe", b"\xfd"], [b"x", b"mark", b"y", b"z"]):
        asker = open_socket(
            zmq.REQ, read_config(folder / "config.json").endpoints.control, bind=False
        )
        asker.send_multipart(frames)
        assert asker.poll(10_000), frames
        assert asker.recv_multipart()[0] == b"refused"
        asker.close()
    socket.send_multipart([b"x", b"stop", b""])
    assert socket.recv_multipart()[0] == b"done"
    socket.close()
    assert finish(process).code == 0
    check_accounted(folder)
