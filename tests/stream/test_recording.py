"""What is read equals what MNE itself gives, and what was written to XDF, to the bit."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.markers import Marker, MarkerReader, MarkerRule
from stream.acquire.units import EEG, Signal
from stream.sources.read import read_recording
from stream.sources.recording import RecordedMarker
from stream.sources.settings import ReadSettings
from tests.recording_files import (
    MARKER_HEADER,
    MEASURED,
    RATE_HZ,
    eeg_header,
    eeg_stream,
    make_raw,
    save_fif,
    write_brainvision,
    write_edf,
    write_set,
    write_xdf,
)
from tests.stream_info import stream_info

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "eeglab_data.set"


def nearest_samples(recording):
    stamps_s = np.array([marker.stamp_s for marker in recording.markers])
    return np.abs(recording.stamps_s[None] - stamps_s[:, None]).argmin(axis=1)


def texts(recording):
    return [marker.text for marker in recording.markers]


# --- what MNE reads ------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_file(), reason=f"the recording {REAL.name} is not on this machine")
def test_the_eeglab_tutorial_recording():
    recording = read_recording(REAL)
    raw = mne.io.read_raw_eeglab(REAL, preload=True, verbose="ERROR")
    events, codes = mne.events_from_annotations(raw, verbose="ERROR")
    assert recording.name == "eeglab_data"
    assert recording.channels == tuple(raw.ch_names)
    assert set(recording.units) == {"microvolts"}
    assert recording.rate_hz == 128
    assert recording.duration_s == pytest.approx(238.3125)
    assert np.array_equal(recording.samples, (raw.get_data() * 1e6).T.astype(np.float32))
    assert (texts(recording).count("square"), texts(recording).count("rt")) == (80, 74)
    assert [codes[text] for text in texts(recording)] == events[:, 2].tolist()
    assert np.array_equal(nearest_samples(recording), events[:, 0] - raw.first_samp)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first_samp=st.integers(0, 5000),
    meas_date=st.sampled_from([None, MEASURED]),
    # Thirds of a sample: nearest is never a tie. Not at 0, where MNE's rounding may drop one.
    thirds=st.lists(st.integers(1, 3 * 1990), min_size=1, max_size=8, unique=True),
    suffix=st.sampled_from(["_raw.fif", "_raw.fif.gz"]),
)
def test_annotations_fall_on_the_samples_that_mne_finds(
    tmp_path_factory, first_samp, meas_date, thirds, suffix
):
    raw = make_raw(first_samp=first_samp, meas_date=meas_date)
    onsets_s = np.sort(thirds) / 3 / RATE_HZ
    names = [f"stim/{i}" for i in range(len(thirds))]
    raw.set_annotations(mne.Annotations(onsets_s, 0.0, names))
    path = save_fif(raw, tmp_path_factory.mktemp("fif") / f"sub.01{suffix}")
    recording = read_recording(path)
    reread = mne.io.read_raw_fif(path, preload=True, verbose="ERROR")
    events, codes = mne.events_from_annotations(reread, verbose="ERROR")
    assert np.array_equal(nearest_samples(recording), events[:, 0] - reread.first_samp)
    assert [codes[text] for text in texts(recording)] == events[:, 2].tolist()
    stamps_s = [marker.stamp_s for marker in recording.markers]
    assert stamps_s == pytest.approx(onsets_s, abs=1e-5)  # .fif keeps onsets as float32
    assert recording.name == "sub.01_raw"
    assert recording.stamps_s[0] == 0
    assert np.array_equal(recording.samples, (raw.get_data() * 1e6).T.astype(np.float32))


def test_spans_edges_and_joins_are_no_markers(tmp_path):
    raw = make_raw()
    names = ["BAD_blink", "bad", "EDGE boundary", "boundary", "go", "boundary/2", "a bad day"]
    raw.set_annotations(mne.Annotations(np.arange(7.0), 0.1, names))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    assert texts(recording) == ["go", "boundary/2", "a bad day"]


def test_units_are_microvolts_where_mne_has_volts(tmp_path):
    raw = make_raw(types=("eeg", "misc", "ecg", "stim", "resp"))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    assert recording.channels == ("EEG0", "MISC1", "ECG2", "RESP4")
    in_volts = [raw.info["chs"][i]["unit"] == 107 for i in (0, 1, 2, 4)]
    assert recording.units == tuple("microvolts" if volts else "" for volts in in_volts)
    assert 15 < recording.samples[:, 0].std() < 25
    factors = np.where(in_volts, 1e6, 1.0)
    expected = raw.get_data([0, 1, 2, 4]).T * factors
    assert np.array_equal(recording.samples, expected.astype(np.float32))


# Two codes of one sample each, a rise and a fall from code to code, and one beyond 16 bits.
STIM_STEPS = [(10, 3), (11, 4), (12, 0), (50, 3), (60, 5), (70, 3), (80, 0), (90, 70000), (95, 0)]
STIM_TEXTS = ["3", "4", "3", "5", "70000"]


def stim_raw(types, annotations=None):
    raw = make_raw(types, first_samp=700)
    for (start, code), (stop, _) in zip(STIM_STEPS, [*STIM_STEPS[1:], (None, 0)], strict=True):
        raw._data[types.index("stim"), start:stop] = code
    if annotations:
        raw.set_annotations(annotations)
    return raw


def test_a_stim_channel_gives_the_events_that_mne_finds(tmp_path):
    raw = stim_raw(("eeg", "stim", "eeg"))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    assert recording.channels == ("EEG0", "EEG2")
    assert texts(recording) == STIM_TEXTS
    assert nearest_samples(recording).tolist() == [10, 11, 50, 60, 90]
    events = mne.find_events(raw, "STIM1", shortest_event=1, verbose="ERROR")
    assert nearest_samples(recording).tolist() == (events[:, 0] - raw.first_samp).tolist()


def test_annotations_win_over_a_stim_channel_unless_it_is_asked_for(tmp_path):
    annotations = mne.Annotations([1.0], 0.0, ["face"])
    path = save_fif(stim_raw(("eeg", "stim"), annotations), tmp_path / "a_raw.fif")
    assert texts(read_recording(path)) == ["face"]
    assert texts(read_recording(path, ReadSettings(stim_channel="STIM1"))) == STIM_TEXTS


def test_a_stim_channel_of_any_type_is_kept_out_of_the_eeg(tmp_path):
    raw = stim_raw(("eeg", "eeg", "stim")).set_channel_types({"STIM2": "misc"}, verbose="ERROR")
    path = save_fif(raw, tmp_path / "a_raw.fif")
    assert read_recording(path).channels == ("EEG0", "EEG1", "STIM2")
    recording = read_recording(path, ReadSettings(stim_channel="STIM2"))
    assert recording.channels == ("EEG0", "EEG1")
    assert texts(recording) == STIM_TEXTS


def test_several_stim_channels_need_a_choice(tmp_path):
    path = save_fif(stim_raw(("eeg", "stim", "stim")), tmp_path / "a_raw.fif")
    with pytest.raises(Problem, match="--stim-channel: STIM1, STIM2"):
        read_recording(path)
    assert read_recording(path, ReadSettings(stim_channel="STIM2")).markers == ()
    with pytest.raises(Problem, match=r"no channel 'STI 014'.*STIM1, STIM2"):
        read_recording(path, ReadSettings(stim_channel="STI 014"))


def test_brainvision(tmp_path):
    samples_uv = np.round(np.random.default_rng(1).normal(0, 30, (2, 500)), 1)
    recording = read_recording(write_brainvision(tmp_path, samples_uv))
    assert recording.channels == ("C1", "C2")
    assert recording.units == ("microvolts",) * 2
    assert recording.rate_hz == 500
    assert texts(recording) == ["7", "pause", "12"]
    assert nearest_samples(recording).tolist() == [100, 150, 200]
    np.testing.assert_allclose(recording.samples, samples_uv.T, rtol=1e-6)


def test_of_brainvisions_markers_the_part_that_means_the_stimulus_is_the_text(tmp_path):
    told = ["Stimulus,S123", "Stimulus,S  1", "Stimulus,Start", "Stimulus,T  1", "Comment,a/b_01"]
    told += ["Response,R  1", "SyncStatus,Sync On", "Comment,S  1"]
    rows = [f"{one},{101 + 10 * i},1,0" for i, one in enumerate(told)]
    recording = read_recording(write_brainvision(tmp_path, np.zeros((2, 500)), rows))
    expected = ["123", "1", "Start", "T  1", "a/b_01"]
    assert texts(recording) == [*expected, "Response/R  1", "SyncStatus/Sync On", "S  1"]
    reader = MarkerReader(MarkerRule())
    events = [reader.read(Marker(m.stamp_s, m.text, 9.0)) for m in recording.markers]
    assert [event.stimulus for event in events if event] == [*expected, "S  1"]


def test_eeglab(tmp_path):
    samples_uv = np.random.default_rng(2).normal(0, 30, (3, 600)).astype(np.float32)
    events = [("face", 101), ("boundary", 200.5), ("house", 301)]
    recording = read_recording(write_set(tmp_path / "s.set", samples_uv, events))
    assert recording.channels == ("E0", "E1", "E2")
    assert texts(recording) == ["face", "house"]
    assert nearest_samples(recording).tolist() == [100, 300]
    np.testing.assert_allclose(recording.samples, samples_uv.T, rtol=1e-6)


def test_edf(tmp_path):
    samples = np.round(np.random.default_rng(3).normal(0, 50, (2, 600)))
    recording = read_recording(write_edf(tmp_path / "e.EDF", samples, [("Pz", "uV"), ("Oz", "mV")]))
    assert recording.units == ("microvolts",) * 2
    assert recording.markers == ()
    assert recording.duration_s == pytest.approx(3)
    np.testing.assert_allclose(recording.samples, samples.T * [1, 1000], atol=1e-3)


# --- XDF -----------------------------------------------------------------------------------------


def test_xdf_keeps_raw_stamps_and_gives_the_offsets_apart(tmp_path):
    header = eeg_header(labels=("Pz", "Oz"), units=("microvolts",) * 2)
    _, stamps_s, samples = eeg_stream(header)
    stamps_s[200:] += 0.4  # lost samples
    offsets = ((50.0, -3.0), (51.0, -3.1))
    markers = (MARKER_HEADER, np.array([52.0, 51.0]), [["später"], ["zuerst"]], (51.5, 7.0))
    path = write_xdf(tmp_path / "a.xdf", [markers, (header, stamps_s, samples, *offsets)])
    recording = read_recording(path)
    assert recording.name == "amp"
    assert recording.channels == ("Pz", "Oz")
    assert recording.units == ("microvolts",) * 2
    assert recording.rate_hz == RATE_HZ
    assert recording.stamps_s.tobytes() == stamps_s.tobytes()
    assert recording.samples.tobytes() == samples.tobytes()
    assert recording.samples.dtype == np.float32
    assert recording.eeg_offsets == offsets
    assert recording.marker_offsets == ((51.5, 7.0),)
    assert recording.markers == (RecordedMarker(51.0, "zuerst"), RecordedMarker(52.0, "später"))
    assert recording.duration_s == pytest.approx(2.4)


def test_xdf_volts_become_microvolts_and_unknown_units_stay(tmp_path):
    header = eeg_header(n_channels=5, units=("V", "mV", "µV", "", "counts"))
    stream = eeg_stream(header)
    recording = read_recording(write_xdf(tmp_path / "a.xdf", [stream]))
    assert recording.units == (*["microvolts"] * 3, "", "counts")
    np.testing.assert_allclose(recording.samples, stream[2] * [1e6, 1e3, 1, 1, 1], rtol=1e-6)
    assert recording.channels == ("1", "2", "3", "4", "5")
    assert recording.markers == ()


def test_a_recording_of_nobody_says_so(tmp_path):
    header = eeg_header()
    header.desc().append_child_value("simulated", "true")
    recording = read_recording(write_xdf(tmp_path / "a.xdf", [eeg_stream(header)]))
    assert "'a.xdf': the EEG of stream 'amp' is simulated" in recording.notices
    assert recording.simulated


@pytest.mark.parametrize(
    ("channel_format", "values", "text"),
    [
        ("string", [["a"]], "a"),
        ("string", [["a", "ü"]], '["a", "ü"]'),
        ("int32", np.array([[7]]), "7"),
        ("int32", np.array([[7, -8]]), "[7, -8]"),
        ("double64", np.array([[2.0**53]]), str(2**53)),
        ("double64", np.array([[0.5, 3.0]]), "[0.5, 3]"),
    ],
)
def test_xdf_marker_values_become_text(tmp_path, channel_format, values, text):
    header = stream_info("stimuli", "Markers", len(values[0]), 0.0, channel_format)
    path = write_xdf(tmp_path / "a.xdf", [eeg_stream(), (header, np.array([51.0]), values)])
    assert read_recording(path).markers == (RecordedMarker(51.0, text),)
    if len(values[0]) > 1:
        assert json.loads(text) == list(values[0])


def test_xdf_streams_are_recognised_without_their_types(tmp_path):
    quality = (stream_info("quality", "", 1, 0.0, "float32"), np.array([51.0]), np.zeros((1, 1)))
    codes = (stream_info("codes", "", 1, 0.0, "int32"), np.array([51.0]), np.array([[4]]))
    path = write_xdf(tmp_path / "a.xdf", [quality, codes, eeg_stream(eeg_header(kind=""))])
    recording = read_recording(path)
    assert recording.name == "amp"
    assert texts(recording) == ["4"]
    assert texts(read_recording(path, ReadSettings(marker_stream="quality"))) == ["0"]


def test_xdf_with_several_streams_needs_a_choice(tmp_path):
    streams = [
        eeg_stream(eeg_header("left")),
        eeg_stream(eeg_header("right", n_channels=4)),
        eeg_stream(eeg_header("right", n_channels=6)),
        (MARKER_HEADER, np.array([51.0]), [["a"]]),
        (stream_info("keys", "Markers", 1, 0.0, "string"), np.array([51.0]), [["b"]]),
        (stream_info("results", "JSON", 1, 0.0, "string"), np.array([51.0]), [["{}"]]),
    ]
    path = write_xdf(tmp_path / "a.xdf", streams)
    with pytest.raises(Problem, match=r"3 EEG streams.*--eeg-stream.*left.*right"):
        read_recording(path)
    with pytest.raises(Problem, match=r"2 EEG streams.*right \(id 2\), right \(id 3\)"):
        read_recording(path, ReadSettings(eeg_stream="right"))
    with pytest.raises(Problem, match=r"no EEG stream 'middle'.*left \(id 1\)"):
        read_recording(path, ReadSettings(eeg_stream="middle"))
    with pytest.raises(Problem, match=r"2 marker streams.*stimuli \(id 4\), keys \(id 5\)"):
        read_recording(path, ReadSettings(eeg_stream="left"))
    with pytest.raises(Problem, match="no marker stream 'left'"):
        read_recording(path, ReadSettings(eeg_stream="left", marker_stream="left"))
    recording = read_recording(path, ReadSettings(eeg_stream="3", marker_stream="results"))
    assert (len(recording.channels), texts(recording)) == (6, ["{}"])


@pytest.mark.parametrize("turn", [1, -1])
def test_an_empty_xdf_stream_beside_the_real_one_is_passed_over_aloud(tmp_path, turn):
    """Two recorders of one stream, of which one heard nothing; and so with the markers."""
    codes = [(MARKER_HEADER, np.array([50.5, 51.0]), [["a"], ["b"]]), (MARKER_HEADER, [], [])]
    amps = [eeg_stream(), eeg_stream(n_samples=0)]
    streams = [*amps[::turn], *codes[::turn]]
    recording = read_recording(write_xdf(tmp_path / "a.xdf", streams))
    assert len(recording.samples) == 400
    assert [marker.text for marker in recording.markers] == ["a", "b"]
    for notice, kind in zip(recording.notices, ("EEG", "marker"), strict=False):
        assert f"empty {kind} streams are passed over" in notice
    with pytest.raises(Problem, match="has no samples of 'amp'"):
        read_recording(tmp_path / "a.xdf", ReadSettings(eeg_stream="2" if turn == 1 else "1"))


def test_xdf_that_was_cut_short_is_read_up_to_its_last_whole_chunk(tmp_path, caplog):
    path = write_xdf(tmp_path / "a.xdf", [eeg_stream(n_samples=100), eeg_stream(n_samples=50)])
    content = path.read_bytes()
    last = content.rindex(eeg_stream(n_samples=50)[2].tobytes()[:8])
    path.write_bytes(content[: last + 100])
    with caplog.at_level(logging.WARNING):
        assert len(read_recording(path, ReadSettings(eeg_stream="1")).samples) == 100
    assert "left out" in caplog.text


# --- a part of a recording -----------------------------------------------------------------------


def test_slice_counts_from_the_first_sample_and_keeps_stamps(tmp_path):
    raw = make_raw()
    raw.set_annotations(mne.Annotations([0.99, 1.0, 1.5, 2.0], 0.0, list("abcd")))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    part = recording.slice(1.0, 2.0)
    assert texts(part) == ["b", "c"]
    assert np.array_equal(part.samples, recording.samples[200:400])
    assert np.array_equal(part.stamps_s, recording.stamps_s[200:400])
    assert part.duration_s == pytest.approx(1.0)
    assert texts(recording.slice(1.5, np.inf)) == ["c", "d"]
    with pytest.raises(Problem, match=r"no sample from 10 s to 20 s.*lasts 10\.0 s"):
        recording.slice(10.0, 20.0)


@given(eeg_offset_s=st.integers(-900, 900), marker_offset_s=st.integers(-900, 900))
@settings(max_examples=15, deadline=None)
def test_slice_takes_markers_by_the_recorders_clock(
    tmp_path_factory, eeg_offset_s, marker_offset_s
):
    """The two machines' clocks differ; a marker belongs where the recorder would put it."""
    eeg = eeg_stream(start_s=50.0 - eeg_offset_s, offsets=[(50.0, eeg_offset_s)])
    stamps_s = np.array([50.25, 50.75, 51.25]) - marker_offset_s
    markers = (MARKER_HEADER, stamps_s, [["a"], ["b"], ["c"]], (0.0, marker_offset_s))
    path = write_xdf(tmp_path_factory.mktemp("xdf") / "a.xdf", [eeg, markers])
    part = read_recording(path).slice(0.5, 1.0)
    assert texts(part) == ["b"]
    assert part.markers[0].stamp_s == stamps_s[1]


# --- what cannot be read -------------------------------------------------------------------------


def assert_one_sentence(problem, path):
    text = str(problem.value)
    assert path.name in text
    assert "\n" not in text
    assert "Traceback" not in text


def test_files_that_are_missing_or_unknown_are_named(tmp_path):
    for name in ("none.set", "none.xdf", ""):
        with pytest.raises(Problem, match="there is no file"):
            read_recording(tmp_path / name)
    (tmp_path / "a.txt").write_text("EEG")
    with pytest.raises(Problem, match=r"ends in '\.txt'.*\.vhdr.*\.xdf"):
        read_recording(tmp_path / "a.txt")


@pytest.mark.parametrize("content", [b"", b"XDF:", b"x" * 5000, bytes(range(256)) * 40])
@pytest.mark.parametrize(
    "name", ["a.set", "a_raw.fif", "a_raw.fif.gz", "a.edf", "a.bdf", "a.vhdr", "a.gdf", "a.xdf"]
)
def test_files_of_something_else_are_told_in_one_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Problem) as problem:
        read_recording(path)
    assert_one_sentence(problem, path)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    samples = np.round(np.random.default_rng(3).normal(0, 50, (2, 600)))
    return [
        save_fif(make_raw(n_samples=600), folder / "a_raw.fif"),
        write_set(folder / "a.set", samples, [("face", 101)]),
        write_edf(folder / "a.edf", samples, [("Pz", "uV"), ("Oz", "uV")]),
        write_brainvision(folder, samples),
        write_xdf(folder / "a.xdf", [eeg_stream()]),
    ]


# Always the same damage: what other libraries raise for all damage there is has no end.
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_are_read_or_told_in_one_sentence(good_files, tmp_path_factory, data):
    good = data.draw(st.sampled_from(good_files))
    content = bytearray(good.read_bytes())
    # Half of the damage where the headers are, which is what readers trip over.
    position = st.integers(0, len(content) - 1) | st.integers(0, min(1500, len(content) - 1))
    # SciPy crashes the process on some overwritten .set files, so these are only cut short.
    n_spots = 0 if good.suffix == ".set" else data.draw(st.integers(0, 3))
    for _ in range(n_spots):
        start, junk = data.draw(position), data.draw(st.binary(min_size=1, max_size=4))
        content[start : start + len(junk)] = junk
    path = tmp_path_factory.mktemp("bad") / good.name
    path.write_bytes(content[: data.draw(position | st.just(len(content)))])
    try:
        told = ""
        assert len(read_recording(path).samples)
    except Problem as problem:
        told = str(problem)
    assert not told or (path.name in told and "\n" not in told)


def test_files_without_eeg_or_samples_are_refused(tmp_path):
    with pytest.raises(Problem, match="has no EEG channel"):
        read_recording(save_fif(make_raw(types=("eog", "ecg")), tmp_path / "a_raw.fif"))
    only_markers = (MARKER_HEADER, np.array([51.0]), [["a"]])
    with pytest.raises(Problem, match=r"no EEG stream among stimuli \(id 1\)"):
        read_recording(write_xdf(tmp_path / "a.xdf", [only_markers]))
    with pytest.raises(Problem, match="no samples of 'amp'"):
        read_recording(write_xdf(tmp_path / "b.xdf", [eeg_stream(n_samples=0)]))
    with pytest.raises(Problem, match="rate is 0 Hz"):
        read_recording(write_xdf(tmp_path / "c.xdf", [eeg_stream(eeg_header(rate_hz=0.0))]))


def test_epochs_are_no_recording(tmp_path):
    events = np.array([[100, 0, 1], [900, 0, 1]])
    epochs = mne.Epochs(make_raw(), events, tmin=0, tmax=1, baseline=None, verbose="ERROR")
    epochs.save(tmp_path / "a-epo.fif", verbose="ERROR")
    with pytest.raises(Problem, match=r"a-epo\.fif' holds epochs, and a continuous recording"):
        read_recording(tmp_path / "a-epo.fif")
    path = write_set(tmp_path / "s.set", np.zeros((2, 300)), [("face", 101)], n_trials=3)
    with pytest.raises(Problem, match=r"s\.set' holds epochs, and a continuous recording"):
        read_recording(path)


def test_a_file_of_markers_that_is_missing_is_named(tmp_path):
    path = write_brainvision(tmp_path, np.zeros((2, 500)))
    assert read_recording(path).notices == ()
    (tmp_path / "bv.vmrk").unlink()
    (notice,) = read_recording(path).notices
    assert "bv.vmrk" in notice


def test_options_of_the_other_kind_of_file_are_refused(tmp_path):
    fif = save_fif(make_raw(), tmp_path / "a_raw.fif")
    with pytest.raises(Problem, match=r"no stream 'amp'.*leave out --eeg-stream"):
        read_recording(fif, ReadSettings(eeg_stream="amp"))
    with pytest.raises(Problem, match="--stim-channel 'STI' does not apply"):
        read_recording(
            write_xdf(tmp_path / "a.xdf", [eeg_stream()]), ReadSettings(stim_channel="STI")
        )


def test_meg_is_read_in_femtoteslas_and_says_so(tmp_path):
    raw = make_raw(types=("mag", "mag", "grad", "misc"))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    assert recording.units == ("femtoteslas", "femtoteslas", "femtoteslas/cm", "")
    assert recording.kinds == ("mag", "mag", "grad", "misc")
    factors = np.array([1e15, 1e15, 1e13, 1.0])
    np.testing.assert_allclose(recording.samples, raw.get_data().T * factors, rtol=1e-6)
    assert recording.signal(recording.channels) == ("meg", "femtoteslas")
    assert str(recording.signal(recording.channels[2:])) == "MEG in femtoteslas/cm"


def test_what_a_stream_records_is_taken_from_its_header(tmp_path):
    header = eeg_header(labels=("Pz", "Oz"), units=("V", "counts"))
    path = write_xdf(tmp_path / "a.xdf", [eeg_stream(header)])
    recording = read_recording(path)
    assert recording.signal(("pz", "Fz")) == ("eeg", "microvolts")
    assert recording.signal(("Oz",)) == ("eeg", "")


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (EEG, EEG, True),
        (EEG, Signal("", ""), True),
        (EEG, Signal("eeg", ""), True),
        (EEG, Signal("", "femtoteslas"), False),
        (EEG, Signal("meg", ""), False),
    ],
)
def test_signals_are_refused_where_they_are_known_to_differ(one, other, fits):
    for has, needs in ((one, other), (other, one)):
        with nullcontext() if fits else pytest.raises(Problem, match=r"^'amp' has .* expected "):
            has.check(needs, "'amp'")
