"""Wrong input ends in one clear sentence, a non-zero exit, and no traceback, before it begins."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import load_bundle
from offline_train.data.trial_set import TrialFormat, load_trial_set, write_trial_set
from tests.calling import EEGLAB, call
from tests.tiny_bundle import tiny_models, tiny_recording


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def live(*arguments: str | Path) -> str:
    done = call("live", "--wait", "1", "--headless", *arguments)
    assert done.code == 1
    return done.one_sentence()


def test_a_bundle_that_is_missing(tmp_path: Path) -> None:
    said = live("--eeg", "x", "--markers", "m", "--bundle", tmp_path / "none")
    assert "bundle.json" in said


@pytest.mark.parametrize("file", ["brain.safetensors", "bundle.json"])
def test_a_bundle_that_is_damaged(models: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / "bundle" / file
    path.write_bytes(path.read_bytes()[:-7])
    said = live("--eeg", "x", "--markers", "m", "--bundle", tmp_path / "models" / "bundle")
    assert file in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trials", "0"],
        ["--amplitude", "-1"],
        ["--no-paint", "--preview", "full"],
        ["replay", "x.set", "--speed", "fast"],
        ["replay", "x.set", "--tmax", "abc"],
        ["replay", "x.set", "--tmax", "0.3,0.5"],
        ["replay", "x.set", "--engine", "foo"],
        ["replay", "x.set", "--paint", "prior"],
        ["replay", "x.set", "--paint-steps", "4"],
        ["replay", "x.set", "--preview", "huge"],
        ["replay", "x.set", "--from-top", "2"],
        ["live"],
        ["dance"],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    if "x.set" in arguments:
        (tmp_path / "x.set").touch()
        arguments = [str(tmp_path / a) if a == "x.set" else a for a in arguments]
    done = call(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_more_images_than_there_are_are_refused_before_anything_begins() -> None:
    assert "200 test images" in call("--trials", 201, "--repeats", 1).one_sentence()


def test_a_session_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    said = live("--eeg", "x", "--markers", "m", "--out", tmp_path)
    assert "holds a session already" in said


@pytest.mark.skipif(not EEGLAB.exists(), reason=f"the recording {EEGLAB} is not there")
def test_trials_cannot_be_saved_under_any_name(tmp_path: Path) -> None:
    done = call("replay", EEGLAB, "--save-trials", tmp_path / "trials.csv")
    assert ".npz" in done.one_sentence()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tmax", "2.0"], "tmax 2 s is not in the bundle's window, which is 0 to 0.19 s"),
        (["--evidence", "added"], "the bundle has no calibration"),
        (["--adapt"], "the bundle holds no trial covariance"),
        (["--rest", "nothing.fif"], "nothing.fif'; give the path of a recording"),
    ],
)
def test_ways_of_decoding_that_the_bundle_does_not_allow(
    models: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--headless", *options)
    done = call("replay", tiny_recording(tmp_path), *arguments, "--out", tmp_path / "s")
    assert done.code == 1
    assert expected in done.one_sentence()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--refine"], "--refine begins with a provisional answer: give --tmax"),
        (["--paint-size", "100"], "--paint-size 100 is no multiple of 8"),
    ],
)
def test_ways_of_painting_that_cannot_be(
    models: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    arguments = ("--bundle", models / "bundle", "--paint", "prior", "--speed", "max", *options)
    done = call("replay", tiny_recording(tmp_path), *arguments, "--out", tmp_path / "s")
    assert done.code == 2
    assert expected in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize("command", ["share", "fetch"])
def test_a_repository_with_a_bad_name(
    command: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "none")
    arguments = {"share": [models / "bundle", "a/b/c"], "fetch": ["a/b/c", "--to", tmp_path / "f"]}
    done = call(command, *arguments[command], module="offline_train")
    assert done.code == 1
    assert done.one_sentence().startswith("'a/b/c' is no name of a repository")
    assert not (tmp_path / "f").exists()


def test_a_calibration_on_the_very_trials_of_the_training(models: Path, tmp_path: Path) -> None:
    manifest = load_bundle(models / "bundle").manifest
    shared = set(TrialFormat.model_fields) - {"provenance"}
    trial_format = TrialFormat(**{name: getattr(manifest, name) for name in shared})
    with write_trial_set(tmp_path / "trials", trial_format) as writer:
        writer.append(np.ones((2, 4, 20), np.float32), ["a", "b"])
    checksum = load_trial_set(tmp_path / "trials").checksum
    shutil.copytree(models / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    trained = json.loads(path.read_text()) | {"training": {"trials_sha256": checksum}}
    path.write_text(json.dumps(trained))
    done = call(
        *("calibrate", "--bundle", tmp_path / "bundle", "--gallery", models / "gallery"),
        *("--trials", tmp_path / "trials"),
        module="offline_train",
    )
    assert done.code == 1
    assert "was trained on 2 of these 2 trials" in done.one_sentence()
    assert json.loads(path.read_text()) == trained
