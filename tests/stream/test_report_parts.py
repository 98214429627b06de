"""The parts of the report: each says what the ledger has, and nothing where it means nothing."""

import re
from pathlib import Path

import pytest

from stream.pipeline.report.curves import latency_part
from stream.pipeline.report.page import write_report
from stream.pipeline.report.settings_part import settings_part
from stream.pipeline.report.story import Story, read_story
from stream.pipeline.wire.config import (
    Endpoints,
    FileSource,
    LiveSource,
    RejectSettings,
    SessionConfig,
)
from tests.report_page import Reader, Session

OFFSETS = ("offset_s", "offset_uncertainty_s")
STAGES = ("window_end", "readable", "cut", "received", "embedded", "searched", "published")


def stamped(window_end_s: float, *took_ms: float) -> dict[str, float]:
    stamps, at_s = {}, window_end_s
    for name, ms in zip(STAGES, (0.0, *took_ms), strict=True):
        at_s += ms / 1e3
        stamps[name] = at_s
    return stamps


def fill(session: Session, n: int = 40, **facts) -> None:
    """Trials a second apart, of which every second one is a hit."""
    for trial in range(1, n + 1):
        stamps = stamped(100.0 + trial + 1, 1, 2, 0.5, 0.5, 0.25, trial / 10)
        given = {"onset_s": 100.0 + trial, "stamps": stamps} | facts
        session.decoded(trial, "id-0", "id-0" if trial % 2 else "id-1", **given)


def test_the_numbers_that_come_first(tmp_path: Path) -> None:
    session = Session(tmp_path, simulated=True)
    fill(session)
    session.ledger.announce(41, stimulus="id-0", group="x", onset_s=141.0)
    session.ledger.settle(41, "dropped", reason="gap", detail="")
    said = " ".join(Reader(session.report()).text.split())
    assert "Sunday, 22 November 2026, 10:15:00 · 40 s · simulated subject" in said
    assert "40 decoded of 41 markers dropped: 1 gap" in said
    assert "50.0% top-1 of 40 answers 35.2% to 64.8%, chance 12.5%" in said
    assert "6.3 ms to an answer (p50)" in said


def test_streams_and_subject_are_named(tmp_path: Path) -> None:
    session = Session(tmp_path, subject="S1")
    session.ledger.close()
    eeg = {"state": "streaming", "rate_hz": 500.015, "drift_ppm": -30.0, "gaps": 2}
    eeg |= {"offset_s": 0.0123, "offset_uncertainty_s": 5e-5, "flat": ["T7"], "clipped": []}
    told = {"nominal_hz": 500.0, "markers": {"state": "lost"} | dict.fromkeys(OFFSETS, 0.0)}
    summary = session.tally.summary(session.ledger, "stop") | {"streams": eeg | told}
    seen = Reader(write_report(session.config, summary).read_text(encoding="utf-8"))
    assert "0 s · subject S1 · EEG from EEG · 8 images to tell apart · was stopped" in seen.text
    eeg_told = ["500.015 Hz", "500 Hz", "-30.0 ppm", "2", "+12.300 ± 0.050 ms", "flat: T7"]
    assert ["EEG", "EEG", "streaming", *eeg_told] in seen.rows
    assert ["m", "markers", "lost", *["–"] * 4, "+0.000 ± 0.000 ms", "–"] in seen.rows


def test_the_stages_of_an_answer_add_up(tmp_path: Path) -> None:
    session = Session(tmp_path)
    fill(session)
    page = session.report()
    rows = {row[0].removeprefix("· "): row[1:] for row in Reader(page).rows if len(row) == 5}
    assert rows["cut, preprocess"] == ["2.00", "2.00", "2.00", "2.00"]
    assert rows["publish"][0] == "2.05"
    assert rows["window's end → answer"][3] == "8.25"
    assert "which add up to 6.30 ms" in page  # 4.25 ms and the mean of the middle publishings
    assert "The slowest 5 % took 8.2 ms, most of it publish (3.9 ms)." in page


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_answers_are_a_page_too(tmp_path: Path, n: int) -> None:
    session = Session(tmp_path)
    fill(session, n)
    page = session.report()
    assert "which add up to" in page
    assert not re.search(r"\bnan\b", Reader(page).text)


def test_latency_is_no_figure_where_nobody_waits(tmp_path: Path) -> None:
    session = Session(tmp_path, source=FileSource(path=tmp_path / "a.fif"), realtime=False)
    fill(session)
    said = Reader(session.report()).text
    assert "Nobody waits for an answer in virtual time" in said
    assert "to an answer (p50)" not in said
    assert "a.fif, read in virtual time" in said
    assert "Streams" not in said
    story = Story((), (), 0.0, 0.0, "")
    assert latency_part(story, {"latency_ms": {}, "by_tmax": {}}) == ""


@pytest.mark.parametrize(
    ("n", "calibrated", "said"),
    [
        (40, True, "4 bins of n = 10."),
        (29, True, "cannot be told from 29 answers"),
        (40, False, "are not calibrated"),
    ],
)
def test_calibration_is_shown_where_it_can_be_judged(
    tmp_path: Path, n: int, calibrated: bool, said: str
) -> None:
    session = Session(tmp_path)
    fill(session, n, calibrated=calibrated)
    assert said in Reader(session.report()).text


def test_answers_to_what_is_in_no_gallery_have_no_accuracy(tmp_path: Path) -> None:
    session = Session(tmp_path)
    fill(session, rank=0)
    said = Reader(session.report()).text
    assert "Accuracy" not in said
    assert "Latency" in said


def test_what_happened_is_on_one_line_of_time(tmp_path: Path) -> None:
    session = Session(tmp_path)
    note = session.ledger.note
    note("start", session="s", node="results-1", at_s=90.0)
    note("note", node="decode", text="the engine is <b>torch</b>", facts={}, at_s=91.0)
    note("listening", node="reader-1", since_s=100.0)
    note("stream", name="EEG", state="streaming", age_s=0.0, at_s=100.0)
    fill(session, 4)
    note("stream", name="EEG", state="lost", age_s=5.0, at_s=110.0)
    note("node_lost", node="reader-1", at_s=112.0)
    note("unheard", from_s=112.0, until_s=115.0)
    note("stream", name="EEG", state="streaming", age_s=0.0, at_s=120.0)
    note("control", verb="mark", argument="half time", by="me", outcome="done", stamp_s=125.0)
    session.ledger.announce(9, stimulus="id-0", group="x", onset_s=130.0, readable_s=130.0)
    session.ledger.settle(9, "dropped", reason="no_data", detail="none came")
    page = session.report()
    seen = Reader(page)
    for text in (
        "streaming for 10.0 s",
        "lost for 10.0 s",
        "restarts · 1",
        "asked for · 1",
        "decoded · 4",
        "dropped: no_data · 1",
        "trial 9: id-0: none came",
        "nobody listened",
        "the engine is <b>torch</b>",
    ):
        assert text in seen.text, text
    assert "30 s · " in seen.text  # what came before the reader listened is no part of it
    assert ["25.0 s", "me", "mark half time (done)"] in seen.rows
    rects = [a for t, a in seen.tags if t == "rect"]
    assert [one["class"] for one in rects] == ["ok", "lost", "ok", "lost"]
    lefts = [float(one["x"]) for one in rects]
    assert lefts[1] - lefts[0] == pytest.approx(lefts[2] - lefts[1], abs=0.2)


@pytest.mark.parametrize(("fate", "seen"), [("decoded", "ended"), ("dropped", "stalled")])
def test_a_source_that_ends_after_the_last_whole_trial_has_not_stalled(
    tmp_path: Path, fate: str, seen: str
) -> None:
    session = Session(tmp_path)
    note = session.ledger.note
    note("listening", node="reader-1", since_s=101.5)
    note("stream", name="EEG", state="stalled", age_s=0.2, at_s=102.0)
    note("stream", name="EEG", state="streaming", age_s=0.0, at_s=102.5)
    fill(session, 3)
    if fate == "dropped":
        session.ledger.announce(4, stimulus="id-0", group="x", onset_s=104.0, readable_s=104.0)
        session.ledger.settle(4, "dropped", reason="no_data", detail="none came")
    note("stream", name="EEG", state="stalled", age_s=0.2, at_s=110.0)
    session.ledger.close()
    story = read_story(session.folder, is_timed=True)
    states = [one.text for one in story.happened if one.kind == "stream"]
    assert states == ["stalled", "streaming", seen]
    assert story.start_s == story.trials[0].at_s == 101.0  # an onset before all else is the start


def test_without_stamps_things_stand_where_they_are_in_the_ledger(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.ledger.note("start", session="s", node="results-1")
    fill(session, 3)
    session.ledger.note("stream", name="EEG", state="stalled", age_s=1.0)
    fill(session, 0)
    session.ledger.close()
    story = read_story(session.folder, is_timed=True)
    newest_s = max(stamped(104.0, 1, 2, 0.5, 0.5, 0.25, 0.3).values())
    assert [one.at_s for one in story.happened] == [101.0, pytest.approx(newest_s)]
    played = read_story(session.folder, is_timed=False)
    assert (played.start_s, played.end_s) == (101.0, 103.0)


def test_a_marker_of_another_clock_does_not_stretch_the_session(tmp_path: Path) -> None:
    session = Session(tmp_path)
    fill(session, 3)
    session.ledger.announce(4, stimulus="id-0", group="x", onset_s=1.7e9, readable_s=104.0)
    session.ledger.settle(4, "dropped", reason="late", detail="of another clock")
    session.ledger.announce(5, stimulus="id-0", group="x", onset_s=None, readable_s=105.0)
    session.ledger.settle(5, "dropped", reason="late", detail="no time at all")
    page = session.report()
    said = Reader(page).text
    assert " · 4 s · EEG" in said
    assert "dropped: late · 2" in said
    assert "inf" not in said.replace("Influence", "")


@pytest.mark.parametrize("took_ms", [0.0, -2.0])
def test_stamps_that_stand_still_or_go_back_make_a_page_too(tmp_path: Path, took_ms: float) -> None:
    session = Session(tmp_path)
    for trial in range(1, 4):
        stamps = stamped(100.0 + trial, *[took_ms] * 6)
        session.decoded(trial, "id-0", "id-0", onset_s=99.0 + trial, stamps=stamps)
    assert "From the window's end to the answer" in Reader(session.report()).text


def test_settings_that_differ_come_first(tmp_path: Path) -> None:
    config = SessionConfig(
        session="s",
        folder=tmp_path,
        endpoints=Endpoints.local(),
        source=LiveSource(eeg="<EEG>", markers="m"),
        top_k=3,
        reject=RejectSettings(peak_to_peak_uv=150.0),
    )
    summary = {"bundle": None, "gallery": None, "seed": 7, "versions": {"numpy": "2.4"}}
    page = settings_part(config, summary, "<p>numbers</p>")
    rows = Reader(page).rows
    first = rows[: next(i for i, row in enumerate(rows) if len(row) == 3)]
    assert {row[0]: row[1:3] for row in first[1:]} == {
        "source.eeg": ["<EEG>", "none"],
        "source.markers": ["m", "none"],
        "top_k": ["3", "5"],
        "reject.peak_to_peak_uv": ["150.0", "none"],
    }
    assert ["record", "true", "Write the streams to recording.xdf"] in rows
    assert ["numpy", "2.4"] in rows
    assert not [row for row in rows if row[0].startswith("painting.")]  # which is off
