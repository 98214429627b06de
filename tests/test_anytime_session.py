"""Answers before the end, live and in virtual time, as a person asks for them on the command line.

One live session of the demo is recorded, and its recording decoded again in many ways.
"""

import json
import os
import re
import shutil
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from demo.head import CHANNELS
from demo.model import DemoModel
from demo.settings import DemoSettings
from demo.subject import SimulatedSubject, SubjectSettings
from offline_train.evaluate.session import evaluate_session
from stream.acquire.lsl import find_stream, pylsl
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.wire.config import read_config
from tests.calling import Done, call
from tests.sessions import (
    PATIENCE_S,
    check_accounted,
    finish,
    node_pid,
    start,
    summary,
    trials_of,
    wait_for_decoded,
)

pytestmark = pytest.mark.slow
N_TRIALS = 8
EARLY_S = (0.3, 0.5)
END_S = 0.996  # of the bundle's window; 1.0 means that, being within a sample of it
N_ANSWERS = N_TRIALS * (len(EARLY_S) + 1)


@dataclass(frozen=True)
class Played:
    """A session that has ended, and what it said."""

    folder: Path
    done: Done

    @property
    def answers(self) -> dict[tuple[int, float], dict]:
        """Provisional and final ones by trial and time, in the order of the ledger."""
        found = {}
        for record in read_ledger(self.folder / "ledger.jsonl"):
            if record["event"] in ("provisional", "decoded"):
                trial = record["trial" if record["event"] == "decoded" else "of_trial"]
                assert (trial, record["tmax_s"]) not in found
                found[trial, record["tmax_s"]] = record
        return found

    @property
    def ids(self) -> dict[tuple[int, float], list[str]]:
        return {at: answer["ids"] for at, answer in self.answers.items()}


@pytest.fixture(scope="module")
def live(demo_model: DemoModel, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Eight trials of four images; what came out of the LSL outlet is in `lsl.json`."""
    folder = tmp_path_factory.mktemp("live") / "session"
    process = start(
        *("--trials", N_TRIALS, "--repeats", 2, "--soa", 0.5, "--tmax", "0.3,0.5,1.0"),
        *("--no-paint", "--headless", "--out", folder),
    )
    found = find_stream("hvf-live-results", wait_s=PATIENCE_S)
    assert found.source_id.endswith(read_config(folder / "config.json").session)
    inlet = pylsl.StreamInlet(found.info)
    inlet.open_stream(PATIENCE_S)
    heard: list[dict] = []
    while not heard or heard[-1]["event"] != "ended":
        (text,), _ = inlet.pull_sample(timeout=PATIENCE_S)
        heard.append(json.loads(text))
    done = finish(process)
    assert done.code == 0, done.err
    (folder / "lsl.json").write_text(json.dumps(heard))
    return Played(folder, done)


@pytest.fixture(scope="module")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def virtual(live: Played, engine_cache: Path, demo_model: DemoModel) -> Played:
    """The recording of the live session in virtual time, with an engine that is not to be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVF_LIVE_CACHE", str(engine_cache))
        out = live.folder.with_name("virtual")
        return replayed(live, demo_model, out, "--engine", "tensorrt")


def replayed(live: Played, model: DemoModel, out: Path, *options: str | Path) -> Played:
    """Decodes a live session's recording again, in virtual time."""
    done = call(
        *("replay", live.folder / "recording.xdf", "--speed", "max", "--tmax", "0.3,0.5"),
        *("--bundle", model.bundle, "--gallery", model.gallery, "--headless", "--out", out),
        *options,
    )
    assert done.code == 0, done.err
    told = check_accounted(out)
    assert told["decoded"] == told["n"] == N_TRIALS
    assert {tmax: row["n"] for tmax, row in told["by_tmax"].items()} == {"0.3": 8, "0.5": 8}
    return Played(out, done)


def finals(played: Played, fact: str) -> list:
    return [answer[fact] for answer in trials_of(played.folder, "decoded")]


def test_every_trial_has_its_provisional_answers_before_the_final_one(live: Played) -> None:
    told = check_accounted(live.folder)
    assert told["decoded"] == told["n"] == N_TRIALS
    times_s = defaultdict(list)
    for (trial, tmax_s), answer in live.answers.items():
        times_s[trial].append((tmax_s, answer["event"]))
    expected = [*((tmax_s, "provisional") for tmax_s in EARLY_S), (END_S, "decoded")]
    assert times_s == dict.fromkeys(range(1, N_TRIALS + 1), expected)


def test_repeats_are_counted_with_the_one_that_is_going_on(live: Played) -> None:
    markers = {r["trial"]: r["repeat"] for r in trials_of(live.folder, "marker")}
    assert Counter(markers.values()) == {1: 4, 2: 4}
    for (trial, _), answer in live.answers.items():
        assert answer["n_repeats"] == markers[trial]


def test_probabilities_are_calibrated_and_fall(live: Played) -> None:
    for answer in live.answers.values():
        probabilities = answer["probabilities"]
        assert answer["calibrated"] is True
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == len(answer["ids"]) == 5
        assert 0 < sum(probabilities) <= 1


def test_the_lsl_outlet_gives_what_the_ledger_has(live: Played) -> None:
    told = json.loads((live.folder / "lsl.json").read_text())
    assert told[-1]["event"] == "ended"
    heard = [one for one in told if one["event"] in ("provisional", "decoded")]
    # LSL gives nothing of before one was connected, which on a busy machine takes its time.
    assert 0 < len(heard) <= N_ANSWERS
    for answer in heard:
        assert answer["confidence"] == answer["probabilities"][0]
        assert answer["provisional"] == (answer["tmax_s"] != END_S)
    told = {(answer["trial"], answer["tmax_s"]): answer["ids"] for answer in heard}
    assert list(told.items()) == list(live.ids.items())[-len(heard) :]


def test_the_summary_tells_of_early_answers_confidence_and_engine(live: Played) -> None:
    told = summary(live.folder)
    assert list(told["by_tmax"]) == ["0.3", "0.5"]
    for tmax, row in told["by_tmax"].items():
        ranks = [r["rank"] for (_, end_s), r in live.answers.items() if end_s == float(tmax)]
        assert row["n"] == len(ranks) == N_TRIALS
        assert row["top5"] == sum(rank <= 5 for rank in ranks) / N_TRIALS
    sure = [probabilities[0] for probabilities in finals(live, "probabilities")]
    assert told["confidence"]["mean"] == pytest.approx(np.mean(sure), abs=1e-4)
    assert told["confidence"]["abstained"] == 0
    assert told["n_way"] == 200
    assert set(told["by_repeats"]) == {"1", "2"}
    assert set(told["latency_ms"]) == {"lsl", "cut", "hop", "embed", "search", "publish", "total"}
    assert "chance 0.5%" in live.done.out
    assert told["decoder"]["precision"] == "fp32"
    assert f"the engine is {told['decoder']['engine']} in fp32" in live.done.out


def test_a_live_session_is_decoded_the_same_offline(live: Played) -> None:
    again = call("evaluate", "--session", live.folder, module="offline_train")
    assert again.code == 0, again.out + again.err
    assert f"{N_TRIALS} with the same list of answers" in again.out


def test_answers_in_virtual_time_are_those_of_the_live_session(live, virtual) -> None:
    assert virtual.ids == live.ids
    assert finals(virtual, "n_repeats") == finals(live, "n_repeats")


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU there may be TensorRT")
def test_an_engine_that_cannot_run_is_said_with_what_is_used(virtual: Played) -> None:
    assert re.search(
        r"decode: engine tensorrt cannot run: no CUDA device; (\w+) is used\n(.*\n)*"
        r"decode: the engine is \1 in fp32\n",
        virtual.done.out,
    )


def test_torch_gives_the_same_lists_and_unsure_answers_abstain(
    live: Played, demo_model: DemoModel, tmp_path: Path
) -> None:
    options = ("--engine", "torch", "--min-confidence", "0.99")
    unsure = replayed(live, demo_model, tmp_path / "session", *options)
    facts = {
        "engine": "torch",
        "precision": "fp32",
        "search": "exact",
        "is_exact": True,
        "device": "cpu",
    }
    assert summary(unsure.folder)["decoder"] == facts
    assert unsure.ids == live.ids
    assert all(answer["abstain"] for answer in unsure.answers.values())
    told = summary(unsure.folder)["confidence"]
    assert told["abstained"] == N_TRIALS
    assert told["top1_of_given"] is None
    assert f"{N_TRIALS} abstained" in unsure.done.out


def test_a_damaged_engine_is_said_and_made_anew(
    live, virtual, engine_cache: Path, demo_model, tmp_path, monkeypatch
) -> None:
    engine = summary(virtual.folder)["decoder"]["engine"]
    (file,) = (*engine_cache.glob("*/network.onnx"), *engine_cache.glob("*/residual.so"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes(255 - b for b in whole[middle:]))
    monkeypatch.setenv("HVF_LIVE_CACHE", str(engine_cache))
    again = replayed(live, demo_model, tmp_path / "session", "--engine", engine)
    assert f"the cached engine {file.parent} is damaged, so it is made anew" in again.done.out
    assert summary(again.folder)["decoder"]["engine"] == engine
    assert again.ids == live.ids
    assert len(file.read_bytes()) == len(whole)


def test_half_precision_answers_nearly_the_same(
    live: Played, demo_model: DemoModel, tmp_path: Path
) -> None:
    half = replayed(live, demo_model, tmp_path / "session", "--precision", "fp16")
    used = summary(half.folder)["decoder"]
    assert used["precision"] == "fp16"
    assert f"the engine is {used['engine']} in fp16" in half.done.out
    shared = [len({*ids} & {*half.ids[at]}) for at, ids in live.ids.items()]
    assert np.mean(shared) >= 4.5  # of five
    sure, expected = (finals(played, "probabilities") for played in (half, live))
    np.testing.assert_allclose(sure, expected, atol=0.01)


def test_added_evidence_is_a_sum_of_logarithms_and_adaptation_is_kept(
    live: Played, virtual: Played, demo_model: DemoModel, tmp_path: Path
) -> None:
    options = ("--evidence", "added", "--adapt")
    added = replayed(live, demo_model, tmp_path / "session", *options)
    check_adapted(added)
    assert weight(added) <= N_TRIALS
    for answer in added.answers.values():
        scores, probabilities = np.array(answer["scores"]), np.array(answer["probabilities"])
        assert (scores < 0).all()
        # What images do not share is in the scores: they differ as the logarithms do.
        ratio = np.diff(np.log(probabilities)) / np.diff(scores)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    # Until the first trial is over, there is nothing to add and nothing to adapt to.
    first, later = (1, END_S), (N_TRIALS // 2, END_S)
    for at, same in ((first, True), (later, False)):
        ours, theirs = (played.answers[at]["probabilities"] for played in (added, virtual))
        assert np.allclose(ours, theirs, rtol=1e-4) == same


def test_adaptation_starts_from_a_rest(
    live: Played, virtual: Played, demo_model: DemoModel, tmp_path: Path
) -> None:
    rest = resting_recording(tmp_path / "rest_raw.fif", duration_s=12)
    # Groups that are not the stimuli: offline, too, repeats are put together by group.
    rule = r"(?P<id>(?P<group>[a-z]+)_\S+)"
    out = tmp_path / "session"
    adapted = replayed(live, demo_model, out, "--rest", rest, "--stimuli", rule)
    assert max(finals(adapted, "n_repeats")) > 2
    check_adapted(adapted)
    ours, theirs = (finals(played, "scores")[0] for played in (adapted, virtual))
    assert not np.allclose(ours, theirs, rtol=1e-4)
    assert weight(adapted) > N_TRIALS


def test_what_was_dropped_while_paused_is_not_decoded_again(
    virtual: Played, tmp_path: Path
) -> None:
    folder = shutil.copytree(virtual.folder, tmp_path / "session")
    records = read_ledger(folder / "ledger.jsonl")
    last = max(record["trial"] for record in records if record["event"] == "decoded")
    paused = {"event": "dropped", "trial": last, "reason": "paused", "detail": ""}
    told = [paused if (r["event"], r.get("trial")) == ("decoded", last) else r for r in records]
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in told))
    again = evaluate_session(folder)
    assert (again.agrees, again.n_offline) == (True, N_TRIALS - 1)


def check_adapted(played: Played) -> None:
    assert evaluate_session(played.folder).agrees
    state = load_file(played.folder / "adaptation.safetensors")
    assert all(np.isfinite(array).all() for array in state.values())
    assert state["counts"].sum() + len(state["pending_last_stamp_s"]) >= N_TRIALS


def weight(played: Played) -> float:
    """Trials, and windows of a rest, that the matrix of a session was made of at its end."""
    return float(load_file(played.folder / "adaptation.safetensors")["weight"][0])


def resting_recording(path: Path, duration_s: float) -> Path:
    """The demo's subject while it is shown nothing."""
    settings = SubjectSettings(seed=DemoSettings().subject_seed)
    eeg_uv = SimulatedSubject(settings, recording_seed=77).read(round(duration_s * 250))
    info = mne.create_info(list(CHANNELS), settings.rate_hz, "eeg")
    mne.io.RawArray(eeg_uv.T * 1e-6, info, verbose="ERROR").save(path, verbose="ERROR")
    return path


@pytest.mark.usefixtures("demo_model")
def test_a_decoder_that_dies_answers_everything_once(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start(
        *("--trials", 10, "--soa", 0.4, "--tmax", "0.3,0.5", "--no-paint", "--headless"),
        *("--out", folder),
    )
    wait_for_decoded(folder, 3)
    os.kill(node_pid(folder, "decode"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    assert "decode died (signal 9) and is restarted" in done.out
    told = check_accounted(folder)
    assert told["decoded"] == 10
    early = Counter((r["of_trial"], r["tmax_s"]) for r in trials_of(folder, "provisional"))
    assert early == {(trial, tmax_s): 1 for trial in range(1, 11) for tmax_s in EARLY_S}
    assert {tmax: row["n"] for tmax, row in told["by_tmax"].items()} == {"0.3": 10, "0.5": 10}
