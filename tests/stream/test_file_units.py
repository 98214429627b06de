"""Units of files: honoured however they are spelt; what is not known, or cannot be EEG, is said."""

import mne
import numpy as np
import pytest

from stream.acquire.units import MICROVOLTS
from stream.sources.read import read_recording
from tests.recording_files import (
    eeg_header,
    eeg_stream,
    make_raw,
    save_fif,
    write_brainvision,
    write_edf,
    write_edf_plus,
    write_set,
    write_xdf,
)

SPELLINGS = [
    *(("uV", 1), ("UV", 1), ("uv", 1), ("µV", 1), ("\u03bcV", 1), ("microV", 1)),
    *(("mV", 1e3), ("MV", 1e3), ("V", 1e6), ("v", 1e6), ("nV", 1e-3), ("pV", 1e-6)),
]
RNG = np.random.default_rng(4)
EEG = np.round(RNG.normal(0, 30, (2, 600)))


@pytest.mark.parametrize(("unit", "factor"), SPELLINGS)
def test_edf(tmp_path, unit, factor):
    coded = unit.encode("latin-1" if unit == "µV" else "utf-8").decode("latin-1")
    recording = read_recording(write_edf(tmp_path / "e.edf", EEG, [("Pz", coded), ("Oz", "uV")]))
    assert recording.units == (MICROVOLTS,) * 2
    np.testing.assert_allclose(recording.samples, EEG.T * [factor, 1], rtol=1e-4, atol=1e-6)


def test_edf_plus_has_annotations_between_its_units(tmp_path):
    path = write_edf_plus(tmp_path / "e.edf", EEG[0], range(3), [], "EDF+C", unit="nV")
    assert read_recording(path).units == (MICROVOLTS,)
    np.testing.assert_allclose(read_recording(path).samples[:, 0], EEG[0] * 1e-4, rtol=1e-3)


@pytest.mark.parametrize(("unit", "factor"), [*SPELLINGS, ("microvolts", 1), ("", 1)])
def test_brainvision(tmp_path, unit, factor):
    recording = read_recording(write_brainvision(tmp_path, EEG, unit=unit))
    assert (recording.units, recording.kinds) == ((MICROVOLTS,) * 2, ("eeg",) * 2)
    np.testing.assert_allclose(recording.samples, EEG.T * factor, rtol=1e-4)


def test_a_unit_that_nobody_knows_is_told_with_what_was_assumed(tmp_path):
    recording = read_recording(write_edf(tmp_path / "e.edf", EEG, [("Pz", ""), ("Oz", "adu")]))
    assert recording.units == ("", "adu")
    np.testing.assert_allclose(recording.samples, EEG.T, rtol=1e-4, atol=1e-6)
    (notice,) = recording.notices
    assert "'e.edf'" in notice
    assert "Pz, " in notice
    assert "Oz ('adu')" in notice
    assert "taken for microvolts" in notice


@pytest.mark.parametrize(("factor", "is_odd"), [(1, False), (10, False), (1e-6, True), (1e3, True)])
def test_a_size_that_no_eeg_has_is_told(tmp_path, factor, is_odd):
    paths = [write_set(tmp_path / "s.set", EEG * factor, [("a", 101)])]
    raw = make_raw()
    raw._data *= factor
    raw.set_annotations(mne.Annotations([1.0], 0.0, ["a"]))
    paths.append(save_fif(raw, tmp_path / "a_raw.fif"))
    header, stamps_s, samples = eeg_stream(eeg_header(units=("microvolts",) * 2))
    stream = (header, stamps_s, samples * np.float32(30 * factor))
    paths.append(write_xdf(tmp_path / "a.xdf", [stream]))
    for path in paths:
        notices = read_recording(path).notices
        assert [path.name in notice for notice in notices] == [True] * is_odd, path
        assert all("which no EEG does" in notice for notice in notices)


def test_one_second_of_noise_and_dead_channels_are_no_reason(tmp_path):
    samples = np.zeros((4, 2000))
    samples[0] = RNG.normal(0, 30, 2000)
    samples[:, 900:1100] *= 1e4
    assert read_recording(write_set(tmp_path / "s.set", samples, [("a", 101)])).notices == ()
