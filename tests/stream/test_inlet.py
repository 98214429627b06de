"""An inlet of a real LSL stream: its channels, units and texts, and what comes back for it."""

import gc
import queue
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest

from hvf_core.problem import Problem
from stream.acquire.inlet import Inlet
from stream.acquire.lsl import find_stream, pylsl
from stream.acquire.markers import marker_text
from stream.acquire.watch.return_guard import ReturnGuard
from stream.sources.outlets import Outlets
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
SOON_S = 60.0  # however busy the machine is


@pytest.fixture(autouse=True)
def _no_outlets_left():
    """Each holds ports, of which there are few, until circles that refer to it are collected."""
    yield
    gc.collect()


@pytest.fixture
def outlet():
    """Two voltages and a trigger, all of which are said to be in volts."""
    name = f"amp-{uuid.uuid4().hex[:8]}"
    info = pylsl.StreamInfo(name, "EEG", 3, 100.0, "float32", name)
    info.set_channel_labels(["EEG1", "EEG2", "AUX7"])
    info.set_channel_units("volts")
    return pylsl.StreamOutlet(info), name


def pulled(outlet, name, **options):
    arrived = queue.SimpleQueue()
    inlet = Inlet(find_stream(name, SOON_S), arrived.put, **options)
    inlet.start()
    assert outlet.wait_for_consumers(SOON_S)
    outlet.push_chunk(np.array([[1e-6, 2e-6, 9.0]], np.float32), [1.0])
    samples = arrived.get(timeout=SOON_S).samples
    inlet.stop()
    return inlet, samples


def test_a_trigger_is_known_by_the_name_that_it_has_here(outlet):
    """It is not scaled, whatever the stream calls it; the stream's own labels are kept."""
    inlet, samples = pulled(*outlet, names={"AUX7": "STI", "EEG1": "Cz"}, unscaled=["STI"])
    assert inlet.channels == ("Cz", "EEG2", "STI")
    assert inlet.labels == ("EEG1", "EEG2", "AUX7")
    np.testing.assert_allclose(samples, [[1.0, 2.0, 9.0]], rtol=1e-6)


def test_eeg_of_nobody_is_known_to_be_simulated():
    name = f"demo-{uuid.uuid4().hex[:8]}"
    outlets = Outlets(name, ["Cz"], 100.0, simulated=True)
    inlet = Inlet(find_stream(outlets.eeg_name, SOON_S), [].append)
    assert inlet.is_simulated


def test_a_stream_that_was_found_and_is_gone_is_named(outlet, monkeypatch):
    monkeypatch.setattr("stream.acquire.inlet._OPEN_WAIT_S", 0.2)
    found = find_stream(outlet[1], SOON_S)
    gone = pylsl.StreamOutlet(pylsl.StreamInfo("gone", "EEG", 3, 100.0, "float32", "gone"))
    found.info = find_stream("gone", SOON_S).info
    del gone
    with pytest.raises(Problem, match="was found but does not answer"):
        Inlet(found, print)


@pytest.mark.parametrize(
    ("host", "measured_s", "round_trip_s", "offset_s"),
    [
        ("here", -2e-5, 1e-4, 0.0),
        ("here", -0.0372, 0.0745, 0.0),  # of a source that had been stopped
        ("here", 0.05, 1e-4, 0.05),  # in a container that has a clock of its own
        ("there", 0.003, 0.006, 0.003),
    ],
)
def test_a_stream_of_this_machine_has_no_offset_that_its_round_trip_explains(
    outlet, monkeypatch, host, measured_s, round_trip_s, offset_s
):
    found = find_stream(outlet[1], 20.0)
    found.hostname = found.hostname if host == "here" else host
    measured = measured_s, round_trip_s
    monkeypatch.setattr("stream.acquire.inlet.time_correction", lambda inlet, wait_s: measured)
    inlet = Inlet(found, print)
    assert (inlet.offset_s, inlet.offset_uncertainty_s) == (offset_s, round_trip_s)


@pytest.fixture
def markers():
    """An outlet of texts, and its name."""
    name = f"markers-{uuid.uuid4().hex[:8]}"
    info = pylsl.StreamInfo(name, "Markers", 1, 0, "string", name)
    return pylsl.StreamOutlet(info), name


def test_a_text_of_any_bytes_comes_and_so_does_the_next(markers):
    outlet, name = markers
    arrived = queue.SimpleQueue()
    inlet = Inlet(find_stream(name, SOON_S), arrived.put)
    inlet.start()
    assert outlet.wait_for_consumers(SOON_S)
    sent = ["Gerät".encode("cp1252"), b"\xff\xfe", b"a\x00b", b"x" * 1_000_000, b"next"]
    for text in sent:
        outlet.push_sample([text])
    came = []
    while len(came) < len(sent):
        came += [marker_text(row) for row in arrived.get(timeout=SOON_S).samples]
    inlet.stop()
    inlet.check()
    assert came == ["Gerät", "ÿþ", "a\x00b", "x" * 1_000_000, "next"]


def test_a_thread_that_ends_of_a_fault_says_so(markers, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda told: None)
    outlet, name = markers
    inlet = Inlet(find_stream(name, SOON_S), lambda chunk: 1 / 0)
    inlet.check()
    inlet.start()
    assert outlet.wait_for_consumers(SOON_S)
    outlet.push_sample(["a"])
    inlet._threads[0].join(SOON_S)
    with pytest.raises(Problem, match=rf"'{name}'.*is read no more \(ZeroDivisionError"):
        inlet.check()


# --- what comes back -----------------------------------------------------------------------------


@dataclass
class Stream:
    """What a guard sees of a stream."""

    source_id: str
    uid: str
    name: str = "amp"
    hostname: str = "here"
    rate_hz: float = 0.0
    n_channels: int = 1
    channel_format: int = 3
    type: str = "EEG"
    twins: frozenset[str] = frozenset()


class Network:
    """An inlet on a stream, and what answers under its name, look after look."""

    def __init__(self, monkeypatch, is_chosen=False, **shape):
        self.stream = Stream("run-1", "uid-1", **shape)
        self.labels, self.order = ("1",), None
        self.followed, self.went_on = [], []
        self.guard = ReturnGuard(self, is_chosen)
        self._monkeypatch = monkeypatch

    def follow(self, stream, order):
        self.followed.append(stream.source_id)
        self.stream, self.order = stream, order

    def go_on(self, stream, order):
        self.went_on.append(stream.uid)
        self.stream, self.order = stream, order

    def look(self, *found, times=1):
        for _ in range(times):
            self._monkeypatch.setattr(ReturnGuard, "_answering", lambda guard, was: list(found))
            self.guard.look()
            self.guard._thread.join(SOON_S)
        said, self.guard.said = self.guard.said, []
        return said


def test_a_stream_of_another_source_is_taken_when_its_own_is_gone(monkeypatch):
    network = Network(monkeypatch)
    other = Stream("run-2", "uid-2")
    assert network.look(other) == []  # a busy machine misses one look
    (sentence,) = network.look(other)
    assert network.followed == ["run-2"]
    assert "'run-2'" in sentence
    assert "'run-1'" in sentence
    assert "taken" in sentence
    assert network.look(other) == []
    assert not network.guard.is_lost


def test_no_other_stream_is_taken_while_its_own_answers(monkeypatch):
    network = Network(monkeypatch)
    assert network.look(Stream("run-2", "uid-2"), network.stream, times=5) == []
    assert network.followed == []
    assert not network.guard.is_lost


def test_of_two_other_streams_none_is_taken_and_both_are_named_once(monkeypatch):
    network = Network(monkeypatch)
    said = network.look(Stream("run-2", "uid-2"), Stream("run-3", "uid-3"), times=5)
    assert network.followed == []
    assert network.guard.is_lost
    (sentence,) = said
    assert "'run-2'" in sentence
    assert "'run-3'" in sentence


def test_a_stream_of_another_shape_is_named_and_not_taken(monkeypatch):
    network = Network(monkeypatch)
    (sentence,) = network.look(Stream("run-2", "uid-2", n_channels=2), times=5)
    assert network.followed == []
    assert "with 2 channels" in sentence


def test_who_chose_a_source_is_given_no_other(monkeypatch):
    network = Network(monkeypatch, is_chosen=True)
    assert network.look(Stream("run-2", "uid-2"), times=5) == []
    assert network.followed == []
    assert network.guard.is_lost


def test_of_sources_with_one_id_the_one_that_was_chosen_is_waited_for(monkeypatch):
    network = Network(monkeypatch, is_chosen=True, twins=frozenset({"uid-2"}))
    assert network.look(Stream("run-1", "uid-2"), Stream("run-1", "uid-3", hostname="there")) == []
    assert network.look(Stream("run-1", "uid-2"), Stream("run-1", "x", type="PPG"), times=5) == []
    assert network.guard.is_lost
    assert network.followed + network.went_on == []
    network.look(Stream("run-1", "uid-2"), Stream("run-1", "uid-4"))
    assert (network.followed, network.stream.uid) == (["run-1"], "uid-4")
    assert not network.guard.is_lost


def test_its_own_source_with_another_rate_is_refused(monkeypatch):
    network = Network(monkeypatch, rate_hz=250.0)
    network.look(Stream("run-1", "uid-2", rate_hz=500.0))
    assert "at 500 Hz, the session began at 250 Hz" in network.guard.refusal


@pytest.mark.parametrize(
    ("labels", "units", "differs"),
    [
        (["EEG1", "EEG2", "AUX7"], "volts", None),
        (["EEG1", "EEG2", "AUX8"], "volts", "channel names"),
        (["EEG1", "EEG1", "AUX7"], "volts", "channel names"),
        (["EEG1", "EEG2", "AUX7"], "microvolts", "units"),
    ],
)
def test_a_source_that_describes_its_channels_otherwise_is_another(outlet, labels, units, differs):
    _, name = outlet
    inlet = Inlet(find_stream(name, SOON_S), lambda chunk: None)
    info = pylsl.StreamInfo(f"{name}-again", "EEG", 3, 100.0, "float32", "again")
    info.set_channel_labels(labels)
    info.set_channel_units(units)
    again = pylsl.StreamOutlet(info)
    found = ReturnGuard(inlet)._compare(find_stream(f"{name}-again", SOON_S))
    del again
    assert found.change == "" if differs is None else f"with other {differs} than" in found.change
    assert found.order is None


@pytest.mark.parametrize("source", ["the same", "another"])
def test_channels_that_come_back_in_another_order_are_put_in_that_of_before(source):
    """No sample of the stream that came back is handed on before somebody has looked at it."""
    name = f"amp-{uuid.uuid4().hex[:8]}"

    def open_outlet(labels, units, source_id):
        info = pylsl.StreamInfo(name, "EEG", 3, 100.0, "float32", source_id)
        info.set_channel_labels(labels)
        info.set_channel_units(units)
        return pylsl.StreamOutlet(info)

    arrived = queue.SimpleQueue()
    outlet = open_outlet(["A", "B", "T"], ["volts", "microvolts", "none"], name)
    inlet = Inlet(find_stream(name, SOON_S), arrived.put, unscaled=["T"])
    inlet.start()
    assert outlet.wait_for_consumers(SOON_S)
    outlet.push_sample([1e-6, 2.0, 3.0])
    np.testing.assert_allclose(arrived.get(timeout=SOON_S).samples, [[1, 2, 3]], rtol=1e-6)
    del outlet
    source_id = name if source == "the same" else f"{name}-2"
    outlet = open_outlet(["T", "A", "B"], ["none", "volts", "microvolts"], source_id)
    guard = ReturnGuard(inlet)
    if source == "the same":  # which liblsl follows by itself
        assert outlet.wait_for_consumers(SOON_S)
        outlet.push_sample([3.0, 1e-6, 2.0])
        wait_until(inlet.in_doubt.is_set)
        time.sleep(0.3)
        assert arrived.empty()

    def is_taken():
        guard.look()
        time.sleep(0.1)
        return inlet.order is not None and outlet.have_consumers()

    wait_until(is_taken)
    assert "channels in another order" in guard.said[-1]
    outlet.push_sample([3.0, 1e-6, 2.0])
    np.testing.assert_allclose(arrived.get(timeout=SOON_S).samples[0], [1, 2, 3], rtol=1e-6)
    assert inlet.order == (1, 2, 0)
    inlet.stop()


def test_markers_of_a_new_source_come_after_those_of_the_old_one():
    name = f"markers-{uuid.uuid4().hex[:8]}"
    first = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", 1, 0, "string", "run-1"))
    arrived = queue.SimpleQueue()
    inlet = Inlet(find_stream(name, SOON_S), arrived.put)
    inlet.start()
    assert first.wait_for_consumers(SOON_S)
    first.push_sample(["before"])
    assert arrived.get(timeout=SOON_S).samples[0, 0] == b"before"
    del first
    second = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", 1, 0, "string", "run-2"))
    guard = ReturnGuard(inlet)

    def is_taken():
        guard.look()
        time.sleep(0.1)
        return second.have_consumers()

    wait_until(is_taken)
    second.push_sample(["after"])
    assert arrived.get(timeout=SOON_S).samples[0, 0] == b"after"
    inlet.stop()


def refused(pattern, *asked):
    # How `find_stream` refuses, where a pattern finds it: not all streams answer in time.
    try:
        find_stream(*asked)
    except Problem as problem:
        return str(problem) if re.search(pattern, str(problem)) else ""
    return ""


def test_of_two_streams_of_one_name_the_one_that_sends_is_taken():
    name = f"amp-{uuid.uuid4().hex[:8]}"
    silent, speaking = (
        pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, 100.0, "float32", f"{name}-{one}"))
        for one in ("silent", "speaking")
    )
    stopping = threading.Event()

    def speak():
        while not stopping.wait(0.01):
            speaking.push_sample([1.0])

    thread = threading.Thread(target=speak)
    thread.start()
    found = []

    def are_both_found():
        with suppress(Problem):  # one that did not answer in time, or spoke too late
            found.append(find_stream(name, 1.0))
        return found and found[-1].notice

    try:
        wait_until(are_both_found)
    finally:
        stopping.set()
        thread.join()
    assert found[-1].source_id == f"{name}-speaking"
    assert f"'{name}-silent'" in found[-1].notice
    del silent


def test_of_two_streams_of_one_name_a_source_id_chooses():
    name = f"amp-{uuid.uuid4().hex[:8]}"
    twins = [
        pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, 100.0, "float32", f"{name}-{one}"))
        for one in ("first", "second")
    ]
    assert find_stream(name, SOON_S, f"{name}-second").source_id == f"{name}-second"
    wait_until(lambda: refused(rf"'{name}-first'.*'{name}-second'.*--source-id", name, 1.0))
    with pytest.raises(Problem, match=rf"no LSL stream named '{name}' from 'third'"):
        find_stream(name, 0.1, "third")
    del twins


def test_streams_of_one_name_and_source_id_are_chosen_by_the_words_that_are_told():
    name = f"amp-{uuid.uuid4().hex[:8]}"
    outlets = [
        pylsl.StreamOutlet(pylsl.StreamInfo(name, kind, 1, 0, "float32", name))
        for kind in ("EEG", "PPG", "PPG")
    ]
    told = rf"^3 LSL streams are named '{name}' .*\(PPG\) on .*: EEG or \S+ or \S+$"
    said = []
    wait_until(lambda: said.append(refused(told, name, 1.0)) or said[-1])
    words = said[-1].rpartition(": ")[2].split(" or ")
    found = [find_stream(name, SOON_S, word) for word in words]
    assert found[0].type == "EEG"
    assert {one.uid for one in found} == {one.get_info().uid() for one in outlets}


def test_a_name_that_is_nearly_right_is_asked_about_and_results_of_sessions_are_left_out():
    name = f"Amp{uuid.uuid4().hex[:8]}"
    kinds = {name: "EEG", f"{name}-told": "Results", f"{name}-told-markers": "Markers"}
    outlets = [
        pylsl.StreamOutlet(pylsl.StreamInfo(one, kind, 1, 0, "string", one))
        for one, kind in kinds.items()
    ]
    assert find_stream(f"{name}-told-markers", SOON_S).name == f"{name}-told-markers"
    meant = f"{name.lower()}p' .* did you mean '{name}'.* from '{name}'"
    wait_until(lambda: refused(meant, f"{name.lower()}p", 0.1))
    assert f"{name}-told" not in refused(meant, f"{name.lower()}p", 0.1)
    with pytest.raises(Problem) as problem:
        find_stream(name, 0.1, "another")
    assert "did you mean" not in str(problem.value)
    del outlets
