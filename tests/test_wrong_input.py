"""Wrong input ends in one clear sentence, a non-zero exit, and no traceback; nothing waits on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import load_bundle
from index.gallery import Gallery, save_gallery
from offline_train.data.trial_set import TrialFormat, load_trial_set, write_trial_set
from stream.acquire.lsl import pylsl
from tests.sessions import EEGLAB, run
from tests.tiny_bundle import TOY, tiny_bundle

CHANNELS = ("Fz", "Cz", "Pz", "Oz")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained `bundle` of four channels at 100 Hz, and its `gallery`."""
    folder = tmp_path_factory.mktemp("models")
    manifest = tiny_bundle(folder / "bundle").manifest
    eye = np.eye(8, dtype=np.float32)
    rows = ("a", "b", "c", "d", "e", "f", "g", "h")
    save_gallery(folder / "gallery", Gallery(rows, rows, eye, manifest.space, TOY, "test"))
    return folder


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


def live(*arguments: str | Path) -> str:
    done = run("live", "--wait", "1", "--headless", *arguments)
    assert done.code == 1
    return done.one_sentence()


def test_no_such_stream(tmp_path: Path) -> None:
    said = live("--eeg", "Nobody", "--markers", "m", "--out", tmp_path / "s")
    assert "no LSL stream named 'Nobody' within 1 s" in said


def test_two_streams_of_that_name(eeg, markers, tmp_path: Path) -> None:
    eeg("Twin", CHANNELS, 100, "first")
    eeg("Twin", CHANNELS, 100, "second")
    said = live("--eeg", "Twin", "--markers", markers, "--out", tmp_path / "s")
    assert "2 LSL streams are named 'Twin'" in said
    assert "'first'" in said
    assert "'second'" in said


def test_missing_channels(eeg, markers, models: Path, tmp_path: Path) -> None:
    eeg("Small", ("Fz", "Cz"), 100, "small")
    arguments = ("--bundle", models / "bundle", "--out", tmp_path / "s")
    said = live("--eeg", "Small", "--markers", markers, *arguments)
    assert "the stream has 2 channels, the bundle needs 4: missing Pz, Oz" in said


def test_a_bundle_of_another_kind_of_signal(eeg, markers, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "bundle", tmp_path / "meg")
    path = tmp_path / "meg" / "bundle.json"
    told = {"kind": "meg", "unit": "femtoteslas"}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    eeg("Cap", CHANNELS, 100, "cap")
    models_of = ("--bundle", tmp_path / "meg", "--gallery", models / "gallery")
    arguments = (*models_of, "--out", tmp_path / "s")
    said = live("--eeg", "Cap", "--markers", markers, *arguments)
    assert "the stream has EEG in an unknown unit, expected MEG in femtoteslas" in said


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [(50, "the stream runs at 50 Hz, the bundle needs at least 100 Hz"), (0, "no sampling rate")],
)
def test_wrong_rate(eeg, markers, models: Path, tmp_path: Path, rate_hz: float, expected: str):
    eeg("Slow", CHANNELS, rate_hz, "slow")
    arguments = ("--bundle", models / "bundle", "--out", tmp_path / "s")
    assert expected in live("--eeg", "Slow", "--markers", markers, *arguments)


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


def test_a_bundle_of_another_shape(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / "bundle" / "bundle.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"tmax_s": 0.29}))
    arguments = ("--bundle", tmp_path / "models" / "bundle", "--speed", "max", "--headless")
    recording = _recording(tmp_path)
    done = run("replay", recording, *arguments, "--out", tmp_path / "s")
    assert done.code == 1
    assert "shape" in done.one_sentence()


def test_markers_of_unknown_stimuli_are_counted(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--headless", "--out", folder)
    done = run("replay", _recording(tmp_path), *arguments)
    assert done.code == 0, done.err
    told = json.loads((folder / "summary.json").read_text())
    assert told["decoded"] == 2
    assert told["dropped"] == {"unknown_stimulus": 1}


def test_a_recording_of_nothing_but_unknown_stimuli_is_accounted(
    models: Path, tmp_path: Path
) -> None:
    """The reader is through with it before the decoder is up."""
    folder = tmp_path / "s"
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--stimuli", "who", "--headless")
    done = run("replay", _recording(tmp_path), *arguments, "--out", folder)
    assert done.code == 0, done.err
    assert json.loads((folder / "summary.json").read_text())["dropped"] == {"unknown_stimulus": 1}


@pytest.mark.parametrize(
    ("name", "content", "speed"),
    [
        ("none.set", None, "1"),
        ("bad.fif", b"no fif", "1"),
        ("bad.xdf", b"XDF", "max"),
        ("notes.txt", b"hello", "1"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, speed: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ("--speed", speed, "--headless", "--out", tmp_path / "s")
    done = run("replay", tmp_path / name, *arguments)
    assert done.code == 1
    assert name in done.one_sentence()


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
    done = run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_times_that_are_none_are_wrong_usage_in_every_program() -> None:
    for times, expected in (("abc", "a valid number"), ("nan", "a finite number")):
        done = run("evaluate", "--tmax", times, module="demo")
        assert done.code == 2
        assert done.one_sentence().startswith(f"--tmax '{times}' must be {expected}")


def test_more_images_than_there_are_are_refused_before_anything_begins() -> None:
    assert "200 test images" in run("--trials", 201, "--repeats", 1).one_sentence()


def test_a_session_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    said = live("--eeg", "x", "--markers", "m", "--out", tmp_path)
    assert "holds a session already" in said


@pytest.mark.skipif(not EEGLAB.exists(), reason=f"the recording {EEGLAB} is not there")
def test_trials_cannot_be_saved_under_any_name(tmp_path: Path) -> None:
    done = run("replay", EEGLAB, "--save-trials", tmp_path / "trials.csv")
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
    done = run("replay", _recording(tmp_path), *arguments, "--out", tmp_path / "s")
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
    done = run("replay", _recording(tmp_path), *arguments, "--out", tmp_path / "s")
    assert done.code == 2
    assert expected in " ".join(done.err.replace("│", " ").split())


def test_a_prior_that_is_missing_is_said_and_decoding_goes_on(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    arguments = ("--bundle", models / "bundle", "--speed", "max", "--headless", "--out", folder)
    done = run("replay", _recording(tmp_path), *arguments, "--paint", tmp_path / "none")
    assert done.code == 0, done.err
    assert "Traceback" not in done.out + done.err
    (said,) = [line for line in done.out.splitlines() if "is given up" in line]
    assert "decoding goes on without it: there is no" in said
    told = json.loads((folder / "summary.json").read_text())
    assert told["decoded"] == 2
    assert "prior.json" in told["painting"]["given_up"]
    assert told["painting"]["superseded"] == 2
    assert (folder / "report.html").exists()


def test_without_a_bundle_tmax_is_the_end_of_the_window(tmp_path: Path) -> None:
    trials = tmp_path / "trials.npz"
    arguments = ("--speed", "max", "--tmax", "0.3", "--headless", "--out", tmp_path / "s")
    done = run("replay", _recording(tmp_path), *arguments, "--save-trials", trials)
    assert done.code == 0, done.err
    assert np.load(trials)["times_s"][[0, -1]] == pytest.approx([-0.2, 0.3])


@pytest.mark.parametrize("command", ["share", "fetch"])
def test_a_repository_with_a_bad_name(
    command: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "none")
    arguments = {"share": [models / "bundle", "a/b/c"], "fetch": ["a/b/c", "--to", tmp_path / "f"]}
    done = run(command, *arguments[command], module="offline_train")
    assert done.code == 1
    assert done.one_sentence().startswith("'a/b/c' is no name of a repository")
    assert not (tmp_path / "f").exists()


def test_an_export_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "encoder.onnx"
    done = run("onnx", "--bundle", models / "bundle", "--out", out, module="offline_train")
    assert done.code == 1
    assert str(out) in done.one_sentence()


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
    done = run(
        *("calibrate", "--bundle", tmp_path / "bundle", "--gallery", models / "gallery"),
        *("--trials", tmp_path / "trials"),
        module="offline_train",
    )
    assert done.code == 1
    assert "was trained on this trial set" in done.one_sentence()
    assert json.loads(path.read_text()) == trained


def _recording(folder: Path) -> Path:
    """Two known stimuli and an unknown one, in four channels at 100 Hz."""
    import mne

    samples = np.random.default_rng(0).standard_normal((4, 500)) * 1e-5
    raw = mne.io.RawArray(samples, mne.create_info(CHANNELS, 100, "eeg"), verbose="ERROR")
    raw.set_annotations(mne.Annotations([1, 2, 3], [0, 0, 0], ["a", "who", "b"]))
    path = folder / "toy_raw.fif"
    raw.save(path, verbose="ERROR")
    return path
