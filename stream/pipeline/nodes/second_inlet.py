"""Hears markers a second time, in a process that does not die with the reader, and hands them on.

An outlet that was just opened is heard by one inlet before the other: what the reader's own has not
heard it takes from the second.
"""

import math
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import zmq

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.inlet import Inlet
from stream.acquire.lsl import find_stream, local_clock
from stream.acquire.markers import Marker, marker_text
from stream.acquire.watch.return_guard import ReturnGuard
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import LiveSource
from stream.pipeline.wire.messages import Message, Overheard
from stream.recorder.tap import as_rows

_GUARD_S = 3.0
_PATIENCE_S = 0.1  # for the reader's own inlet, which is as fast as the second one
_AT_ONCE = 20  # messages at a look: EEG does not wait for a flood of markers
_REMEMBERED = 20_000  # markers that came by one way only: a flood, while a process stands still


class SecondInlet:
    """Hears a marker stream in threads of this process, from when it is there.

    Args:
        to_reader: address to which it hands on what it hears, where a reader is there to take it.

    Attributes:
        since_s: from when on; infinite before, and once it hears no more.
    """

    def __init__(self, source: LiveSource, name: str, to_reader: str):
        self._chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self.since_s = float("inf")
        self._source, self._name = source, name
        self._to_reader = open_socket(zmq.PUSH, to_reader, bind=True)
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
            return Inlet(found, self._heard)
        except Problem:
            return None

    def _heard(self, chunk: Chunk) -> None:
        """In the inlet's thread, at once: the process may be at its books."""
        self._chunks.put(chunk)
        is_text = chunk.samples.dtype.kind not in "iuf"
        send(
            self._to_reader,
            Overheard(
                raw_s=np.asarray(chunk.raw_s, np.float64).tobytes(),
                texts=as_rows(chunk.samples) if is_text else [],
                offset_s=chunk.offset_s,
                readable_s=chunk.readable_s,
                array=np.empty(0) if is_text else chunk.samples,
            ),
        )


class BothWays:
    """Gives the reader each marker once: of its own inlet, or else of the second one.

    What its own inlet hears counts, so that the second one changes nothing where both hear the
    same. Twins, of one stamp and text, count as often as the way has them that has more.

    Args:
        told: takes the messages that the second inlet has sent.
        since_s: what it has heard of before then is not taken: a reader before this one may have
            announced it, and no EEG of that time is here.
        clock: the reader's, in seconds.
    """

    def __init__(
        self,
        told: Callable[[], Iterable[Message]],
        since_s: float,
        clock: Callable[[], float] = local_clock,
    ):
        self._told, self._since_s, self._clock = told, since_s, clock
        self._waiting: deque[tuple[float, Overheard]] = deque()  # and since when
        # By how much its own inlet has heard a marker more often than the second one has.
        self._ahead: OrderedDict[str, int] = OrderedDict()

    @property
    def waits_since_s(self) -> float:
        """When the first came that waits for the own inlet; infinite where none does."""
        return self._waiting[0][1].readable_s if self._waiting else math.inf

    def own(self, chunk: Chunk) -> Chunk:
        """What is left of a chunk of its own inlet: not what the second one has brought before."""
        return self._left(chunk, 1)

    def second(self) -> Iterator[Chunk]:
        """What only the second inlet has heard; empty chunks too."""
        now_s = self._clock()
        for message in islice(self._told(), _AT_ONCE):
            if isinstance(message, Overheard):
                self._waiting.append((now_s, message))
        for _ in range(_AT_ONCE):
            if not self._waiting or now_s - self._waiting[0][0] < _PATIENCE_S:
                return
            _, heard = self._waiting.popleft()
            raw_s = np.frombuffer(heard.raw_s)
            samples = np.array(heard.texts, object) if heard.texts else heard.array
            is_ours = raw_s + heard.offset_s >= self._since_s
            chunk = Chunk(raw_s[is_ours], samples[is_ours], heard.offset_s, now_s)
            yield self._left(chunk, -1)

    def _left(self, chunk: Chunk, way: int) -> Chunk:
        is_left = [
            self._is_new(Marker(raw_s, marker_text(row), 0.0).mark, way)
            for raw_s, row in zip(chunk.raw_s.tolist(), chunk.samples, strict=True)
        ]
        unscaled = None if chunk.unscaled is None else chunk.unscaled[is_left]
        samples = chunk.samples[is_left]
        return replace(chunk, raw_s=chunk.raw_s[is_left], samples=samples, unscaled=unscaled)

    def _is_new(self, mark: str, way: int) -> bool:
        ahead = self._ahead.pop(mark, 0)
        if ahead + way:
            self._ahead[mark] = ahead + way
            if len(self._ahead) > _REMEMBERED:
                self._ahead.popitem(last=False)
        return ahead * way >= 0
