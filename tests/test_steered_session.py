"""A session that runs, watched and steered by others, as a person or a dashboard would."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from index.gallery import Gallery, load_gallery, save_gallery
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.config import read_config
from stream.pipeline.wire.frames import pack, unpack_numbered
from stream.pipeline.wire.messages import Controlled, Message, SessionClosed, TrialCut
from tests.calling import call
from tests.sessions import (
    amplifier,
    check_accounted,
    finish,
    listen,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)
from tests.stream.test_observers import Observer
from tests.tiny_painting import write_models, write_recording

pytestmark = pytest.mark.slow
SOON_MS = 200_000  # however busy the machine is


class Caller:
    """Anybody: a socket to hear with, a socket to ask with."""

    def __init__(self, folder: Path):
        endpoints = read_config(folder / "config.json").endpoints
        self._ask = open_socket(zmq.REQ, endpoints.control, bind=False)
        self._ask.setsockopt(zmq.LINGER, 0)
        self._hear = open_socket(zmq.SUB, endpoints.results, bind=False)
        self.observer = Observer()
        self.heard: list[Message] = []

    def ask(self, verb: str, argument: str = "") -> tuple[str, str]:
        self._ask.send_multipart([b"a test", verb.encode(), argument.encode()])
        assert self._ask.poll(SOON_MS), verb
        outcome, text = self._ask.recv_multipart()
        return outcome.decode(), text.decode()

    def join(self) -> None:
        """Says hello until it is heard: a socket that was opened just now may miss the first."""
        while self.observer.seq is None:
            assert self.ask("hello")[0] == "done"
            self.hear(500)

    def hear(self, wait_ms: int = SOON_MS) -> None:
        """The next message, if there is one in time."""
        if self._hear.poll(wait_ms):
            seq, message = unpack_numbered(self._hear.recv())
            self.observer.hear(seq, message)
            self.heard.append(message)

    def hear_until(self, holds: Callable[[], object]) -> None:
        while not holds():
            self.hear()

    def close(self) -> None:
        self._ask.close(0)
        self._hear.close(0)


@pytest.fixture
def cap() -> Iterator[str]:
    name = f"amp-{uuid.uuid4().hex[:8]}"
    with amplifier(name):
        yield name


def test_a_session_is_watched_steered_and_ended_from_outside(cap: str, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = listen(cap, folder)
    wait_for_decoded(folder, 2)
    passing, caller = Caller(folder), Caller(folder)
    passing.join()
    caller.join()
    observer = caller.observer
    assert observer.states.keys() >= {"results", "reader", "session"}
    assert observer.states["session"] == "running"
    passing.close()

    assert caller.ask("dance") == (
        "refused",
        "there is no verb 'dance'; there are finish, stop, pause, resume, start, mark, "
        "reset_group, gallery, set, like, hello",
    )
    assert caller.ask("set", "nonsense 1")[0] == "refused"
    assert caller.ask("mark", "half time")[0] == "done"
    assert caller.ask("pause")[0] == "done"
    wait_for_ledger(folder, lambda records: any(r.get("reason") == "paused" for r in records))
    caller.hear_until(lambda: observer.states["session"] == "paused")
    assert [m.argument for m in caller.heard if isinstance(m, Controlled) and m.verb == "mark"]
    assert caller.ask("pause")[0] == "refused"
    assert caller.ask("resume")[0] == "done"
    wait_for_decoded(folder, len(trials_of(folder, "cut")) + 1)
    assert caller.ask("finish")[0] == "done"
    done = finish(process)
    caller.hear_until(lambda: isinstance(caller.heard[-1], SessionClosed))
    caller.close()

    assert done.code == 0, done.err
    told = check_accounted(folder)
    # Markers that came before the first EEG, as both streams were opened, have none.
    early = min(record["trial"] for record in trials_of(folder, "cut"))
    unpaused = [r for r in trials_of(folder, "dropped") if r["reason"] != "paused"]
    assert all((r["reason"], r["trial"] < early) == ("no_data", True) for r in unpaused)
    assert "paused" in told["dropped"]
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


def test_until_its_start_a_session_drops_what_comes_and_its_duration_does_not_run(
    cap: str, tmp_path: Path
) -> None:
    ends, n = ("cut", "dropped"), 8  # as many come in 2.4 s
    session = listen(cap, tmp_path / "s", "--form", "--duration", "2")
    wait_for_ledger(tmp_path / "s", lambda told: sum(r["event"] in ends for r in told) >= n)
    caller = Caller(tmp_path / "s")
    assert caller.ask("start")[0] == "done"
    caller.close()
    done = finish(session)
    assert (done.code, "the 2 s of --duration are over" in done.out) == (0, True), done.err
    told = check_accounted(tmp_path / "s")
    assert (told["end"], set(told["dropped"])) == ("finish", {"paused"})
    assert {r["trial"] for r in trials_of(tmp_path / "s", "dropped")} >= {*range(1, n + 1)}
    verbs = [(r["by"], r["verb"]) for r in trials_of(tmp_path / "s", "control")]
    assert verbs == [("a test", "start"), ("session", "finish")]


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

    wait_for_decoded(folder, 9)  # each at least twice
    caller = Caller(folder)
    assert caller.ask("set", "top_k 2") == ("done", "top_k is now 2; it was 5")
    assert caller.ask("like", "2 a") == ("done", '[["d","d",0.0],["c","c",0.0]]'.replace(",", ", "))
    assert caller.ask("reset_group", "a")[0] == "done"
    assert caller.ask("gallery", str(tmp_path / "fewer"))[0] == "done"
    assert caller.ask("gallery", str(tmp_path / "fewer" / "none"))[0] == "refused"
    # Where the decoder is slow, it obeys later; "d", which comes every fourth time, tells when.
    wait_for_ledger(folder, lambda _: _dropped_as_unknown(folder))
    wait_for_decoded(folder, len(trials_of(folder, "decoded")) + 6)
    assert caller.ask("stop")[0] == "done"
    done = finish(process)
    caller.close()
    assert done.code == 0, done.err
    told = check_accounted(folder)
    decoded = trials_of(folder, "decoded")
    n_ids = [len(record["ids"]) for record in decoded]
    assert n_ids == [4] * n_ids.count(4) + [2] * n_ids.count(2)  # from one answer to the next
    assert n_ids.count(4) >= 9
    repeats = [record["n_repeats"] for record in decoded if record["stimulus"] == "a"]
    assert repeats.count(1) == 2
    assert [record["n_repeats"] for record in decoded if record["stimulus"] == "b"].count(1) == 1
    assert {"d"} == {r["stimulus"] for r in _dropped_as_unknown(folder)}
    assert told["n_way"] == 3
    again = call("evaluate", "--session", folder, module="offline_train")
    orders = f"told 'set top_k 2', 'reset_group a', 'gallery {tmp_path / 'fewer'}' while it ran"
    assert (again.code, orders in again.one_sentence()) == (1, True)


def _dropped_as_unknown(folder: Path) -> list[dict]:
    dropped = {r["trial"] for r in trials_of(folder, "dropped") if r["reason"][:7] == "unknown"}
    return [r for r in trials_of(folder, "marker") if r["trial"] in dropped]


def test_nonsense_on_any_socket_ends_nothing_and_is_answered_on_the_control_socket(
    cap: str, tmp_path: Path
) -> None:
    folder = tmp_path / "session"
    process = listen(cap, folder)
    wait_for_decoded(folder, 1)
    endpoints = read_config(folder / "config.json").endpoints
    forged = TrialCut(trial=999_999, residual_s=0.0, stamps={})
    for endpoint in (endpoints.reports, endpoints.recording):
        stray = open_socket(zmq.PUSH, endpoint, bind=False)
        for frame in (b"hello", b"", pack(forged)):
            stray.send(frame)
        stray.close()
    socket = open_socket(zmq.DEALER, endpoints.control, bind=False)
    for frames in (
        [b""],
        [b"x", b"y"],
        [b"\xff", b"\xfe", b"\xfd"],
        [b"dashboard", b"beat", b""],
        [b"reader", b"done", b""],  # who calls himself so
        [b"results", b"failed", b"not at all"],
        [b"x", b"mark", b"y" * 2**17],
    ):
        socket.send_multipart(frames)
        assert socket.poll(SOON_MS), frames
        assert socket.recv_multipart()[0] == b"refused"
    for frames in ([b"x"], [b"x", b"y"], [b"\xff", b"\xfe", b"\xfd"], [b"x", b"mark", b"y", b"z"]):
        asker = open_socket(zmq.REQ, endpoints.control, bind=False)
        asker.send_multipart(frames)
        assert asker.poll(SOON_MS), frames
        assert asker.recv_multipart()[0] == b"refused"
        asker.close()
    wait_for_decoded(folder, len(trials_of(folder, "cut")) + 1)  # it goes on
    socket.send_multipart([b"x", b"stop", b""])
    assert socket.recv_multipart()[0] == b"done"
    socket.close()
    done = finish(process)
    assert done.code == 0
    assert "results: a message is passed over: a frame of 5 bytes is no message" in done.out
    assert "outcomes of 1 trials that nobody announced are left out: 999999" in done.out
    check_accounted(folder)
