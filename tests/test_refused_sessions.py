"""Sessions that cannot be, or go on without something: one clear sentence, and nothing waits on."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from index.gallery import load_gallery
from stream.acquire.lsl import pylsl
from stream.client import SessionEnded, connect
from stream.commands.common import new_config
from stream.pipeline.decoding import open_decoder
from stream.pipeline.nodes import reader
from stream.pipeline.nodes.node import Lifeline
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.config import LiveSource, SessionSettings
from stream.pipeline.wire.nodes import READER
from tests.calling import call
from tests.sessions import check_accounted, finish, run, start, trials_of
from tests.tiny_bundle import CHANNELS, tiny_models, tiny_recording

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def eeg():
    """Opens EEG outlets that are silent; they close after the test."""
    outlets = []

    def open_outlet(name: str, channels: tuple[str, ...], rate_hz: float, source_id: str) -> None:
        info = pylsl.StreamInfo(name, "EEG", len(channels), rate_hz, "float32", source_id)
        info.set_channel_labels(list(channels))
        outlets.append(pylsl.StreamOutlet(info))

    yield open_outlet
    outlets.clear()


@pytest.fixture
def markers():
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("m", "Markers", 1, 0, "string", "markers"))
    yield "m"
    del outlet


@pytest.mark.parametrize("outputs", [(), ("--blind",)], ids=["open", "blind"])
def test_a_session_that_cannot_start_has_failed_for_whoever_hears_of_it(
    tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    folder = tmp_path / "s"
    streams = ("--eeg", "Nobody", "--markers", "m", "--wait", "3")
    process = start("live", *streams, "--headless", "--out", folder, *outputs)
    with connect(str(folder), wait_s=60) as joined, pytest.raises(SessionEnded) as told:
        joined.wait_ready(deadline_s=100)
    done = finish(process)
    sentence = done.one_sentence()
    assert (done.code, "Traceback" in done.out) == (1, False)
    assert "no LSL stream named 'Nobody' within 3 s" in sentence
    assert ("has ended (failed" in str(told.value), sentence in str(told.value)) == (
        True,
        not outputs,
    )
    summary = check_accounted(folder)
    assert (summary["end"], summary["failure"]) == ("failed", sentence)
    assert trials_of(folder, "end") == [{"event": "end", "reason": "failed"}]
    assert {"trials.csv", "report.html"} <= {file.name for file in folder.iterdir()}
    assert not (folder / "kept").exists()
    assert call("finish", folder).out.startswith("nothing is missing")


def test_a_session_that_fails_before_anybody_keeps_its_books_has_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    monkeypatch.setattr(Supervisor, "is_ready", refuse)
    streams = ("--eeg", "Nobody", "--markers", "m")
    done = call("live", *streams, "--headless", "--out", folder)
    assert (done.code, done.one_sentence()) == (1, "it cannot be")
    summary = check_accounted(folder)
    told = (summary["end"], summary["failure"], summary["ledger_faults"])
    assert told == ("failed", "it cannot be", [])
    assert trials_of(folder, "end") == [{"event": "end", "reason": "failed"}]
    assert (folder / "report.html").is_file()
    assert not (folder / "kept").exists()


def refuse(*_: object) -> bool:
    raise Problem("it cannot be")


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the reader of a session says that cannot be: the sentence with which it ends."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # which a process of its own would set

    def refusal(eeg: str, markers: str, **settings: Path) -> str:
        source = LiveSource(eeg=eeg, markers=markers, wait_s=100)
        own = SessionSettings(**settings), tmp_path / "s", "test"
        with new_config(*own, source=source) as config, pytest.raises(Problem) as told:
            reader.run(config, Lifeline(READER, config.endpoints.control, supervised=False))
        return str(told.value)

    return refusal


def test_markers_that_are_sampled_at_a_rate(eeg, refusal) -> None:
    eeg("Cap", CHANNELS, 100, "cap")
    assert "is sampled at a rate, a marker stream is irregular" in refusal("Cap", "Cap")


def test_two_streams_of_that_name(eeg, markers, refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.acquire.lsl._DUPLICATE_WAIT_S", 3.0)  # for a busy machine
    eeg("Twin", CHANNELS, 100, "first")
    eeg("Twin", CHANNELS, 100, "second")
    said = refusal("Twin", markers)
    assert "2 LSL streams are named 'Twin'" in said
    assert "'first'" in said
    assert "'second'" in said


def test_a_card_that_is_not_there(models: Path, tmp_path: Path) -> None:
    settings = SessionSettings(
        bundle=models / "bundle", gallery=models / "gallery", decoding={"device": "cuda:99"}
    )
    source = LiveSource(eeg="x", markers="y")
    said: list[str] = []
    bundle, gallery = open_bundle(models / "bundle"), load_gallery(models / "gallery")
    with (
        new_config(settings, tmp_path / "s", "test", source=source) as config,
        pytest.raises(Problem, match="the device 'cuda:99' is not there") as told,
    ):
        open_decoder(config, bundle, gallery, pytest.fail, lambda text, facts: said.append(text))
    assert "give auto or cpu" in str(told.value)
    assert said == []


def test_missing_channels(eeg, markers, models: Path, refusal) -> None:
    eeg("Small", ("Fz", "Cz"), 100, "small")
    said = refusal("Small", markers, bundle=models / "bundle")
    assert "the stream has 2 channels, the bundle needs 4: missing Pz, Oz" in said


def test_a_bundle_of_another_kind_of_signal(
    eeg, markers, models: Path, tmp_path: Path, refusal
) -> None:
    shutil.copytree(models / "bundle", tmp_path / "meg")
    path = tmp_path / "meg" / "bundle.json"
    told = {"kind": "meg", "unit": "femtoteslas"}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    eeg("Cap", CHANNELS, 100, "cap")
    said = refusal("Cap", markers, bundle=tmp_path / "meg", gallery=models / "gallery")
    assert "the stream has EEG in an unknown unit, expected MEG in femtoteslas" in said


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [(50, "the stream runs at 50 Hz, the bundle needs at least 100 Hz"), (0, "no sampling rate")],
)
def test_wrong_rate(eeg, markers, models: Path, refusal, rate_hz: float, expected: str) -> None:
    eeg("Slow", CHANNELS, rate_hz, "slow")
    assert expected in refusal("Slow", markers, bundle=models / "bundle")


def test_a_bundle_of_another_shape(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / "bundle" / "bundle.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"tmax_s": 0.29}))
    arguments = ("--bundle", tmp_path / "models" / "bundle", "--speed", "max", "--headless")
    recording = tiny_recording(tmp_path)
    done = call("replay", recording, *arguments, "--out", tmp_path / "s")
    assert done.code == 1
    assert "shape" in done.one_sentence()


def test_a_recording_of_nothing_but_unknown_stimuli_is_accounted(
    models: Path, tmp_path: Path
) -> None:
    """The reader is through with it before the decoder is up."""
    folder = tmp_path / "s"
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--stimuli", "who", "--headless")
    done = call("replay", tiny_recording(tmp_path), *arguments, "--out", folder)
    assert done.code == 0, done.err
    assert "a marker has to name an image of the gallery, as '" in done.out
    assert json.loads((folder / "summary.json").read_text())["dropped"] == {"unknown_stimulus": 1}


@pytest.mark.parametrize(
    ("name", "content", "speed"),
    [
        ("none.set", None, "1"),
        ("bad.fif", b"no fif", "1"),
        ("bad.xdf", b"XDF", "max"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, speed: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ("--speed", speed, "--headless", "--out", tmp_path / "s")
    done = call("replay", tmp_path / name, *arguments)
    assert done.code == 1
    assert name in done.one_sentence()


def test_a_time_that_is_none_is_wrong_usage_in_the_demo_too() -> None:
    done = run("evaluate", "--tmax", "nan", module="demo")
    assert done.code == 2
    assert done.one_sentence().startswith("--tmax 'nan' must be a finite number")


def test_a_prior_that_is_missing_is_said_and_decoding_goes_on(models: Path, tmp_path: Path) -> None:
    """Of three markers, one of a stimulus that the gallery does not have."""
    folder = tmp_path / "s"
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--headless", "--out", folder)
    done = call("replay", tiny_recording(tmp_path), *arguments, "--paint", tmp_path / "none")
    assert done.code == 0, done.err
    assert "Traceback" not in done.out + done.err
    (said,) = [line for line in done.out.splitlines() if "is given up" in line]
    assert "decoding goes on without it: there is no" in said
    told = json.loads((folder / "summary.json").read_text())
    assert told["decoded"] == 2
    assert told["dropped"] == {"unknown_stimulus": 1}
    assert "prior.json" in told["painting"]["given_up"]
    assert told["painting"]["superseded"] == 2
    assert (folder / "report.html").exists()


def test_without_a_bundle_tmax_is_the_end_of_the_window(tmp_path: Path) -> None:
    trials = tmp_path / "trials.npz"
    arguments = ("--speed", "max", "--tmax", "0.3", "--headless", "--out", tmp_path / "s")
    done = call("replay", tiny_recording(tmp_path), *arguments, "--save-trials", trials)
    assert done.code == 0, done.err
    assert np.load(trials)["times_s"][[0, -1]] == pytest.approx([-0.2, 0.3])


def test_an_export_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "encoder.onnx"
    done = call("onnx", "--bundle", models / "bundle", "--out", out, module="offline_train")
    assert done.code == 1
    assert str(out) in done.one_sentence()
