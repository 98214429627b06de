"""One stream, for a file: samples, stamps and clock offsets as they are sent."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from stream.acquire.lsl import GONE, FoundStream, local_clock, pylsl, time_correction
from stream.acquire.markers import as_text
from stream.recorder.header import is_same_source, legible
from stream.recorder.tally import Tally

Samples = np.ndarray | Sequence[Sequence[str]]
TapState = Literal["recording", "silent", "lost"]

_PULL_SAMPLES = 4096
_BUFFER_S = 360  # for a disk that stands still; of irregular streams ...
_BUFFER_HUNDREDS = 6000  # ... as many times a hundred samples
_OPEN_WAIT_S = 2.0
_OFFSET_WAIT_S = 2.0
_OFFSET_EVERY_S = 5.0
_SILENT_S = 2.0  # of a regular stream


class Tap:
    """Takes a stream; one thread looks after it, another one pulls.

    Args:
        say: hears what a person should know.

    Attributes:
        stream: of which it takes samples, the newest one that was the same.
        header: what the stream says of itself, as XML.
        offsets: clock offsets that were measured, as (time, offset) on the stream's clock, until
            somebody takes them.
        n_offsets: how many were measured.
        tally: of what was pulled and written.
        doubted_s: since when liblsl has followed its source to one that was started again, whose
            samples wait until somebody has looked at it; None where it has not.
        is_lost: whether its source is gone.
        is_dead: whether nothing will come of its source unless it is opened again.
        is_over: whether what came back was another stream, so that nothing will come any more.

    Raises:
        GONE: it does not answer.
    """

    def __init__(self, stream: FoundStream, say: Callable[[str], object]):
        self.offsets: deque[tuple[float, float]] = deque()
        self.n_offsets = 0
        self.tally = Tally(stream.rate_hz)
        self.doubted_s: float | None = None
        self.is_lost = self.is_dead = self.is_over = False
        self._say = say
        self._next_offset_s = 0.0
        self._begins_anew = self._told_offset = self._is_silent = False
        self._held: tuple[np.ndarray, np.ndarray] | None = None
        self._came_s = time.monotonic()
        self._first_came_s: float | None = None
        self._pulled_s = self._came_s
        self.stream = stream
        inlet = _opened(stream)
        self._inlets = deque([inlet])  # the newest one is the last
        told = inlet.info(_OPEN_WAIT_S).as_xml()
        self.header = legible(told)
        if self.header != told:
            say(f"the header of '{stream.name}' is no XML: signs that cannot be in it are replaced")

    @property
    def state(self) -> TapState:
        """How it is now."""
        if self.is_lost:
            return "lost"
        is_silent = self.stream.rate_hz > 0 and self.silence_s > _SILENT_S
        return "silent" if is_silent else "recording"

    @property
    def silence_s(self) -> float:
        """Since something came, or it was opened."""
        return time.monotonic() - self._came_s

    @property
    def elapsed_s(self) -> float:
        """From the first samples that came to the last look for more; a disk stops both alike."""
        return 0.0 if self._first_came_s is None else self._pulled_s - self._first_came_s

    def watch(self, is_gone: bool) -> None:
        """Says when it falls silent or is lost, and when it streams again; call it often."""
        if is_gone:
            self._lose()
        elif self.is_lost and not self.is_dead and self.doubted_s is None:
            self._find()
        state, was_silent = self.state, self._is_silent
        self._is_silent = state == "silent"
        if self._is_silent and not was_silent:
            self._say(f"the stream {self.stream} is silent: nothing for {self.silence_s:.0f} s")
        elif was_silent and state == "recording":
            self._say(f"the stream {self.stream} streams again")

    def doubt(self) -> None:
        """Keeps what comes from now on until somebody has looked at where it comes from."""
        if self.doubted_s is None:
            self.doubted_s = time.monotonic()

    def accept(self, found: FoundStream) -> None:
        """Goes on with the source that liblsl has followed, if that is still the same.

        Raises:
            GONE: it does not answer.
        """
        if found.uid != self.stream.uid and not self._is(found):
            self._lose()
            self.is_over = True
            self._say(f"the stream {found} came back as another one: it is recorded beside it")
            return
        self.stream, self._begins_anew, self.doubted_s = found, True, None
        self._find()

    def resume(self, found: FoundStream) -> bool:
        """Goes on with another source, if all that it says of itself is what the lost one said.

        Raises:
            GONE: it does not answer.
        """
        if not self._is(found):
            return False
        self._inlets.append(_opened(found))
        self.stream, self.is_dead = found, False
        self._find()
        return True

    def measure(self) -> None:
        """Measures its clock offset when that is due; blocks, for seconds where it is gone."""
        if self.is_lost or time.monotonic() < self._next_offset_s:
            return
        self._next_offset_s = time.monotonic() + _OFFSET_EVERY_S
        try:
            offset_s, _ = time_correction(self._inlets[-1], _OFFSET_WAIT_S)
        except GONE:
            if not self.n_offsets and not self._told_offset:
                self._told_offset = True
                self._say(f"no clock offset of {self.stream} could be measured yet: tried again")
            return
        self.offsets.append((local_clock() - offset_s, offset_s))
        self.n_offsets += 1

    def pull(self) -> Iterator[tuple[np.ndarray, Samples]]:
        """All that has come, as stamps (n,) and samples (n, channels); never waits."""
        if self.is_over:
            self._inlets.clear()  # what came belongs to another stream
        else:
            self._pulled_s = time.monotonic()
        while self._inlets:
            inlet = self._inlets[0]
            for raw_s, samples in self._pull(inlet):
                self._came_s = time.monotonic()
                self._first_came_s = self._first_came_s or self._came_s
                yield raw_s, as_rows(samples) if samples.dtype == object else samples
                self.tally.add(raw_s)  # as whoever asks for more has written these
            if len(self._inlets) < 2:
                return
            self._inlets.popleft()
            self._begins_anew = True

    def _pull(self, inlet: "pylsl.StreamInlet") -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while self.doubted_s is None:
            if self._begins_anew:
                self._begins_anew = False
                self.tally.part()
            if self._held is not None:
                yield self._held
                self._held = None
            try:
                samples, raw_s = inlet.pull_chunk(0.0, _PULL_SAMPLES, as_numpy=True)
            except pylsl.util.LostError:  # of a source without id, which liblsl does not look for
                if inlet is self._inlets[-1]:
                    self._lose()
                    self.is_dead = True
                return
            # It says so before the first sample of another source can be pulled.
            if inlet.was_clock_reset():
                self._held = (raw_s, samples) if len(raw_s) else None
                self.doubt()
            elif len(raw_s):
                yield raw_s, samples
            else:
                return

    def _is(self, found: FoundStream) -> bool:
        inlet = pylsl.StreamInlet(found.info, recover=False)
        return is_same_source(self.header, legible(inlet.info(_OPEN_WAIT_S).as_xml()))

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._say(f"the stream {self.stream} is lost; it is taken again when it is back")

    def _find(self) -> None:
        self._came_s, self.is_lost, self._next_offset_s = time.monotonic(), False, 0.0
        self._say(f"the stream {self.stream} is back")


def as_rows(samples: np.ndarray) -> list[list[str]]:
    """The samples of a text stream; what is no UTF-8 is read as markers are."""
    return [list(map(as_text, row)) for row in samples]


def _opened(stream: FoundStream) -> "pylsl.StreamInlet":
    """An inlet that takes samples from now on.

    It is let recover by itself, though that is not trusted: else liblsl throws away what had come
    before a loss and was not pulled yet.
    """
    kept = _BUFFER_S if stream.rate_hz else _BUFFER_HUNDREDS
    inlet = pylsl.StreamInlet(stream.info, max_buflen=kept, recover=True)
    inlet.open_stream(_OPEN_WAIT_S)
    return inlet
