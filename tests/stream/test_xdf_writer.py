"""XDF files are read back by pyxdf bit for bit, also after they were cut, killed or full."""

import io
import signal
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import pyxdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from hvf_core.problem import Problem
from stream.sources.xdf import BOUNDARY_UUID, whole_chunks
from stream.sources.xdf_writer import XdfWriter
from tests.stream_info import stream_info

EEG = stream_info(
    "Käppchen <&>",
    "EEG",
    3,
    250.0,
    "float32",
    "amp-1",
    labels=("Pz", "Oz", "PO7"),
    units=("microvolts",) * 3,
)
MARKERS = stream_info("stimuli", "Markers", 2, 0.0, "string", "screen")

anything = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(file):
    """Streams by id, raw: neither synchronised nor dejittered."""
    streams, _ = pyxdf.load_xdf(
        file, synchronize_clocks=False, handle_clock_resets=False, dejitter_timestamps=False
    )
    return {stream["info"]["stream_id"]: stream for stream in streams}


def unused(tmp_path):
    """A path that no example before has written to."""
    return tmp_path / f"{len(list(tmp_path.iterdir()))}.xdf"


def eeg_samples(n_samples, seed=0):
    return np.random.default_rng(seed).normal(size=(n_samples, 3)).astype(np.float32)


def test_header_and_footer_say_what_the_stream_is(tmp_path):
    stamps_s = 100 + np.arange(500) / 250
    with closing(XdfWriter(tmp_path / "a.xdf")) as xdf:
        xdf.add_stream(7, EEG.as_xml())
        xdf.write_offset(7, 100.5, -0.25)
        xdf.write_samples(7, stamps_s, eeg_samples(500))
    stream = load(tmp_path / "a.xdf")[7]
    info = stream["info"]
    for field in ("name", "type", "source_id"):
        assert info[field] == [getattr(EEG, field)()]
    assert info["channel_format"] == ["float32"]
    assert int(info["channel_count"][0]) == 3
    assert float(info["nominal_srate"][0]) == 250
    channels = info["desc"][0]["channels"][0]["channel"]
    assert [channel["label"] for channel in channels] == [["Pz"], ["Oz"], ["PO7"]]
    assert [channel["unit"] for channel in channels] == [["microvolts"]] * 3
    footer = stream["footer"]["info"]
    assert float(footer["first_timestamp"][0]) == stamps_s[0]
    assert float(footer["last_timestamp"][0]) == stamps_s[-1]
    assert int(footer["sample_count"][0]) == 500
    assert float(footer["measured_srate"][0]) == pytest.approx(250)
    offset = footer["clock_offsets"][0]["offset"][0]
    assert (float(offset["time"][0]), float(offset["value"][0])) == (100.5, -0.25)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:pyxdf")
@pytest.mark.parametrize(
    ("channel_format", "dtype"),
    [("float32", "<f4"), ("double64", "<f8"), *((f"int{8 * n}", f"<i{n}") for n in (1, 2, 4, 8))],
)
@settings(anything, max_examples=30)
@given(data=st.data())
def test_numbers_and_stamps_come_back_bit_for_bit(tmp_path, channel_format, dtype, data):
    n_channels = data.draw(st.integers(1, 5))
    path = unused(tmp_path)
    header = stream_info("numbers", "EEG", n_channels, 100.0, channel_format)
    written = []
    with closing(XdfWriter(path)) as xdf:
        xdf.add_stream(1, header.as_xml())
        for n_samples in data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4)):
            stamps_s = data.draw(st_np.arrays("<f8", n_samples))
            samples = data.draw(st_np.arrays(dtype, (n_samples, n_channels)))
            xdf.write_samples(1, stamps_s, samples)
            written.append((stamps_s, samples))
    stream = load(path)[1]
    # As bytes: NaNs and signed zeros have to come back too.
    assert stream["time_stamps"].tobytes() == b"".join(s.tobytes() for s, _ in written)
    assert np.asarray(stream["time_series"], dtype).tobytes() == b"".join(
        x.tobytes() for _, x in written
    )


@settings(anything, max_examples=50)
@given(
    texts=st.lists(st.tuples(st.text(), st.text(max_size=400)), max_size=8),
    offsets=st.lists(st.tuples(*[st.floats(allow_nan=False)] * 2), max_size=5),
)
def test_strings_and_offsets_come_back_as_they_were(tmp_path, texts, offsets):
    path = unused(tmp_path)
    stamps_s = np.sqrt(np.arange(len(texts)))
    with closing(XdfWriter(path)) as xdf:
        xdf.add_stream(2**32 - 1, MARKERS.as_xml())
        xdf.write_samples(2**32 - 1, stamps_s, texts)
        for time_s, offset_s in offsets:
            xdf.write_offset(2**32 - 1, time_s, offset_s)
    stream = load(path)[2**32 - 1]
    assert [tuple(values) for values in stream["time_series"]] == texts
    assert np.array_equal(stream["time_stamps"], stamps_s)
    read = zip(stream["clock_times"], stream["clock_values"], strict=True)
    assert list(read) == offsets


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The bytes of a session of all kinds of chunks, and the size of the file after each of them.

    Chunk k > 0 of the numbers holds (k, k, k), the k-th text is 'k' and the k-th offset (k, -k).
    """
    path = tmp_path_factory.mktemp("session") / "whole.xdf"
    ends = []
    xdf = XdfWriter(path)
    xdf.add_stream(1, EEG.as_xml())
    xdf.add_stream(2, MARKERS.as_xml())
    for k in range(1, 13):
        n_samples = 40 if k % 3 == 0 else 2
        stamps_s = k + np.arange(n_samples) / 250
        xdf.write_samples(1, stamps_s, np.full((n_samples, 3), k, np.float32))
        ends.append(("eeg", path.stat().st_size))
        xdf.write_samples(2, np.array([float(k)]), [["trial", str(k)]])
        ends.append(("marker", path.stat().st_size))
        xdf.write_offset(1, k, -k)
        ends.append(("offset", path.stat().st_size))
    xdf.close()
    return path.read_bytes(), ends


def assert_is_beginning(streams, n_eeg, n_markers, n_offsets):
    values = streams[1]["time_series"]
    chunks = [np.full((40 if k % 3 == 0 else 2, 3), k) for k in range(1, n_eeg + 1)]
    assert np.array_equal(values, np.concatenate([np.empty((0, 3)), *chunks]))
    texts = [["trial", str(k)] for k in range(1, n_markers + 1)]
    assert [list(text) for text in streams[2]["time_series"]] == texts
    assert streams[1]["clock_values"] == [-k for k in range(1, n_offsets + 1)]


@settings(anything, max_examples=300)
@given(data=st.data())
def test_a_file_cut_anywhere_loads_up_to_its_last_whole_chunk(tmp_path, session, data):
    content, ends = session
    cut = data.draw(st.integers(ends[0][1], len(content)))
    path = tmp_path / "cut.xdf"
    path.write_bytes(content[:cut])
    whole = [kind for kind, end in ends if end <= cut]
    assert_is_beginning(
        load(whole_chunks(path)),
        whole.count("eeg"),
        whole.count("marker"),
        whole.count("offset"),
    )


def test_pyxdf_alone_loads_a_file_that_ends_with_any_chunk(session):
    content, ends = session
    for done, (_, end) in enumerate(ends, 1):
        kinds = [kind for kind, _ in ends[:done]]
        assert_is_beginning(
            load(io.BytesIO(content[:end])),
            kinds.count("eeg"),
            kinds.count("marker"),
            kinds.count("offset"),
        )


def test_damage_in_the_middle_costs_what_is_before_the_next_boundary(tmp_path, caplog):
    seconds = iter(range(0, 1000, 4))
    path = tmp_path / "damaged.xdf"
    with closing(XdfWriter(path, clock=lambda: float(next(seconds)))) as xdf:
        xdf.add_stream(1, EEG.as_xml())
        ends = [path.stat().st_size]
        for k in range(1, 13):
            xdf.write_samples(1, np.array([float(k)]), np.full((1, 3), k, np.float32))
            ends.append(path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[ends[4]] = 99  # the length of the fifth chunk
    path.write_bytes(content)
    kept = load(whole_chunks(path))[1]["time_stamps"].tolist()
    assert "left out bytes" in caplog.text
    assert kept[:4] == [1, 2, 3, 4]
    assert 5 not in kept
    assert kept[4:] == list(range(int(kept[4]), 13))


def test_a_boundary_chunk_comes_every_ten_seconds(tmp_path):
    now_s = [0.0]
    path = tmp_path / "a.xdf"
    with closing(XdfWriter(path, clock=lambda: now_s[0])) as xdf:
        xdf.add_stream(1, EEG.as_xml())
        at_start = path.read_bytes().count(BOUNDARY_UUID)
        for second in range(61):
            now_s[0] = float(second)
            xdf.write_samples(1, np.array([now_s[0]]), eeg_samples(1))
    assert path.read_bytes().count(BOUNDARY_UUID) - at_start == 6
    assert len(load(path)[1]["time_stamps"]) == 61


KILLED = """
import os, signal, sys
import numpy as np
from stream.acquire.lsl import pylsl
from stream.sources.xdf_writer import XdfWriter
xdf = XdfWriter(sys.argv[1])
xdf.add_stream(1, pylsl.StreamInfo("eeg", "EEG", 2, 100.0, "float32").as_xml())
for k in range(50):
    xdf.write_samples(1, np.array([k / 100]), np.full((1, 2), k, np.float32))
    xdf.write_offset(1, k, 0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process")
def test_a_killed_process_loses_nothing_that_was_written(tmp_path):
    path = tmp_path / "killed.xdf"
    done = subprocess.run([sys.executable, "-c", KILLED, path], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    stream = load(path)[1]
    assert stream["time_series"][:, 1].tolist() == list(range(50))
    assert len(stream["clock_times"]) == 50


def test_a_full_disk_is_told_and_spoils_nothing_written_before_or_after(tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are a Unix matter")
    path = tmp_path / "full.xdf"
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(XdfWriter(path)) as xdf:
        xdf.add_stream(1, EEG.as_xml())
        xdf.write_samples(1, np.arange(3.0), eeg_samples(3, seed=1))
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            with pytest.raises(Problem, match=r"full\.xdf' cannot be written"):
                xdf.write_samples(1, np.arange(99.0), eeg_samples(99, seed=2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.stat().st_size == size
        xdf.write_samples(1, np.arange(3.0, 5.0), eeg_samples(2, seed=3))
    stream = load(path)[1]
    assert stream["time_stamps"].tolist() == [0, 1, 2, 3, 4]
    expected = np.concatenate([eeg_samples(3, seed=1), eeg_samples(2, seed=3)])
    assert np.array_equal(stream["time_series"], expected)
    assert stream["footer"]["info"]["sample_count"] == ["5"]


def test_a_recording_is_never_overwritten(tmp_path):
    (tmp_path / "a.xdf").write_bytes(b"precious")
    with pytest.raises(Problem, match="exists already"):
        XdfWriter(tmp_path / "a.xdf")
    assert (tmp_path / "a.xdf").read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(Problem, match=r"nowhere.a\.xdf' cannot be written"):
        XdfWriter(tmp_path / "nowhere" / "a.xdf")


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros((4, 1), np.float32), ValueError),
        (np.zeros((3, 3), np.float32), ValueError),
        (np.zeros((4, 3), complex), TypeError),
    ],
)
def test_samples_of_another_shape_or_kind_are_refused(tmp_path, samples, error):
    with closing(XdfWriter(tmp_path / "a.xdf")) as xdf:
        xdf.add_stream(1, EEG.as_xml())
        with pytest.raises(error):
            xdf.write_samples(1, np.arange(4.0), samples)
        xdf.add_stream(2, MARKERS.as_xml())
        with pytest.raises(ValueError, match="2 strings"):
            xdf.write_samples(2, np.arange(1.0), [["one"]])
    assert not len(load(tmp_path / "a.xdf")[1]["time_stamps"])


def test_one_id_is_one_stream_of_a_format_that_is_written(tmp_path):
    with closing(XdfWriter(tmp_path / "a.xdf")) as xdf:
        xdf.add_stream(1, EEG.as_xml())
        with pytest.raises(ValueError, match="added before"):
            xdf.add_stream(1, MARKERS.as_xml())
        for header in (MARKERS.as_xml().replace("string", "int128"), "<info />", "<info>", ""):
            with pytest.raises(ValueError, match=r"format .int128.|describes no stream"):
                xdf.add_stream(2, header)


def test_a_large_cap_takes_no_more_steps_than_a_small_one(tmp_path):
    """Of Python, for a chunk: no samples or channels are gone through one by one."""

    def n_calls(n_samples: int, n_channels: int) -> int:
        called = []
        path = tmp_path / f"{n_samples}-{n_channels}.xdf"
        samples = np.zeros((n_samples, n_channels), np.float32)
        with closing(XdfWriter(path)) as xdf:
            header = stream_info("cap", "EEG", n_channels, 2000.0, "float32")
            xdf.add_stream(1, header.as_xml())
            sys.setprofile(lambda frame, event, argument: called.append(event))
            try:
                for k in range(20):
                    xdf.write_samples(1, (k + np.arange(n_samples) / n_samples), samples)
            finally:
                sys.setprofile(None)
        assert path.stat().st_size > 20 * samples.nbytes
        return len(called)

    assert n_calls(100, 128) <= n_calls(2, 2)
