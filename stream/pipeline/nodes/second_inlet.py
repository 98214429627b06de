"""Hears the markers a second time, in a process that does not die with the reader."""

import queue
import threading
import time
from collections.abc import Iterator

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.inlet import Inlet
from stream.acquire.lsl import find_stream, local_clock
from stream.acquire.watch.return_guard import ReturnGuard
from stream.pipeline.wire.config import LiveSource

_GUARD_S = 3.0


class SecondInlet:
    """Hears a marker stream in threads of this process, from when it is there.

    Attributes:
        since_s: from when on; infinite before, and once it hears no more.
    """

    def __init__(self, source: LiveSource, name: str):
        self._chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self.since_s = float("inf")
        self._source, self._name = source, name
        threading.Thread(target=self._listen, daemon=True).start()

    def taken(self) -> Iterator[Chunk]:
        """What has come."""
        while not self._chunks.empty():
            yield self._chunks.get()

    def _listen(self) -> None:
        inlet = self._opened()
        while inlet is None:
            time.sleep(_GUARD_S)  # the reader says what is wrong
            inlet = self._opened()
        inlet.start()
        self.since_s = local_clock()
        guard = ReturnGuard(inlet, self._source.marker_source_id is not None)
        try:
            while True:
                time.sleep(_GUARD_S)
                inlet.check()
                guard.look()
        finally:
            self.since_s = float("inf")

    def _opened(self) -> Inlet | None:
        try:
            found = find_stream(self._name, self._source.wait_s, self._source.marker_source_id)
            return Inlet(found, self._chunks.put)
        except Problem:
            return None
