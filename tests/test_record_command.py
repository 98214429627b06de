"""`record`, as a person runs it: what it waits for, what is in the file, and how it ends."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import pyxdf

from hvf_core.options import TRAIN
from stream.acquire.lsl import pylsl
from stream.sources.read import read_recording
from tests.sessions import (
    PATIENCE_S,
    amplifier,
    check_accounted,
    finish,
    interrupt,
    listen,
    run,
    start,
    wait_for_decoded,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def holds_seconds(path: Path, n: int) -> bool:
    """Whether a file has so many seconds of four channels and their stamps."""
    return path.exists() and path.stat().st_size > n * 250 * (4 * 4 + 8)


@contextmanager
def another(name: str, labels: list[str]) -> Iterator[pylsl.StreamOutlet]:
    """An eye tracker, or what else may stand on the desk."""
    info = pylsl.StreamInfo(name, "Gaze", len(labels), 0.0, "double64", f"{name} on the desk")
    info.set_channel_labels(labels)
    yield pylsl.StreamOutlet(info)


def streams_of(path: Path) -> dict[str, dict]:
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    return {stream["info"]["name"][0]: stream for stream in streams}


def test_it_waits_records_overwrites_nothing_and_tells_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.xdf"
    path.parent.mkdir()
    path.write_text("precious")
    ours = path.with_name("a-2.xdf")
    required = ("--stream", "amp-rec*", "--require", "amp-rec,amp-rec-markers")
    process = start("record", *required, "--out", path)
    assert process.stdout is not None
    said = process.stdout.readline()  # and what other streams there are
    assert said.startswith("waiting for 'amp-rec', 'amp-rec-markers'; there: ")
    with amplifier("amp-rec"):
        wait_until(lambda: holds_seconds(ours, 2), PATIENCE_S)
        interrupt(process)
        done = finish(process)
    assert (done.code, path.read_text()) == (130, "precious")
    assert f"'{path}' is there already and is not overwritten: this is '{ours}'" in done.out
    recording = read_recording(ours)
    np.testing.assert_array_equal(np.diff(recording.samples[:, 0]), 1)
    assert recording.name == "amp-rec"
    assert {marker.text for marker in recording.markers} == {"stim"}
    *last, onward = done.out.splitlines()
    assert onward == f"next: {TRAIN} prepare {ours} --out trials"
    n_eeg, n_markers = f"{len(recording.samples):,}", len(recording.markers)
    assert any(f"'amp-rec' {n_eeg} samples, " in one and "Hz, no gaps" in one for one in last[-2:])
    assert any(f"'amp-rec-markers' {n_markers} samples, " in one for one in last[-2:])


def test_what_a_killed_recording_leaves_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    with amplifier("amp-kill"):
        process = start("record", "--stream", "amp-kill*", "--out", path)
        wait_until(lambda: holds_seconds(path, 2), PATIENCE_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    recording = read_recording(path)
    assert recording.duration_s > 1
    np.testing.assert_array_equal(np.diff(recording.samples[:, 0]), 1)
    assert recording.markers
    assert len(streams_of(path)) == 2  # pyxdf alone reads it too


def test_streams_that_do_not_come_are_named_and_so_is_a_file_that_is_no_xdf(tmp_path: Path) -> None:
    asked = ("record", "--stream", "nobody", "--out", tmp_path / "a.xdf")
    done = run(*asked, "--wait", "1.5")
    assert (done.code, list(tmp_path.iterdir())) == (1, [])
    assert "'nobody' did not come within 1.5 s (there: " in done.err
    done = run(*asked, "--now", "--duration", "0.5")
    assert (done.code, list(tmp_path.iterdir())) == (1, [])
    assert "'nobody' is not there: it is recorded from when it comes" in done.out
    assert "nothing was recorded, as no stream came" in done.err
    assert run("record", "--out", tmp_path / "a.csv").code == 2


def test_a_session_records_its_streams_under_their_names_and_others_beside(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    labels = ["x", "y"]
    with amplifier("amp-also"), another("gaze-also", labels) as gaze:
        process = listen("amp-also", folder, "--record-also", "gaze-*,Photo", "--rename", "C2=Oz")
        assert gaze.wait_for_consumers(PATIENCE_S)
        for k in range(50):
            gaze.push_sample([float(k), -0.5], 10.0 + k)
        wait_for_decoded(folder, 3)
        wait_until(lambda: b"'Photo' yet" in (folder / "ledger.jsonl").read_bytes(), PATIENCE_S)
        interrupt(process)
        done = finish(process)
    assert done.code == 130
    assert "record: recorded too: 'gaze-also' (Gaze, 2 ch, irregular" in done.out
    assert "record: there is no stream 'Photo' yet: it is recorded from when it comes" in done.out
    session = check_accounted(folder)["session"]
    found = streams_of(folder / "recording.xdf")
    assert found.keys() == {
        "amp-also",
        "amp-also-markers",
        f"hvf-live-results-{session}",
        "gaze-also",
    }
    assert found["amp-also"]["info"]["source_id"] == ["hvf-live-amp-also"]
    assert found["gaze-also"]["info"]["source_id"] == ["gaze-also on the desk"]
    np.testing.assert_array_equal(found["gaze-also"]["time_series"][:, 0], np.arange(50))
    recording = read_recording(folder / "recording.xdf")
    assert (recording.name, recording.channels[:2]) == ("amp-also", ("C1", "Oz"))
    assert {marker.text for marker in recording.markers} == {"stim"}
