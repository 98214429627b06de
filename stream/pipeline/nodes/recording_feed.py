"""Hands the recorder what the reader takes from its streams, raw, in pieces of a tenth second."""

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import zmq

from stream.acquire.chunk import Chunk, SampleFormat, StreamKind
from stream.acquire.markers import marker_text
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.messages import Recorded

_PIECE_S = 0.1
_QUEUE = 600  # pieces: a minute, should the disk stall


class RecordingFeed:
    """Collects chunks and sends them on. It never waits: what a dead recorder misses is counted.

    Recording what the reader saw, with the clock offsets that it used, rather than opening the
    streams a second time, makes a session reproducible from its own file.
    """

    def __init__(
        self,
        config: SessionConfig,
        channels: Sequence[str],
        kinds: Sequence[str],
        unit: str,
        rate_hz: float,
        channel_format: SampleFormat,
    ):
        self._socket = open_socket(zmq.PUSH, config.endpoints.recording, bind=False, queue=_QUEUE)
        self._pending: list[Chunk] = []
        self._next_piece_s = 0.0
        self._channels, self._kinds, self._unit = list(channels), list(kinds), unit
        self._rate_hz = rate_hz
        self._format = channel_format
        self._n: Counter[StreamKind] = Counter()
        self.n_lost = 0

    def add(self, stream: StreamKind, chunk: Chunk) -> None:
        if stream == "markers":
            texts = [marker_text(row) for row in chunk.samples]
            self._send("markers", chunk.raw_s, texts, chunk.offset_s, np.empty(0))
            return
        if self._pending and self._pending[0].offset_s != chunk.offset_s:
            self.flush(at_once=True)
        self._pending.append(chunk)

    def flush(self, at_once: bool = False) -> None:
        """Sends what has been collected, once it is a piece, or at once."""
        if not self._pending or not (at_once or time.monotonic() >= self._next_piece_s):
            return
        raw_s = np.concatenate([chunk.raw_s for chunk in self._pending])
        samples = np.concatenate([chunk.samples for chunk in self._pending])
        offset_s = self._pending[0].offset_s
        self._pending.clear()
        self._next_piece_s = time.monotonic() + _PIECE_S
        self._send("eeg", raw_s, [], offset_s, samples)

    def _send(
        self,
        stream: StreamKind,
        raw_s: np.ndarray,
        texts: list[str],
        offset_s: float,
        array: np.ndarray,
    ) -> None:
        message = Recorded(
            channels=self._channels,
            kinds=self._kinds,
            unit=self._unit,
            rate_hz=self._rate_hz,
            channel_format=self._format,
            stream=stream,
            raw_s=np.asarray(raw_s, np.float64).tobytes(),
            texts=texts,
            offset_s=offset_s,
            first=self._n[stream],
            array=array,
        )
        self._n[stream] += len(raw_s)
        self.n_lost += not send(self._socket, message)
