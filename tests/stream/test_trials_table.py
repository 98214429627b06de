"""trials.csv says of every marker what the ledger says, whatever its text."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.pipeline.books.closing import make_whole
from stream.pipeline.books.ledger import Ledger, read_ledger
from stream.pipeline.books.trials_table import TABLE, trials_table, write_trials_table
from stream.pipeline.wire.config import Endpoints, FileSource, LiveSource, SessionConfig
from stream.sources.xdf import first_stamp_s
from tests.recording_files import MARKER_HEADER, eeg_header, eeg_stream, write_xdf
from tests.stream_info import stream_info

LIVE = LiveSource(eeg="EEG", markers="m")
STAMPS = {"window_end": 11.0, "readable": 11.001, "cut": 11.002}
ANSWERED = STAMPS | {"received": 11.1, "embedded": 11.2, "searched": 11.3, "published": 11.25}
texts = st.text(st.sampled_from("=+-@\t\r\n'\",;a1é日 "), max_size=5) | st.text(max_size=8)


def config_of(folder: Path, source=LIVE) -> SessionConfig:
    endpoints = dict.fromkeys(("trials", "reports", "results", "recording", "control"), "ipc://x")
    return SessionConfig(
        session="s", folder=folder, endpoints=Endpoints(**endpoints), source=source
    )


def enter(folder: Path, *trials: tuple[str, str, dict]) -> Path:
    """A ledger of trials: the stimulus, the outcome and its facts."""
    path = folder / "ledger.jsonl"
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    for trial, (stimulus, outcome, facts) in enumerate(trials, 1):
        about = {"stimulus": stimulus, "group": stimulus, "repeat": 1, "block": 2, "mark": "00"}
        about |= {"text": stimulus, "sent_s": 7.5}
        ledger.announce(trial, **about, onset_s=10.0 + trial, readable_s=10.5 + trial)
        ledger.settle(trial, outcome, **facts, **{"stimulus": stimulus} if "ids" in facts else {})
    ledger.close()
    return path


def read_back(folder: Path) -> list[dict[str, str]]:
    """As docs/exports.md says: an apostrophe before a formula's sign is taken away."""
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))

    def plain(cell: str) -> str:
        return cell[1:] if cell.lstrip("'")[:1] in set("=+-@\t\r") and cell[:1] == "'" else cell

    return [{name: plain(cell) for name, cell in row.items()} for row in rows]


def answer(ids: list[str], **more) -> dict:
    facts = {"n_repeats": 2, "tmax_s": 0.5, "rank": 3, "calibrated": True, "abstain": False}
    scores = [1.0 / k for k in range(1, len(ids) + 1)]
    return facts | {"ids": ids, "scores": scores, "probabilities": scores, **more}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=200, deadline=None)
@given(
    stimuli=st.lists(texts, max_size=4),
    ids=st.lists(texts, min_size=1, max_size=7),
    detail=texts,
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_stands_in_the_ledger_stands_in_the_table(place, stimuli, ids, detail, number):
    ends = [
        ("decoded", answer(ids, stamps=ANSWERED | {"cut": number})),
        ("dropped", {"reason": "gap", "detail": detail}),
        ("cut", {"residual_s": number, "stamps": STAMPS}),
    ]
    enter(place, *((one, *ends[i % 3]) for i, one in enumerate(stimuli)))
    write_trials_table(config_of(place))
    rows = read_back(place)
    for name in ("stimulus", "group", "marker"):
        assert [row[name] for row in rows] == stimuli
    assert [int(row["trial"]) for row in rows] == [*range(1, len(rows) + 1)]
    for i, row in enumerate(rows):
        assert float(row["onset_s"]) == 11.0 + i
        assert row["fate"] == ends[i % 3][0]
        if i % 3 == 0:
            assert [row[f"answer_{k}"] for k in range(1, len(ids) + 1)] == ids
            assert float(row["probability_1"]) == 1.0
            assert float(row["stamp_cut_s"]) == number
        elif i % 3 == 1:
            assert (row["reason"], row["detail"]) == ("gap", detail)
        else:
            assert float(row["residual_s"]) == number


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "-x"])
def test_no_cell_begins_as_a_formula_does(tmp_path: Path, text: str) -> None:
    enter(tmp_path, (text, "dropped", {"reason": "gap", "detail": ""}))
    write_trials_table(config_of(tmp_path))
    with (tmp_path / TABLE).open(encoding="utf-8", newline="") as file:
        _, row = csv.reader(file)
    assert f"'{text}" in row
    assert read_back(tmp_path)[0]["stimulus"] == text


@pytest.mark.parametrize("text", ["-1", "+", "-", "+7.5", "a=b", "'"])
def test_numbers_and_signs_stay_as_they_are(tmp_path: Path, text: str) -> None:
    enter(tmp_path, (text, "dropped", {"reason": "gap", "detail": ""}))
    write_trials_table(config_of(tmp_path))
    with (tmp_path / TABLE).open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["stimulus"] == text


def test_a_row_has_known_values(tmp_path: Path) -> None:
    path = enter(
        tmp_path,
        ("cat", "decoded", answer(["cat", "dog"], stamps=ANSWERED)),
        ("dog", "dropped", {"reason": "late", "detail": "too late"}),
    )
    with path.open("a") as file:
        for line in (
            '{"event":"provisional","of_trial":1,"n_repeats":1,"tmax_s":0.3,"rank":1,"ids":["dog"],'
            '"probabilities":[1.0],"calibrated":true,"abstain":false,"stamps":{"window_end":1.0}}',
            '{"event":"painted","of_trial":1,"provisional":false,"seed":0,"tmax_s":1.0,"file":"images/1.png",'
            '"stamps":{"window_end":1.0}}',
        ):
            file.write(line + "\n")
    for name, start_s in (("recording", 4.0), ("recording-2", 11.5), ("recording-10", 90.0)):
        write_xdf(tmp_path / f"{name}.xdf", [eeg_stream(start_s=start_s)])
    write_trials_table(config_of(tmp_path))
    first, second = read_back(tmp_path)
    assert (second["recording"], second["recording_s"]) == ("recording-2.xdf", "0.5")
    told = {"recording": "recording.xdf", "recording_s": "7.0"}
    told |= {"answer_2": "dog", "answer_3": "", "probability_2": "0.5"}
    told |= {"rank": "3", "abstain": "false", "calibrated": "true", "n_provisional": "1"}
    told |= {"latency_ms": "250.0", "painted": "images/1.png", "marker_readable_s": "11.5"}
    assert (told | {"block": "2", "sent_s": "7.5"}).items() <= first.items()
    assert {"reason": "late", "answer_1": "", "latency_ms": "", "n_provisional": "0"}.items() <= (
        second.items()
    )
    assert (tmp_path / TABLE).read_bytes().count(b"\r\n") == 3
    table = trials_table(config_of(tmp_path), read_ledger(path))
    assert list(first) == list(table.columns)
    kinds = {type(value) for name in table.columns for value in table.column(name)}
    assert kinds == {int, float, str, bool, type(None)}
    for name, kind in table.columns.items():
        assert {type(value) for value in table.column(name)} <= {kind, type(None)}


def test_what_was_missed_while_a_reader_was_away_stands_where_it_came(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for trial in (1, 1003, 1004, 2, 3):  # as they are entered
        ledger.announce(trial)
    ledger.close()
    table = trials_table(config_of(tmp_path), read_ledger(tmp_path / "ledger.jsonl"))
    assert table.column("trial") == [1, 2, 3, 1003, 1004]


def test_no_latency_is_told_in_virtual_time(tmp_path: Path) -> None:
    path = enter(tmp_path, ("cat", "decoded", answer(["cat"], stamps=ANSWERED)))
    config = config_of(tmp_path, FileSource(path=Path("r.xdf")))
    assert trials_table(config, read_ledger(path)).column("latency_ms") == [None]


def test_closing_the_books_writes_it_and_finish_adds_it_where_it_is_missing(tmp_path) -> None:
    config = config_of(tmp_path)
    config.write()
    enter(tmp_path, ("cat", "cut", {"residual_s": 0.0, "stamps": STAMPS}))
    make_whole(config, "why")
    before = (tmp_path / TABLE).read_bytes()
    (tmp_path / TABLE).unlink()
    assert not make_whole(config, "why").was_whole
    assert (tmp_path / TABLE).read_bytes() == before


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 1))
def test_the_first_stamp_is_the_eegs_also_of_a_file_that_was_cut_short(place, keep) -> None:
    path = place / "r.xdf"
    path.unlink(missing_ok=True)
    odd, eeg = eeg_header(name="a<b", kind="Sig"), eeg_stream(start_s=90.0)
    rows = (MARKER_HEADER, np.array([1.0]), [["x"]])
    write_xdf(path, [rows, eeg_stream(odd), eeg])
    assert first_stamp_s(path) == 90.0
    whole = path.read_bytes()
    path.write_bytes(whole[: round(keep * len(whole))])
    assert first_stamp_s(path) in (90.0, None)


def test_the_first_stamp_is_that_of_the_stream_that_the_session_read(tmp_path: Path) -> None:
    answers = stream_info("results", "Results", 1, 0.0, "string")
    told = answers.desc().append_child("recorded")
    told.append_child_value("eeg", "3")
    rows = (answers, np.array([]), [])
    eye, eeg = eeg_stream(start_s=40.0), eeg_stream(eeg_header(kind="Sig"), start_s=50.0)
    write_xdf(tmp_path / "r.xdf", [rows, eye, eeg])
    assert first_stamp_s(tmp_path / "r.xdf") == 50.0
