"""The recorder: what the reader saw and the session answered, in the folder's recording.xdf."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import zmq

from hvf_core.problem import Problem
from stream.acquire.chunk import RESULTS, StreamKind
from stream.acquire.lsl import FoundStream, pylsl
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.wire.bus import Listener, open_socket, send
from stream.pipeline.wire.config import FileSource, LiveSource, SessionConfig
from stream.pipeline.wire.flat import as_json
from stream.pipeline.wire.messages import NodeState, Noted, Recorded, Retrieval, SessionClosed
from stream.pipeline.wire.nodes import RECORD
from stream.recorder.header import is_same_source, legible, name_in
from stream.recorder.intake import Intake, StreamsFile, is_among, lacking
from stream.sources.xdf_writer import XdfWriter, described, free_path

_FLUSH_S = 0.5
_WRITE_S = 0.1
_OFFSET_EVERY_S = 5.0
_TELL_S = 5.0  # after the beginning: which other streams are there
_IDS: dict[StreamKind, int] = {"eeg": 1, "markers": 2}
_RESULTS, _ALSO = 3, 4


class Recorder:
    """Writes the streams of a session as they were sent, its answers, and what `also` takes.

    Stamps are raw, with their clock offsets. Where a stream comes back as another, with other
    channels for instance, another recording is begun.

    Args:
        config: of the session.
        say: hears what a person should know.
        also: what takes streams that the session does not read.
    """

    def __init__(
        self, config: SessionConfig, say: Callable[[str], object], also: Intake | None = None
    ):
        self._writer: XdfWriter | None = None
        self._folder = config.folder
        self._session = config.session
        self._headers: Mapping[StreamKind, str] = {}
        self._offsets: dict[StreamKind, tuple[float, float]] = {}
        # A file is read again from its start by a reader that is started again.
        self._skips = isinstance(config.source, FileSource)
        self._n: Counter[StreamKind] = Counter()
        self._say = say
        self._also = also
        self._also_file: StreamsFile | None = None

    def write(self, recorded: Recorded) -> None:
        """Writes what was taken.

        Raises:
            ValueError, TypeError: it is not as its headers say, or they say nothing.
        """
        writer = self._writer_for(recorded.headers)
        kind = recorded.stream
        again = max(0, self._n[kind] - recorded.first) if self._skips else 0
        raw_s = np.frombuffer(recorded.raw_s, np.float64)[again:]
        if not len(raw_s):
            return
        at_s, offset_s = self._offsets.get(kind, (-np.inf, 0.0))
        if offset_s != recorded.offset_s or abs(raw_s[0] - at_s) > _OFFSET_EVERY_S:
            self._offsets[kind] = (float(raw_s[0]), recorded.offset_s)
            writer.write_offset(_IDS[kind], *self._offsets[kind])
        samples = recorded.texts or recorded.array
        writer.write_samples(_IDS[kind], raw_s, samples[again:])
        self._n[kind] = recorded.first + again + len(raw_s)

    def _writer_for(self, headers: Mapping[StreamKind, str]) -> XdfWriter:
        """What writes the streams with these headers."""
        if self._writer is not None and headers == self._headers:
            return self._writer
        for header in headers.values():
            described(header)
        if self._writer is None:
            self._writer = self._begun(headers)[0]
        elif others := self._others(headers):
            self._writer.close()
            self._writer, name = self._begun(headers)
            self._say(
                f"the stream '{others[0]}' came back as another than is recorded: the recording "
                f"goes on in '{name}'"
            )
        self._headers = headers  # a program that was started again has another uid
        return self._writer

    def _others(self, headers: Mapping[StreamKind, str]) -> list[str]:
        """Names of the streams that are others than those that are recorded."""
        if headers.keys() != self._headers.keys():
            raise ValueError("of other streams than are recorded")
        pairs = [(self._headers[kind], header) for kind, header in headers.items()]
        return [name_in(new) for old, new in pairs if not is_same_source(old, new)]

    def _begun(self, headers: Mapping[StreamKind, str]) -> tuple[XdfWriter, str]:
        """A new recording, and its name."""
        path = free_path(self._folder / "recording.xdf")
        writer = XdfWriter(path)
        for kind, header in headers.items():
            writer.add_stream(_IDS[kind], header)
        writer.add_stream(_RESULTS, self._results_header())
        self._offsets.clear()
        self._also_file = None
        return writer, path.name

    def _results_header(self) -> str:
        name = f"hvf-live-results-{self._session}"
        info = pylsl.StreamInfo(name, RESULTS, 1, 0.0, "string", name)
        told = info.desc().append_child("recorded")
        for kind, stream_id in _IDS.items():
            told.append_child_value(kind, str(stream_id))
        return legible(info.as_xml())

    def write_answer(self, retrieval: Retrieval) -> None:
        if self._writer is not None:
            stamp_s = np.array([retrieval.stamps["published"]])
            self._writer.write_samples(_RESULTS, stamp_s, [[as_json(retrieval)]])

    def write_also(self) -> None:
        """Writes what has come of the streams that the session does not read."""
        if self._writer is not None and self._also is not None:
            self._also_file = self._also_file or StreamsFile(self._writer, self._also, _ALSO)
            self._also_file.write()

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def intake_of(config: SessionConfig) -> Intake | None:
    """What takes the streams of --record-also; None where there are none to take."""
    source = config.source
    if not isinstance(source, LiveSource) or not source.record_also:
        return None

    def is_wanted(stream: FoundStream) -> bool:
        is_ours = stream.name in (source.eeg, source.markers) or config.session in stream.source_id
        return not is_ours and is_among(stream.name, source.record_also)

    return Intake(is_wanted)


def _told(config: SessionConfig, also: Intake) -> Iterator[str]:
    """What has become of --record-also."""
    there = [tap.stream for tap in also.taps]
    if there:
        yield f"recorded too: {', '.join(map(str, there))}"
    asked = config.source.record_also if isinstance(config.source, LiveSource) else ()
    for name in lacking(asked, there):
        yield f"there is no stream '{name}' yet: it is recorded from when it comes"


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Records until the session is closed."""
    reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)

    def say(sentence: str) -> None:
        send(reports, Noted(node=RECORD, text=sentence, facts={}))

    socket = open_socket(zmq.PULL, config.endpoints.recording, bind=True)
    feed = Listener(socket, config.session, say)
    heard = (Retrieval, SessionClosed)
    socket = open_socket(zmq.SUB, config.endpoints.results, bind=False, hears=heard)
    results = Listener(socket, config.session, say)
    also = intake_of(config)
    recorder = Recorder(config, say, also)
    if also is not None:
        also.begin()
    lifeline.ready()
    alive = NodeState(node=RECORD, incarnation=lifeline.incarnation)
    next_flush_s = time.monotonic() + _FLUSH_S
    next_write_s, tell_s = 0.0, time.monotonic() + _TELL_S
    closed = False
    while not closed and lifeline.command() is None:
        message = feed.receive(wait_ms=50)
        if isinstance(message, Recorded):
            _write(recorder, message, feed)
        for result in results.drain():
            if isinstance(result, Retrieval):
                recorder.write_answer(result)
            closed = closed or isinstance(result, SessionClosed)
        now_s = time.monotonic()
        if also is not None and now_s >= next_write_s:
            next_write_s = now_s + _WRITE_S
            recorder.write_also()
            also.check()
            said = list(also.taken())
            if now_s >= tell_s:
                tell_s = np.inf
                said += _told(config, also)
            for sentence in said:
                say(sentence)
        if now_s >= next_flush_s:
            recorder.flush()
            send(reports, alive)
            next_flush_s = time.monotonic() + _FLUSH_S
    for message in feed.drain():
        if isinstance(message, Recorded):
            _write(recorder, message, feed)
    recorder.write_also()
    recorder.close()


def _write(recorder: Recorder, message: Recorded, feed: Listener) -> None:
    try:
        recorder.write(message)
    except (ValueError, TypeError) as error:
        feed.pass_over(Problem(f"it does not fit what is recorded ({error}); end what sends it"))


if __name__ == "__main__":
    run_node(RECORD, run)
