"""The ledger sums whatever order announcements and outcomes come in, and survives any crash."""

import json
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.markers import Marker, MarkerRule
from stream.pipeline.books.ledger import Ledger, read_ledger
from stream.pipeline.books.summary import Tally, summary_rows
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.witness import Witness
from tests.mutations import N
from tests.mutations import outcomes as outcomes_of

REASONS = ("gap", "late", "node_lost")
STAMPS = {"window_end": 0.5, "published": 0.75}
ANSWER = {
    "stimulus": "a",
    "n_repeats": 1,
    "tmax_s": 1.0,
    "rank": 1,
    "ids": ["Käse", "\n"],
    "probabilities": [0.5, 0.25],
    "calibrated": True,
    "abstain": False,
    "stamps": STAMPS,
}
CONFIG = SessionConfig(
    session="s",
    folder=Path(),
    endpoints=Endpoints(
        **dict.fromkeys(("trials", "reports", "results", "recording", "control"), "ipc://x")
    ),
    source=LiveSource(eeg="EEG", markers="m"),
)
CUT = {"residual_s": 0.0, "stamps": STAMPS}

outcomes = st.one_of(
    st.sampled_from([("decoded", ANSWER), ("cut", CUT)]),
    st.sampled_from(REASONS).map(lambda reason: ("dropped", {"reason": reason, "detail": "ü"})),
)
settle = st.tuples(st.just("settle"), st.integers(1, 8), outcomes)
announce = st.tuples(st.just("announce"), st.integers(1, 8), st.none())
restart = st.tuples(st.just("restart"), st.none(), st.none())
acts = st.lists(st.one_of(announce, announce, settle, settle, restart), max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ledgers")


def fresh(folder):
    path = folder / "ledger.jsonl"
    path.unlink(missing_ok=True)
    return path


class Books:
    """A plain model: the first outcome of each announced trial counts; a crash forgets the rest."""

    def __init__(self):
        self.announced, self.early, self.settled = [], {}, {}

    def announce(self, trial):
        if trial in self.announced:
            return False
        self.announced.append(trial)
        if trial in self.early:
            self.settled[trial] = self.early.pop(trial)
        return True

    def settle(self, trial, outcome):
        if trial in self.settled or trial in self.early:
            return False
        (self.settled if trial in self.announced else self.early)[trial] = outcome
        return True

    def check(self, ledger):
        counts = Counter(outcome for outcome, _ in self.settled.values())
        reasons = Counter(f["reason"] for _, f in self.settled.values() if "reason" in f)
        assert ledger.markers == len(self.announced)
        assert ledger.outcomes == counts
        assert ledger.reasons == reasons
        assert ledger.pending == tuple(n for n in self.announced if n not in self.settled)
        assert ledger.markers == len(ledger.pending) + ledger.outcomes.total()
        for trial in range(1, 9):
            outcome, facts = self.settled.get(trial, (None, {}))
            told = None if outcome is None else (outcome, facts.get("reason", ""))
            assert ledger.outcome_of(trial) == told


@settings(max_examples=150, deadline=None)
@given(acts)
def test_the_sum_holds_after_every_step(folder, steps):
    path = fresh(folder)
    entered = []
    ledger, books = Ledger(path, entered.append), Books()
    for act, trial, outcome in steps:
        if act == "announce":
            assert ledger.announce(trial, stimulus=f"s{trial}") == books.announce(trial)
        elif act == "settle":
            assert ledger.settle(trial, outcome[0], **outcome[1]) == books.settle(trial, outcome)
        else:  # a killed process: what was early is sent again by the nodes, or lost
            entered.clear()
            ledger, books.early = Ledger(path, entered.append), {}
        books.check(ledger)
        assert entered == read_ledger(path)  # each once, whether it was there or is new
    records = read_ledger(path)
    assert [r["trial"] for r in records if r["event"] == "marker"] == books.announced
    ended = {r["trial"]: r["event"] for r in records if r["event"] != "marker"}
    assert ended == {trial: outcome for trial, (outcome, _) in books.settled.items()}
    assert len(records) == len(books.announced) + len(books.settled)


@pytest.mark.slow
def test_a_file_that_was_cut_at_any_byte_goes_on(tmp_path):
    whole = tmp_path / "whole.jsonl"
    fill(Ledger(whole))
    data, path = whole.read_bytes(), tmp_path / "cut.jsonl"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        file = path.stat().st_ino
        n_whole_lines = data[:length].count(b"\n")
        ledger = Ledger(path)
        assert path.read_bytes() == data[: data[:length].rfind(b"\n") + 1]
        assert path.stat().st_ino == file  # which was cut, not written anew
        assert len(read_ledger(path)) == n_whole_lines
        assert ledger.markers == len(ledger.pending) + ledger.outcomes.total()
        fill(ledger)  # the nodes send again what they have seen no answer to
        ledger.close()
        assert (ledger.markers, ledger.pending) == (3, ())
        assert ledger.outcomes == {"decoded": 1, "cut": 1, "dropped": 1}
        assert ledger.reasons == {"gap": 1}
        assert sorted(map(json.dumps, read_ledger(path))) == sorted(
            map(json.dumps, read_ledger(whole))
        )


def fill(ledger):
    ledger.announce(1, stimulus="Käse", onset_s=0.1)
    ledger.settle(2, "dropped", reason="gap", detail="samples are missing")
    ledger.announce(2, stimulus="b", onset_s=1e-9 + 12345.678)
    ledger.settle(1, "decoded", **ANSWER)
    ledger.announce(3)
    ledger.settle(3, "cut", **CUT)


def test_what_is_read_back_is_what_was_written(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.note("start", session="Größe")
    fill(ledger)
    ledger.close()
    assert read_ledger(path) == [
        {"event": "start", "session": "Größe"},
        {"event": "marker", "trial": 1, "stimulus": "Käse", "onset_s": 0.1},
        {"event": "marker", "trial": 2, "stimulus": "b", "onset_s": 1e-9 + 12345.678},
        {"event": "dropped", "trial": 2, "reason": "gap", "detail": "samples are missing"},
        {"event": "decoded", "trial": 1} | ANSWER,
        {"event": "marker", "trial": 3},
        {"event": "cut", "trial": 3} | CUT,
    ]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_none_as_json_has_no_such(tmp_path, odd):
    path, entered = tmp_path / "ledger.jsonl", []
    ledger = Ledger(path, entered.append)
    ledger.announce(1, stimulus="a", onset_s=odd, readable_s=2.0)
    ledger.settle(1, "cut", residual_s=odd, stamps={"window_end": 1.0})
    ledger.note("note", node="a", text="", facts={"list": [1.0, odd]})

    def refuse(constant):
        raise AssertionError(constant)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert read_ledger(path) == entered
    assert [entered[0]["onset_s"], entered[2]["facts"]] == [None, {"list": [1.0, None]}]


def test_nothing_waits_in_memory_for_the_file_to_be_closed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.announce(1)
    assert [record["event"] for record in read_ledger(path)] == ["marker"]
    ledger.settle(1, "decoded", **ANSWER)
    assert [record["event"] for record in read_ledger(path)] == ["marker", "decoded"]


def test_an_outcome_whose_marker_never_came_is_no_trial_of_the_session(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.settle(5, "decoded", **ANSWER)
    assert (ledger.markers, ledger.unannounced) == (0, (5,))
    ledger.close()
    assert read_ledger(tmp_path / "ledger.jsonl") == []


# --- what a power cut, a full disk or a stranger has done to it -----------------------------------

WHOLE = b"".join(
    json.dumps(record, separators=(",", ":")).encode() + b"\n"
    for record in (
        {"event": "start", "session": "s", "node": "results-1"},
        {"event": "marker", "trial": 1, "stimulus": "a", "group": "a", "repeat": 1},
        {"event": "marker", "trial": 2, "stimulus": "b", "group": "b", "repeat": 1},
        {"event": "provisional", "of_trial": 1} | ANSWER,
        {"event": "decoded", "trial": 1} | ANSWER,
        {"event": "dropped", "trial": 2, "reason": "gap", "detail": ""},
        {"event": "note", "node": "paint", "text": "", "facts": {"size_px": 64}},
        {"event": "stream", "name": "EEG", "state": "stalled", "age_s": 0.25},
        {"event": "end", "reason": "finish"},
    )
)
LINES = WHOLE.splitlines(keepends=True)


def opened(path, data):
    """What a ledger that was damaged comes to, for those who read it and who go on with it."""
    path.write_bytes(data)
    told, entered = [], []
    records = read_ledger(path, told.append)
    ledger = Ledger(path, entered.append)
    ledger.close()
    assert path.read_bytes() == data[: data.rfind(b"\n") + 1]  # nothing but half a line is gone
    assert records == entered
    assert told == [ledger.damage] * bool(ledger.damage)
    assert ledger.markers == len(ledger.pending) + ledger.outcomes.total()
    return ledger, records


@pytest.mark.parametrize(
    "damaged",
    [
        LINES[1][:20] + LINES[1],
        bytes(64) + b"\n",
        LINES[1][:-3] + b"\xc3\n",
        b"17\n",
        b"{}\n",
        b'{"event":["marker"]}\n',
        b'{"event":"marker"}\n',
        b'{"event":"marker","trial":"1"}\n',
        b'{"event":"marker","trial":-1}\n',
        b'{"event":"dropped","trial":9,"reason":"bored","detail":""}\n',
        b'{"event":"decoded","trial":9,"rank":1}\n',
        b'{"event":"surprise"}\n',
        b"[" * 100_000 + b"\n",
        LINES[5],  # once more
        LINES[1],
    ],
)
def test_a_damaged_line_is_left_out_and_told_and_what_is_whole_is_used(tmp_path, damaged):
    whole, _ = opened(tmp_path / "ledger.jsonl", WHOLE)
    assert whole.damage == ""
    data = b"".join(LINES[:-1]) + damaged + LINES[-1]
    ledger, records = opened(tmp_path / "ledger.jsonl", data)
    assert len(records) == len(LINES)
    assert ledger.damage == (
        "a line of ledger.jsonl is damaged and left out; what is whole is used"
    )
    assert (ledger.markers, ledger.outcomes) == (whole.markers, whole.outcomes)


def test_an_outcome_stands_for_its_marker_where_that_line_is_damaged(tmp_path):
    data = WHOLE.replace(b'"marker","trial":2', b'"marker","trial":}')
    ledger, records = opened(tmp_path / "ledger.jsonl", data)
    assert (ledger.markers, ledger.pending, len(records)) == (2, (), len(LINES) - 1)
    assert (ledger.outcomes, ledger.reasons) == ({"decoded": 1, "dropped": 1}, {"gap": 1})
    assert not Ledger(tmp_path / "ledger.jsonl").announce(2)


def test_a_ledger_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(Problem, match=r"ledger.jsonl' cannot be read \(No such file"):
        read_ledger(tmp_path / "ledger.jsonl")


def test_chance_is_that_of_the_gallery_that_each_answer_was_given_from(tmp_path):
    tally = Tally(CONFIG, 4)
    for n_answers, n_old in ((1, 10), (3, 2)):
        for _ in range(n_answers):
            tally.count({"event": "decoded"} | ANSWER)
        tally.count({"event": "control", "verb": "gallery", "facts": {"n_old": n_old}})
    tally.count({"event": "control", "verb": "mark", "facts": {}})
    summary = tally.summary(Ledger(tmp_path / "ledger.jsonl"), "finish")
    assert (summary["n"], summary["n_way"], summary["n_way_before"]) == (4, 4, [10, 2])
    assert summary["chance"] == pytest.approx((1 / 10 + 3 * 1 / 2) / 4)
    rows = dict(summary_rows(summary | {"streams": {}}))
    assert rows["4-way"] == "n = 4, before among 10, 2: chance is their mean"


@pytest.mark.slow
def test_whatever_is_done_to_a_ledger_its_sums_hold(tmp_path):
    def read(data):
        tally = Tally(CONFIG, 8)
        path = tmp_path / "ledger.jsonl"
        ledger, records = opened(path, data)
        for record in records:
            tally.count(record)
        n_read = data.count(b"\n")
        assert len(records) == n_read - int(re.match(r"\d+|", damage_of(ledger)).group() or 0)
        json.dumps(tally.summary(ledger, "finish"))
        list(summary_rows(tally.summary(ledger, "finish") | {"streams": {}}))

    assert outcomes_of(read, WHOLE) == N


def damage_of(ledger):
    return ledger.damage.replace("a line", "1 line")


def test_a_marker_that_is_entered_under_another_number_has_its_outcome(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.announce(7)
    ledger.settle(7, "dropped", reason="node_lost", detail="")
    ledger.settle(2, "decoded")
    ledger.same(2, 7)
    assert not ledger.announce(2)
    assert not ledger.settle(2, "cut")
    assert ledger.outcome_of(2) == ("dropped", "node_lost")
    assert (ledger.markers, ledger.outcomes) == (1, {"dropped": 1})
    assert {record["trial"] for record in read_ledger(path)} == {7}


@pytest.mark.slow
def test_a_trial_that_is_over_leaves_few_bytes_in_memory(tmp_path):
    """Of an answer's 600 bytes in the file, in the books of the results node."""
    tally, witness = Tally(CONFIG, 4), Witness(MarkerRule(), tmp_path / "switch")
    ledger = Ledger(tmp_path / "ledger.jsonl", tally.count)

    def end(first, last):
        for trial in range(first, last):
            ends_s = trial / 7
            marker = Marker(ends_s, "stimulus", ends_s)
            witness.announced(marker.mark)
            witness.saw(marker)
            ledger.announce(trial, stimulus="stimulus", readable_s=ends_s)
            stages = ("window_end", "readable", "cut", "received", "embedded", "searched")
            stamps = dict.fromkeys((*stages, "published"), ends_s)
            ledger.settle(trial, "decoded", **ANSWER | {"stamps": stamps})
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = end(1, 2000)
    assert (end(2000, 4000) - before) / 2000 < 250
    tracemalloc.stop()


def test_a_restart_reads_line_by_line(tmp_path):
    path, line = tmp_path / "ledger.jsonl", LINES[-2]
    path.write_bytes(b"".join(LINES[:-1]) + 20_000 * line)
    tracemalloc.start()
    ledger = Ledger(path)
    assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 4
    tracemalloc.stop()
    ledger.close()
