"""Whatever a crash has left of a session, `finish` makes it whole, once, and lets others alone."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.markers import Event
from stream.acquire.trials import Trial
from stream.pipeline.books.closing import lost, make_whole
from stream.pipeline.books.ledger import Ledger, read_ledger
from stream.pipeline.books.trial_file import TrialFile
from stream.pipeline.books.trial_formats import Head
from stream.pipeline.lock import held
from stream.pipeline.wire.config import (
    NUMBERS,
    RESERVED,
    Endpoints,
    LiveSource,
    SessionConfig,
)
from stream.pipeline.wire.endpoints import Transport
from stream.pipeline.wire.messages import MarkerSeen
from stream.pipeline.witness import Announced, Attendance, Parting
from tests.calling import call
from tests.refs import about

STAMPS = {"window_end": 1.0, "readable": 1.001, "cut": 1.002}


def write_session(folder: Path, ends: list[str | None], transport: Transport = "auto"):
    """What a session leaves that is killed: of each trial its marker, and its end if it has one."""
    folder.mkdir(exist_ok=True)
    config = SessionConfig(
        session="20261122-101500-ab12",
        folder=folder,
        endpoints=Endpoints.local(transport),
        source=LiveSource(eeg="EEG", markers="m"),
    )
    config.write()
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.note("start", session=config.session, node="results-1")
    for trial, end in enumerate(ends, 1):
        ledger.announce(trial, stimulus="é", group="é", repeat=0, onset_s=0.0, readable_s=0.1)
        if end == "cut":
            ledger.settle(trial, "cut", residual_s=0.0, stamps=STAMPS)
        elif end is not None:
            ledger.settle(trial, "dropped", reason=end, detail="")
    return config


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sessions")


@settings(max_examples=150, deadline=None)
@given(
    ends=st.lists(st.sampled_from(["cut", "gap", None])),
    cut=st.floats(0, 1),
    end=st.sampled_from(["lost", "stop"]),
)
def test_a_ledger_that_ends_anywhere_is_closed_and_its_sums_hold(place, ends, cut, end) -> None:
    folder = place / "cut"
    for file in folder.glob("*"):
        file.unlink()
    config = write_session(folder, ends)
    config.endpoints.remove()
    path = folder / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: round(cut * len(whole))])
    kept = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    made = make_whole(config, "why", end)
    records = read_ledger(path)
    assert records[: len(kept)] == kept
    assert records[-1] == {"event": "end", "reason": end}
    markers = [r["trial"] for r in records if r["event"] == "marker"]
    assert markers == [r["trial"] for r in kept if r["event"] == "marker"]
    outcomes = [r for r in records if r["event"] in ("cut", "dropped")]
    assert sorted(r["trial"] for r in outcomes) == markers
    reason = "shutdown" if end == "stop" else "node_lost"
    added = [r for r in outcomes if r not in kept]
    assert all((r["reason"], r["detail"]) == (reason, "why") for r in added)
    assert made.summary == json.loads((folder / "summary.json").read_text())
    assert made.summary["markers"] == len(markers) == len(outcomes)
    assert made.summary["dropped"].get(reason, 0) == len(added)
    assert (lost(made.summary) is None) == (reason not in made.summary["dropped"] or end == "stop")

    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert make_whole(config, "again").was_whole
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_session_that_failed_says_why_in_its_summary_and_its_report(tmp_path: Path) -> None:
    config = write_session(tmp_path, ["cut"])
    config.endpoints.remove()
    assert "failure" not in make_whole(config, "why", "stop").summary
    made = make_whole(config, "why", "stop", "the reader died <6> times")
    assert made.summary == json.loads((tmp_path / "summary.json").read_text())
    told = (made.summary["end"], made.summary["failure"])
    assert told == ("failed", "the reader died <6> times")
    assert "the reader died &lt;6&gt; times" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("left_s", [12.0, 15.5, None])
def test_where_no_results_node_was_there_at_the_end_it_is_told_since_when(tmp_path, left_s) -> None:
    config = write_session(tmp_path, ["cut"])
    config.endpoints.remove()
    attendance = Attendance(config.kept("attendance"))
    attendance.begin(10.0)
    attendance.listened("reader-1", 10.0, 12.5)
    attendance.keep()
    if left_s is not None:
        Parting("stop", left_s).keep(config.kept("parting"))
    summary = make_whole(config, "why", "stop").summary
    unheard_s = [[12.5, 15.5]] if left_s == 15.5 else []
    assert json.loads((tmp_path / "summary.json").read_text())["unheard_s"] == unheard_s
    assert (lost(summary) is not None) == summary["at_least"] == bool(unheard_s)


def test_what_a_reader_has_announced_to_nobody_is_entered(tmp_path: Path) -> None:
    config = write_session(tmp_path, ["cut", None])
    config.endpoints.remove()
    announced = Announced(config.kept("reader-7"))
    for trial in (2, 3):  # the results node was killed before the third
        announced.keep(
            MarkerSeen(about=about(trial), readable_s=0.5, text="é", sent_s=0.25, mark="00")
        )
    summary = make_whole(config, "why").summary
    assert (summary["markers"], summary["dropped"]) == (3, {"node_lost": 2})


def test_finish_says_what_was_missing_and_refuses_what_is_whole(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "session", tmp_path / "moved"
    config = write_session(folder, ["cut", None])
    folder.rename(elsewhere)
    done = call("finish", elsewhere)
    assert done.code == 0, done.err
    assert "2 = 1 cut + 1 dropped (node_lost)" in done.out
    assert "trials without an end, dropped (completed by finish): 1" in done.out
    assert (elsewhere / "report.html").is_file()
    assert not Path(config.endpoints.control.removeprefix("ipc://")).parent.exists()

    again = call("finish", elsewhere)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith(f"nothing is missing in '{elsewhere}'")
    (elsewhere / "report.html").unlink()
    assert call("finish", elsewhere).code == 0
    assert (elsewhere / "report.html").is_file()


def test_finish_lets_a_session_alone_that_runs(tmp_path: Path) -> None:
    config = write_session(tmp_path, ["cut", None])
    with held(tmp_path) as inherited:
        done = call("finish", tmp_path)
        assert inherited
    config.endpoints.remove()
    assert (done.code, "runs still" in done.one_sentence()) == (1, True)
    assert not (tmp_path / "summary.json").exists()
    assert read_ledger(tmp_path / "ledger.jsonl")[-1]["event"] == "marker"


def test_what_a_session_was_told_counts_where_its_books_are_closed_later(tmp_path: Path) -> None:
    config = write_session(tmp_path, [])
    config.endpoints.remove()
    (tmp_path / "ledger.jsonl").write_text(
        json.dumps({"event": "control", "verb": "gallery", "argument": "gone", "outcome": "done"})
        + "\n"
    )
    done = call("finish", tmp_path)
    assert (done.code, "gone" in done.one_sentence()) == (1, True)


SAVED = 5


def write_trials(folder: Path) -> Path:
    """A session that was killed after it has cut and saved some trials; where they are to go."""
    config = write_session(folder, ["cut"] * SAVED)
    config.endpoints.remove()
    path = folder.parent / "t.npz"
    config.model_copy(update={"save_trials": path}).write()
    file = TrialFile(folder, Head(["Cz"], 100.0, (0, 9), ["eeg"]))
    for number in range(1, SAVED + 1):
        event = Event(number, "é", "é", 1, number)
        samples = np.full((10, 1), number, np.float32)
        file.add(Trial(number, event, 0.0, number, number, number, samples, True))
    file.close()
    return path


@pytest.mark.parametrize(
    ("gone", "emptied"),
    [
        (["trials.jsonl"], []),
        (["trials.f32"], []),
        (["trials.f32", "trials.jsonl"], []),
        ([], ["trials.jsonl"]),
        ([], ["trials.f32"]),
    ],
)
def test_trials_that_were_saved_and_are_gone_are_told(tmp_path, gone, emptied) -> None:
    folder = tmp_path / "s"
    path = write_trials(folder)
    for name in gone:
        (folder / name).unlink()
    for name in emptied:
        (folder / name).write_bytes(b"")
    done = call("finish", folder)
    assert (done.code, path.exists()) == (1, False)
    assert f"{SAVED} that were cut, and could not be written" in done.one_sentence()
    left = "trials.f32" not in gone + emptied
    assert left == (folder / "trials.f32").exists() == ("samples of them are kept" in done.err)
    again = call("finish", folder)
    assert again.code == 1
    assert again.one_sentence().startswith(f"no more can be made of '{folder}': {SAVED} trials")


@pytest.mark.parametrize("n_kept", range(11))
def test_a_ledger_that_lacks_markers_says_that_its_sums_are_lower_bounds(tmp_path, n_kept) -> None:
    folder = tmp_path / "s"
    path = write_trials(folder)
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:n_kept]))
    done = call("finish", folder)
    told = json.loads((folder / "summary.json").read_text())
    whole = n_kept >= len(lines) - 1  # the last is an outcome, and its marker is there
    assert (told["at_least"], done.code) == (not whole, int(not whole))
    assert ("at least" in done.out) == (not whole)
    assert told["saved_trials"] == {"path": str(path), "n": SAVED, "n_lost": 0}
    if not whole:
        lacks = SAVED - n_kept // 2
        assert ("a marker" if lacks == 1 else f"{lacks} markers") in done.one_sentence()


@pytest.mark.parametrize("where", [1, 3, 5, 7])
def test_a_hole_in_a_ledger_is_seen_by_the_numbers_around_it(tmp_path, where) -> None:
    config = write_session(tmp_path, ["cut"] * 6)
    config.endpoints.remove()
    ledger = tmp_path / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:where] + lines[where + 4 :]))
    made = make_whole(config, "why")
    assert made.summary["at_least"]
    assert made.failure == "the ledger lacks 2 markers, as the numbers of the trials show"


def test_a_marker_under_the_number_of_a_witness_is_not_lacking(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.note("listening", node="reader-1", since_s=0.0, first=1)
    for number in (1, 2):
        ledger.announce(number)
    ledger.note("listening", node="reader-2", since_s=9.0, first=1005)  # 3 and 4 were never told of
    for number in (
        5,
        1005,
        1007,
        NUMBERS + 1,
        1009,
    ):  # two of them are 1006 and 1008, told too late
        assert ledger.faults() == []
        ledger.announce(number)
    ledger.announce(1011)
    assert len(ledger.faults()) == 1


def test_as_long_as_one_reader_has_numbered_all_no_leap_is_too_long_for_a_hole(tmp_path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.note("listening", node="reader-1", since_s=0.0, first=1)
    for number in (1, RESERVED + 5):
        ledger.announce(number)
    (told,) = ledger.faults()
    assert told.startswith(f"the ledger lacks {RESERVED + 3} markers")


def test_the_sockets_of_a_killed_session_go_wherever_they_are(tmp_path, monkeypatch) -> None:
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "then"))
    config = write_session(tmp_path / "s", ["cut"])
    sockets, others = config.endpoints.folder, tmp_path / "then" / "hvf-mine"
    (sockets / "control").touch()
    others.mkdir()
    (others / "letter").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "now"))
    assert call("finish", tmp_path / "s").code == 0
    assert not sockets.exists()
    endpoints = config.endpoints.model_copy(update={"control": f"ipc://{others}/control"})
    endpoints.remove()
    assert [file.name for file in others.iterdir()] == ["letter"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    config = write_session(tmp_path, ["cut", None])
    config.endpoints.remove()
    (tmp_path / ".summary.json.draft").symlink_to("/dev/full")
    with pytest.raises(Problem, match=rf"No space left on device: '{tmp_path}/summary.json'"):
        make_whole(config, "why")


def test_finish_of_what_is_no_session_is_one_sentence(tmp_path: Path) -> None:
    said = call("finish", tmp_path).one_sentence()
    assert said.startswith(f"'{tmp_path}' has no config.json")
