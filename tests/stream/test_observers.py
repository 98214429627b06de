"""Observers come late, miss nothing, hear nothing twice, and leave without a trace."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.standing import Standing
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.frames import unpack_numbered
from stream.pipeline.wire.messages import (
    Message,
    NodeState,
    Noted,
    SessionState,
    Settled,
    Snapshot,
)


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
    for _ in range(700):
        results.settle()
        results.publish(Noted(node="decode", text="x", facts={}))
    snapshot = results.standing.snapshot(results.config, results.ledger)
    assert [record["trial"] for record in snapshot.trials] == list(range(501, 701))
    assert (snapshot.markers, snapshot.pending, snapshot.outcomes) == (700, 0, {"decoded": 700})
    assert len(snapshot.last) == 601  # of trials those of the last, of all else one
    assert snapshot.config["session"] == "s"
