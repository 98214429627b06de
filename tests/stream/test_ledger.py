"""The ledger sums whatever order announcements and outcomes come in, and survives any crash."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.pipeline.books.ledger import Ledger, read_ledger

REASONS = ("gap", "late", "node_lost")

outcomes = st.one_of(
    st.sampled_from(["decoded", "cut"]).map(lambda outcome: (outcome, {})),
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
    ledger.settle(1, "decoded", ids=["Käse", "\n"], scores=[0.5, -1.0])
    ledger.announce(3)
    ledger.settle(3, "cut")


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
        {"event": "decoded", "trial": 1, "ids": ["Käse", "\n"], "scores": [0.5, -1.0]},
        {"event": "marker", "trial": 3},
        {"event": "cut", "trial": 3},
    ]


def test_nothing_waits_in_memory_for_the_file_to_be_closed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.announce(1)
    assert [record["event"] for record in read_ledger(path)] == ["marker"]
    ledger.settle(1, "decoded")
    assert [record["event"] for record in read_ledger(path)] == ["marker", "decoded"]


def test_an_outcome_whose_marker_never_came_is_told_at_the_end(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.settle(5, "decoded")
    assert ledger.markers == 0
    with pytest.raises(RuntimeError, match=r"\[5\]"):
        ledger.close()
