"""Closed loops with real sessions over LSL: two at once, and what docs/closed_loop.md shows."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.model import DemoModel
from demo.stimuli import gallery_stimuli
from stream.acquire.lsl import pylsl
from stream.client import SessionEnded, connect
from tests.calling import ROOT
from tests.sessions import check_accounted, finish, start, trials_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "closed_loop.md").read_text()
SOON_S = 100.0
GALLERY = [stimulus.id for stimulus in gallery_stimuli()]


def recipe(language: str, holds: str) -> str:
    """The block of the page in this language that holds some words."""
    (found,) = (b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if holds in b)
    return found


def subject_and_session(
    model: DemoModel, name: str, markers: str, folder: Path
) -> subprocess.Popen:
    """The simulated subject, four times as strong, and a session that decodes it."""
    start("subject", "--name", name, "--markers", markers, "--amplitude", "4", module="demo")
    streams = ("--eeg", name, "--markers", markers, "--wait", "100")
    more = ("--evidence", "added", "--headless", "--out", folder)
    return start("live", *streams, "--bundle", model.bundle, *more)


def write_images(folder: Path, which: slice) -> list[str]:
    folder.mkdir()
    for id in GALLERY[which]:
        (folder / f"{id}.png").touch()
    return GALLERY[which]


def said_of(folder: Path) -> list[tuple[str, str, str]]:
    """What was shown in a session, in order, its answer and how probable it was."""
    shown = {r["trial"]: r["stimulus"] for r in trials_of(folder, "marker")}
    return [
        (shown[r["trial"]], r["ids"][0], f"{r['probabilities'][0]:.2f}")
        for r in trials_of(folder, "decoded")
    ]


def test_two_loops_at_once_and_the_page_as_it_stands(
    demo_model: DemoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())  # where sessions say that they run
    a, b = tmp_path / "a", tmp_path / "b"
    sessions = {
        a: subject_and_session(demo_model, "subject-a", "closed-loop", a),
        b: subject_and_session(demo_model, "subject-b", "other-loop", b),
    }
    wait_until(lambda: all((folder / "config.json").exists() for folder in sessions), SOON_S)
    ids = {
        folder: json.loads((folder / "config.json").read_text())["session"] for folder in sessions
    }
    images = {a: write_images(tmp_path / "images-a", slice(0, 2))}
    images[b] = write_images(tmp_path / "images-b", slice(2, 4))
    options = ("--most", "3", "--confidence", "0.9")
    loops = {
        folder: start(
            *("--images", tmp_path / f"images-{folder.name}", "--session", ids[folder]),
            *("--markers", markers, *options),
            module="examples/closed_loop.py",
        )
        for folder, markers in ((a, "closed-loop"), (b, "other-loop"))
    }
    # No answer crosses: what each was told is what its own session has of what it has shown.
    for folder, loop in loops.items():
        done = finish(loop)
        assert (done.code, done.err) == (0, "")
        answered = r"answered (\w+) \((right|wrong), (\d\.\d\d)\) after (\d), (not )?sure"
        told = re.findall(rf"\d/2 shown (\w+), {answered}", done.out)
        assert sorted(image for image, *_ in told) == sorted(images[folder])
        # An answer is heard before it is in the ledger.
        n_shown = sum(int(times) for *_, times, _ in told)
        wait_until(lambda folder=folder, n=n_shown: len(said_of(folder)) >= n, SOON_S)
        said = said_of(folder)
        for image, answer, verdict, sure, times, doubt in told:
            assert verdict == ("right" if answer == image else "wrong")
            assert float(sure) <= 0.9 if doubt else float(sure) >= 0.9
            own, said = said[: int(times)], said[int(times) :]
            assert {shown for shown, *_ in own} == {image}
            assert own[-1] == (image, answer, sure)
        assert said == []
    # Whose session has ended is told so, and never joins the other one.
    with connect(ids[b]) as session:
        session.finish()
        assert finish(sessions[b]).code == 0
        with pytest.raises(SessionEnded):
            session.wait_for("any", deadline_s=SOON_S)
    check_accounted(b)
    rapidly(a, ids[a], images[a])
    messages = the_page(ids[a], images[a], tmp_path)
    assert finish(sessions[a]).code == 0
    told = check_accounted(a)
    assert (told["dropped"], told["decoded"] >= 6) == ({}, True)
    if shutil.which("octave-cli") is None:
        pytest.skip("octave-cli is not installed: the recipe for MATLAB is all that was not run")
    in_octave(tmp_path, messages)


def rapidly(folder: Path, session: str, images: list[str]) -> None:
    """Runs the RSVP without a screen: another program, which the session has to find."""
    n_before = len(trials_of(folder, "marker"))
    images_of = ("--images", folder.parent / "images-a", "--markers", "closed-loop")
    timing = ("--soa", "0.3", "--repeats", "1", "--iti", "1", "--check", "--session", session)
    done = finish(start(*images_of, *timing, module="examples/psychopy_rsvp.py"))
    assert done.code == 0, done
    assert "2 markers, 2 of them heard by this program too, with their stamps" in done.out

    def shown() -> list[str]:
        return sorted(one["stimulus"] for one in trials_of(folder, "marker")[n_before:])

    wait_until(lambda: shown() == sorted(images), SOON_S)


def the_page(session: str, images: list[str], scratch: Path) -> list[str]:
    """Runs the page's loop, and beside it the recipes, on the one session that is left.

    Returns the messages that it sent over LSL.
    """
    (scratch / "loop.py").write_text(recipe("python", "wait_for("))
    (scratch / "browser.py").write_text(recipe("python", "EventSource"))
    (scratch / "bci2000.py").write_text(recipe("python", "SET STATE"))
    start(module=str(scratch / "browser.py"))
    with socket.create_server(("127.0.0.1", 3999)) as server, ThreadPoolExecutor() as threads:
        server.settimeout(SOON_S)
        start(session, module=str(scratch / "bci2000.py"))
        operator, _ = server.accept()
        operator.settimeout(SOON_S)
        events = threads.submit(browsed)
        messages = threads.submit(heard, session)
        done = finish(start(*images, module=str(scratch / "loop.py")))
        assert done.code == 0, done
        decoded = re.findall(r"(\w+) (\d) decoded (\w+)", done.out)
        assert {image for image, *_ in decoded} == set(images)
        told = [json.loads(text) for text in messages.result()]
        ends = [one for one in told if one["event"] in ("decoded", "dropped")][-len(decoded) :]
        assert [(one["marker"], one["ids"][0]) for one in ends] == [
            (image, answer) for image, _, answer in decoded
        ]
        assert events.result()[-1] == {
            "marker": decoded[-1][0],
            "outcome": "decoded",
            "answer": decoded[-1][2],
        }
        numbers = [GALLERY.index(answer) + 1 for *_, answer in decoded]
        came = b""
        while answers_in(came)[-len(numbers) :] != numbers:
            some = operator.recv(10_000)
            assert some, came
            came += some
        operator.close()
    return messages.result()


def answers_in(orders: bytes) -> list[int]:
    """The images that BCI2000 is told of; 0 is no answer."""
    assert re.fullmatch(rb"(SET STATE ResultCode \d+\r\n)*[^\n]*", orders), orders
    return [number for found in re.findall(rb"(\d+)\r\n", orders) if (number := int(found))]


def browsed() -> list[dict[str, str]]:
    """What a browser's page is told until the session ends."""
    address = "http://127.0.0.1:8780"
    wait_until(lambda: answers_at(address), SOON_S)
    with urllib.request.urlopen(address, timeout=SOON_S) as page:
        assert 'new EventSource("answers")' in page.read().decode()
    with urllib.request.urlopen(f"{address}/answers", timeout=SOON_S) as stream:
        lines = [line.decode() for line in stream if line.strip()]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def answers_at(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=SOON_S) as page:
            return page.status == 200
    except OSError:
        return False


def heard(session: str) -> list[str]:
    """The messages of a session over LSL, to its end."""
    (info,) = pylsl.resolve_byprop("source_id", f"hvf-live-results-{session}", 1, SOON_S)
    inlet, texts = pylsl.StreamInlet(info), []
    while not texts or json.loads(texts[-1])["event"] != "ended":
        (text,), _ = inlet.pull_sample(SOON_S)
        texts.append(text)
    return texts


STAND_IN = """
function inlet = lsl_inlet(info)
  inlet.pull_sample = @pull_sample;
end
function [text, stamp] = pull_sample(timeout)
  persistent lines;
  if isempty(lines), lines = strsplit(strtrim(fileread(fullfile(pwd, 'messages'))), "\\n"); end
  text = lines(1); stamp = 0; lines(1) = [];
end
"""


def in_octave(folder: Path, messages: list[str]) -> None:
    """Runs the recipe for MATLAB on messages as they came; liblsl-Matlab is played."""
    (folder / "messages").write_text("\n".join(messages))
    (folder / "lsl_loadlib.m").write_text("function lib = lsl_loadlib()\n  lib = 0;\nend\n")
    (folder / "lsl_resolve_byprop.m").write_text(
        "function found = lsl_resolve_byprop(lib, name, value)\n  found = {value};\nend\n"
    )
    (folder / "lsl_inlet.m").write_text(STAND_IN)
    (folder / "recipe.m").write_text("session = 's';\n" + recipe("matlab", "jsondecode"))
    done = subprocess.run(
        ["octave-cli", "--no-init-file", "recipe.m"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )
    told = map(json.loads, messages)
    assert done.stdout.splitlines() == [
        f"{one['marker']}: dropped, {one['reason']}"
        if one["event"] == "dropped"
        else f"{one['marker']}: {one['ids'][0]} ({one['confidence']:.2f})"
        for one in told
        if one["event"] in ("decoded", "dropped")
    ], done.stderr
