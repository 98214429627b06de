"""What the painter finds in its mailbox, over real sockets: never more than the newest."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import zmq

from stream.pipeline.wire.bus import Listener, open_socket, receive
from stream.pipeline.wire.frames import pack
from stream.pipeline.wire.mailbox import Mailbox, Outgoing
from stream.pipeline.wire.messages import Embedded, Retrieval
from tests.refs import about, answer
from tests.waiting import wait_until

SOON_MS = 100_000  # however busy the machine is
STAMPS = {"window_end": 13.25, "readable": 13.5}
Z = np.linspace(-1, 1, 1024, dtype=np.float32)


@pytest.fixture
def endpoint() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="hvf-test-")
    yield f"ipc://{folder}/embeddings"
    shutil.rmtree(folder)


def retrieval(trial: int, tmax_s: float = 1.0) -> Retrieval:
    return Retrieval(
        about=about(trial),
        answer=answer(tmax_s, n_repeats=3),
        ids=["best", "second"],
        labels=["Best", "Second"],
        scores=[0.9, 0.8],
        probabilities=[0.5, 0.2],
        confidence=0.5,
        calibrated=True,
        abstain=False,
        rank=2,
        stamps=STAMPS,
    )


def mailbox_at(endpoint: str) -> Mailbox:
    return Mailbox.at(endpoint, "s", print)


def wait_for(mailbox: Mailbox, trial: int) -> Embedded:
    """The newest embedding, once it is of this trial."""
    while (newest := mailbox.peek(wait_ms=SOON_MS)).about.trial != trial:
        mailbox.take()
    return newest


def test_an_embedding_comes_with_what_its_answer_said(endpoint: str) -> None:
    with closing(Outgoing(endpoint, False)) as outgoing, closing(mailbox_at(endpoint)) as mailbox:
        outgoing.offer(retrieval(7), Z)
        job = mailbox.take(wait_ms=SOON_MS)
    assert (job.about, job.answer, job.top_id) == (about(7), answer(n_repeats=3), "best")
    assert job.stamps == STAMPS
    np.testing.assert_array_equal(job.array, Z)


def test_of_all_that_came_before_there_was_a_painter_only_the_newest_is_there(endpoint) -> None:
    with closing(Outgoing(endpoint, False)) as outgoing:
        for trial in range(1, 2001):  # for ever, if anything waited for the painter
            outgoing.offer(retrieval(trial), Z)
        with closing(mailbox_at(endpoint)) as mailbox:
            assert mailbox.take(wait_ms=SOON_MS).about.trial == 2000
            assert mailbox.take(wait_ms=50) is None


def test_while_the_painter_does_not_look_the_newest_takes_the_place_of_the_others(endpoint) -> None:
    with closing(Outgoing(endpoint, False)) as outgoing, closing(mailbox_at(endpoint)) as mailbox:
        outgoing.offer(retrieval(1), Z)
        wait_for(mailbox, 1)
        for trial in range(2, 1001):
            outgoing.offer(retrieval(trial), Z)
        assert wait_for(mailbox, 1000).about.trial == 1000
        assert mailbox.take().about.trial == 1000
        assert mailbox.take() is None


def test_nothing_piles_up_on_the_way(endpoint: str) -> None:
    """Else a painter that was away for long would find old ones first."""
    received = open_socket(zmq.PULL, endpoint, bind=True, latest_only=True)
    with closing(Outgoing(endpoint, False)) as outgoing:
        for trial in range(1, 401):
            outgoing.offer(retrieval(trial), Z)
            time.sleep(0.0005)  # each is delivered before the next is sent
        found = [receive(received, wait_ms=SOON_MS).about.trial]
        while found[-1] != 400:
            found.append(receive(received, wait_ms=SOON_MS).about.trial)
    received.close()
    assert len(found) < 200  # a busy machine has some on its way; else all 400 would be there


def test_a_painter_that_was_restarted_gets_the_newest(endpoint: str) -> None:
    with closing(Outgoing(endpoint, False)) as outgoing:
        lost = outgoing._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        with closing(mailbox_at(endpoint)) as mailbox:
            outgoing.offer(retrieval(1), Z)
            assert mailbox.take(wait_ms=SOON_MS).about.trial == 1
        assert lost.poll(SOON_MS)  # sockets are closed behind one's back
        # ZeroMQ's thread would wait for ever to tell a monitor that is closed while it is told.
        outgoing._socket.disable_monitor()
        for trial in range(2, 101):
            outgoing.offer(retrieval(trial), Z)
        with closing(mailbox_at(endpoint)) as mailbox:
            assert wait_for(mailbox, 100).about.trial == 100


def test_what_is_peeked_at_stays_and_what_is_newer_takes_its_place(endpoint: str) -> None:
    with closing(Outgoing(endpoint, False)) as outgoing, closing(mailbox_at(endpoint)) as mailbox:
        outgoing.offer(retrieval(1), Z)
        assert mailbox.peek(wait_ms=SOON_MS).about.trial == 1
        assert mailbox.peek().about.trial == 1
        outgoing.offer(retrieval(2), Z)
        wait_until(lambda: mailbox.peek().about.trial == 2)
        assert mailbox.take().about.trial == 2
        assert mailbox.peek() is None


@pytest.mark.parametrize(("wanted", "expected"), [(True, (1, 0.3)), (False, (2, 1.0))])
def test_provisional_answers_are_handed_over_where_they_are_wanted(
    endpoint: str, wanted: bool, expected: tuple[int, float]
) -> None:
    with closing(Outgoing(endpoint, wanted)) as outgoing, closing(mailbox_at(endpoint)) as mailbox:
        outgoing.offer(retrieval(1, tmax_s=0.3), Z)
        if not wanted:
            outgoing.offer(retrieval(2), Z)
        job = mailbox.take(wait_ms=SOON_MS)
    assert (job.about.trial, job.answer.tmax_s) == expected


class Feed:
    """A socket to which messages come when the test says so."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def poll(self, wait_ms: int) -> bool:
        return bool(self.messages)

    def recv(self) -> bytes:
        return self.messages.pop(0)


def test_what_knows_less_than_what_was_taken_is_passed_over() -> None:
    feed = Feed()
    mailbox = Mailbox(Listener(feed, "s", print))

    def put(trial: int, tmax_s: float) -> None:
        feed.messages.append(
            pack(
                Embedded(
                    about=about(trial), answer=answer(tmax_s), top_id="a", stamps=STAMPS, array=Z
                )
            )
        )

    put(6, 0.3)
    put(5, 1.0)  # a longer window of an earlier trial: it comes later, and knows of less
    assert mailbox.take().about.trial == 6
    put(5, 1.0)
    put(6, 0.3)  # sent again by a decoder that was restarted
    assert mailbox.take() is None
    put(6, 1.0)
    assert mailbox.take().answer.tmax_s == 1.0
