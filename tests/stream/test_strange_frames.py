"""What is no message of the session costs itself only, on whichever socket it comes."""

import io
import json
import pickle
import random
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
import pyxdf
import zmq
from rich.console import Console

from decoder.bundle import open_bundle
from decoder.live import LiveDecoder
from decoder.painting.step import Step
from hvf_core.problem import Problem
from index.gallery import Gallery, open_gallery
from stream.acquire.units import Signal
from stream.pipeline.books.ledger import Ledger, read_ledger
from stream.pipeline.books.summary import summary_table
from stream.pipeline.books.terminal import TerminalView
from stream.pipeline.decoding import open_decoder
from stream.pipeline.nodes import decode, paint, record, results
from stream.pipeline.nodes.trial_sender import TrialSender
from stream.pipeline.outputs.story import Story
from stream.pipeline.report.page import write_report
from stream.pipeline.wire.bus import Publisher, drain, open_socket
from stream.pipeline.wire.config import Endpoints, LiveSource, PaintingSettings, SessionConfig
from stream.pipeline.wire.frames import VERSION, pack, prefix, unpack
from stream.pipeline.wire.messages import (
    Embedded,
    End,
    MarkerSeen,
    Message,
    NodeState,
    Noted,
    Painted,
    Recorded,
    Retrieval,
    SessionClosed,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.witness import Attendance
from stream.recorder.header import made
from tests.mutations import N, outcomes, swapped_in
from tests.refs import about, answer
from tests.stream.test_messages import EXAMPLES
from tests.tiny_bundle import tiny_models
from tests.waiting import wait_until

STAMPS = {"window_end": 1.0, "readable": 1.0, "cut": 1.0}
SEEN = MarkerSeen(about=about(1), readable_s=0.5, text="m", sent_s=0.5, mark="m")
CUT = TrialCut(trial=1, residual_s=0.0, stamps=STAMPS)
ANSWER = Retrieval(
    about=about(1),
    answer=answer(),
    ids=["a"],
    labels=["A"],
    scores=[0.5],
    probabilities=[0.5],
    confidence=0.5,
    calibrated=True,
    abstain=False,
    rank=1,
    stamps=STAMPS,
)
EEG = np.zeros((4, 2), np.float32)
HEADERS = {
    "eeg": made("amp", "EEG", 100.0, "float32", ["Cz", "Pz"]),
    "markers": made("m", "Markers", 0.0, "string"),
}
PIECE = Recorded(
    headers=HEADERS,
    stream="eeg",
    raw_s=np.arange(4.0).tobytes(),
    texts=[],
    offset_s=0.0,
    first=0,
    array=EEG,
)
WHOLE = TrialSlice(
    about=about(1),
    first=0,
    corrects=0,
    final=True,
    residual_s=0.0,
    stamps=STAMPS,
    array=np.ones((4, 20), np.float32),
)
Z = np.eye(8, dtype=np.float32)[0]
TO_PAINT = Embedded(about=about(1), answer=answer(), top_id="a", stamps=STAMPS, array=Z)


def of_format(version: object, kind: type = TrialDropped) -> bytes:
    header = msgpack.packb({"v": version, "trial": 1, "reason": "gap", "detail": ""})
    return prefix(kind) + len(header).to_bytes(4, "little") + header


def changed(message: Message, **fields: object) -> bytes:
    """A frame that its sender would never make."""
    frame = pack(message)
    n = int.from_bytes(frame[1:5], "little")
    header = msgpack.packb(msgpack.unpackb(frame[5 : 5 + n]) | fields)
    return frame[:1] + len(header).to_bytes(4, "little") + header + frame[5 + n :]


FORGED = Path("forged").absolute()


class _Evil:
    def __reduce__(self) -> tuple:
        return FORGED.touch, ()


NO_MESSAGES = [
    b"",
    b"hello",
    b"\xff" * 1000,
    json.dumps({"event": "marker", "trial": 1}).encode(),
    pickle.dumps(_Evil()),
    pack(WHOLE)[:-1],
    of_format(VERSION - 1),
    of_format(VERSION, Message.__subclasses__()[-1]),
    pack(SEEN, session="another"),
    pack(replace(SEEN, about=about(1, session="another"))),
    pack(replace(WHOLE, about=about(1, session="another"))),
    pack(replace(TO_PAINT, about=about(9, session="another"))),
    pack(PIECE, session="another"),
    changed(CUT, trial="1"),
    changed(CUT, trial=-1),
    changed(CUT, trial=2**63),
    changed(CUT, stamps={"cut": "now"}),
    changed(TrialDropped(trial=1, reason="gap", detail=""), reason="bored"),
    changed(ANSWER, ids=[], labels=[], scores=[], probabilities=[]),
    changed(ANSWER, labels=["A", "B"]),
    changed(ANSWER, confidence=float("nan")),
    changed(ANSWER, stamps={}),
    changed(Noted(node="paint", text="", facts={}), facts={"a": b"\0"}),
    changed(End(reason="stop", facts={}), facts={"notices": 7}),
    changed(End(reason="stop", facts={}), facts={"simulated": "no"}),
    changed(PIECE, raw_s=b""),
    changed(PIECE, texts=["x"]),
    changed(PIECE, headers={}),
    changed(PIECE, headers={"eeg": 7}),
    changed(WHOLE, corrects=5),
    changed(WHOLE, dtype="<i4"),
    changed(TO_PAINT, dtype="<i4"),
    changed(WHOLE, dtype="O"),
]
NO_MESSAGES += [b"once more"] * (100 - len(NO_MESSAGES))
TOLD = ["a message is passed over", "10 messages are by now", "100 messages are by now"]


class Line:
    """The line to a supervisor that says nothing until it is told to."""

    incarnation, is_orphan, is_over = "node-1", False, False

    def ready(self) -> None:
        pass

    def command(self) -> str | None:
        return "finish" if self.is_over else None

    def orders(self) -> Iterator[tuple[str, str]]:
        return iter(())


@pytest.fixture
def config(tmp_path: Path) -> Iterator[SessionConfig]:
    endpoints = Endpoints.local()
    source = LiveSource(eeg="EEG", markers="m")
    yield SessionConfig(session="s", folder=tmp_path, endpoints=endpoints, source=source)
    endpoints.remove()
    assert not FORGED.exists()


@contextmanager
def runs(node, config: SessionConfig, *more: object) -> Iterator[None]:
    """A node in a thread; at the end it is told to finish, and has to."""
    line, failed = Line(), []

    def run() -> None:
        try:
            node(config, line, *more)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        line.is_over = True
        thread.join(60)
    assert not thread.is_alive()
    assert failed == []


def sender(endpoint: str, bind: bool = False) -> zmq.Socket:
    return open_socket(zmq.PUSH, endpoint, bind=bind)


def told_of(notes: list[str]) -> list[str]:
    return [note for note in notes if "passed over" in note]


def are_told(notes: list[str]) -> bool:
    found = told_of(notes)
    return len(found) == 3 and all(map(str.startswith, found, TOLD))


@pytest.mark.slow
def test_the_ledger_has_all_that_is_true_and_says_what_was_not(config: SessionConfig) -> None:
    answer_to_none = replace(ANSWER, about=about(999))
    path = config.folder / "ledger.jsonl"
    with runs(results.run, config):
        reports = sender(config.endpoints.reports)
        reports.send(pack(SEEN))
        for frame in [*NO_MESSAGES, pack(answer_to_none), pack(SessionClosed(summary={}))]:
            reports.send(frame)
        reports.send(pack(CUT))
        facts = {"image_ms": "long", "painted": "all", "given_up": {"a": [1]}}
        reports.send(pack(Noted(node="paint", text="I paint", facts=facts)))
        reports.send(pack(End(reason="finish", facts={})))
        wait_until(lambda: path.exists() and "I paint" in path.read_text())
    reports.close(0)
    ledger = read_ledger(path)
    notes = [record["text"] for record in ledger if record["event"] == "note"]
    assert are_told(notes)
    assert "outcomes of 1 trials that nobody announced are left out: 999" in notes
    summary = json.loads((config.folder / "summary.json").read_text())
    assert (summary["markers"], summary["cut"], summary["end"]) == (1, 1, "finish")
    assert told_of(summary["streams"]["notices"]) == told_of(notes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
def test_the_decoder_answers_on(config: SessionConfig, models: Path) -> None:
    config = config.model_copy(update={"bundle": models / "bundle", "gallery": models / "gallery"})
    reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    trials = sender(config.endpoints.trials, bind=True)
    with runs(decode.run, config):
        known = pack(NodeState(node="reader", incarnation="", to=Line.incarnation))
        early = pack(replace(WHOLE, about=about(3)))  # than the reader knows the decoder
        second = pack(replace(WHOLE, about=about(2)))
        for frame in [*NO_MESSAGES, pack(SEEN), early, known, second]:
            trials.send(frame)
        for array in (WHOLE.array[:3], WHOLE.array * np.nan, WHOLE.array[:, :19], WHOLE.array[:0]):
            trials.send(pack(replace(WHOLE, array=array)))
        trials.send(pack(replace(WHOLE, first=10, corrects=10)))
        trials.send(pack(WHOLE))
        heard: list[Message] = []

        def is_answered() -> bool:
            while reports.poll(0):
                heard.append(unpack(reports.recv()))
            return any(isinstance(one, Retrieval) and one.about.trial == 1 for one in heard)

        wait_until(is_answered)
    reports.close(0)
    trials.close(0)
    assert are_told([one.text for one in heard if isinstance(one, Noted)])
    assert [one.about.trial for one in heard if isinstance(one, Retrieval)] == [2, 1]
    assert {one.reason for one in heard if isinstance(one, TrialDropped)} == {"rejected"}


def test_the_recording_goes_on(config: SessionConfig) -> None:
    publisher = Publisher(config.endpoints.results, config.session)
    reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    with runs(record.run, config):
        wait_until(lambda: publisher.is_heard(Retrieval))
        feed = sender(config.endpoints.recording)
        feed.send(pack(PIECE))
        for frame in NO_MESSAGES:
            feed.send(frame)
        for header in ("no XML", made("amp", "EEG", 50.0, "float32", ["Oz", "Fz"])):
            feed.send(pack(replace(PIECE, headers=HEADERS | {"eeg": header})))
        feed.send(pack(ANSWER))
        feed.send(pack(replace(PIECE, first=4, raw_s=np.arange(4.0, 8.0).tobytes())))
        path = config.folder / "recording-3.xdf"  # what came between was another stream
        newest = struct.pack("<Bd", 8, 7.0)  # the stamp of the last sample, as XDF has it
        wait_until(lambda: path.exists() and newest in path.read_bytes())
    feed.close(0)
    publisher.close()
    for name in ("recording.xdf", "recording-2.xdf", "recording-3.xdf"):
        streams = pyxdf.load_xdf(config.folder / name)[0]
        (eeg,) = (one for one in streams if one["info"]["name"] == ["amp"])
        assert len(eeg["time_stamps"]) == 4
    notes = [one.text for one in drain(reports) if isinstance(one, Noted)]
    reports.close(0)
    assert are_told(notes)
    others = [note for note in notes if "came back as another" in note]
    assert [note.rpartition(" ")[2] for note in others] == [
        "'recording-2.xdf'",
        "'recording-3.xdf'",
    ]


class Painter:
    """Paints in one step."""

    about, facts = "fake", {}

    def paint(self, job, seed, on_step, start):
        pixels = np.zeros((8, 8, 3), np.uint8)
        return pixels if on_step(Step(0, 1, 0.0, lambda _: pixels[None])) else None


def test_what_is_painted_is_of_the_session(config: SessionConfig) -> None:
    painting = PaintingSettings(prior=config.folder / "prior")
    config = config.model_copy(update={"painting": painting, "bundle": config.folder})
    reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    heard: list[Message] = []

    def painted() -> list[int]:
        while reports.poll(0):
            heard.append(unpack(reports.recv()))
        return [one.about.trial for one in heard if isinstance(one, Painted)]

    def passed_over() -> list[str]:
        painted()
        return told_of([one.text for one in heard if isinstance(one, Noted)])

    (config.folder / "images").mkdir()
    with runs(paint.serve, config, Painter()):
        embeddings = open_socket(
            zmq.PUSH, config.endpoints.embeddings, bind=False, latest_only=True
        )
        stranger = replace(TO_PAINT, about=about(2**40, session="another"))
        for frame in (b"hello", pack(CUT), pack(stranger)):
            embeddings.send(frame)
        wait_until(passed_over)
        embeddings.send(pack(TO_PAINT))
        wait_until(painted)
    assert painted() == [1]
    reports.close(0)
    embeddings.close(0)


def test_the_reader_goes_on(config: SessionConfig) -> None:
    reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    line = SimpleNamespace(incarnation="reader-1", orders=lambda: iter(()), command=lambda: None)
    results_node = open_socket(zmq.XPUB, config.endpoints.results, bind=True)
    sends = TrialSender(config, line, ("Cz",), 100.0, HEADERS, Signal("eeg", "microvolts"))
    for _ in range(2):
        assert results_node.poll(60_000)  # it is subscribed
        results_node.recv()
    settled = pack(Settled(trial=1, outcome="cut", reason="", markers=1, pending=0))
    for frame in (settled[:-1], pack(SEEN, session="another"), settled[:1] + b"hello", settled):
        results_node.send(frame)
    notes: list[str] = []

    def has_told() -> bool:
        sends.look()
        while reports.poll(0):
            message = unpack(reports.recv())
            notes.extend([message.text] if isinstance(message, Noted) else [])
        return bool(told_of(notes))

    wait_until(has_told)
    results_node.close(0)
    reports.close(0)


# --- frames that are forged, and read as messages: what takes them has to bear them ---------------


def forged(messages: Sequence[Message], seed: int) -> Iterator[Message]:
    """Messages that were changed in a field or two and can still be read: N tries."""
    chance = random.Random(seed)
    for _ in range(N):
        frame = pack(chance.choice(messages))
        n = int.from_bytes(frame[1:5], "little")
        header = swapped_in(chance, msgpack.unpackb(frame[5 : 5 + n]))
        with suppress(Problem, OverflowError, ValueError, TypeError):
            packed = msgpack.packb(header)  # not all can be sent
            yield unpack(frame[:1] + len(packed).to_bytes(4, "little") + packed + frame[5 + n :])


def test_whatever_is_reported_the_books_sum_and_can_be_shown(config: SessionConfig) -> None:
    painting = PaintingSettings(prior=config.folder / "prior")
    config = config.model_copy(update={"painting": painting})
    told, story = SimpleNamespace(seq=0, publish=pack), Story(config)
    node = results.Results(
        config, "results-1", told, lambda record: list(story.told(1.0, record)), lambda: 1.0
    )
    screen = Console(file=io.StringIO(), width=100)
    view = TerminalView(screen, True, None, "forged")
    n_taken = 0
    for message in forged(EXAMPLES, seed=0):
        n_taken += 1
        node.take(message)
        view.take(message)
    node.close("finish", False)
    view.close()
    assert 50 < n_taken < N
    ledger = Ledger(config.folder / "ledger.jsonl")
    assert (ledger.damage, ledger.pending) == ("", ())
    summary = json.loads((config.folder / "summary.json").read_text())
    assert summary["markers"] == ledger.markers == ledger.outcomes.total()
    screen.print(summary_table(summary))
    write_report(config, summary)


@pytest.fixture(scope="module")
def opened(models: Path) -> tuple[LiveDecoder, Gallery]:
    """It takes seconds."""
    source = LiveSource(eeg="EEG", markers="m")
    told = {"session": "s", "folder": models, "source": source, "bundle": models / "bundle"}
    endpoints = Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x"))
    config = SessionConfig(**told, endpoints=endpoints, gallery=models / "gallery")
    bundle, gallery = open_bundle(config.bundle), open_gallery(config.gallery)
    return open_decoder(config, bundle, gallery, lambda: 1.0, lambda *_: None), gallery


def test_whatever_slices_come_the_decoder_answers_or_drops(
    config: SessionConfig, opened: tuple[LiveDecoder, Gallery]
) -> None:
    decoder = decode.Decoder(config, *opened, print)
    first = replace(WHOLE, final=False, array=WHOLE.array[:, :10])
    second = replace(WHOLE, first=10, array=WHOLE.array[:, 10:])
    corrected = replace(second, corrects=3, array=WHOLE.array[:, 7:])
    for message in forged([WHOLE, first, second, corrected], seed=0):
        for report, _ in decoder.take(message):
            assert report == unpack(pack(report))
    n = len(decoder.take(replace(WHOLE, about=about(12345))))
    assert n == 1


def test_whatever_is_to_be_recorded_the_file_is_whole(config: SessionConfig) -> None:
    recorder = record.Recorder(config, print)
    marker = replace(PIECE, stream="markers", raw_s=bytes(8), texts=[["a"]], array=np.empty(0))
    pieces = [PIECE, *forged([PIECE, marker], seed=0), PIECE]
    for piece in pieces:
        with suppress(ValueError, TypeError):
            recorder.write(piece)
    for answer_ in forged([ANSWER], seed=0):
        answer_.stamps["published"] = 1.0  # as the results node does
        recorder.write_answer(answer_)
    recorder.close()
    for path in config.folder.glob("recording*.xdf"):  # each is begun with what is another stream
        streams = pyxdf.load_xdf(path)[0]
        names = {stream["info"]["name"][0] for stream in streams}
        assert f"hvf-live-results-{config.session}" in names
    streams = pyxdf.load_xdf(config.folder / "recording.xdf")[0]
    assert {"amp", "m"} <= {stream["info"]["name"][0] for stream in streams}


@pytest.mark.slow
def test_whatever_is_left_of_what_a_decoder_had_learnt_the_next_one_decodes(
    config: SessionConfig, opened: tuple[LiveDecoder, Gallery]
) -> None:
    first, kept = decode.Decoder(config, *opened, print), config.kept("repeats.msgpack")
    for trial in (1, 2):
        first.take(replace(WHOLE, about=about(trial)))
        first.keep()

    def goes_on(data: bytes) -> None:
        kept.write_bytes(data)
        opened[0].reset_group("g")
        decoder = decode.Decoder(config, *opened, print)
        assert len(decoder.take(replace(WHOLE, about=about(3)))) == 1
        decoder.keep()

    assert outcomes(goes_on, kept.read_bytes()) == N


def test_whatever_is_left_of_when_somebody_listened_the_next_one_goes_on(tmp_path: Path) -> None:
    def goes_on(data: bytes) -> None:
        (tmp_path / "attendance").write_bytes(data)
        attendance = Attendance(tmp_path / "attendance")
        attendance.begin(3.0)
        attendance.listened("reader", 3.0, 4.0)
        attendance.gaps("reader")
        attendance.keep()

    attendance = Attendance(tmp_path / "attendance")
    attendance.begin(1.0)
    attendance.listened("reader", 1.0, 2.0)
    attendance.keep()
    assert outcomes(goes_on, (tmp_path / "attendance").read_bytes()) == N
