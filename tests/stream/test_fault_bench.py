"""The fault bench: its faults can be put in, and what it says of a session is so."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream.bench.faults import session, soak
from stream.bench.faults.table import FAULTS, Outcome, _with_rows, judge_trials, judged, row
from tests.sessions import run

FAULT_S = 100.0


class Session(SimpleNamespace):
    """What the bench looks at of a session that is over: an image every 0.5 s, from 96 s on."""

    def __init__(
        self, folder: Path, ends: dict[int, Any], fault: str = "kill-results", **more: Any
    ):
        stamps_s = [96.0 + n / 2 for n in range(16)]
        records: list[dict[str, Any]] = [{"event": "note", "text": "before"}]
        records += [
            {"event": "marker", "trial": n, "onset_s": stamps_s[n]} for n in range(16) if n in ends
        ]
        for n, end in ends.items():
            if isinstance(end, str):
                records.append({"event": "dropped", "trial": n, "reason": end})
            else:
                stamps = {"window_end": stamps_s[n] + 1, "published": stamps_s[n] + 1 + end}
                records.append({"event": "decoded", "trial": n, "stamps": stamps})
        records.append({"event": "note", "text": f"in {folder} results died"})
        (folder / "summary.json").write_text(json.dumps({"markers": len(ends)}))
        (folder / "report.html").touch()
        super().__init__(
            fault=FAULTS[fault],
            records=lambda: records,
            sent_s=lambda: stamps_s,
            met=slice(1, None),
            said=lambda log: [],
            left=list,
            session=SimpleNamespace(returncode=130, poll=lambda: 130),
            **dict.fromkeys(("base", "folder", "tmp"), folder),
            **{"failure": "", "fault_s": FAULT_S, "over_s": 108.0} | more,
        )


def on_time(**others: Any) -> dict[int, Any]:
    return dict.fromkeys(range(16), 0.01) | {int(name[1:]): end for name, end in others.items()}


def test_a_session_that_kept_everything(tmp_path: Path) -> None:
    outcome = judged(Session(tmp_path, on_time()))
    assert (outcome.back_s, outcome.n_late, outcome.n_lost) == (0.0, 0, 0)
    assert outcome.broken == []
    assert outcome.sees == ["in … results died"]
    told = "| the results node is killed | in … results died | 0.0 | 0 | 0 | 0 | kept |"
    assert row(FAULTS["kill-results"], outcome) == told


def test_late_answers_tell_when_they_were_on_time_again(tmp_path: Path) -> None:
    # Trial 7 ends at 100.5 s; 10 ends at 102 s and is the last late one, 11 ends at 102.5 s.
    outcome = judged(Session(tmp_path, on_time(_7=1.6, _8=1.1, _10=0.3, _3=0.4)))
    assert (outcome.n_late, outcome.back_s, outcome.broken) == (3, 2.5, [])
    outcome = judged(Session(tmp_path, on_time(_7=1.6, _13=0.3)))
    assert outcome.broken == ["not within 3 s"]
    outcome = judged(Session(tmp_path, on_time(_15=0.3)))
    assert outcome.broken == ["not within 3 s"]  # but never


def test_what_the_reader_lost_is_told_by_onsets(tmp_path: Path) -> None:
    outcome = judged(Session(tmp_path, on_time(_8="node_lost", _9="node_lost"), "kill-reader"))
    assert (outcome.back_s, outcome.dropped) == (1.0, {"node_lost": 2})  # 10 begins at 101 s
    outcome = judged(Session(tmp_path, on_time(_8="node_lost")))
    assert outcome.broken == ["dropped as node_lost"]


def test_a_marker_without_an_end_is_lost(tmp_path: Path) -> None:
    ends = on_time()
    del ends[8], ends[9]
    outcome = judged(Session(tmp_path, ends))
    assert (outcome.n_lost, outcome.back_s) == (2, 2.0)
    assert outcome.broken == ["2 markers lost"]
    assert judged(Session(tmp_path, ends, "terminate", over_s=101.0)).n_lost == 0  # sent to nobody


def test_every_other_promise_is_looked_at(tmp_path: Path) -> None:
    session = Session(tmp_path, on_time(), "terminate", over_s=120.0, failure="no results")
    session.left = lambda: ["reader", "record"]
    session.said = lambda log: ["Traceback (most recent call last):"]
    (tmp_path / "hvf-live-0").mkdir()
    assert "temporary folder" not in " ".join(judged(session).broken)
    (tmp_path / "hvf-x").mkdir()
    (tmp_path / "report.html").unlink()
    broken = " ".join(judged(session).broken)
    for word in ("no results", "not within 15 s", "exit status 130", "traceback", "2 processes"):
        assert word in broken
    assert "no report.html" in broken
    assert "temporary folder" in broken
    session = Session(tmp_path, on_time(), "terminate", over_s=101.0)
    first = [record for record in session.records() if record.get("trial") == 0]
    again = [*session.records(), *({**record, "trial": 99} for record in first)]
    session.records = lambda: again
    assert judged(session).broken[-1] == "1 markers entered twice"
    session.folder = tmp_path / "other"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.html").touch()
    (tmp_path / "other" / "summary.json").write_text('{"markers": 15}')
    assert "the summary has another sum" in judged(session).broken


def test_a_page_keeps_the_rows_that_are_not_new() -> None:
    def line(name: str, text: str) -> str:
        return f"| {FAULTS[name].what} | {text} |"

    old = [line("kill-decode", "old"), line("kill-reader", "old"), "| a fault of before | old |"]
    page = "# Page\n\nMeasured with 1 cores.\n\n| fault | x |\n|---|---|\n" + "\n".join(old)
    rows = {"kill-reader": line("kill-reader", "new"), "none": line("none", "new")}
    lines = _with_rows(page + "\n\nThe end | of it.\n", rows, "Measured with 2 cores.").splitlines()
    assert lines[:4] == ["# Page", "", "Measured with 2 cores.", ""]
    expected = [rows["none"], line("kill-decode", "old"), rows["kill-reader"]]
    assert lines[6:] == [*expected, "", "The end | of it."]


@pytest.mark.slow
def test_a_fault_is_put_into_a_session(tmp_path: Path) -> None:
    asked = ("--only", "odd-markers", "--keep", tmp_path)
    done = run("bench", "faults", *asked)
    head, line = [line for line in done.out.splitlines() if line.startswith("| ")]
    assert head.count("|") == line.count("|")
    what, _, _, _, dropped, lost, kept = line.strip("| ").split(" | ")
    assert what == FAULTS["odd-markers"].what
    assert (dropped, lost) == ("5 unknown_stimulus", "0"), line
    assert kept in ("kept", "not within 3 s")  # on a machine with much other work


@pytest.mark.parametrize("name", FAULTS)
def test_every_step_is_one_that_can_be_done(name: str) -> None:
    text = Path(session.__file__).read_text()
    words = set(re.findall(r'case \["(\w+)"', text)) | {"KILL", "STOP", "TERM", "INT", "HUP"}
    assert {step.split()[0] for step in FAULTS[name].steps} <= words


def test_in_a_long_session_answers_are_back_once_they_stay_on_time() -> None:
    def back_s(fault: str, *late_s: float) -> float | None:
        """Where trials that ended so long after the fault were late."""
        sent = [
            (99 + n / 10, {"event": "decoded", "stamps": {"window_end": 0, "published": late}})
            for n in range(1, 300)
            for late in [0.3 * (round(n / 10, 1) in late_s)]
        ]
        outcome = Outcome()
        judge_trials(outcome, FAULTS[fault], FAULT_S, sent, for_s=2.0)
        assert outcome.n_late == len(late_s)
        return outcome.back_s and round(outcome.back_s, 1)

    assert back_s("kill-results") == 0
    assert back_s("kill-results", 0.1, 0.5, 1.5) == 1.6
    assert back_s("kill-results", 0.1, 0.5, 20.0) == 0.6  # one that is late later is no fault's
    assert back_s("kill-decode-twice", 0.5, 4.5, 5.5) == 5.6  # its second half comes after 4 s
    assert back_s("stop-record") == 0
    assert back_s("kill-results", *(round(n / 10, 1) for n in range(1, 300))) is None


@pytest.mark.slow
def test_a_session_is_soaked_in_faults(tmp_path: Path) -> None:
    asked = ("--only", "kill-results", "--minutes", "0.2", "--seed", "34")  # early
    done = run("bench", "soak", *asked, "--json", tmp_path / "soak.json")
    told = json.loads((tmp_path / "soak.json").read_text())
    assert (told["seed"], len(told["met"])) == (34, 1), done.out
    kept = {one["what"]: one["kept"] for one in told["promises"]}
    for what in ("every marker ends once", "faults put in", "recordings readable and whole"):
        assert kept[what], done.out
    # How soon a node is there again and answers are on time is the machine's.
    assert done.code == (False in kept.values())


def test_a_soak_that_is_asked_to_end_ends_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def put_in(fault: Any) -> str:
        done.append(fault.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(soak, "_HOLD_S", -soak.WINDOW_S)
    bath = soak.Soak(
        SimpleNamespace(
            session=SimpleNamespace(pid=os.getpid(), poll=lambda: None),
            put_in=put_in,
            do=done.append,
            end=lambda: done.append("end"),
            wait_for_end=lambda: done.append("wait"),
        ),
        60.0,
    )
    with pytest.raises(KeyboardInterrupt):
        bath.run([(0.0, FAULTS["kill-results"]), (0.0, FAULTS["kill-decode"])])
    assert done == ["kill-results", "tell mute markers", "end", "wait"]
    assert [met.fault.name for met in bath.met] == ["kill-results"]
