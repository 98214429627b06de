"""Sessions that paint, as a person runs them: decoding never waits for it."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from PIL import Image

from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.wire.bus import open_socket, receive
from stream.pipeline.wire.config import read_config
from stream.pipeline.wire.messages import (
    Message,
    Painted,
    PaintingState,
    Preview,
    Retrieval,
    SessionClosed,
)
from tests.calling import call
from tests.sessions import (
    PATIENCE_S,
    Done,
    check_accounted,
    finish,
    interrupt,
    node_pid,
    start,
    wait_for_ledger,
)
from tests.tiny_painting import write_models, write_recording
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
STIMULI = "abcdab"
SOON_MS = 200_000  # however busy the machine is
# Python runs it before anything else in every process of a session.
LATE = """
import os, time, psutil

while "stream.pipeline.nodes.paint" in psutil.Process().cmdline():
    if os.path.exists({!r}):
        break
    time.sleep(0.01)
"""


@contextmanager
def late_painter(folder: Path) -> Iterator[Path]:
    """Sessions that are started meanwhile paint once the file that this gives exists."""
    gate = folder / "may-paint"
    (folder / "sitecustomize.py").write_text(LATE.format(str(gate)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield gate


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def painting(models: Path) -> list[str | Path]:
    return ["--bundle", models / "bundle", "--paint", models / "prior", "--base", models / "base"]


@dataclass(frozen=True)
class Session:
    """A session that has ended: its folder, what it said, and what was on its bus."""

    folder: Path
    done: Done
    heard: list[Message]

    def of(self, kind: type) -> list:
        return [message for message in self.heard if isinstance(message, kind)]


@pytest.fixture(scope="module")
def replayed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """All is decoded before the painter is there: it paints the last trial."""
    folder = tmp_path_factory.mktemp("replayed") / "session"
    recording = write_recording(folder.parent / "toy_raw.fif", STIMULI)
    options = ["--speed", "max", "--refine", "--tmax", "0.1", "--ip-scale", "0.7", "--headless"]
    with late_painter(folder.parent) as gate:
        process = start("replay", recording, *painting(models), *options, "--out", folder)
    heard = listen(folder, gate)
    done = finish(process)
    assert done.code == 0, done.err
    return Session(folder, done, heard)


def listen(folder: Path, gate: Path) -> list[Message]:
    """Everything that a session publishes up to its end, which may paint once all is decoded."""
    wait_until((folder / "logs").exists, PATIENCE_S)  # made when the config was written
    endpoint = read_config(folder / "config.json").endpoints.results
    socket = open_socket(zmq.SUB, endpoint, bind=False)
    heard = [receive(socket, wait_ms=SOON_MS)]
    while not isinstance(heard[-1], SessionClosed):
        heard.append(receive(socket, wait_ms=SOON_MS))
        if isinstance(heard[-1], Retrieval) and is_last(heard[-1]):
            gate.touch()
    socket.close()
    return heard


def is_last(answer: Retrieval) -> bool:
    return answer.about.trial == len(STIMULI) and not answer.answer.provisional


def test_the_last_trial_is_painted_though_the_painter_came_late(replayed: Session) -> None:
    told = check_accounted(replayed.folder)
    assert told["decoded"] == len(STIMULI)
    counts = {name: told["painting"][name] for name in ("painted", "cancelled", "failed")}
    assert counts == {"painted": 1, "cancelled": 0, "failed": 0}
    assert told["painting"]["superseded"] == len(STIMULI) - 1
    assert told["painting"]["paint_ms"]["p50"] > 0
    assert "image_ms" not in told["painting"]  # in virtual time a window's end is no moment
    assert "waiting for the last image" in replayed.done.out
    assert f"trial {len(STIMULI)}: painted" in replayed.done.out
    assert "paint: tiny paints 64 px in 4 steps" in replayed.done.out


def test_previews_and_the_image_are_on_the_bus_with_their_stamps(replayed: Session) -> None:
    (image,) = replayed.of(Painted)
    assert (image.about.trial, image.image[:4]) == (len(STIMULI), b"RIFF")
    previews = replayed.of(Preview)
    assert [(p.about.trial, p.step, p.n_steps) for p in previews] == [
        (image.about.trial, step, 4) for step in (1, 2, 3, 4)
    ]
    assert [p.state for p in replayed.of(PaintingState)] == ["begun"]
    order = ("readable", "cut", "received", "embedded", "searched", "published")
    finals = [answer for answer in replayed.of(Retrieval) if not answer.answer.provisional]
    answer = next(answer for answer in finals if answer.about == image.about)
    assert sorted(order, key=answer.stamps.get) == list(order)
    order = ("readable", "searched", "taken", "first_preview", "painted", "published")
    assert sorted(order, key=image.stamps.get) == list(order)
    assert {name: image.stamps[name] for name in ("readable", "searched")} == {
        name: answer.stamps[name] for name in ("readable", "searched")
    }


def test_the_image_is_in_the_folder_and_says_how_it_was_made(replayed: Session) -> None:
    (note,) = [r for r in read_ledger(replayed.folder / "ledger.jsonl") if r["event"] == "painted"]
    assert note["of_trial"] == len(STIMULI)
    told = check_accounted(replayed.folder)
    with Image.open(replayed.folder / note["file"]) as picture:
        assert picture.size == (64, 64)
        texts = picture.text
    assert texts["trial"] == str(note["of_trial"])
    assert texts["seed"] == str(note["seed"])
    assert texts["ip_scale"] == "0.7"
    assert texts["bundle"] == told["bundle"]
    assert texts["prior"] == told["painting"]["prior"]


def test_the_report_shows_it_and_the_last_lines_name_it(replayed: Session) -> None:
    page = (replayed.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == len(STIMULI)
    assert page.count("<img") == 1
    assert "Simulated" not in page
    assert str(replayed.folder / "report.html") in replayed.done.out


def test_a_session_that_painted_is_decoded_the_same_offline(replayed: Session) -> None:
    again = call("evaluate", "--session", replayed.folder, module="offline_train")
    assert again.code == 0, again.out + again.err
    assert f"{len(STIMULI)} with the same list of answers" in again.out


def test_ctrl_c_does_not_wait_for_an_image(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    recording = write_recording(tmp_path / "toy_raw.fif", STIMULI)
    options = ("--speed", "max", "--headless", "--out", folder)
    with late_painter(tmp_path):
        process = start("replay", recording, *painting(models), *options)
    assert any("waiting for the last image" in line for line in process.stdout)
    interrupt(process)  # while the painter loads
    done = finish(process)
    assert done.code == 130
    assert "Traceback" not in done.out + done.err
    told = check_accounted(folder)
    assert (told["decoded"], told["painting"]["painted"]) == (len(STIMULI), 0)
    assert (folder / "report.html").exists()


def test_a_painter_that_dies_delays_no_answer_and_comes_back(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    recording = write_recording(tmp_path / "toy_raw.fif", 200 * "abcd")  # longer than needed
    options = ("--speed", "1", "--headless", "--out", folder)
    process = start("replay", recording, *painting(models), *options)
    wait_for_ledger(folder, is_painted)
    os.kill(node_pid(folder, "paint"), signal.SIGKILL)
    wait_for_ledger(folder, lambda records: is_painted(since_death(records)))
    interrupt(process)
    done = finish(process)
    assert done.code == 130, done.err
    assert "paint died (signal 9) and is restarted in 0.5 s" in done.out
    told = check_accounted(folder)
    events = [r["event"] for r in since_death(read_ledger(folder / "ledger.jsonl"))]
    assert events[: events.index("painted")].count("decoded") >= 1  # while it was away
    counts = ("painted", "cancelled", "superseded", "failed")
    assert sum(told["painting"][name] for name in counts) == told["decoded"]


def is_painted(records: Sequence[dict]) -> bool:
    return any(record["event"] == "painted" for record in records)


def since_death(records: Sequence[dict]) -> Sequence[dict]:
    """What the ledger has after the supervisor's note that a node died."""
    by_supervisor = [record.get("node") == "supervisor" for record in records]
    return records[by_supervisor.index(True) :] if any(by_supervisor) else []
