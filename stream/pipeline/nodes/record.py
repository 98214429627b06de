"""The recorder: what the reader saw and the session answered, in the folder's recording.xdf."""

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import zmq

from hvf_core.problem import Problem
from hvf_core.text import printable
from stream.acquire.lsl import pylsl
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.wire.bus import Listener, open_socket
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.pipeline.wire.flat import as_json
from stream.pipeline.wire.messages import Recorded, Retrieval, SessionClosed
from stream.pipeline.wire.nodes import RECORD
from stream.sources.xdf_writer import XdfWriter

_FLUSH_S = 0.5
_EEG, _MARKERS, _RESULTS = 1, 2, 3


class Recorder:
    """Writes three streams: EEG, markers, results. Stamps are raw, with their clock offsets."""

    def __init__(self, config: SessionConfig):
        self._writer: XdfWriter | None = None
        self._path = _free_path(config)
        self._offsets: dict[int, float] = {}
        # A file is read again from its start by a reader that is started again.
        self._skips = isinstance(config.source, FileSource)
        self._n: Counter[int] = Counter()
        self._recorded: tuple[list[str], float, str] | None = None  # the EEG stream

    def fits(self, message: Recorded) -> bool:
        """Whether it is of the EEG stream that is recorded, which the first one says."""
        stream = (message.channels, message.rate_hz, message.channel_format)
        self._recorded = self._recorded or stream
        return stream == self._recorded

    def write(self, recorded: Recorded) -> None:
        if self._writer is None:
            self._writer = self._opened(recorded)
        stream_id = _EEG if recorded.stream == "eeg" else _MARKERS
        again = max(0, self._n[stream_id] - recorded.first) if self._skips else 0
        raw_s = np.frombuffer(recorded.raw_s, np.float64)[again:]
        if not len(raw_s):
            return
        self._n[stream_id] = recorded.first + again + len(raw_s)
        if self._offsets.get(stream_id) != recorded.offset_s:
            self._offsets[stream_id] = recorded.offset_s
            self._writer.write_offset(stream_id, float(raw_s[0]), recorded.offset_s)
        samples = recorded.array if stream_id == _EEG else [[text] for text in recorded.texts]
        self._writer.write_samples(stream_id, raw_s, samples[again:])

    def _opened(self, recorded: Recorded) -> XdfWriter:
        n = len(recorded.channels)
        writer = XdfWriter(self._path)
        names = ("EEG", "EEG", n, recorded.rate_hz, recorded.channel_format, "hvf-live-eeg")
        eeg = pylsl.StreamInfo(*names)
        # What cannot be printed would make a header that nobody can read.
        eeg.set_channel_labels(list(map(printable, recorded.channels)))
        if recorded.kinds:
            eeg.set_channel_types(list(map(printable, recorded.kinds)))
        eeg.set_channel_units(printable(recorded.unit))
        writer.add_stream(_EEG, eeg.as_xml())
        for stream_id, name in ((_MARKERS, "markers"), (_RESULTS, "results")):
            info = pylsl.StreamInfo(name, name.title(), 1, 0.0, "string", f"hvf-{name}")
            writer.add_stream(stream_id, info.as_xml())
        return writer

    def write_answer(self, retrieval: Retrieval) -> None:
        if self._writer is not None:
            stamp_s = np.array([retrieval.stamps["published"]])
            self._writer.write_samples(_RESULTS, stamp_s, [[as_json(retrieval)]])

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _free_path(config: SessionConfig) -> Path:
    """recording.xdf; recording-2.xdf and so on after a restart: no recording is overwritten."""
    path, n = config.folder / "recording.xdf", 1
    while path.exists():
        n += 1
        path = config.folder / f"recording-{n}.xdf"
    return path


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Records until the session is closed."""

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)  # into its log

    socket = open_socket(zmq.PULL, config.endpoints.recording, bind=True)
    feed = Listener(socket, config.session, say)
    heard = (Retrieval, SessionClosed)
    socket = open_socket(zmq.SUB, config.endpoints.results, bind=False, hears=heard)
    results = Listener(socket, config.session, say)
    recorder = Recorder(config)
    lifeline.ready()
    next_flush_s = time.monotonic() + _FLUSH_S
    closed = False
    while not closed and lifeline.command() is None:
        message = feed.receive(wait_ms=50)
        if isinstance(message, Recorded):
            _write(recorder, message, feed)
        for result in results.drain():
            if isinstance(result, Retrieval):
                recorder.write_answer(result)
            closed = closed or isinstance(result, SessionClosed)
        if time.monotonic() >= next_flush_s:
            recorder.flush()
            next_flush_s = time.monotonic() + _FLUSH_S
    for message in feed.drain():
        if isinstance(message, Recorded):
            _write(recorder, message, feed)
    recorder.close()


def _write(recorder: Recorder, message: Recorded, feed: Listener) -> None:
    if recorder.fits(message):
        recorder.write(message)
    else:
        feed.pass_over(Problem("it is of another EEG stream than is recorded; end what sends it"))


if __name__ == "__main__":
    run_node(RECORD, run)
