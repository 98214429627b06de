"""Who heard the markers: a second witness beside the reader, and when nobody listened."""

import os
import struct
from collections import OrderedDict, defaultdict, deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stream.acquire.markers import Event, Marker, MarkerReader, MarkerRule
from stream.pipeline.wire.config import NUMBERS, RESERVED
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.messages import MarkerSeen

_PLACES, _PLACE_BYTES = 256, 2048  # of an announcement, which has about 300
_LENGTH = struct.Struct("<I")
_REMEMBERED = 1000  # markers that were announced and not seen: they come within milliseconds


class Switch:
    """Whether markers open trials, and in which block, for whoever reads them next.

    Args:
        path: keeps it, once it has changed.
        reads: goes on from there.
    """

    def __init__(self, path: Path, reads: MarkerReader):
        self._path, self._reads = path, reads
        if path.exists():
            is_on, block, *begun_by = path.read_text().split()
            reads.is_on, reads.block = is_on == "on", int(block)
            reads.begun_by = "".join(begun_by)
        self._was = self._now

    @property
    def _now(self) -> str:
        reads = self._reads
        return f"{'on' if reads.is_on else 'off'} {reads.block} {reads.begun_by}"

    def look(self) -> None:
        """Writes down a change, whole at any moment: reader and witness both do."""
        if self._now != self._was:
            self._was = self._now
            self._path.parent.mkdir(exist_ok=True)
            draft = self._path.with_name(f"{self._path.name}-{os.getpid()}")
            draft.write_text(self._was)
            draft.replace(self._path)


class Numbers:
    """Keeps the last number that a trial was given, from before anybody is told of it.

    What a reader that dies has told may still be on its way to the ledger: the next one goes on
    behind that.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        self._file = path.open("r+b", buffering=0)

    def give(self, number: int) -> None:
        """Writes it down: in place, by one call, so that it is always whole."""
        self._file.seek(0)
        self._file.write(b"%16d" % number)


def last_number(path: Path) -> int:
    """What `Numbers` has kept; 0 before the first."""
    return int(path.read_bytes() or 0) if path.exists() else 0


class Announced:
    """Keeps what a reader announces, from before anybody is told of it, as it may die with it.

    The last ones: each in a place, by one call, so that it is whole. What is longer is not kept.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(_PLACES * _PLACE_BYTES))
        self._file = path.open("r+b", buffering=0)

    def keep(self, message: MarkerSeen) -> None:
        """Writes it down."""
        frame = pack(message)
        if len(frame) <= _PLACE_BYTES - _LENGTH.size:
            self._file.seek(message.about.trial % _PLACES * _PLACE_BYTES)
            self._file.write(_LENGTH.pack(len(frame)) + frame)


def last_announced(path: Path) -> list[MarkerSeen]:
    """What `Announced` has kept, in the order of numbers; none where there is no file."""
    data, found = path.read_bytes() if path.is_file() else b"", []
    for start in range(0, len(data) - _LENGTH.size, _PLACE_BYTES):
        (length,) = _LENGTH.unpack_from(data, start)
        frame = data[start + _LENGTH.size :][:length]
        if frame and isinstance(message := unpack(frame), MarkerSeen):
            found.append(message)
    return sorted(found, key=lambda message: message.about.trial)


class FreeNumbers:
    """Numbers for markers that no reader has announced: before those of the reader that is there.

    Where none is left there, they are beyond all that readers give.
    """

    def __init__(self) -> None:
        beyond = range(NUMBERS + 1, 2**53)
        self._left = {beyond: beyond}  # of each span what was not used

    def reader_begins(self, first: int) -> None:
        """A reader numbers its trials from then on."""
        if first > RESERVED:
            before = range(first - RESERVED, first)
            self._left.setdefault(before, before)

    @property
    def next(self) -> int:
        """The next one, until it is used."""
        return next(left[0] for left in reversed(self._left.values()) if left)

    def use(self, number: int) -> bool:
        """Whether a number is one of them; it is not given again."""
        for span in self._left:
            if number in span:
                self._left[span] = range(number + 1, span.stop)
                return True
        return False


class Witness:
    """Matches the markers that it sees itself with those that the reader announces.

    By their marks, as often as each comes, and in whatever order: what both have seen is the
    reader's. What it never announces was missed; if it announces that later all the same, it is
    told under which number the marker is entered.

    Args:
        rule: which markers are stimuli.
        switch: see `Switch`.
    """

    def __init__(self, rule: MarkerRule, switch: Path):
        self._reads, self._switch_path = MarkerReader(rule), switch
        self._switch: Switch | None = None
        self._seen: deque[Event] = deque()  # and not announced
        self._ahead: OrderedDict[str, int] = OrderedDict()  # how often announced, and not seen
        self._entered: defaultdict[str, list[int]] = defaultdict(list)  # numbers, by mark

    def saw(self, marker: Marker) -> None:
        """Takes a marker that came by the second way."""
        if self._switch is None:  # by now it is what the reader has made of it
            self._switch = Switch(self._switch_path, self._reads)
        event = self._reads.read(marker)
        self._switch.look()
        if event is None:
            return
        if self._ahead.get(event.mark):
            self._ahead[event.mark] -= 1
        else:
            self._seen.append(event)

    def announced(self, mark: str) -> int | None:
        """Takes what the reader announces; the number of the marker where it is entered already."""
        if numbers := self._entered.get(mark):
            return numbers.pop(0)
        for event in self._seen:
            if event.mark == mark:
                self._seen.remove(event)
                return None
        self._ahead[mark] = self._ahead.pop(mark, 0) + 1
        if len(self._ahead) > _REMEMBERED:
            self._ahead.popitem(last=False)
        return None

    def missed(self, since_s: float, until_s: float) -> list[Event]:
        """What came from then until then, both included, and was not announced; what came before
        is let go."""
        events = [event for event in self._seen if event.readable_s <= until_s]
        self._seen = deque(event for event in self._seen if event.readable_s > until_s)
        return [event for event in events if event.readable_s >= since_s]

    def entered(self, mark: str, number: int) -> None:
        """A marker that was missed is in the ledger, now or since before a crash."""
        self._entered[mark].append(number)

    def sure_until_s(self, now_s: float) -> float:
        """Until when all that came is in the ledger, or was announced."""
        return min((event.readable_s for event in self._seen), default=now_s)


FAILED = "failed"
"""How a session has ended that could not go on, or could not start; its summary says why."""
LOST = "lost"
"""How a session has ended that did not get to say it."""


class Parting(NamedTuple):
    """When a session has left for its end: markers that come later are nobody's.

    Attributes:
        end: how, as the ledger calls it.
        at_s: on the clock of its stamps.
        why: it failed.
    """

    end: str
    at_s: float
    why: str = ""

    def keep(self, path: Path) -> None:
        """Writes it down, for whoever closes the books, where the disk takes it."""
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{self.end} {self.at_s!r} {self.why}", encoding="utf-8")


def read_parting(path: Path) -> Parting | None:
    """What was kept of it; None of a session that has not left, or could not write it down."""
    if not path.exists():
        return None
    try:
        end, at_s, why = path.read_text(encoding="utf-8").split(" ", 2)
        return Parting(end, float(at_s), why)
    except ValueError:  # a disk that is full has taken half of it
        return None


class Attendance:
    """Up to when all markers are in the ledger, and the times at which nobody listened.

    Args:
        path: keeps that time, for the next process.

    Attributes:
        since_s: when the first reader began to listen; infinite before.
        until_s: up to when somebody has always listened since.
    """

    def __init__(self, path: Path):
        self._path = path
        self.since_s = self.until_s = float("inf")
        if path.exists():
            with suppress(ValueError):  # a power cut may leave anything
                self.since_s, self.until_s = map(float, path.read_bytes().split())
        self._is_new = self.since_s == float("inf")
        self._later: dict[str, tuple[float, float]] = {}  # who listens, but did not at `until_s`

    def begin(self, since_s: float) -> None:
        """A reader listens; with the first one it begins."""
        if self.since_s == float("inf"):
            self.since_s = self.until_s = since_s
            self._path.parent.mkdir(exist_ok=True)
            self._path.touch()
            self.keep()

    def is_first(self, since_s: float) -> bool:
        """Whether this process and a reader of this time are the first: none before was lost."""
        return self._is_new and since_s == self.since_s

    def listened(self, who: str, since_s: float, until_s: float) -> None:
        """Somebody heard all that came between these times."""
        self._later[who] = (since_s, until_s)
        for since_s, until_s in sorted(self._later.values()):
            if since_s <= self.until_s < until_s:
                self.until_s = until_s
        self._later = {one: span for one, span in self._later.items() if span[1] > self.until_s}

    def gaps(self, who: str) -> list[tuple[float, float]]:
        """The times before this one's at which nobody listened; the last one goes on listening."""
        found = []
        while who in self._later:
            start_s, stop_s = self.until_s, min(since_s for since_s, _ in self._later.values())
            found.append((start_s, stop_s))
            self.until_s = stop_s
            for other, span in list(self._later.items()):
                self.listened(other, *span)
        return found

    def keep(self) -> None:
        """Writes it down: in place, by one call, so that it is always whole."""
        with self._path.open("r+b", buffering=0) as file:
            file.write(f"{self.since_s:24.9f} {self.until_s:24.9f}".encode())
