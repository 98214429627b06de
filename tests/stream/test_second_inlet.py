"""The second inlet says from when to when it hears the markers, and hands them on to the reader."""

import math
import threading
from collections import Counter, defaultdict
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.units import Signal
from stream.pipeline.nodes import second_inlet, trial_sender
from stream.pipeline.nodes.second_inlet import BothWays, SecondInlet
from stream.pipeline.nodes.trial_sender import TrialSender
from stream.pipeline.wire.bus import drain, open_socket, send
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.messages import End, MarkerSeen, NodeState
from stream.recorder.header import made
from tests.refs import overheard
from tests.waiting import wait_until

NEVER = float("inf")
SOURCE = LiveSource(eeg="eeg", markers="markers")


def chunk(*stamps_s, samples=None):
    texts = np.array([[b"a"]] * len(stamps_s), object)
    return Chunk(np.array(stamps_s, float), texts if samples is None else samples, 0.25, 50.0)


class FakeInlet:
    def __init__(self, stream, deliver):
        if stream == "silent":
            raise Problem("it does not answer")
        self.deliver, self.is_broken = deliver, False

    def start(self):
        self.deliver(chunk(1.0))

    def check(self):
        if self.is_broken:
            raise Problem("it is read no more")


@pytest.fixture
def endpoints():
    made = Endpoints.local()
    yield made
    made.remove()


@pytest.fixture
def streams(monkeypatch):
    """What is found, one after the other, and the inlets that were made."""
    found, made = [], []

    def find(name, wait_s, source):
        assert (name, wait_s, source) == ("markers", SOURCE.wait_s, None)
        if not found or found[0] is None:
            del found[:1]
            raise Problem("there is none")
        return found.pop(0)

    def inlet(stream, deliver):
        made.append(FakeInlet(stream, deliver))
        return made[-1]

    class Guard:
        def __init__(self, inlet, is_chosen):
            assert not is_chosen

        def look(self):
            return True

    for name, fake in (("find_stream", find), ("Inlet", inlet), ("ReturnGuard", Guard)):
        monkeypatch.setattr(second_inlet, name, fake)
    monkeypatch.setattr(second_inlet, "_GUARD_S", 0.001)
    return found, made


def test_it_waits_for_the_stream_and_hears_it_from_then_on(streams, endpoints):
    found, _ = streams
    found += [None, "silent", None, "markers"]
    second = SecondInlet(SOURCE, "markers", endpoints.overheard)
    wait_until(lambda: second.since_s < NEVER)
    assert [taken.raw_s.tolist() for taken in second.taken()] == [[1.0]]
    assert list(second.taken()) == []


def test_once_it_is_read_no_more_it_does_not_say_that_it_hears(streams, endpoints, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", lambda told: failed.append(told.exc_value))
    found, made = streams
    found.append("markers")
    second = SecondInlet(SOURCE, "markers", endpoints.overheard)
    wait_until(lambda: second.since_s < NEVER)
    made[-1].is_broken = True
    wait_until(lambda: second.since_s == NEVER)
    wait_until(lambda: failed)
    assert str(failed[0]) == "it is read no more"


# --- what only one of them has heard -------------------------------------------------------------


@pytest.fixture
def reports(endpoints):
    return open_socket(zmq.PULL, endpoints.reports, bind=True)


@pytest.fixture
def line():
    return SimpleNamespace(incarnation="r", orders=lambda: iter(()), command=lambda: None)


@pytest.fixture
def reader(line, reports, endpoints, tmp_path):
    """What announces markers, from 10 s on."""
    config = SessionConfig(session="s", folder=tmp_path, endpoints=endpoints, source=SOURCE)
    headers = {"markers": made("m", "Markers", 0.0, "string")}
    told = (("Cz",), 100.0, headers, Signal("eeg", "microvolts"))
    return TrialSender(config, line, *told, since_s=10.0)


@pytest.mark.parametrize(
    "samples", [None, np.array([[7, -2]], np.int32)], ids=["texts", "columns of numbers"]
)
def test_the_reader_announces_what_only_the_second_has_heard_and_no_marker_twice(
    samples, streams, endpoints, reader, reports
):
    found, made_inlets = streams
    found.append("markers")
    second = SecondInlet(SOURCE, "markers", endpoints.overheard)
    wait_until(lambda: second.since_s < NEVER)
    seen, stamps_s = [], count(9)  # 9 + 0.25 is before the reader's time

    def has_announced():
        made_inlets[-1].deliver(chunk(next(stamps_s), samples=samples))  # until somebody hears it
        reader.look()
        seen.extend(one for one in drain(reports) if isinstance(one, MarkerSeen))
        return seen

    wait_until(has_announced)
    n = int(next(stamps_s))
    for stamp_s in range(9, n):  # as its own inlet brings them, late
        reader.take("markers", chunk(stamp_s, samples=samples))
    wait_until(lambda: has_announced() and seen[-1].sent_s > n)
    of = Counter(one.sent_s for one in seen)
    assert set(of.values()) == {1}
    assert set(range(9, n)) <= of.keys()
    (told,) = {(one.text, one.about.onset_s - one.sent_s) for one in seen}
    assert told == ("a" if samples is None else "[7, -2]", 0.25)


def test_what_waits_for_the_own_inlet_is_not_told_as_heard_and_opens_no_trial_at_the_end(
    line, endpoints, reader, reports, monkeypatch
):
    monkeypatch.setattr(second_inlet, "_PATIENCE_S", 1e9)
    monkeypatch.setattr(trial_sender, "_PATIENCE_S", {"finish": 100.0, "stop": 0.0})
    monkeypatch.setattr(trial_sender, "_ALIVE_S", 0.0)
    second = open_socket(zmq.PUSH, endpoints.overheard, bind=True)
    said, asked = [], count()

    def has_said(is_it):
        said.extend(drain(reports))
        return any(map(is_it, said))

    def command():
        """At the second look of two the marker would be given, were the end not there."""
        monkeypatch.setattr(second_inlet, "_PATIENCE_S", 0.0)
        return "stop" if next(asked) == 2 else None

    def is_waiting():
        reader.look()
        return has_said(lambda one: isinstance(one, NodeState) and one.until_s == 50.0)

    reader.take("markers", chunk(20.0))
    reader.trials.acquisition.attention.until_s = 60.0
    wait_until(lambda: send(second, overheard(21.0, readable_s=50.0)))
    wait_until(is_waiting)
    line.command = command
    reader.end("finish")
    wait_until(lambda: has_said(lambda one: isinstance(one, End)))
    assert [one.sent_s for one in said if isinstance(one, MarkerSeen)] == [20.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([0.0, 0.06, 0.2]))))
def test_twins_count_as_often_as_the_way_has_them_that_has_more(heard):
    """Each is heard by the own inlet, or the second, some time after the one before."""
    now_s, inbox, taken, of = 0.0, [], [], defaultdict(Counter)
    ways = BothWays(lambda: [inbox.pop(0) for _ in inbox[:]], 1.0, lambda: now_s)
    for is_own, stamp_s, later_s in [*heard, (False, 0, 0.0), (True, 0, 1.0)]:
        now_s += later_s
        of[is_own][stamp_s] += 1
        if is_own:
            taken += [one_s for one in ways.own(chunk(stamp_s)) for one_s in one.raw_s.tolist()]
        else:
            inbox.append(overheard(float(stamp_s), offset_s=0.25))
        taken += [stamp_s for one in ways.second() for stamp_s in one.raw_s.tolist()]
    now_s += 1.0
    taken += [stamp_s for one in ways.second() for stamp_s in one.raw_s.tolist()]
    ours = Counter({s: n for s, n in of[False].items() if s + 0.25 >= 1.0})
    assert Counter(taken) == of[True] | ours


def test_its_own_inlet_counts_where_both_hear_a_marker():
    now_s, inbox = 0.0, []
    ways = BothWays(lambda: [inbox.pop(0) for _ in inbox[:]], 0.0, lambda: now_s)
    inbox.append(overheard(5.0, 6.0, offset_s=9.0, readable_s=-3.0))
    assert (list(ways.second()), ways.waits_since_s) == ([], -3.0)
    now_s = 0.09
    assert [(*one.raw_s, one.offset_s) for one in ways.own(chunk(5.0))] == [(5.0, 0.25)]
    now_s = 0.2
    (others,) = ways.second()
    assert (others.raw_s.tolist(), others.offset_s, others.readable_s) == ([6.0], 9.0, 0.2)
    assert ways.waits_since_s == NEVER


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["own", "second", "both"]), st.sampled_from([0.001, 0.03, 0.2]))
    ),
    st.sampled_from([0.0, 0.03]),
)
def test_markers_come_in_the_order_in_which_they_were_sent_whoever_heard_them(sent, late_s):
    """The own inlet is slower than the second, and delivers what came in one chunk."""
    now_s, inbox, taken, at_s = 0.0, [], [], 0.0
    ways = BothWays(lambda: [inbox.pop(0) for _ in inbox[:]], 0.0, lambda: now_s)
    heard = {True: defaultdict(list), False: defaultdict(list)}
    for way, later_s in sent:
        at_s += later_s
        if way != "second":
            heard[True][math.ceil(at_s / 0.05) * 0.05 + late_s].append(at_s)
        if way != "own":
            heard[False][at_s].append(at_s)
    for now_s, is_own in sorted((s, way) for way in heard for s in heard[way]):
        if is_own:
            taken += [one.raw_s for one in ways.own(chunk(*heard[is_own][now_s]))]
        else:
            inbox.append(overheard(*heard[is_own][now_s]))
            taken += [one.raw_s for one in ways.second()]
    now_s += 1.0
    taken += [one.raw_s for one in ways.second()]
    stamps_s = np.concatenate(taken or [[]]).tolist()
    assert stamps_s == sorted(
        {at_s for way in heard.values() for some in way.values() for at_s in some}
    )
