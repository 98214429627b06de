"""What pages are told of a session, against the same counted slowly from its whole ledger."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.client import (
    Controlled,
    Eeg,
    MarkerSeen,
    NodeState,
    Noted,
    SessionClosed,
    SessionState,
    StreamHealth,
    TrialRef,
)
from stream.dashboard.board.board import KEPT, Board
from stream.dashboard.board.past import told_by
from stream.dashboard.board.signals import Signals
from stream.dashboard.board.verdicts import Files
from stream.dashboard.shelf import Shelf
from stream.pipeline.outputs.settings import OutputSettings
from stream.pipeline.report import accuracy
from stream.pipeline.report.story import Trial, number_runs
from stream.pipeline.wire.config import LiveSource, Presentation, SessionConfig
from stream.pipeline.wire.endpoints import Endpoints

STAMPS = ("window_end", "readable", "cut", "received", "embedded", "searched", "published")


def config(*, blind: bool = False) -> SessionConfig:
    return SessionConfig(
        session="20261122-101500-ab12",
        folder=Path("session"),
        endpoints=Endpoints.local("tcp"),
        source=LiveSource(eeg="EEG", markers="markers"),
        outputs=OutputSettings(blind=blind),
    )


@st.composite
def ledgers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Ledgers of sessions in which images of four groups come again and again."""
    records: list[dict[str, Any]] = []
    for trial in range(1, draw(st.integers(0, 12)) + 1):
        at_s, group = 10.0 + trial, draw(st.sampled_from("pqrs"))
        about = {"stimulus": f"secret {group}", "group": f"secret {group}", "block": 0}
        marker = {"event": "marker", "trial": trial, "repeat": 1, "onset_s": at_s, **about}
        marker |= {"readable_s": at_s, "text": f"secret {group}", "sent_s": at_s, "mark": "m"}
        confidence = draw(st.floats(0.01, 1))
        answer = {"event": "decoded", "trial": trial, "stimulus": f"secret {group}"}
        answer |= {"n_repeats": draw(st.integers(1, 3)), "rank": draw(st.integers(0, 7))}
        answer |= {"tmax_s": 1.0, "ids": ["an image", "b"], "scores": [1.0, 0.5]}
        answer |= {"probabilities": [confidence, 0.0], "abstain": False}
        took_s = draw(st.floats(0.001, 0.02))
        answer |= {"calibrated": draw(st.booleans())}
        answer |= {"stamps": {name: at_s + 1 + i * took_s for i, name in enumerate(STAMPS)}}
        early = {**answer, "event": "provisional", "of_trial": trial, "tmax_s": 0.5}
        del early["trial"]
        dropped = {"event": "dropped", "trial": trial, "reason": "rejected", "detail": "secret"}
        note = {"event": "note", "node": "decode", "text": "secret", "facts": {}, "at_s": at_s}
        ends = draw(st.sampled_from([[early, answer], [answer, note], [dropped], []]))
        records += [marker, *ends]
    return records


def board_of(records: list[dict[str, Any]], *, blind: bool = False, times: int = 1) -> Board:
    board = Board(config(blind=blind), str.title)
    for _ in range(times):
        for message, at_s in told_by(records, str.title, blind=blind):
            board.take(message, at_s)
    return board


@given(ledgers())
def test_sums_and_accuracy_are_those_of_the_report(records: list[dict[str, Any]]) -> None:
    told = board_of(records, times=2).told(100.0, Files())  # what comes again changes nothing
    markers = {record["trial"] for record in records if record["event"] == "marker"}
    ends = Counter(r["event"] for r in records if r["event"] in ("decoded", "dropped"))
    assert told["ledger"]["markers"] == len(markers)
    assert told["ledger"]["pending"] == len(markers) - ends.total()
    assert (told["ledger"]["decoded"], told["ledger"]["dropped"]) == (
        ends["decoded"],
        ends["dropped"],
    )
    assert told["ledger"]["reasons"] == ({"rejected": ends["dropped"]} if ends["dropped"] else {})
    assert told["ledger"]["adds_up"]
    answers = [record for record in records if record["event"] == "decoded"]
    trials = [
        Trial(r["trial"], 0, r["stimulus"], r["stimulus"], "decoded", answer=r) for r in answers
    ]
    number_runs(trials)
    ranked = accuracy.ranked(trials)
    if not ranked:
        assert told["accuracy"] is None
        return
    assert told["accuracy"]["n"] == len(ranked)
    for name, k in (("top1", 1), ("top5", 5)):
        whole = accuracy.running(ranked, k)[-1]
        check(told["accuracy"][name], whole)
        by_repeats = accuracy.by_repeats(ranked, k)
        rows = told["accuracy"]["by_repeats"]
        assert [row["repeats"] for row in rows] == list(by_repeats)
        for row, share in zip(rows, by_repeats.values(), strict=True):
            assert row["n"] == share.n
            check(row[name], share)
    sure = [
        (t.answer["probabilities"][0], t.answer["rank"] == 1)
        for t in ranked
        if t.answer["calibrated"]
    ]
    if sure:
        bins = [[one for one in sure if min(int(one[0] * 10), 9) == at] for at in range(10)]
        ece = sum(abs(sum(right - p for p, right in some)) for some in bins) / len(sure)
        assert told["accuracy"]["calibration"]["n"] == len(sure)
        assert told["accuracy"]["calibration"]["ece"] == pytest.approx(ece, abs=1e-4)
    total = next(row for row in told["latency"] if row["stage"] == "total")
    took_ms = [(r["stamps"]["published"] - r["stamps"]["window_end"]) * 1e3 for r in answers]
    assert (total["n"], total["over"]) == (len(took_ms), sum(ms > 16.7 for ms in took_ms))
    assert total["p95_ms"] == pytest.approx(np.percentile(took_ms, 95), abs=1e-3)


@given(ledgers(), st.randoms(use_true_random=False))
def test_accuracy_is_the_same_in_whatever_order_answers_come(records: list, random: Any) -> None:
    messages = list(told_by(records, str.title, blind=False))
    random.shuffle(messages)
    late = Board(config(), str.title)
    for message, at_s in messages:
        late.take(message, at_s)
    in_order = board_of(records)
    assert late.told(100.0, Files())["accuracy"] == in_order.told(100.0, Files())["accuracy"]


def check(told: dict[str, float], share: accuracy.Share) -> None:
    assert told == pytest.approx(
        {"rate": share.share, "low": share.low, "high": share.high}, abs=1e-4
    )


@given(ledgers())
def test_of_a_blind_session_nothing_shown_is_told(records: list[dict[str, Any]]) -> None:
    board = board_of(records, blind=True)
    everything = [board.told(100.0, Files()), *map(board.trial, board.trials), *board.notes]
    text = json.dumps(everything)
    assert "secret" not in text.lower()
    assert not any(answer["rank"] for told in everything for answer in told.get("answers", ()))
    answers = [record for record in records if record["event"] == "decoded"]
    assert text.count('"an image"') >= len(answers)  # they are there, without the truth


def test_answers_to_trials_that_are_kept_no_more_are_counted_once() -> None:
    records = []
    for trial in range(1, KEPT + 51):
        about = {"stimulus": "a", "n_repeats": 1, "rank": 1, "ids": ["a"], "probabilities": [1.0]}
        answer = {"event": "decoded", "trial": trial, "tmax_s": 1.0, "abstain": False, **about}
        records.append(answer | {"stamps": dict.fromkeys(STAMPS, 0.0)})
    told = board_of(records, times=2).told(0.0, Files())
    assert told["accuracy"]["n"] == KEPT + 50
    assert {row["n"] for row in told["latency"]} == {KEPT + 50}


def test_a_stream_that_is_lost_is_named_and_until_it_is_back_nothing_is_ready() -> None:
    board = Board(config(), str)
    board.take(SessionState("s", 0, "running"), 0.0, "12:03")
    for state, told in (("streaming", "READY since 12:03"), ("lost", "'cap' has sent nothing")):
        board.take(health(state, 6.0), 1.0)
        seen = board.told(1.0, Files("recording.xdf", 1))
        assert seen["sentence"].startswith(told)
        assert seen["ready"] == (state == "streaming")
        assert of("EEG", seen)["level"] == ("ok" if state == "streaming" else "bad")
    board.is_lost = True
    assert {one["level"] for one in board.told(1.0, Files())["verdicts"]} == {"off"}


def health(state: str, age_s: float = 0.001) -> StreamHealth:
    facts = {"rate_hz": 250.0, "drift_ppm": 1.0, "gaps": 0, "age_s": age_s, "flat": []}
    facts |= {"clipped": [], "offset_s": 0.0, "offset_uncertainty_s": 0.0001}
    return StreamHealth("s", 0, "cap", "eeg", state, **facts)


def test_once_its_reader_says_nothing_the_eeg_is_not_called_well_and_its_age_grows() -> None:
    board = Board(config(), str)
    board.take(SessionState("s", 0, "running"), 0.0)
    board.take(health("streaming"), 1.0)
    alive, dead = (board.told(now_s, Files("recording.xdf", 1)) for now_s in (2.0, 3.5))
    assert (alive["ready"], alive["newest_sample_age_ms"]) == (True, 1.0)
    assert (dead["ready"], dead["newest_sample_age_ms"]) == (False, 2501.0)
    assert (of("EEG", dead)["level"], of("EEG", dead)["word"]) == ("bad", "unheard")


def test_that_nothing_comes_any_more_at_the_end_is_no_alarm() -> None:
    board = Board(config(), str)
    board.take(SessionState("s", 0, "painting"), 0.0)
    for message in (health("lost", 17.7), replace(health("lost"), kind="markers")):
        board.take(message, 1.0)
    for now_s in (1.0, 30.0):
        told = board.told(now_s, Files("recording.xdf", 1, still_s=now_s))
        assert "bad" not in {one["level"] for one in told["verdicts"]}
        assert of("EEG", told)["word"] == "over"


@pytest.mark.parametrize(
    ("by", "end", "told"),
    [
        ("session", "finish", "The session's time of 60 s was over: 1 of 2 trials were cut."),
        ("dashboard", "finish", "The session came to its end: 1 of 2 trials were cut."),
        ("dashboard", "stop", "The session was stopped: 1 of 2 trials were cut."),
        ("supervisor", "failed", "The session failed before the first marker."),
    ],
)
def test_how_it_ended_is_told_and_what_became_of_the_trials(by: str, end: str, told: str) -> None:
    board = Board(config().model_copy(update={"duration_s": 60.0}), str)
    if not told.endswith("before the first marker."):
        board.settle(1, "cut", "")
        board.settle(2, "dropped", "gap")
    board.take(Controlled("s", 0, end, "", by, "done", "", 9.0, {}), 9.0)
    board.take(SessionClosed("s", 0, {"end": end}), 10.0)
    assert board.told(10.0, Files())["sentence"] == told


def test_only_the_last_trials_are_kept_and_all_are_counted() -> None:
    board = Board(config(), str)
    for trial in range(1, KEPT + 51):
        about = TrialRef("s", trial, "a", "a", 1, float(trial), 0)
        board.take(MarkerSeen("s", 0, about, float(trial), "a", float(trial), ""), 0.0)
        board.settle(trial, "dropped", "gap")
    assert board.trial(50) is None
    assert board.trial(51)["reason"] == "gap"
    assert board.changed == set(range(51, KEPT + 51))
    assert board.ledger()["dropped"] == KEPT + 50


puts = st.tuples(st.sampled_from(["state", "trial", "note"]), st.integers(0, 5))


@given(st.lists(st.one_of(puts, st.none()), max_size=60), st.integers(1, 3))
def test_a_page_has_the_newest_of_all_whenever_it_looks(events: list, most: int) -> None:
    shelf: Shelf[int] = Shelf({"trial": most, "note": 2})
    there: dict[tuple[str, int | None], int] = {}
    keys: dict[str, list] = {}
    seen, number = dict(there), 0
    for at, event in enumerate([*events, None]):
        if event is not None:
            kind, key = event[0], None if event[0] == "state" else event[1]
            shelf.put(kind, at, key)
            there.pop((kind, key), None)
            there[kind, key] = at
            of_kind = keys.setdefault(kind, [])
            of_kind += [key] * (key not in of_kind)
            if len(of_kind) > {"trial": most, "note": 2}.get(kind, 1):
                del there[kind, of_kind.pop(0)]
            continue
        items = shelf.since(number)  # a page looks, now and then
        assert [item.number for item in items] == sorted(item.number for item in items)
        number = items[-1].number if items else number
        seen_now = [item.said for item in items]
        assert set(seen_now) == set(there.values()) - set(seen.values())
        seen = dict(there)


def eeg(first: int, samples: np.ndarray, rate_hz: float = 100.0) -> Eeg:
    stamps_s = ((first + np.arange(len(samples))) / rate_hz).tolist()
    array = memoryview(np.ascontiguousarray(samples, np.float32))
    return Eeg("s", 0, ["Oz", "Pz"], rate_hz, stamps_s, [], [], array)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_the_mean_of_trials_is_the_same_however_the_eeg_is_cut(sizes: list[int]) -> None:
    rng, response = np.random.default_rng(0), np.sin(np.arange(30) / 5)
    samples, onsets = rng.normal(0, 1, (600, 2)), (100, 220, 400)
    for onset in onsets:
        samples[onset : onset + 30, 0] += 50 * response
    signals = Signals((-0.1, 0.29))
    for trial, onset in enumerate(onsets, 1):
        about = TrialRef("s", trial, "a", "a", 1, onset / 100, 0)
        signals.opened(MarkerSeen("s", 0, about, 0.0, "a", 0.0, ""))
    first = 0
    for size in (*sizes, 600):
        if len(part := samples[first : first + size]):
            signals.take(eeg(first, part))
        first += size
    cut = np.stack([samples[onset - 10 : onset + 30] for onset in onsets])
    cut -= cut[:, :10].mean(axis=1, keepdims=True)
    told = signals.evoked()
    assert (told["n"], len(told["times_s"])) == (3, 40)
    np.testing.assert_allclose(np.array(told["mean_uv"]).T, cut.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(np.array(signals.trial(2)["uv"]).T, cut[1], atol=1e-2)


def test_a_trial_with_a_gap_in_it_is_not_cut_and_the_gap_is_told() -> None:
    signals = Signals((-0.1, 0.29))
    signals.opened(MarkerSeen("s", 0, TrialRef("s", 1, "a", "a", 1, 0.5, 0), 0.0, "a", 0.0, ""))
    before, after = signals.take(eeg(0, np.ones((60, 2)))), signals.take(eeg(70, np.ones((60, 2))))
    assert (before.has_gap, after.has_gap) == (False, True)
    assert signals.n_cut == 0
    assert signals.trial(1)["uv"] is None
    frame = after.frame(misses=False)
    length = int.from_bytes(frame[1:5], "little")
    assert (5 + length) % 4 == 0
    assert json.loads(frame[5 : 5 + length])["gap_before"]
    assert np.frombuffer(frame, "<f4", offset=5 + length).shape == (120,)


def of(part: str, told: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in told["verdicts"] if one["part"] == part)


def test_the_silence_after_all_that_a_demo_shows_is_no_fault_and_one_before_is() -> None:
    board = Board(config().model_copy(update={"demo": Presentation(trials=2)}), str)
    about = {"stimulus": "a", "group": "a", "repeat": 1, "onset_s": 0.0, "block": 0}
    for trial, word in ((1, "stalled"), (2, "all is played")):
        board.take(MarkerSeen("s", 0, TrialRef("s", trial, **about), 0.0, "a", 0.0, ""), 1.0)
        board.take(health("stalled", 0.6), 1.0)
        assert of("EEG", board.told(1.0, Files()))["word"] == word


def test_eeg_that_says_that_it_is_made_up_is_called_so_from_then_on() -> None:
    board = Board(config(), str)
    board.take(Noted("s", 0, "reader", "the stream is there", {}), 1.0)
    assert not board.is_simulated
    board.take(Noted("s", 0, "reader", "it is simulated", {"simulated": True}), 1.0)
    assert board.is_simulated


def test_a_recorder_that_says_nothing_is_told_before_its_file_stands_still() -> None:
    board = Board(config(), str)
    board.take(NodeState("s", 0, "record", "record-1", 0.0, 0.0, "", 0), 10.0)
    for now_s, word in ((14.0, "records"), (16.0, "silent")):
        board.take(health("streaming"), now_s)
        assert of("recorder", board.told(now_s, Files("recording.xdf", 1)))["word"] == word
