"""The streams that are to be recorded: found, opened, measured, taken again when they return."""

import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from hvf_core.problem import needed
from stream.acquire.lsl import DOCTOR, GONE, FoundStream, pylsl
from stream.recorder.tap import Tap
from stream.sources.xdf_writer import XdfWriter

_LOOK_S = 0.25
_FORGET_S = 3.0  # a source that does not answer for so long is gone, if it does not send either
_STOP_WAIT_S = 5.0
_AGAIN_S = 5.0  # until one that was found and did not answer is tried again


def is_among(name: str, patterns: Iterable[str]) -> bool:
    """Whether a stream's name is one of these, or fits one, as `Eye*` (doctor's fit none)."""
    fits = not name.startswith(DOCTOR)
    return any(name == one or (fits and fnmatchcase(name, one)) for one in patterns)


def lacking(names: Iterable[str], there: Sequence[FoundStream]) -> list[str]:
    """Those of some names and patterns that no stream has that is there."""
    return [name for name in names if not any(is_among(one.name, (name,)) for one in there)]


def is_pattern(name: str) -> bool:
    """Whether several streams may be meant."""
    return any(sign in name for sign in "*?[")


class Intake:
    """The streams that are `wanted`, from when somebody begins.

    Everything that may block has a thread of its own; liblsl keeps samples until they are pulled,
    for minutes, so that nothing waits for a disk.

    Attributes:
        taps: all streams that were taken so far, in the order in which they were; it only grows.
        said: what a person should know.
    """

    def __init__(self, wanted: Callable[[FoundStream], bool]):
        self.taps: list[Tap] = []
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._wanted = wanted
        self._resolver = pylsl.ContinuousResolver(forget_after=_FORGET_S)
        self._since_s: dict[str, float] = {}  # when a source was seen first, by its uid
        self._again_s: dict[str, float] = {}  # when one that did not answer is tried again
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._failure: Exception | None = None

    def there(self) -> list[FoundStream]:
        """Those that answer now, by name."""
        return [one for one in self._answering() if self._wanted(one)]

    def others(self) -> list[FoundStream]:
        """Those that answer too, and are not wanted."""
        return [one for one in self._answering() if not self._wanted(one)]

    def _answering(self) -> list[FoundStream]:
        found = map(FoundStream, self._resolver.results())
        return sorted(found, key=lambda one: (one.name, one.source_id, one.uid))

    def begin(self) -> None:
        """Opens what is there, and from now on all that comes; returns when that is open."""
        self._look()
        self._thread.start()

    def check(self) -> None:
        """Raises what has ended it, where nobody has stopped it."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Looks after nothing any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_WAIT_S)

    def taken(self) -> Iterable[str]:
        """The sentences that were said."""
        while not self.said.empty():
            yield self.said.get()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_LOOK_S):
                self._look()
                for tap in self.taps:
                    tap.measure()
        except Exception as error:
            self._failure = error  # for whoever waits for samples

    def _look(self) -> None:
        found = self.there()
        uids, now_s = {one.uid for one in found}, time.monotonic()
        for one in found:
            self._since_s.setdefault(one.uid, now_s)
        ours = [tap for tap in self.taps if not tap.is_over]
        for tap in ours:
            tap.watch(is_gone=tap.stream.uid not in uids and tap.silence_s > _FORGET_S)
            if tap.doubted_s is not None:
                self._judge(tap, found)
        # One that has just died is listed for a while.
        taken = {
            tap.stream.uid
            for tap in ours
            if not tap.is_over and not (tap.is_dead and tap.silence_s > 2 * _FORGET_S)
        }
        for one in found:
            if one.uid not in taken and now_s >= self._again_s.get(one.uid, 0.0):
                self._take(one, [tap for tap in ours if tap.stream.name == one.name], uids)

    def _judge(self, tap: Tap, found: Sequence[FoundStream]) -> None:
        """Looks at what liblsl has followed: the source itself, where no other is listed by now."""
        those = [one for one in found if one.source_id == tap.stream.source_id]
        those = [one for one in those if one.name == tap.stream.name]
        others = [one for one in those if one.uid != tap.stream.uid]
        if others:  # what has died is listed for a while
            self._again_s[tap.stream.uid] = time.monotonic() + _AGAIN_S
        if others or (those and time.monotonic() - needed(tap.doubted_s) > _FORGET_S):
            with suppress(*GONE):
                tap.accept((others or those)[0])

    def _take(self, found: FoundStream, namesakes: Sequence[Tap], uids: Container[str]) -> None:
        for tap in namesakes:
            if found.source_id and is_followed(tap.stream, found):
                # liblsl follows it, unless the other one is there too, and stays.
                is_gone = tap.stream.uid not in uids
                if is_gone:  # before an offset was measured it does so without a word
                    tap.doubt()
                if is_gone or time.monotonic() - self._since_s[found.uid] < 2 * _FORGET_S:
                    return
        try:
            if not any(tap.is_lost and tap.resume(found) for tap in namesakes):
                self.taps.append(Tap(found, self.said.put))
                if self._thread.is_alive():
                    self.said.put(f"the stream {found} is there: taken")
        except GONE:
            if found.uid not in self._again_s:
                self.said.put(f"the stream {found} was found but does not answer: tried again")
            self._again_s[found.uid] = time.monotonic() + _AGAIN_S


def is_followed(was: FoundStream, found: FoundStream) -> bool:
    """Whether liblsl would take the one for the other, started again."""
    told = ("name", "type", "source_id", "n_channels", "channel_format")
    return all(getattr(was, one) == getattr(found, one) for one in told)


class StreamsFile:
    """Writes what has come of all streams into a file, each under an id from `first_id` on."""

    def __init__(self, writer: XdfWriter, intake: Intake, first_id: int = 1):
        self._writer, self._intake, self._first_id = writer, intake, first_id
        self._n_added = 0

    def write(self) -> None:
        """Everything until now."""
        for number, tap in enumerate(self._intake.taps):
            stream_id = self._first_id + number
            if number == self._n_added:
                self._writer.add_stream(stream_id, tap.header)
                self._n_added += 1
            while tap.offsets:
                self._writer.write_offset(stream_id, *tap.offsets.popleft())
            for raw_s, samples in tap.pull():
                self._writer.write_samples(stream_id, raw_s, samples)
