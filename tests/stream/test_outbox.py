"""Every trial ends settled, whatever node dies when: order, repetition, and what is counted."""

import shutil
import tempfile
import time

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.pipeline.bus import open_socket, receive
from stream.pipeline.messages import (
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
    decode,
)
from stream.pipeline.outbox import Outbox

MAX_SENDS = 4


class FakeSocket:
    """Keeps what is sent; has room for so many frames, as a ZeroMQ queue with its peer away."""

    def __init__(self, room=10**9):
        self.room = room
        self.frames = []

    def send(self, frame, flags):
        assert flags == zmq.NOBLOCK
        if len(self.frames) >= self.room:
            raise zmq.Again
        self.frames.append(frame)

    def take(self):
        """All that was sent since the last time."""
        messages = [decode(frame) for frame in self.frames]
        self.frames.clear()
        return messages


def marker(trial):
    return MarkerSeen("s", trial, f"stimulus {trial}", "g", 1, float(trial), 0.0)


def eeg(trial):
    array = np.full((2, 3), trial, np.float32)
    return TrialSlice("s", trial, f"stimulus {trial}", "g", 1, 0, True, 0.0, 0.0, {}, array)


def node(name, incarnation):
    return NodeState("s", name, incarnation, "alive")


def settled(trial):
    return Settled("s", trial, "decoded", "", 0, 0)


def told(messages):
    return [(type(message).__name__, message.trial) for message in messages]


def numbers(messages):
    assert all(message.array[0, 0] == message.trial for message in messages)
    return [message.trial for message in messages]


@pytest.fixture
def reports():
    return FakeSocket()


@pytest.fixture
def trials():
    return FakeSocket()


@pytest.fixture
def outbox(reports, trials):
    return Outbox(reports, trials, max_unanswered=8)


def send(outbox, *which):
    for trial in which:
        outbox.announce(marker(trial))
        outbox.send_trial(eeg(trial))


def test_trials_wait_for_a_decoder_and_then_go_out_in_order(outbox, reports, trials):
    send(outbox, 1, 2, 3)
    outbox.flush()
    assert trials.take() == []
    assert told(reports.take()) == [("MarkerSeen", 1), ("MarkerSeen", 2), ("MarkerSeen", 3)]
    outbox.on_node_state(node("results", "r1"))
    assert trials.take() == []
    outbox.on_node_state(node("decode", "d1"))
    assert numbers(trials.take()) == [1, 2, 3]
    send(outbox, 4)
    assert numbers(trials.take()) == [4]


def test_a_decoder_that_only_says_again_that_it_is_alive_gets_nothing_twice(outbox, trials):
    outbox.on_node_state(node("decode", "d1"))
    send(outbox, 1, 2)
    trials.take()
    outbox.on_node_state(node("decode", "d1"))
    outbox.flush()
    assert trials.take() == []


def test_a_new_decoder_gets_all_that_is_unanswered_again_in_order(outbox, trials):
    outbox.on_node_state(node("decode", "d1"))
    send(outbox, 1, 2, 3, 4)
    trials.take()
    outbox.on_settled(settled(3))
    outbox.on_node_state(node("decode", "d2"))
    assert numbers(trials.take()) == [1, 2, 4]


def test_a_full_queue_delays_trials_and_keeps_their_order(outbox, trials):
    trials.room = 2
    outbox.on_node_state(node("decode", "d1"))
    send(outbox, 1, 2, 3, 4)
    assert numbers(trials.take()) == [1, 2]
    outbox.flush()
    assert numbers(trials.take()) == [3, 4]
    outbox.flush()
    assert trials.take() == []


def test_a_trial_that_decoders_do_not_survive_is_given_up(outbox, reports, trials):
    outbox.announce(marker(1))
    reports.take()
    outbox.send_trial(eeg(1))
    for life in range(MAX_SENDS):
        outbox.on_node_state(node("decode", f"d{life}"))
        assert numbers(trials.take()) == [1]
    outbox.on_node_state(node("decode", "one too many"))
    assert trials.take() == []
    (drop,) = reports.take()
    assert (drop.trial, drop.reason) == (1, "node_lost")
    assert drop.detail == "the decoder was lost 4 times with this trial"
    assert outbox.n_kept == 1  # until the ledger has it
    outbox.on_settled(settled(1))
    assert outbox.n_kept == 0


def test_a_restart_of_which_a_trial_saw_nothing_does_not_count_against_it(outbox, trials):
    trials.room = 0
    send(outbox, 1)
    for life in range(10):
        outbox.on_node_state(node("decode", f"d{life}"))
    trials.room = 9
    outbox.flush()
    assert numbers(trials.take()) == [1]


def test_what_does_not_fit_is_reported_as_overflow(outbox, reports, trials):
    send(outbox, *range(1, 11))
    drops = [message for message in reports.take() if isinstance(message, TrialDropped)]
    assert [(drop.trial, drop.reason) for drop in drops] == [(9, "overflow"), (10, "overflow")]
    assert outbox.is_full
    assert outbox.n_kept == 10
    outbox.on_node_state(node("decode", "d1"))
    assert numbers(trials.take()) == [1, 2, 3, 4, 5, 6, 7, 8]
    outbox.on_settled(settled(9))
    assert outbox.is_full  # it was not among those that wait for an answer
    outbox.on_settled(settled(1))
    assert not outbox.is_full


def test_a_new_results_node_is_told_everything_that_is_not_settled(outbox, reports):
    outbox.on_node_state(node("results", "r1"))
    send(outbox, 1, 2)
    outbox.announce(marker(3))
    outbox.report(TrialDropped("s", 3, "gap", ""))
    outbox.announce(marker(4))
    outbox.report(TrialCut("s", 4, 0.0, {}))
    reports.take()
    outbox.on_settled(settled(1))
    outbox.on_node_state(node("results", "r1"))
    assert reports.take() == []
    outbox.on_node_state(node("results", "r2"))
    assert told(reports.take()) == [
        *[("MarkerSeen", 2), ("MarkerSeen", 3), ("TrialDropped", 3)],
        *[("MarkerSeen", 4), ("TrialCut", 4)],
    ]


def test_nothing_of_a_settled_trial_is_kept_and_settling_twice_is_harmless(outbox, trials, reports):
    outbox.on_node_state(node("results", "r1"))
    send(outbox, 1)
    outbox.on_settled(settled(1))
    outbox.on_settled(settled(1))
    outbox.on_settled(settled(99))
    outbox.on_node_state(node("decode", "d1"))
    reports.take()
    outbox.on_node_state(node("results", "r2"))
    assert (outbox.n_kept, trials.take(), reports.take()) == (0, [], [])


def test_a_session_without_a_decoder_reports_its_trials_cut(reports):
    outbox = Outbox(reports, None, max_unanswered=2)
    for trial in range(1, 6):
        outbox.announce(marker(trial))
        outbox.report(TrialCut("s", trial, 0.0, {}))
        outbox.flush()
    assert len(reports.take()) == 10
    assert (outbox.n_kept, outbox.is_full) == (5, False)


steps = st.lists(
    st.one_of(
        st.just(("present", 0)),
        st.just(("present", 0)),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("room"), st.integers(0, 4)),
        st.just(("new decoder", 0)),
        st.just(("new results", 0)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_no_trial_is_lost_or_out_of_order_whatever_dies(acts):
    """Decoders die with all they have; the ledger (here a set) hears of every trial in the end."""
    reports, trials = FakeSocket(), FakeSocket()
    outbox = Outbox(reports, trials, max_unanswered=5)
    n_presented, lives = 0, 0
    decoder, ledger = [], set()
    outbox.on_node_state(node("results", "first"))

    def deliver():
        outbox.flush()
        arrived = numbers(trials.take())
        decoder.extend(arrived)
        assert decoder == sorted(set(decoder))  # each once in the life of a decoder, in order
        for message in reports.take():
            if isinstance(message, TrialDropped):
                assert message.reason in ("overflow", "node_lost")
                ledger.add(message.trial)
                outbox.on_settled(settled(message.trial))

    for act, n in acts:
        if act == "present":
            n_presented += 1
            send(outbox, n_presented)
        elif act == "answer" and decoder:
            ledger.add(decoder[n % len(decoder)])
            outbox.on_settled(settled(decoder[n % len(decoder)]))
        elif act == "room":
            trials.room = n
        elif act == "new decoder":
            lives += 1
            decoder.clear()
            trials.frames.clear()
            outbox.on_node_state(node("decode", f"d{lives}"))
        elif act == "new results":
            outbox.on_node_state(node("results", f"r{len(ledger)}-{n_presented}"))
        deliver()
        assert outbox.n_kept == n_presented - len(ledger)
    trials.room = 10**9
    decoder.clear()
    outbox.on_node_state(node("decode", "last"))
    deliver()
    assert decoder == [trial for trial in range(1, n_presented + 1) if trial not in ledger]


def test_over_real_sockets_a_decoder_that_died_is_replaced_without_loss():
    folder = tempfile.mkdtemp(prefix="hvf-")  # short: ipc addresses hold about 100 characters
    addresses = [f"ipc://{folder}/{name}" for name in ("reports", "trials")]
    results = open_socket(zmq.PULL, addresses[0], bind=True)
    reports = open_socket(zmq.PUSH, addresses[0], bind=False)
    trials = open_socket(zmq.PUSH, addresses[1], bind=True)
    outbox = Outbox(reports, trials, max_unanswered=100)
    try:
        first = open_socket(zmq.PULL, addresses[1], bind=False)
        outbox.on_node_state(node("decode", "d1"))
        send(outbox, *range(1, 21))
        while (message := receive(first, 2000)) is not None and message.trial < 5:
            outbox.on_settled(settled(message.trial))
        first.close(0)  # with 5 to 20 in its queue
        while trials.poll(0, zmq.POLLOUT):  # until ZeroMQ has noticed that it is gone
            time.sleep(0.001)
        second = open_socket(zmq.PULL, addresses[1], bind=False)
        assert trials.poll(2000, zmq.POLLOUT)
        outbox.on_node_state(node("decode", "d2"))
        got = []
        while outbox.n_kept and (message := receive(second, 500)) is not None:
            got.append(message.trial)
            outbox.on_settled(settled(message.trial))
            outbox.flush()
        second.close(0)
        assert got[-16:] == list(range(5, 21))
        assert outbox.n_kept == 0
        announced = [receive(results, 2000).trial for _ in range(20)]
        assert announced == list(range(1, 21))
    finally:
        for socket in (results, reports, trials):
            socket.close(0)
        shutil.rmtree(folder)


# --- bugs ----------------------------------------------------------------------------------------


def test_a_results_node_that_died_before_it_was_heard_of_is_made_good(outbox, reports):
    outbox.announce(marker(1))
    reports.take()  # by a results node that dies before its first sign of life is received
    outbox.on_node_state(node("results", "r2"))
    assert told(reports.take()) == [("MarkerSeen", 1)]


def test_a_report_that_found_the_queue_full_goes_out_later(outbox, reports):
    reports.room = 0
    outbox.announce(marker(1))
    outbox.report(TrialDropped("s", 1, "gap", ""))
    reports.room = 9
    outbox.flush()
    assert told(reports.take()) == [("MarkerSeen", 1), ("TrialDropped", 1)]
