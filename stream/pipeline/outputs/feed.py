"""Feeds what goes out of a session, in threads of its own, for which no answer waits."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from stream.acquire.lsl import local_clock
from stream.pipeline.books.ledger import Record
from stream.pipeline.outputs.datagrams import Datagrams, as_lines, osc_encoder
from stream.pipeline.outputs.lsl import lsl_outlets
from stream.pipeline.outputs.story import Story, Told
from stream.pipeline.wire.config import SessionConfig

_HELLO_S = 2.0
_BACK_S = 15.0  # the longest wait for listeners that lost a node which sent before this one
_ALL_BACK_S = 1.0  # from the first of them on: the others are on their way
_LOOK_S = 0.05  # while they are waited for
_LAST_WORDS_S = 3.0


class Output(Protocol):
    """Something that is told of what happens; it keeps what goes wrong to itself."""

    name: str

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens, as far as it can know."""

    def tell(self, told: Told) -> None:
        """Takes a message."""


class Way:
    """The way to one output, which each message takes once, whoever dies.

    How many were told is kept in a file: a process that is started in another's place is told all
    messages again, and passes over these. What comes then waits until somebody listens again.

    Args:
        output: at its end.
        path: of the file.
        now_s: of the clock by which it waits.
    """

    def __init__(self, output: Output, path: Path, now_s: float):
        self._output = output
        path.parent.mkdir(exist_ok=True)
        self._is_back = not path.exists()
        self._go_s = now_s if self._is_back else now_s + _BACK_S
        self._file = path.open("w+b" if self._is_back else "r+b", buffering=0)
        self._n = int(self._file.read() or 0)
        self._waiting: deque[Told] = deque()

    @property
    def waits(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._waiting)

    def take(self, told: Told, now_s: float) -> None:
        """Tells a message, now or when somebody listens."""
        if told["n"] > self._n:
            self._waiting.append(told)
            self.look(now_s)

    def hello(self, told: Told) -> None:
        """Tells what is told again and again, in its place among the messages."""
        if not self._waiting:
            self._output.tell(told)

    def look(self, now_s: float) -> None:
        """Tells what waits, once it need not."""
        if not self._is_back and self._output.is_heard:
            self._is_back, self._go_s = True, min(self._go_s, now_s + _ALL_BACK_S)
        while self._waiting and now_s >= self._go_s:
            told = self._waiting.popleft()
            self._output.tell(told)
            self._n = told["n"]
            self._file.seek(0)
            self._file.write(b"%-20d" % self._n)

    def end(self) -> None:
        """Tells what still waits, heard or not."""
        self.look(float("inf"))
        self._file.close()


class Feed:
    """Tells outputs the story of a session.

    Args:
        story: what makes messages of records.
        ways: to the outputs.
    """

    def __init__(self, story: Story, ways: Sequence[Way]):
        self._story, self._ways = story, ways
        self._next_hello_s = 0.0

    @property
    def waits(self) -> bool:
        """Whether something waits to be told."""
        return any(way.waits for way in self._ways)

    def take(self, at_s: float, record: Record, now_s: float) -> None:
        """Takes a record of the ledger, which was entered at `at_s`."""
        for told in self._story.told(at_s, record):
            for way in self._ways:
                way.take(told, now_s)

    def look(self, now_s: float) -> None:
        """Says hello, and tells what has waited."""
        for way in self._ways:
            way.look(now_s)
        if now_s >= self._next_hello_s and not self._story.is_over:
            self._next_hello_s = now_s + _HELLO_S
            told = self._story.hello(now_s)
            for way in self._ways:
                way.hello(told)

    def end(self) -> None:
        """Tells what still waits."""
        for way in self._ways:
            way.end()


class Outputs:
    """All that a session sends out beside its bus, each kind in a thread of its own.

    What is entered before it begins is of a node that was lost: however much that is, it is taken
    record by record, and none of it waits in memory.

    Args:
        config: of the session.
    """

    def __init__(self, config: SessionConfig):
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        asked = config.outputs
        groups: list[Sequence[Output]] = [lsl_outlets(config)] if asked.lsl else []
        if asked.udp is not None:
            groups.append([Datagrams("udp", asked.udp, as_lines, self._said.put)])
        if asked.osc is not None:
            groups.append([Datagrams("osc", asked.osc, osc_encoder(), self._said.put)])
        self._threads = [_Thread(config, outputs) for outputs in groups]

    def begin(self) -> None:
        """Goes on beside the node, from now on."""
        for thread in self._threads:
            thread.start()

    def entered(self, record: Record) -> None:
        """Takes each record of the ledger, in order, those of before a restart too."""
        at_s = local_clock()
        for thread in self._threads:
            thread.take(at_s, record)

    def said(self) -> Iterator[str]:
        """Sentences that a person should read."""
        while not self._said.empty():
            yield self._said.get()

    def close(self) -> None:
        """Waits, but not for long, until all is told."""
        for thread in self._threads:
            thread.records.put(None)
        for thread in self._threads:
            thread.join(2 * _LAST_WORDS_S)


class _Thread(threading.Thread):
    """Tells some outputs what is entered; `records` ends with None, and is empty before it runs."""

    def __init__(self, config: SessionConfig, outputs: Sequence[Output]):
        super().__init__(daemon=True)
        self.records: queue.SimpleQueue[tuple[float, Record] | None] = queue.SimpleQueue()
        now_s = local_clock()
        ways = [Way(output, config.kept(f"told-{output.name}"), now_s) for output in outputs]
        self._feed = Feed(Story(config), ways)

    def take(self, at_s: float, record: Record) -> None:
        if self.ident is None:
            self._feed.take(at_s, record, at_s)
        else:
            self.records.put((at_s, record))

    def run(self) -> None:
        feed, is_over = self._feed, False
        while not is_over:
            feed.look(local_clock())
            with suppress(queue.Empty):
                entered = self.records.get(timeout=_LOOK_S if feed.waits else _HELLO_S / 4)
                is_over = entered is None
                if entered is not None:
                    feed.take(*entered, local_clock())
        end_s = local_clock() + _LAST_WORDS_S
        while feed.waits and local_clock() < end_s:
            time.sleep(_LOOK_S)
            feed.look(local_clock())
        feed.end()
