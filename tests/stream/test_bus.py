"""Who hears what: a kind of message reaches those who asked for it, and costs nobody else."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq

from stream.pipeline.nodes import reader, record
from stream.pipeline.wire.bus import Publisher, drain, open_socket
from stream.pipeline.wire.config import Endpoints, FileSource, SessionConfig
from stream.pipeline.wire.frames import KINDS, unpack_numbered
from stream.pipeline.wire.messages import (
    NodeState,
    Painted,
    Preview,
    Retrieval,
    SessionClosed,
    Settled,
)
from tests.refs import about, answer
from tests.tiny_painting import write_recording
from tests.waiting import wait_until

PREVIEW = Preview(
    about=about(1),
    answer=answer(),
    step=1,
    n_steps=4,
    image_format="jpeg",
    image=bytes(300_000),
    stamps={},
)
ALIVE = NodeState(node="results", incarnation="results-1")


def settled(trial: int) -> Settled:
    told = {"trial": trial, "outcome": "decoded", "reason": ""}
    return Settled(**told, markers=trial, pending=0)


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints.local()


@pytest.fixture
def publisher(endpoints: Endpoints) -> Iterator[Publisher]:
    with closing(Publisher(endpoints.results, "s")) as publisher:
        yield publisher


def listen(endpoints: Endpoints, *kinds: type) -> zmq.Socket:
    return open_socket(zmq.SUB, endpoints.results, bind=False, hears=kinds)


def test_a_socket_hears_what_it_asked_for_and_is_sent_nothing_else(endpoints, publisher) -> None:
    few, all_ = listen(endpoints, Settled, NodeState), listen(endpoints)
    wait_until(lambda: publisher.is_heard(Settled) and publisher.is_heard(Painted))
    for trial in range(1, 21):
        publisher.publish(PREVIEW)
        publisher.publish(settled(trial))
    publisher.publish(ALIVE)
    frames = [few.recv() for _ in range(21)]
    assert sum(map(len, frames)) < 21 * 300
    assert all(b"\xa7session\xa1s" in frame for frame in frames)  # as MessagePack has it
    heard = [unpack_numbered(frame) for frame in frames]
    assert heard == [*((2 * trial, settled(trial)) for trial in range(1, 21)), (41, ALIVE)]
    numbers = [unpack_numbered(all_.recv())[0] for _ in range(41)]
    assert numbers == list(range(1, 42))
    few.close(0)
    all_.close(0)


def test_a_publisher_knows_what_is_heard_and_forgets_those_who_left(endpoints, publisher) -> None:
    assert not publisher.is_heard(Settled)
    first, second = listen(endpoints, Settled), listen(endpoints, Settled, Preview)
    wait_until(lambda: publisher.is_heard(Settled) and publisher.is_heard(Preview))
    assert not publisher.is_heard(NodeState)
    second.close(0)
    wait_until(lambda: not publisher.is_heard(Preview))
    assert publisher.is_heard(Settled)
    first.close(0)
    wait_until(lambda: not publisher.is_heard(Settled))
    publisher.publish(settled(1))
    assert publisher.seq == 1  # what nobody hears is counted


def test_a_stranger_that_sends_to_a_publisher_changes_nothing(endpoints, publisher) -> None:
    stranger = zmq.Context.instance().socket(zmq.XSUB)
    stranger.connect(endpoints.results)
    for frame in (b"", b"\x02", b"\x01\x0a", b"\x01" + bytes(300), b"\x00\xff"):
        stranger.send(frame)
    wait_until(lambda: publisher.is_heard(Settled))  # the third asks for it
    publisher.publish(settled(1))
    assert unpack_numbered(stranger.recv()) == (1, settled(1))
    stranger.close(0)


def test_a_listener_that_does_not_read_delays_nobody(endpoints, publisher) -> None:
    slow = listen(endpoints, NodeState)
    wait_until(lambda: publisher.is_heard(NodeState))
    for _ in range(20_000):  # for ever, if the publisher waited for it
        publisher.publish(ALIVE)
    wait_until(lambda: slow.poll(0))
    assert len(list(drain(slow))) < 20_000
    slow.close(0)


# --- the nodes -----------------------------------------------------------------------------------


class Going:
    """The line to a supervisor that says nothing until it is told to."""

    incarnation = "reader-1"
    is_over = False

    def ready(self) -> None:
        pass

    def command(self) -> str | None:
        return "stop" if self.is_over else None

    def orders(self) -> Iterator[tuple[str, str]]:
        return iter(())


@pytest.mark.parametrize(
    ("node", "hears"), [(reader, {Settled, NodeState}), (record, {Retrieval, SessionClosed})]
)
def test_a_preview_costs_the_node_nothing(tmp_path, endpoints, publisher, node, hears) -> None:
    line = Going()
    source = FileSource(path=write_recording(tmp_path / "toy_raw.fif", "ab"))
    config = SessionConfig(session="s", folder=tmp_path, endpoints=endpoints, source=source)
    thread = threading.Thread(target=node.run, args=(config, line))
    thread.start()
    wait_until(lambda: all(map(publisher.is_heard, hears)))
    assert {kind for kind in KINDS.values() if publisher.is_heard(kind)} == hears
    line.is_over = True
    thread.join()
