"""The second inlet says from when to when it hears the markers, and takes no more for granted."""

import threading

import pytest

from hvf_core.problem import Problem
from stream.pipeline.nodes import second_inlet
from stream.pipeline.nodes.second_inlet import SecondInlet
from stream.pipeline.wire.config import LiveSource
from tests.waiting import wait_until

NEVER = float("inf")
SOURCE = LiveSource(eeg="eeg", markers="markers")


class FakeInlet:
    def __init__(self, stream, deliver):
        if stream == "silent":
            raise Problem("it does not answer")
        self.deliver, self.is_broken = deliver, False

    def start(self):
        self.deliver("a chunk")

    def check(self):
        if self.is_broken:
            raise Problem("it is read no more")


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


def test_it_waits_for_the_stream_and_hears_it_from_then_on(streams):
    found, _ = streams
    found += [None, "silent", None, "markers"]
    second = SecondInlet(SOURCE, "markers")
    wait_until(lambda: second.since_s < NEVER)
    assert list(second.taken()) == ["a chunk"]
    assert list(second.taken()) == []


def test_once_it_is_read_no_more_it_does_not_say_that_it_hears(streams, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", lambda told: failed.append(told.exc_value))
    found, made = streams
    found.append("markers")
    second = SecondInlet(SOURCE, "markers")
    wait_until(lambda: second.since_s < NEVER)
    made[-1].is_broken = True
    wait_until(lambda: second.since_s == NEVER)
    wait_until(lambda: failed)
    assert str(failed[0]) == "it is read no more"
