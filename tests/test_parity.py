"""A session's trials are the same live, replayed in real time, and replayed in virtual time."""

import os
import signal
from pathlib import Path

import mne
import numpy as np
import pytest
import pyxdf

from stream.acquire.lsl import local_clock
from stream.sources.read import read_recording
from tests.calling import call
from tests.metadata import rows_of
from tests.sessions import (
    PATIENCE_S,
    amplifier,
    check_accounted,
    finish,
    interrupt,
    listen,
    node_pid,
    start,
    trials_of,
    wait_for_decoded,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A live session of some seconds, recorded, with its trials in `trials.npz`."""
    folder = tmp_path_factory.mktemp("live") / "session"
    with amplifier("amp-parity"):
        process = listen("amp-parity", folder, "--save-trials", folder.parent / "trials.npz")
        wait_for_decoded(folder, 10)
        interrupt(process)
        assert finish(process).code == 130
    return folder


def replayed(session: Path, out: Path, speed: str) -> dict[str, np.ndarray]:
    trials = out / "trials.npz"
    done = call(
        *("replay", session / "recording.xdf", "--speed", speed, "--tmin", "0", "--tmax", "0.2"),
        *("--headless", "--out", out / "session", "--save-trials", trials),
    )
    assert done.code == 0, done.err
    check_accounted(out / "session")
    return dict(np.load(trials, allow_pickle=False))


@pytest.mark.parametrize("speed", ["max", "1"])
def test_a_replayed_session_gives_the_same_trials(session: Path, tmp_path, speed: str) -> None:
    live = np.load(session.parent / "trials.npz", allow_pickle=False)
    again = replayed(session, tmp_path, speed)
    n = len(live["trials"])  # trials that were open when the session ended are whole in the file
    assert n >= 8
    np.testing.assert_array_equal(again["trials"][:n], live["trials"])
    np.testing.assert_allclose(again["residual_s"][:n], live["residual_s"], atol=1e-7)
    for stamps in ("onset_s", "first_stamp_s"):
        ours, theirs = again[stamps][:n], live[stamps]
        if speed == "max":
            np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
        else:
            np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-7)


def test_live_stamps_are_nearly_those_that_pyxdf_gives_afterwards(session) -> None:
    live = np.load(session.parent / "trials.npz", allow_pickle=False)
    streams, _ = pyxdf.load_xdf(session / "recording.xdf")
    eeg = next(s for s in streams if s["info"]["type"][0] == "EEG")
    first = live["trials"][:, 0, 0] - eeg["time_series"][0, 0]  # values are sample numbers
    difference_s = live["first_stamp_s"] - eeg["time_stamps"][first.astype(int)]
    assert np.abs(difference_s).max() < 1e-3


def test_trials_outlive_the_reader_that_saved_them(tmp_path: Path) -> None:
    folder, trials = tmp_path / "session", tmp_path / "trials-epo.fif"
    with amplifier("amp-saved"):
        process = listen("amp-saved", folder, "--save-trials", trials)
        wait_for_decoded(folder, 4)
        os.kill(node_pid(folder, "reader"), signal.SIGKILL)
        wait_for_decoded(folder, 4 + len(trials_of(folder, "cut")))
        interrupt(process)
        said = finish(process).out
    assert check_accounted(folder)["cut"] >= 8
    saved = mne.read_epochs(trials, verbose="ERROR")
    cut = [record["trial"] for record in trials_of(folder, "cut")]
    assert {row["trial"] for row in rows_of(saved)} >= set(cut)
    # A sample's value is its number: a trial is whole, and where its onset says.
    first = saved.get_data()[:, 0, 0] * 1e6
    onsets_s = np.array([row["onset_s"] for row in rows_of(saved)])
    np.testing.assert_allclose((first - first[0]) / 250, onsets_s - onsets_s[0], atol=0.003)
    assert f"{len(saved)} trials saved: {trials}" in said


def holds_seconds(recording: Path, n: int) -> bool:
    """Whether what is written so far has n seconds of four channels and their stamps."""
    return recording.exists() and recording.stat().st_size > n * 250 * (4 * 4 + 8)


def test_a_recording_that_was_killed_loses_at_most_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    with amplifier("amp-killed"):
        process = listen("amp-killed", folder)
        wait_until(lambda: holds_seconds(folder / "recording.xdf", 3), PATIENCE_S)
        os.kill(node_pid(folder, "record"), signal.SIGKILL)
        killed_s = local_clock()
        wait_until(lambda: holds_seconds(folder / "recording-2.xdf", 2), PATIENCE_S)
        interrupt(process)
        assert finish(process).code == 130
    check_accounted(folder)
    first = read_recording(folder / "recording.xdf")
    assert first.duration_s > 2
    # The recorder is restarted, goes on in a file of its own, and gets what has waited for it.
    second = read_recording(folder / "recording-2.xdf")
    assert first.stamps_s[-1] < second.stamps_s[0] < killed_s + 1
    for recording in (first, second):
        numbers = recording.samples[:, 0]
        np.testing.assert_array_equal(np.diff(numbers), 1)


def test_a_reader_that_dies_in_virtual_time_repeats_nothing_and_skips_nothing(tmp_path) -> None:
    """Another one reads the file again, and gives its trials the numbers that they had."""
    n_s, folder, path = 1500, tmp_path / "session", tmp_path / "long_raw.fif"
    noise = np.random.default_rng(0).normal(0, 1e-5, (4, n_s * 250)).astype(np.float32)
    raw = mne.io.RawArray(noise, mne.create_info(4, 250.0, "eeg"), verbose="ERROR")
    onsets_s = np.arange(n_s - 2) + 0.7
    raw.set_annotations(mne.Annotations(onsets_s, 0.0, [f"m{n % 50}" for n in range(n_s - 2)]))
    raw.save(path, verbose="ERROR")
    command = ("replay", path, "--speed", "max", "--tmax", "0.3", "--headless", "--out", folder)
    process = start(*command, "--save-trials", tmp_path / "t.npz")
    wait_for_decoded(folder, 40)
    os.kill(node_pid(folder, "reader"), signal.SIGKILL)
    done = finish(process)
    assert done.code == 0, done.err
    assert "reader died (signal 9)" in done.out
    told = check_accounted(folder)
    assert told["markers"] == told["cut"] == len(onsets_s)
    onsets = [record["onset_s"] for record in trials_of(folder, "marker")]
    np.testing.assert_allclose(np.diff(onsets), 1, atol=1e-3)
    assert len(np.load(tmp_path / "t.npz")["trials"]) == len(onsets_s)
    recording = read_recording(folder / "recording.xdf")
    assert (len(recording.stamps_s), len(recording.markers)) == (n_s * 250, len(onsets_s))
    assert (np.diff(recording.stamps_s) > 0).all()
