"""The recorder writes what was taken, each sample once, whoever has taken it."""

import numpy as np
import pytest

from stream.pipeline.nodes.record import Recorder
from stream.pipeline.wire.config import Endpoints, FileSource, LiveSource, SessionConfig
from stream.pipeline.wire.messages import Recorded
from stream.recorder.header import made
from stream.sources.read import read_recording

RATE_HZ = 100.0


def recorder(folder, source, say=print):
    endpoints = Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x"))
    config = SessionConfig(session="s", folder=folder, endpoints=endpoints, source=source)
    return Recorder(config, say)


def message(stream, first, stop, **described):
    """Samples, which say their number, or markers, one every ten samples."""
    numbers = np.arange(first, stop, dtype=float)
    is_eeg = stream == "eeg"
    described = {"channels": ["Cz"]} | described
    samples = np.repeat(numbers[:, None], len(described["channels"]), axis=1)
    return Recorded(
        headers={
            "eeg": made("amp", "EEG", RATE_HZ, "float32", **described),
            "markers": made("screen", "Markers", 0.0, "string"),
        },
        stream=stream,
        raw_s=(numbers / RATE_HZ * (1 if is_eeg else 10)).tobytes(),
        texts=[] if is_eeg else [[f"m{number:g}"] for number in numbers],
        offset_s=0.0,
        first=first,
        array=samples.astype(np.float32) if is_eeg else np.empty(0),
    )


def recorded(folder, name="recording.xdf"):
    recording = read_recording(folder / name)
    return recording.samples[:, 0].tolist(), [marker.text for marker in recording.markers]


@pytest.mark.parametrize("sizes", [(30, 30), (30, 7), (7, 30), (1, 200)])
def test_a_file_that_is_read_again_from_its_start_is_recorded_once(sizes, tmp_path):
    """The first reader dies after 120 samples and 12 markers; the second begins anew."""
    made = recorder(tmp_path, FileSource(path=tmp_path / "x.fif"))
    for size, n in zip(sizes, (120, 200), strict=True):
        for first in range(0, n, size):
            made.write(message("eeg", first, min(first + size, n)))
        for first in range(0, n // 10, 5):
            made.write(message("markers", first, min(first + 5, n // 10)))
    made.close()
    assert recorded(tmp_path) == (list(range(200)), [f"m{n}" for n in range(20)])


def test_live_a_new_reader_counts_anew_and_nothing_is_passed_over(tmp_path):
    made = recorder(tmp_path, LiveSource(eeg="eeg", markers="markers"))
    first, second = message("eeg", 0, 50), message("eeg", 0, 50)
    made.write(first)
    object.__setattr__(second, "raw_s", (np.arange(50, 100) / RATE_HZ).tobytes())
    made.write(second)
    made.close()
    assert recorded(tmp_path)[0] == [*range(50), *range(50)]


def test_a_stream_that_was_started_again_is_recorded_on_and_another_one_in_another_file(tmp_path):
    """LSL gives each outlet another uid; the reader that was started again tells of that."""
    said = []
    made = recorder(tmp_path, LiveSource(eeg="eeg", markers="markers"), said.append)
    for first, uid, channels in ((0, "a", ["Cz"]), (50, "b", ["Cz"]), (100, "b", ["Cz", "Pz"])):
        for stream, size in (("eeg", 50), ("markers", 5)):
            at = first * size // 50
            piece = message(stream, at, at + size, channels=channels)
            for kind, header in piece.headers.items():
                piece.headers[kind] = header.replace("<info>", f"<info><uid>{uid}</uid>")
            made.write(piece)
            made.write_also()
    made.close()
    assert recorded(tmp_path) == (list(range(100)), [f"m{n}" for n in range(10)])
    assert recorded(tmp_path, "recording-2.xdf") == (
        list(range(100, 150)),
        [f"m{n}" for n in range(10, 15)],
    )
    (sentence,) = said
    assert sentence.endswith("the recording goes on in 'recording-2.xdf'")


def test_what_the_stream_says_of_its_channels_is_recorded(tmp_path):
    """Also where it is no XML."""
    made = recorder(tmp_path, LiveSource(eeg="eeg", markers="markers"))
    channels = ["MEG1", "<ECG>&", "a\x01\x1b[2Jb"]
    units = ["femtoteslas", "microvolts", "femtoteslas"]
    told = {"channels": channels, "kinds": ["MEG", "ECG", "MEG"], "units": units}
    made.write(message("eeg", 0, 50, **told))
    made.close()
    recording = read_recording(tmp_path / "recording.xdf")
    assert recording.channels == ("MEG1", "<ECG>&", r"a\x01\x1b[2Jb")
    assert recording.kinds == ("MEG", "ECG", "MEG")
    assert recording.units == tuple(units)
    assert str(recording.signal(recording.brain_channels)) == "MEG in femtoteslas"
    assert recording.brain_channels == (channels[0], r"a\x01\x1b[2Jb")
