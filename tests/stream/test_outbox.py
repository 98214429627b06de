"""Every trial ends settled, whatever node dies when: order, repetition, and what is counted."""

import shutil
import sys
import tempfile

import numpy as np
import pytest
import zmq

from stream.pipeline.wire import outbox as outbox_module
from stream.pipeline.wire.bus import open_socket, receive
from stream.pipeline.wire.flat import flat
from stream.pipeline.wire.frames import unpack
from stream.pipeline.wire.messages import (
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.outbox import Outbox
from tests.refs import about
from tests.waiting import wait_until

MAX_SENDS = 4
SOON_MS = 100_000  # however busy the machine is


class FakeSocket:
    """Keeps what is sent; has room for so many frames, as a ZeroMQ queue with its peer away."""

    def __init__(self, room=10**9):
        self.room = room
        self.frames = []
        self.greeted = []

    def send(self, frame, flags):
        assert flags == zmq.NOBLOCK
        is_greeting = isinstance(unpack(frame), NodeState)  # which takes no room
        if len(self.frames) >= self.room:
            raise zmq.Again
        if is_greeting:
            self.greeted.append(unpack(frame).to)
        else:
            self.frames.append(frame)

    def take(self):
        """All that was sent since the last time, but for greetings."""
        messages = [unpack(frame) for frame in self.frames]
        self.frames.clear()
        return messages


def marker(trial):
    return MarkerSeen(about=about(trial), readable_s=0.0, text="t", sent_s=0.0, mark=f"{trial}")


def eeg(trial, first=0, n_times=3, final=True):
    array = np.full((2, n_times), trial, np.float32)
    what = {"about": about(trial), "residual_s": 0.0, "stamps": {}}
    return TrialSlice(**what, first=first, corrects=0, final=final, array=array)


def piece(trial, first, n_slices=3):
    """Slice `first` of a trial, one sample long."""
    return eeg(trial, first, n_times=1, final=first == n_slices - 1)


def pieces(messages):
    """Trial and place of each slice, and of a drop no place."""
    return [(trial_of(message), getattr(message, "first", None)) for message in messages]


def node(name, incarnation):
    return NodeState(node=name, incarnation=incarnation)


def settled(trial):
    told = {"trial": trial, "outcome": "decoded", "reason": ""}
    return Settled(**told, markers=0, pending=0)


def dropped(trial, detail=""):
    return TrialDropped(trial=trial, reason="gap", detail=detail)


def was_cut(trial):
    return TrialCut(trial=trial, residual_s=0.0, stamps={})


def trial_of(message):
    return flat(message)["trial"]


def told(messages):
    return [(type(message).__name__, trial_of(message)) for message in messages]


def numbers(messages):
    assert all(message.array[0, 0] == trial_of(message) for message in messages)
    return [trial_of(message) for message in messages]


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
        outbox.send_slice(eeg(trial))


def test_trials_wait_for_a_decoder_and_then_go_out_in_order(outbox, reports, trials):
    send(outbox, 1, 2, 3)
    outbox.flush()
    assert trials.take() == []
    assert told(reports.take()) == [("MarkerSeen", 1), ("MarkerSeen", 2), ("MarkerSeen", 3)]
    outbox.on_node_state(node("results", "r1"))
    assert trials.take() == []
    assert outbox.waits_for_decoder
    outbox.on_node_state(node("decode", "d1"))
    assert numbers(trials.take()) == [1, 2, 3]
    assert not outbox.waits_for_decoder
    assert not Outbox(reports, None, max_unanswered=8).waits_for_decoder  # it has none
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
    outbox.send_slice(eeg(1))
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


def test_a_trial_that_is_given_up_makes_room_for_one_other_and_no_more(reports, trials):
    outbox = Outbox(reports, trials, max_unanswered=1)
    send(outbox, 1)
    for life in range(MAX_SENDS + 1):
        outbox.on_node_state(node("decode", f"d{life}"))
    assert not outbox.is_full
    outbox.on_settled(settled(1))
    send(outbox, 2)
    assert outbox.is_full


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
    outbox.report(dropped(3))
    outbox.announce(marker(4))
    outbox.report(was_cut(4))
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
        outbox.report(was_cut(trial))
        outbox.flush()
    assert len(reports.take()) == 10
    assert (outbox.n_kept, outbox.is_full) == (5, False)


# --- slices --------------------------------------------------------------------------------------


def test_slices_go_out_while_a_trial_is_going_on(outbox, trials):
    outbox.on_node_state(node("decode", "d1"))
    for trial in (1, 2):
        outbox.announce(marker(trial))
    for trial, first in [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]:
        outbox.send_slice(piece(trial, first))
        assert pieces(trials.take()) == [(trial, first)]


def test_a_decoder_that_starts_in_the_middle_gets_all_slices_in_order(outbox, trials):
    for trial in (1, 2, 3):
        outbox.announce(marker(trial))
    for trial, first in [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]:
        outbox.send_slice(piece(trial, first))
    assert trials.take() == []
    for life in ("d1", "d2", "d3"):
        trials.frames.clear()
        outbox.on_node_state(node("decode", life))
        assert pieces(trials.take()) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
        outbox.on_node_state(node("decode", life))
        assert trials.take() == []
    outbox.send_slice(piece(2, 2))
    outbox.send_slice(piece(3, 0))
    assert pieces(trials.take()) == [(2, 2), (3, 0)]


def test_a_trial_that_is_dropped_in_the_middle_is_forgotten_by_the_decoder(outbox, reports, trials):
    outbox.on_node_state(node("decode", "d1"))
    for trial in (1, 2, 3):
        outbox.announce(marker(trial))
    for trial in (1, 2):
        outbox.send_slice(piece(trial, 0))
    trials.take()
    reports.take()
    outbox.report(dropped(1, "samples are missing"))
    (told_decoder,) = trials.take()
    (told_results,) = reports.take()
    assert told_decoder == told_results == dropped(1, "samples are missing")
    outbox.report(dropped(3))  # of which the decoder knows nothing
    assert trials.take() == []
    outbox.on_node_state(node("decode", "d2"))
    assert pieces(trials.take()) == [(2, 0)]
    outbox.on_settled(settled(1))
    outbox.on_settled(settled(3))
    assert outbox.n_kept == 1


def test_slices_that_found_the_queue_full_are_not_sent_after_a_drop(outbox, trials):
    trials.room = 1
    outbox.on_node_state(node("decode", "d1"))
    outbox.announce(marker(1))
    for first in (0, 1):
        outbox.send_slice(piece(1, first))
    assert pieces(trials.take()) == [(1, 0)]
    outbox.report(dropped(1))
    outbox.flush()
    assert pieces(trials.take()) == [(1, None)]
    outbox.flush()
    assert trials.take() == []


def test_a_decoder_whose_queue_was_full_hears_of_a_drop_later(outbox, trials):
    trials.room = 1
    outbox.on_node_state(node("decode", "d1"))
    outbox.announce(marker(1))
    outbox.send_slice(piece(1, 0))
    outbox.report(dropped(1))
    assert pieces(trials.take()) == [(1, 0)]
    outbox.flush()
    assert pieces(trials.take()) == [(1, None)]


def test_only_whole_trials_count_against_the_limit(reports, trials):
    outbox = Outbox(reports, trials, max_unanswered=2)
    for trial in range(1, 6):
        outbox.announce(marker(trial))
        outbox.send_slice(piece(trial, 0))
    reports.take()
    assert not outbox.is_full
    outbox.send_slice(piece(4, 1, n_slices=2))
    assert not outbox.is_full
    outbox.send_slice(piece(5, 1, n_slices=2))
    assert outbox.is_full
    outbox.send_slice(piece(1, 1))  # goes on, although a whole one would have no place
    assert reports.take() == []
    outbox.send_slice(piece(1, 2))
    (drop,) = reports.take()
    assert (drop.trial, drop.reason) == (1, "overflow")
    assert drop.detail == "2 trials wait for an answer"
    outbox.on_settled(settled(2))  # was not whole
    assert outbox.is_full
    outbox.on_settled(settled(4))
    assert not outbox.is_full
    outbox.send_slice(piece(3, 1, n_slices=2))
    assert reports.take() == []
    assert outbox.is_full
    outbox.on_node_state(node("decode", "d1"))
    assert pieces(trials.take()) == [(3, 0), (3, 1), (5, 0), (5, 1)]


def test_an_overflow_tells_the_decoder_to_forget_what_it_has(reports, trials):
    outbox = Outbox(reports, trials, max_unanswered=1)
    outbox.on_node_state(node("decode", "d1"))
    for trial in (1, 2):
        outbox.announce(marker(trial))
        outbox.send_slice(piece(trial, 0, n_slices=2))
    for trial in (1, 2):
        outbox.send_slice(piece(trial, 1, n_slices=2))
    assert pieces(trials.take()) == [(1, 0), (2, 0), (1, 1), (2, None)]


def test_what_comes_of_a_settled_trial_is_not_sent(outbox, reports, trials):
    """A decoder refuses a trial at its first slice; the reader still cuts the rest of it."""
    outbox.on_node_state(node("decode", "d1"))
    outbox.announce(marker(1))
    outbox.send_slice(piece(1, 0))
    outbox.on_settled(settled(1))
    trials.take()
    reports.take()
    outbox.send_slice(piece(1, 1))
    outbox.send_slice(piece(1, 2))
    outbox.report(dropped(1))
    assert (trials.take(), reports.take(), outbox.n_kept) == ([], [], 0)
    assert not outbox.is_full


def test_a_new_results_node_may_have_lost_answers_so_that_trials_go_out_again(outbox, trials):
    for told in (node("results", "r1"), node("decode", "d1")):
        outbox.on_node_state(told)
    for trial, n in ((1, 3), (2, 3), (3, 2)):
        outbox.announce(marker(trial))
        for first in range(n):
            outbox.send_slice(piece(trial, first))
    outbox.on_settled(settled(1))
    trials.take()
    outbox.on_node_state(node("results", "r1"))
    assert trials.take() == []
    for life in range(2 * MAX_SENDS):  # no decoder was lost with them
        outbox.on_node_state(node("results", f"r{life + 2}"))
        assert pieces(trials.take()) == [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]
    outbox.send_slice(piece(3, 2))
    assert pieces(trials.take()) == [(3, 2)]


def test_it_has_told_all_once_nothing_waits_for_room(outbox, reports):
    outbox.on_node_state(node("results", "r1"))
    reports.room = 0
    outbox.announce(marker(1))
    assert outbox.has_told == ""
    reports.room = 9
    outbox.flush()
    assert outbox.has_told == "r1"


def test_over_real_sockets_a_decoder_that_died_is_replaced_without_loss():
    folder = tempfile.mkdtemp(prefix="hvf-")  # short: ipc addresses hold about 100 characters
    addresses = [f"ipc://{folder}/{name}" for name in ("reports", "trials")]
    results = open_socket(zmq.PULL, addresses[0], bind=True)
    reports = open_socket(zmq.PUSH, addresses[0], bind=False)
    trials = open_socket(zmq.PUSH, addresses[1], bind=True)
    outbox = Outbox(reports, trials, max_unanswered=100)
    try:
        first = open_socket(zmq.PULL, addresses[1], bind=False)
        assert trials.poll(SOON_MS, zmq.POLLOUT)
        outbox.on_node_state(node("decode", "d1"))
        send(outbox, *range(1, 21))
        assert receive(first, SOON_MS).to == "d1"
        while trial_of(message := receive(first, SOON_MS)) < 5:
            outbox.on_settled(settled(trial_of(message)))
        first.close(0)  # with 5 to 20 in its queue
        wait_until(lambda: not trials.poll(0, zmq.POLLOUT))  # until ZeroMQ knows that it is gone
        second = open_socket(zmq.PULL, addresses[1], bind=False)
        assert trials.poll(SOON_MS, zmq.POLLOUT)
        send(outbox, 21, 22)  # ZeroMQ has a place for them, before anybody knows the new one
        outbox.on_node_state(node("decode", "d2"))
        early = []
        while not isinstance(message := receive(second, SOON_MS), NodeState):
            early.append(trial_of(message))
        assert (early, message.to) == ([21, 22], "d2")
        got = []
        while outbox.n_kept:
            message = receive(second, SOON_MS)
            got.append(trial_of(message))
            outbox.on_settled(settled(trial_of(message)))
            outbox.flush()
        second.close(0)
        assert got == list(range(5, 23))
        assert outbox.n_kept == 0
        announced = [trial_of(receive(results, SOON_MS)) for _ in range(22)]
        assert announced == list(range(1, 23))
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
    outbox.report(dropped(1))
    reports.room = 9
    outbox.flush()
    assert told(reports.take()) == [("MarkerSeen", 1), ("TrialDropped", 1)]


def test_a_flood_that_waits_to_be_settled_makes_nothing_longer() -> None:
    def n_lines(n_waiting: int) -> int:
        """How many lines of the outbox run for a slice while so many trials wait."""
        outbox, lines = Outbox(FakeSocket(), FakeSocket(), 256), []

        def count(frame, event, _):
            lines.append(event)
            return count if frame.f_code.co_filename == outbox_module.__file__ else None

        outbox.on_node_state(node("decode", "a"))
        for trial in range(1, n_waiting + 1):
            outbox.announce(marker(trial))
            outbox.report(dropped(trial))
        outbox.announce(marker(n_waiting + 1))
        before = sys.gettrace()
        sys.settrace(count)
        outbox.send_slice(piece(n_waiting + 1, 0))
        sys.settrace(before)
        return lines.count("line")

    assert n_lines(1000) == n_lines(10)
