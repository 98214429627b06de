"""Hands the recorder what the reader takes from its streams, raw, in pieces of a tenth second."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import zmq

from stream.acquire.chunk import Chunk, StreamKind
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.messages import Recorded
from stream.recorder.tap import as_rows

_PIECE_S = 0.1
_QUEUE = 600  # pieces: a minute, should the disk stall


class RecordingFeed:
    """Collects chunks and sends them on. It never waits: what a dead recorder misses is counted.

    Recording what the reader saw, with the clock offsets that it used, rather than opening the
    streams a second time, makes a session reproducible from its own file.

    Args:
        headers: what each stream says of itself, as XML.
    """

    def __init__(self, config: SessionConfig, headers: Mapping[StreamKind, str]):
        self._socket = open_socket(zmq.PUSH, config.endpoints.recording, bind=False, queue=_QUEUE)
        self._pending: list[Chunk] = []
        self._next_piece_s = 0.0
        self._headers = dict(headers)
        self._n: Counter[StreamKind] = Counter()
        self.n_lost = 0

    def add(self, stream: StreamKind, chunk: Chunk) -> None:
        if stream == "markers":
            self._send("markers", [chunk])
            return
        if self._pending and self._pending[0].offset_s != chunk.offset_s:
            self.flush(at_once=True)
        self._pending.append(chunk)

    def flush(self, at_once: bool = False) -> None:
        """Sends what has been collected, once it is a piece, or at once."""
        if not self._pending or not (at_once or time.monotonic() >= self._next_piece_s):
            return
        self._next_piece_s = time.monotonic() + _PIECE_S
        self._send("eeg", self._pending)
        self._pending.clear()

    def _send(self, stream: StreamKind, chunks: Sequence[Chunk]) -> None:
        raw_s = np.concatenate([chunk.raw_s for chunk in chunks])
        samples = np.concatenate([chunk.sent for chunk in chunks])
        is_text = samples.dtype.kind not in "iuf"
        message = Recorded(
            headers=self._headers,
            stream=stream,
            raw_s=np.asarray(raw_s, np.float64).tobytes(),
            texts=as_rows(samples) if is_text else [],
            offset_s=chunks[0].offset_s,
            first=self._n[stream],
            array=np.empty(0) if is_text else samples,
        )
        self._n[stream] += len(raw_s)
        self.n_lost += not send(self._socket, message)
