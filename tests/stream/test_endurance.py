"""The bench of endurance: each of its promises is broken by what breaks it, and by that alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demo.head import CHANNELS
from stream.bench.endurance.run import names, promises
from stream.bench.measured_session import Answer, MeasuredSession, Usage
from tests.calling import call
from tests.sessions import run

N, SOA_S = 400, 0.1


def answer(trial: int, transit_s: float = 0.002) -> Answer:
    pushed_s = trial * SOA_S
    moments = {"pushed": pushed_s, "readable": pushed_s + transit_s, "received": pushed_s + 0.1}
    return Answer(trial, "x", pushed_s - 1, 1, 1.0, False, ("x",), (1.0,), 1, moments)


def session(**changes: object) -> MeasuredSession:
    at = np.column_stack([12.5 * np.arange(40), np.zeros(40), np.full(40, 1e8), 40 * [30]])
    sums = {"markers": N, "decoded": N, "dropped": {}}
    whole = MeasuredSession(
        Path("x"), tuple(map(answer, range(N))), N, 0, 0, {"reader": Usage(at)}, sums
    )
    return replace(whole, **changes)


def broken(measured: MeasuredSession) -> set[str]:
    return {one.what for one in promises(measured, SOA_S) if one.kept is False}


def test_a_session_that_kept_everything() -> None:
    assert broken(session()) == set()


def test_a_trial_that_is_lost_is_told() -> None:
    whole = session()
    assert broken(replace(whole, answers=whole.answers[:-1])) == {"no trial lost"}


def test_an_answer_that_came_twice_is_told() -> None:
    assert broken(session(n_twice=1)) == {"none answered twice"}


def test_an_answer_before_an_earlier_one_is_told() -> None:
    first, second, *others = session().answers
    assert broken(session(answers=(second, first, *others))) == {"answers in order"}


def test_a_ledger_that_says_otherwise_is_told() -> None:
    sums = {"markers": N, "decoded": N - 1, "dropped": {"gap": 1}}
    assert broken(session(summary=sums)) == {"the ledger's sums"}


def test_a_reader_that_falls_behind_is_told_and_one_that_was_late_once_is_not() -> None:
    behind = tuple(answer(n, 0.002 * n) for n in range(N))
    assert broken(session(answers=behind)) == {"the reader keeps up"}
    once = tuple(answer(n, 0.002 + 2.0 * (n == 300)) for n in range(N))
    assert broken(session(answers=once)) == set()


def test_what_grows_is_told_but_not_of_the_benchmark_itself() -> None:
    grows = session().usage["reader"]
    grows.at[:, 2] += 1e5 * np.arange(40)
    assert broken(session(usage={"decode": grows})) == {"memory of decode flat"}
    assert broken(session(usage={"source": grows})) == set()


def test_labels_are_those_of_the_demo_and_others() -> None:
    assert names(63) == CHANNELS
    assert len(set(names(512))) == 512
    assert names(8) == CHANNELS[:8]


@pytest.mark.slow
def test_a_few_trials_are_endured(tmp_path: Path) -> None:
    size = ("--trials", "20", "--channels", "70", "--rate", "500")
    done = run("bench", "endurance", *size, "--json", tmp_path / "x.json")
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["channels"] == 70
    assert {"reader", "decode", "results", "record"} <= told["cpu"].keys()
    kept = [promise["kept"] for promise in told["promises"]]
    assert all(kept[:4]), done.out  # that nothing grows, no few seconds tell
    assert done.code == (False in kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--chunk", "100000"), "a push of 100,000 samples cannot be: at 1000 Hz, an image every"),
        (("--rate", "10", "--soa", "0.02"), "it takes 1 to 0"),
    ],
)
def test_what_cannot_be_is_refused(asked: tuple[str, ...], said: str, demo_model: object) -> None:
    done = call("bench", "endurance", *asked)
    assert done.code == 2
    assert said in done.err
