"""Hears markers a second time, in a process that does not die with the reader, and hands them on.

An outlet that was just opened is heard by one inlet before the other: what the reader's own has not
heard it takes from the second.
"""

import math
import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

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


class Heard(NamedTuple):
    """Markers that were heard, and from when on those of the second inlet wait for the own one."""

    chunk: Chunk
    marks: Sequence[str]
    since_s: float

    @classmethod
    def of(cls, chunk: Chunk, since_s: float) -> "Heard":
        pairs = zip(chunk.raw_s.tolist(), chunk.samples, strict=True)
        marks = [Marker(raw_s, marker_text(row), 0.0).mark for raw_s, row in pairs]
        return cls(chunk, marks, since_s)

    def part(self, start: int, stop: int | None = None) -> "Heard":
        """Some of them."""
        chosen = slice(start, stop)
        return Heard(_part(self.chunk, chosen), self.marks[chosen], self.since_s)


class BothWays:
    """Gives the reader each marker once: of its own inlet, or else of the second one.

    What its own inlet hears counts, so that the second one changes nothing where both hear the
    same. Twins, of one stamp and text, count as often as the way has them that has more. An outlet
    is heard in order: what waits here and was sent before a marker that the own inlet brings will
    not come by that any more, and is given before it.

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
        self._waiting: deque[Heard] = deque()
        self._n_waiting: Counter[str] = Counter()  # by mark
        # By how much its own inlet has heard a marker more often than the second one has.
        self._ahead: OrderedDict[str, int] = OrderedDict()

    @property
    def waits_since_s(self) -> float:
        """When the first came that waits for the own inlet; infinite where none does."""
        return self._waiting[0].chunk.readable_s if self._waiting else math.inf

    def own(self, chunk: Chunk) -> Iterator[Chunk]:
        """What is left of a chunk of its own inlet, which is not what the second one has brought
        before, and what only that one has heard meanwhile; empty chunks too."""
        self._hear()
        heard, start = Heard.of(chunk, self._clock()), 0
        for n, (mark, raw_s) in enumerate(zip(heard.marks, chunk.raw_s, strict=True)):
            if older := list(self._older(mark, raw_s)):
                yield self._left(heard.part(start, n), 1)
                yield from map(self._given, older)
                start = n
        yield self._left(heard.part(start), 1)

    def second(self) -> Iterator[Chunk]:
        """What only the second inlet has heard; empty chunks too."""
        self._hear()
        patient_s = self._clock() - _PATIENCE_S
        for _ in range(_AT_ONCE):
            if not self._waiting or self._waiting[0].since_s > patient_s:
                return
            yield self._given(self._taken(len(self._waiting[0].marks)))

    def _hear(self) -> None:
        for message in islice(self._told(), _AT_ONCE):
            if not isinstance(message, Overheard):
                continue
            raw_s = np.frombuffer(message.raw_s)
            samples = np.array(message.texts, object) if message.texts else message.array
            is_ours = raw_s + message.offset_s >= self._since_s
            told = (message.offset_s, message.readable_s)
            if is_ours.any():
                chunk = Chunk(raw_s[is_ours], samples[is_ours], *told)
                self._waiting.append(Heard.of(chunk, self._clock()))
                self._n_waiting.update(self._waiting[-1].marks)

    def _older(self, mark: str, raw_s: float) -> Iterator[Heard]:
        """Takes what waits and was sent before a marker: by its place, or else by its stamp."""
        is_there = self._n_waiting[mark] > 0
        while self._waiting:
            first = self._waiting[0]
            stamps_s = first.chunk.raw_s
            pairs = enumerate(zip(first.marks, stamps_s, strict=True))
            n = next(
                (n for n, (one, at_s) in pairs if (one == mark if is_there else not at_s < raw_s)),
                len(first.marks),
            )
            if n:
                yield self._taken(n)
            if n < len(first.marks):
                return

    def _taken(self, n: int) -> Heard:
        """The first markers that wait."""
        first = self._waiting.popleft()
        if n < len(first.marks):
            self._waiting.appendleft(first.part(n))
        taken = first.part(0, n)
        self._n_waiting.subtract(taken.marks)
        for mark in taken.marks:
            if not self._n_waiting[mark]:
                del self._n_waiting[mark]
        return taken

    def _given(self, heard: Heard) -> Chunk:
        now_s = self._clock()
        return self._left(heard._replace(chunk=replace(heard.chunk, readable_s=now_s)), -1)

    def _left(self, heard: Heard, way: int) -> Chunk:
        is_left = np.array([self._is_new(mark, way) for mark in heard.marks], bool)
        return _part(heard.chunk, is_left)

    def _is_new(self, mark: str, way: int) -> bool:
        ahead = self._ahead.pop(mark, 0)
        if ahead + way:
            self._ahead[mark] = ahead + way
            if len(self._ahead) > _REMEMBERED:
                self._ahead.popitem(last=False)
        return ahead * way >= 0


def _part(chunk: Chunk, chosen: slice | np.ndarray) -> Chunk:
    unscaled = None if chunk.unscaled is None else chunk.unscaled[chosen]
    raw_s, samples = chunk.raw_s[chosen], chunk.samples[chosen]
    return replace(chunk, raw_s=raw_s, samples=samples, unscaled=unscaled)
