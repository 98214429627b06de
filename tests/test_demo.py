"""The demo from end to end, as a person runs it: real LSL between processes, a trained network."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import binomtest

from demo.evaluation import evaluate_demo
from demo.model import ready_model
from stream.acquire.ledger import read_ledger
from stream.acquire.lsl import find_stream, pylsl
from tests.sessions import (
    check_accounted,
    finish,
    interrupt,
    node_pid,
    run,
    source_pid,
    start,
    trials_of,
    wait_for_decoded,
)


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory):
    """The demo's model, trained once for all tests here, as on a fresh machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVF_LIVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("first") / "session"
        done = run("--trials", 2, "--soa", 0.4, "--headless", "--out", folder, timeout_s=400)
        assert done.code == 0, done.err
        assert "First run" in done.out
        yield Path(os.environ["HVF_LIVE_CACHE"])


def test_every_trial_is_decoded_and_the_offline_answers_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    done = run("--trials", 24, "--repeats", 2, "--soa", 0.5, "--headless", "--out", folder)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert told["markers"] == told["decoded"] == told["n"] == 24
    assert told["n_way"] == 200
    assert [r["trial"] for r in trials_of(folder, "decoded")] == list(range(1, 25))
    assert set(told["by_repeats"]) == {"1", "2"}
    assert set(told["latency_ms"]) == {"lsl", "cut", "hop", "embed", "search", "publish", "total"}
    assert "chance 0.5%" in done.out

    again = run("evaluate", "--session", folder, module="offline_train")
    assert again.code == 0, again.out + again.err
    assert "24 with the same list of answers" in again.out


def test_answers_go_out_on_lsl(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 12, "--soa", 0.3, "--headless", "--out", folder)
    inlet = pylsl.StreamInlet(find_stream("hvf-live-results", wait_s=60).info)
    answers = []
    deadline_s = time.monotonic() + 60
    while len(answers) < 12 and time.monotonic() < deadline_s:
        sample, _ = inlet.pull_sample(timeout=0.5)
        answers += [json.loads(sample[0])] if sample else []
    assert finish(process).code == 0
    assert [answer["trial"] for answer in answers] == list(range(1, 13))
    told = {r["trial"]: r["ids"] for r in trials_of(folder, "decoded")}
    assert {answer["trial"]: answer["ids"] for answer in answers} == told


def test_accuracy_rises_with_amplitude_and_with_repeats(tmp_path: Path) -> None:
    model = ready_model(Console())
    at = {}
    for amplitude in (0.0, 0.5, 1.0, 2.0):
        folder = tmp_path / str(amplitude)
        at[amplitude] = evaluate_demo(
            model.bundle, model.gallery, folder, amplitude=amplitude, repeats=[1, 8]
        )
    once = [at[amplitude].points[0].top5.value for amplitude in sorted(at)]
    often = [at[amplitude].points[1].top5.value for amplitude in sorted(at)]
    assert once == sorted(once)
    assert often == sorted(often)
    assert all(many > one for one, many in zip(once[1:], often[1:], strict=True))
    silent = at[0.0].points[0].top5
    assert silent.low < 5 / 200 < silent.high + 0.01


def test_a_decoder_that_dies_delays_answers_and_loses_none(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 18, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 6)
    os.kill(node_pid(folder, "decode"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    assert "decode died (signal 9) and is restarted" in done.out
    told = check_accounted(folder)
    assert told["decoded"] == 18


def test_a_results_node_that_dies_goes_on_with_its_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 18, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 6)
    os.kill(node_pid(folder, "results"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert told["decoded"] == told["n"] == 18


def test_a_reader_that_dies_is_restarted_and_its_open_trials_are_accounted(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 24, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 6)
    os.kill(node_pid(folder, "reader"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert 0 < told["dropped"]["node_lost"] <= 4
    assert told["decoded"] >= 10


def test_a_subject_that_dies_is_a_failure_with_every_marker_accounted(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 40, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 6)
    os.kill(source_pid(folder, "demo.live_subject"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 1
    assert done.one_sentence() == "the source of the streams died (signal 9)"
    told = check_accounted(folder)
    assert told["dropped"]["no_data"] >= 1


def test_ctrl_c_ends_the_session_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 40, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 6)
    interrupt(process)
    done = finish(process, timeout_s=20)
    assert done.code == 130
    assert "Traceback" not in done.out + done.err
    told = check_accounted(folder)
    assert told["dropped"]["shutdown"] >= 1
    assert read_ledger(folder / "ledger.jsonl")[-1] == {"event": "end", "reason": "stop"}


def test_a_subject_without_evoked_responses_decodes_at_chance(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    done = run(
        *(
            "--trials",
            60,
            "--soa",
            0.2,
            "--amplitude",
            0,
            "--headless",
            "--out",
            folder,
            "--seed",
            3,
        )
    )
    assert done.code == 0, done.err
    told = check_accounted(folder)
    top5 = sum(r["rank"] <= 5 for r in trials_of(folder, "decoded"))
    assert told["decoded"] == 60
    assert binomtest(top5, 60, 5 / 200).pvalue > 0.001
