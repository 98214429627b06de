"""What goes out of sessions that run: each its own, each end once, no truth where it is blind."""

import json
import os
import signal
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import zmq

from stream.acquire.lsl import pylsl
from stream.doctor import beside
from stream.pipeline.outputs.lsl import COLUMNS
from stream.pipeline.outputs.story import ENDS
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.config import NUMBERS, read_config
from stream.pipeline.wire.frames import unpack
from stream.pipeline.wire.messages import (
    Eeg,
    MarkerSeen,
    Message,
    NodeState,
    Retrieval,
    Settled,
    Snapshot,
)
from tests.sessions import (
    PATIENCE_S,
    amplifier,
    check_accounted,
    finish,
    listen,
    node_pid,
    run,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)
from tests.test_steered_session import Caller
from tests.tiny_painting import write_models, write_recording
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
STREAMS = ("", "-numbers", "-markers")


class Ears:
    """Hears all that goes out of a session over LSL, by the source ids that are its own."""

    def __init__(self, session: str, name: str = "hvf-live-results"):
        self.heard: dict[str, list[Any]] = {stream: [] for stream in STREAMS}
        self.infos: dict[str, Any] = {}
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=(f"{name}{stream}-{session}", stream))
            for stream in STREAMS
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self, source_id: str, stream: str) -> None:
        found: list[Any] = []
        while not found and not self._is_over.is_set():
            found = pylsl.resolve_byprop("source_id", source_id, timeout=1)
        inlet = pylsl.StreamInlet(found[0])
        inlet.open_stream(PATIENCE_S)
        self.infos[stream] = inlet.info(PATIENCE_S)
        while not self._is_over.is_set():
            sample, _ = inlet.pull_sample(timeout=0.2)
            if sample is not None:
                self.heard[stream].append(sample)

    @property
    def told(self) -> list[dict[str, Any]]:
        """The messages."""
        return [json.loads(sample[0]) for sample in list(self.heard[""])]

    def is_heard(self, event: str) -> bool:
        return any(one["event"] == event for one in self.told)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def check(self, folder: Path) -> None:
        """Each marker of the session ends once on each stream, and nobody else's does."""
        for info in self.infos.values():
            facts = {fact: info.desc().child_value(fact) for fact in ("session", "format", "blind")}
            session = info.source_id().removeprefix(f"{info.name()}-")
            assert facts == {"session": session, "format": "1", "blind": "false"}
        assert self.infos["-numbers"].get_channel_labels() == list(COLUMNS)
        assert self.infos["-numbers"].get_channel_units() == [
            unit or None for unit in COLUMNS.values()
        ]
        told = [one for one in self.told if one["event"] != "hello"]
        numbers = [one["n"] for one in told]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        session = read_config(folder / "config.json").session
        assert {one["session"] for one in self.told} == {session}
        ends = [one for one in told if one["event"] in ENDS]
        markers = {record["trial"]: record for record in trials_of(folder, "marker")}
        assert Counter(one["trial"] for one in ends) == Counter(markers.keys())
        for one in ends:
            marker = markers[one["trial"]]
            for name, fact in (("marker", "text"), ("sent_s", "sent_s"), ("onset_s", "onset_s")):
                assert one[name] == marker[fact]
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in self.heard["-numbers"]]
        whose = [r["series"] * NUMBERS + r["trial"] for r in rows if not r["provisional"]]
        assert Counter(whose) == Counter(markers.keys())
        assert len(self.heard["-markers"]) == len(markers)
        assert told[-1]["event"] == "ended"


@contextmanager
def ears_of(folder: Path, name: str = "hvf-live-results") -> Iterator[Ears]:
    path = folder / "config.json"
    wait_until(lambda: path.exists() and path.stat().st_size, PATIENCE_S)
    ears = Ears(read_config(path).session, name)
    try:
        wait_until(lambda: ears.is_heard("hello"), PATIENCE_S)
        yield ears
    finally:
        ears.close()


def test_two_sessions_are_never_mixed_up_and_each_end_goes_out_once_whoever_dies(tmp_path) -> None:
    """Both hear one cap, under one name; a process of the first is killed, and it ends before."""
    name = f"amp-{uuid.uuid4().hex[:8]}"
    folders = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as last:
        cap = f"{name}-cap"
        processes: list[Popen[str]] = [listen(cap, folder) for folder in folders]
        first, second = (last.enter_context(ears_of(folder)) for folder in folders)
        last.enter_context(amplifier(cap))
        for node in ("results", "reader"):
            wait_for_decoded(folders[0], len(_ended(folders[0])) + 3)
            os.kill(node_pid(folders[0], node), signal.SIGKILL)
        wait_for_decoded(folders[0], len(trials_of(folders[0], "cut")) + 3)
        _ask(folders[0], "finish")
        finish(processes[0])
        wait_until(lambda: first.is_heard("ended"), PATIENCE_S)
        n_first = len(first.told)
        wait_for_decoded(folders[1], len(trials_of(folders[1], "cut")) + 5)
        assert len(first.told) == n_first  # the second one's streams have other ids
        _ask(folders[1], "stop")
        assert finish(processes[1]).code == 0
        wait_until(lambda: second.is_heard("ended"), PATIENCE_S)
    for ears, folder in ((first, folders[0]), (second, folders[1])):
        check_accounted(folder)
        ears.check(folder)


def _ended(folder: Path) -> list[dict[str, Any]]:
    ledger = folder / "ledger.jsonl"
    return list(trials_of(folder, "cut")) if ledger.exists() else []


def _ask(folder: Path, verb: str, argument: str = "") -> None:
    caller = Caller(folder)
    assert caller.ask(verb, argument)[0] == "done"
    caller.close()


SECRET = "zebraOfTheTruth"


class Taps:
    """Every way out of a session: what is published, LSL, UDP and OSC, as bytes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.datagrams: list[bytes] = []
        self._is_over = threading.Event()
        self._udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self._udp:
            one.bind(("127.0.0.1", 0))
            one.settimeout(0.2)
        self._threads = [threading.Thread(target=self._hear_udp, args=(one,)) for one in self._udp]
        for thread in self._threads:
            thread.start()

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in self._udp]

    def listen(self, endpoint: str) -> None:
        """Hears all that is published there."""
        thread = threading.Thread(target=self._hear_bus, args=(endpoint,))
        thread.start()
        self._threads.append(thread)

    def _hear_bus(self, endpoint: str) -> None:
        heard = open_socket(zmq.SUB, endpoint, bind=False)
        while not self._is_over.is_set():
            if heard.poll(200):
                self.frames.append(heard.recv())
        heard.close(0)

    def _hear_udp(self, one: socket.socket) -> None:
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                self.datagrams.append(one.recv(10_000))

    @property
    def messages(self) -> list[Message]:
        return [unpack(frame) for frame in list(self.frames)]

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        for one in self._udp:
            one.close()


@pytest.fixture
def taps() -> Iterator[Taps]:
    made = Taps()
    yield made
    made.close()


def test_nothing_that_leaves_a_blind_session_has_the_truth(taps: Taps, tmp_path: Path) -> None:
    models, folder = write_models(tmp_path), tmp_path / "session"
    texts = [f"{SECRET}{n % 4}-{'abcd'[n % 4]}" for n in range(60)]
    texts[5::9] = [f"{SECRET}-unknown{n}" for n in range(len(texts[5::9]))]
    texts[::10] = ["next block"] * len(texts[::10])
    recording = write_recording(tmp_path / "toy_raw.fif", texts)
    udp, osc = taps.addresses
    process = start(
        *("replay", recording, "--bundle", models / "bundle", "--headless", "--out", folder),
        *("--stimuli", rf"(?P<group>{SECRET}\d?)-(?P<id>.+)", "--reset-on", "^next block$"),
        *("--blind", "--udp", udp, "--osc", osc, "--results", "blind"),
    )
    with ears_of(folder, "blind") as ears:
        endpoints = read_config(folder / "config.json").endpoints
        taps.listen(endpoints.results)
        taps.listen(endpoints.answers)
        taps.listen(endpoints.signals)
        wait_for_decoded(folder, 4)
        caller = Caller(folder)
        assert caller.ask("mark", f"{SECRET} is shown")[0] == "done"
        assert caller.ask("reset_group", f"{SECRET}0")[0] == "done"
        caller.join()
        caller.close()
        wait_for_ledger(folder, lambda records: any(r["event"] == "dropped" for r in records))
        wait_for_decoded(folder, 20)
        _ask(folder, "stop")
        done = finish(process)
        assert done.code == 0, done.err
        wait_until(lambda: ears.is_heard("ended"), PATIENCE_S)
    taps.close()
    assert "rank" not in done.out
    assert "not in the gallery" not in done.out
    assert "top-1" not in done.out
    ledger = (folder / "ledger.jsonl").read_text()
    assert SECRET in ledger  # which is in the folder, and stays there
    out = "".join(sample[0] for sample in ears.heard[""])
    found = list(beside.lines(folder, is_over=True))  # which its page shows
    for what in (done.out, done.err, out, *found, *map(repr, (*taps.frames, *taps.datagrams))):
        assert SECRET not in what
    # All of it came out, without the truth.
    kinds = {type(message) for message in taps.messages}
    assert {MarkerSeen, Retrieval, Settled, Snapshot, Eeg} <= kinds
    alive = {message.node for message in taps.messages if isinstance(message, NodeState)}
    assert alive == {"reader", "decode", "record", "results"}
    answers = [message for message in taps.messages if isinstance(message, Retrieval)]
    given = Counter(one.about.trial for one in answers)
    assert set(given.values()) <= {1, 2}
    assert 2 in given.values()  # from the decoder, and from the ledger's node
    assert len({(one.about.trial, *one.ids, *one.probabilities) for one in answers}) == len(given)
    told = ears.told
    events = {one["event"] for one in told}
    assert {"decoded", "dropped", "ended"} <= events
    assert "ready" in events | {one.get("state") for one in told}  # which came before it was heard
    for one in told:
        assert all(one.get(name) is None for name in ("stimulus", "group", "marker", "rank"))
        assert one["event"] not in ENDS or one["sent_s"] is not None
    abouts = [vars(one)["about"] for one in taps.messages if "about" in vars(one)]
    assert {(about.stimulus, about.group) for about in abouts} == {("", "")}
    assert len({about.trial for about in abouts}) > 10
    rank = list(COLUMNS).index("rank")
    assert all(row[rank] != row[rank] for row in ears.heard["-numbers"])
    # Blocks: repeats begin anew, live as offline.
    markers = {record["trial"]: record for record in trials_of(folder, "marker")}
    seen: Counter[tuple[int, str]] = Counter()
    for answer in trials_of(folder, "decoded"):
        block, group = markers[answer["trial"]]["block"], markers[answer["trial"]]["group"]
        seen[block, group] += 1
        if group != f"{SECRET}0":  # which was reset
            assert answer["n_repeats"] == seen[block, group]
    assert {block for block, _ in seen} >= {1, 2}


def test_blocks_are_the_same_in_virtual_time_and_decoded_again(tmp_path: Path) -> None:
    models, folder = write_models(tmp_path), tmp_path / "session"
    texts = [("abcd"[n % 4], "next block")[n % 10 == 9] for n in range(60)]
    recording = write_recording(tmp_path / "toy_raw.fif", texts, soa_s=0.1)  # they overlap
    done = run(
        *("replay", recording, "--speed", "max", "--bundle", models / "bundle"),
        *("--reset-on", "^next block$", "--headless", "--out", folder),
    )
    assert done.code == 0, done.err
    markers = {record["trial"]: record for record in trials_of(folder, "marker")}
    assert [record["block"] for record in markers.values()] == [n // 9 for n in range(54)]
    seen: Counter[tuple[int, str]] = Counter()
    for answer in trials_of(folder, "decoded"):
        marker = markers[answer["trial"]]
        seen[marker["block"], marker["stimulus"]] += 1
        n = seen[marker["block"], marker["stimulus"]]
        assert (answer["n_repeats"], marker["repeat"]) == (n, n)
    again = run("evaluate", "--session", folder, module="offline_train")
    assert again.code == 0, again.out + again.err
