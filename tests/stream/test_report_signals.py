"""The report of a session without a model: its channels as they were made, its mean trial."""

from pathlib import Path

import numpy as np
import pylsl
import pytest

from stream.pipeline.report.signal_part import measured, signal_part
from stream.pipeline.report.story import read_story
from stream.sources.read import read_recording
from stream.sources.xdf import write_excerpt
from stream.sources.xdf_writer import XdfWriter
from tests.report_page import Reader, Session

RATE_HZ = 250
CHANNELS = ("Fz", "Cz", "Pz", "Oz", "T7")
ONSETS_S = tuple(100.0 + 0.5 + 1.5 * n for n in range(12))
DROPPED = 5  # which has what no mean could bear


def signals() -> np.ndarray:
    """Samples (n, channels): a response in Pz and Oz, mains in Cz, T7 flat, Fz at its limit."""
    times_s = np.arange(20 * RATE_HZ) / RATE_HZ
    samples = np.zeros((len(times_s), len(CHANNELS)))
    samples[:, 0] = np.clip(200 * np.sin(2 * np.pi * 3 * times_s), -100, 100)
    samples[:, 1] = 30 * np.sin(2 * np.pi * 50 * times_s)
    samples[:, 2] = 7.0  # a direct current, which is no response
    for onset_s in ONSETS_S:
        bump = np.exp(-(((times_s - (onset_s - 100.0) - 0.3) / 0.05) ** 2) / 2)
        samples[:, 2] += 12 * bump
        samples[:, 3] -= 12 * bump
    at = round((ONSETS_S[DROPPED] - 100.0) * RATE_HZ)
    samples[at : at + 100, 2] += 1e4
    return samples


def write_recording(path: Path) -> None:
    eeg = pylsl.StreamInfo("EEG", "EEG", len(CHANNELS), RATE_HZ, "float32", "x")
    eeg.set_channel_labels(list(CHANNELS))
    eeg.set_channel_units("microvolts")
    writer = XdfWriter(path)
    writer.add_stream(1, eeg.as_xml())
    markers = pylsl.StreamInfo("markers", "Markers", 1, 0, "string", "y")
    writer.add_stream(2, markers.as_xml())
    samples = signals().astype(np.float32)
    for at in range(0, len(samples), 50):
        writer.write_samples(1, 100.0 + np.arange(at, at + 50) / RATE_HZ, samples[at : at + 50])
    writer.write_samples(2, np.array(ONSETS_S), [["car"]] * len(ONSETS_S))
    writer.close()


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = Session(tmp_path, bundle=None, gallery=None, painting=None)
    write_recording(session.folder / "recording.xdf")
    for number, onset_s in enumerate(ONSETS_S, 1):
        session.ledger.announce(number, stimulus="car", group="car", onset_s=onset_s)
        if number == DROPPED + 1:
            session.ledger.settle(number, "dropped", reason="rejected", detail="10000 uV")
        else:
            session.ledger.settle(number, "cut", residual_s=0.0, stamps={})
    return session


def test_the_mean_trial_is_what_the_trials_have_in_common(session: Session) -> None:
    session.ledger.close()
    found = measured(session.config, read_story(session.folder, is_timed=True))
    assert found.n_trials == len(ONSETS_S) - 1
    assert found.first == -50
    mean = found.evoked / found.n_trials
    times_s = (found.first + np.arange(len(mean))) / RATE_HZ
    expected = 12 * np.exp(-(((times_s - 0.3) / 0.05) ** 2) / 2)
    np.testing.assert_allclose(mean[:, 2], expected, atol=1e-3)
    np.testing.assert_allclose(mean[:, 3], -expected, atol=1e-3)


def test_channels_are_as_they_were_made(session: Session) -> None:
    session.ledger.close()
    found = measured(session.config, read_story(session.folder, is_timed=True))
    assert len(found.seconds) == 20
    assert found.seconds[3].line_hz == 50
    rms = np.median([second.rms_uv for second in found.seconds], axis=0)
    line = np.median([second.line_uv for second in found.seconds], axis=0)
    assert rms[1] == pytest.approx(30 / np.sqrt(2), rel=1e-3)
    assert line[1] == pytest.approx(30 / np.sqrt(2), rel=1e-3)
    page = signal_part(session.config, read_story(session.folder, is_timed=True))
    said = Reader(page).text
    for text in ("Cz ( ", "mostly mains", "T7 (flat 100%", "Fz (clipped 100%", "n = 11 trials"):
        assert text.strip() in said
    rows = Reader(page).rows
    assert [row[0] for row in rows[1:]] == list(CHANNELS)
    assert rows[2][3] == "21.2"
    assert page.count('class="line faint"') == len(CHANNELS)


def test_a_session_has_recorded_its_channels_as_it_calls_them(session: Session) -> None:
    session.ledger.close()
    config = session.config.model_copy(update={"channel_map": {"Pz": "Oz", "Oz": "Pz"}})
    found = measured(config, read_story(session.folder, is_timed=True))
    assert found.channels == list(CHANNELS)


def test_recordings_after_a_restart_of_the_recorder_count_too(session: Session) -> None:
    write_recording(session.folder / "recording-2.xdf")
    session.ledger.close()
    found = measured(session.config, read_story(session.folder, is_timed=True))
    assert len(found.seconds) == 40
    assert found.n_trials == 2 * (len(ONSETS_S) - 1)


def test_the_page_of_a_session_without_a_model_has_them(session: Session) -> None:
    said = Reader(session.report()).text
    assert "Evoked response" in said
    assert "11 = 11 cut" not in said
    assert "cut of 12 markers" in said
    assert "dropped: 1 rejected" in said


def test_a_session_whose_recording_is_damaged_has_a_page_that_says_so(session: Session) -> None:
    (session.folder / "recording.xdf").write_bytes(b"XDF:" + b"nothing of use")
    said = Reader(session.report()).text
    assert "There is nothing to show: " in said
    assert "recording.xdf" in said


def test_a_session_without_recording_has_a_page(session: Session) -> None:
    (session.folder / "recording.xdf").unlink()
    assert "Evoked response" not in Reader(session.report()).text


def test_an_excerpt_has_pieces_from_all_over(tmp_path: Path) -> None:
    write_recording(tmp_path / "whole.xdf")
    whole = read_recording(tmp_path / "whole.xdf")
    write_excerpt(tmp_path / "whole.xdf", tmp_path / "all.xdf", 1e9)
    assert (tmp_path / "all.xdf").read_bytes() == (tmp_path / "whole.xdf").read_bytes()
    n_bytes = (tmp_path / "whole.xdf").stat().st_size
    write_excerpt(tmp_path / "whole.xdf", tmp_path / "part.xdf", n_bytes / 3, n_pieces=4)
    part = read_recording(tmp_path / "part.xdf")
    assert part.channels == whole.channels
    assert 0.25 < len(part.samples) / len(whole.samples) < 0.45
    at = np.searchsorted(whole.stamps_s, part.stamps_s)
    np.testing.assert_array_equal(whole.stamps_s[at], part.stamps_s)
    np.testing.assert_array_equal(whole.samples[at], part.samples)
    thirds = (part.stamps_s - 100) // 5  # of every quarter of the recording there is something
    assert set(thirds) == {0, 1, 2, 3}


def test_of_a_large_recording_an_excerpt_is_looked_at(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = (session.folder / "recording.xdf").stat().st_size
    monkeypatch.setattr("stream.pipeline.report.signal_part.MOST_BYTES", 0.8 * n_bytes)
    session.ledger.close()
    found = measured(session.config, read_story(session.folder, is_timed=True))
    assert 5 <= len(found.seconds) < 18
    assert 1 <= found.n_trials < 11
    mean = found.evoked / found.n_trials  # a trial that lies over a hole is none
    times_s = (found.first + np.arange(len(mean))) / RATE_HZ
    expected = 12 * np.exp(-(((times_s - 0.3) / 0.05) ** 2) / 2)
    np.testing.assert_allclose(mean[:, 3], -expected, atol=1e-3)
