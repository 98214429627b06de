"""The demo from end to end, as a person runs it: real LSL between processes, a trained network."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from demo.evaluation import evaluate_demo
from demo.model import DemoModel
from demo.settings import DemoSettings
from offline_train.evaluate.settings import EvaluateSettings
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.wire.config import RESERVED
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
    wait_for_ledger,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("demo_model")]
# A painter loads for longer than these sessions last.
PLAIN = ("--no-paint", "--headless")


def test_accuracy_rises_with_amplitude_and_with_repeats(
    demo_model: DemoModel, tmp_path: Path
) -> None:
    at = {}
    for amplitude in (0.0, 1.0):
        folder = tmp_path / str(amplitude)
        (at[amplitude],) = evaluate_demo(
            demo_model.bundle,
            demo_model.gallery,
            folder,
            EvaluateSettings(repeats=(1, 4)),
            amplitude=amplitude,
            soa_s=DemoSettings().soa_s,  # at which it was calibrated, too
        )
    once = [at[amplitude].points[0].top5.value for amplitude in sorted(at)]
    often = [at[amplitude].points[1].top5.value for amplitude in sorted(at)]
    assert once == sorted(once)
    assert often == sorted(often)
    assert all(many > one for one, many in zip(once[1:], often[1:], strict=True))
    silent = at[0.0].points[0].top5
    assert silent.low < 5 / 200 < silent.high + 0.01
    assert at[1.0].pooled.ece.value < 0.05  # at the amplitude that the bundle was calibrated at


def test_a_results_node_that_dies_goes_on_with_its_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 12, "--soa", 0.4, *PLAIN, "--out", folder)
    wait_for_decoded(folder, 4)
    os.kill(node_pid(folder, "results"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert told["decoded"] == told["n"] == 12


def test_a_reader_that_dies_is_restarted_and_its_open_trials_are_accounted(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 200, "--soa", 0.4, *PLAIN, "--out", folder)
    wait_for_decoded(folder, 2)
    os.kill(node_pid(folder, "reader"), signal.SIGKILL)
    wait_for_ledger(folder, a_new_reader_has_decoded)
    interrupt(process)
    done = finish(process)
    assert done.code == 1
    told = check_accounted(folder)
    lost = lost_trials(read_ledger(folder / "ledger.jsonl"))
    assert 0 < len(lost) == told["dropped"]["node_lost"]
    assert done.one_sentence().startswith(f"{len(lost)} of {told['markers']} trials were lost")
    assert not [trial for trial in lost if trial <= 2]
    # What came while no reader was there is in the ledger too, and numbered in its place.
    markers = sorted(trials_of(folder, "marker"), key=lambda record: record["trial"])
    onsets_s = [record["onset_s"] for record in markers]
    np.testing.assert_allclose(np.diff(onsets_s), 0.4, atol=1e-3)
    first = trials_of(folder, "listening")[-1]["first"]
    assert RESERVED < first == min(r["trial"] for r in markers if r["trial"] > RESERVED)
    assert any(first - RESERVED <= trial < first for trial in lost)
    assert told["unheard_s"] == []


def lost_trials(records: Sequence[dict[str, Any]]) -> list[int]:
    return [r["trial"] for r in records if r.get("reason") == "node_lost"]


def a_new_reader_has_decoded(records: Sequence[dict[str, Any]]) -> bool:
    lost = lost_trials(records)
    return bool(lost) and any(r["event"] == "decoded" and r["trial"] > RESERVED for r in records)


def test_a_subject_that_dies_is_a_failure_with_every_marker_accounted(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 200, "--soa", 0.4, *PLAIN, "--out", folder)
    wait_for_decoded(folder, 2)
    os.kill(source_pid(folder, "demo.live_subject"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 1
    assert done.one_sentence() == "the source of the streams died (signal 9)"
    told = check_accounted(folder)
    assert told["dropped"]["no_data"] >= 1


def test_ctrl_c_ends_the_session_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 200, "--soa", 0.4, *PLAIN, "--out", folder)
    wait_for_decoded(folder, 2)
    interrupt(process)
    done = finish(process)
    assert done.code == 130
    assert "Traceback" not in done.out + done.err
    told = check_accounted(folder)
    assert told["dropped"]["shutdown"] >= 1
    assert read_ledger(folder / "ledger.jsonl")[-1] == {"event": "end", "reason": "stop"}


def test_a_subject_without_evoked_responses_decodes_at_chance(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    shown = ("--trials", 60, "--repeats", 1, "--soa", 0.1, "--amplitude", 0, "--seed", 3)
    done = run(*shown, *PLAIN, "--out", folder)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    top5 = sum(r["rank"] <= 5 for r in trials_of(folder, "decoded"))
    assert told["decoded"] == 60
    assert binomtest(top5, 60, 5 / 200).pvalue > 0.001
