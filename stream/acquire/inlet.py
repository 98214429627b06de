"""An LSL inlet whose samples are handed on the moment they can be read, with their raw stamps.

A stream that comes back must be the one that went away: the same channels, the same rate.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.channels import renamed
from stream.acquire.chunk import Chunk, SampleFormat
from stream.acquire.clock import ClockOffset
from stream.acquire.lsl import FoundStream, local_clock, pylsl, time_correction
from stream.acquire.units import Signal, kept_as

_PULL_WAIT_S = 0.02  # how soon a stopping inlet notices
_PULL_SAMPLES = 4096
_FEW_S = 0.004  # of samples that are delivered together while nobody waits for one
_OPEN_WAIT_S = 5.0
_OFFSET_WAIT_S = 5.0
_OFFSET_PERIOD_S = 2.0  # liblsl measures anew this often
_LOOK_S, _INFO_WAIT_S = 1.0, 2.0  # for a stream that returned
_MISSED_LOOKS = 2  # a busy machine may not answer one of them
_SAME_CLOCK_S = 1e-3  # a smaller offset to a stream of this machine is the error of measuring it


class Inlet:
    """Pulls one stream in a thread of its own and hands every chunk to `deliver`, in that thread.

    Raw: no processing flags. They would block the pull while liblsl measures clocks, smear stamps
    over gaps, and discard the original stamps. The clock offset is measured in a second thread,
    so that the samples never wait for it.

    Args:
        names: of channels that are called otherwise here than in the stream.
        unscaled: channels that are no signal, such as triggers. All others come in microvolts (or
            femtoteslas), where the stream says its unit.

    Attributes:
        labels: from the stream's description; numbers from 1 where it has none.
        channels: the same by the names that they have here.
        signal: what the stream says that it records.
        kinds: what it says of each channel, its own type where it does not.
        units: of the channels that are a signal, as they are kept.
        told_units: of all channels, in the stream's words.
        hurry: every sample is delivered as it comes; else a few at a time, which costs less.
        offset_s: the clock offset in force.
        offset_uncertainty_s: the round trip of the probe that gave it.
    """

    def __init__(
        self,
        stream: FoundStream,
        deliver: Callable[[Chunk], None],
        names: Mapping[str, str] | None = None,
        unscaled: Sequence[str] = (),
    ):
        self.stream = stream
        self.hurry = True
        self._few = max(1, int(_FEW_S * stream.rate_hz))
        self._deliver = deliver
        self._stopping = threading.Event()
        self._failure: str | None = None
        info = self.follow(stream)
        self.labels = _labels(info) or tuple(str(i + 1) for i in range(stream.n_channels))
        self.channels = renamed(self.labels, names or {})
        shape = (_PULL_SAMPLES, stream.n_channels)
        is_text = self._inlet.channel_format == pylsl.cf_string
        self._buffer = None if is_text else np.empty(shape, self._inlet.np_dtype)
        told = _described(info.get_channel_types(), stream)
        self.kinds = kinds = [kind or stream.type for kind in told]
        units = _described(info.get_channel_units(), stream)
        kept = [kept_as(unit, kind) for unit, kind in zip(units, kinds, strict=True)]
        self.signal = Signal.of([stream.type], [unit for unit, _ in kept])
        self.told_units = units
        self.units = {
            name: unit
            for name, (unit, _) in zip(self.channels, kept, strict=True)
            if name not in unscaled
        }
        factors = [
            1.0 if name in unscaled else factor
            for name, (_, factor) in zip(self.channels, kept, strict=True)
        ]
        # None where all are in microvolts, or in no unit that is known.
        is_scaled = not is_text and set(factors) != {1.0}
        self._factors = np.array(factors) if is_scaled else None
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for work, name in (
                (self._pull, f"inlet {stream.name}"),
                (self._watch_offset, f"clock {stream.name}"),
            )
        ]

    def follow(self, stream: FoundStream) -> "pylsl.StreamInfo":
        """Takes its samples from this stream from now on; returns what it says of itself.

        Raises:
            Problem: it does not answer.
        """
        inlet = pylsl.StreamInlet(stream.info, max_buflen=360, recover=True)
        try:
            info = inlet.info(_OPEN_WAIT_S)
            inlet.open_stream(_OPEN_WAIT_S)
            offset = ClockOffset()
            self.offset_s, self.offset_uncertainty_s = _measure(inlet, stream, offset)
        except (TimeoutError, pylsl.util.LostError) as error:
            raise Problem(
                f"the LSL stream {stream} was found but does not answer ({error or 'time-out'}); "
                "check that its program still runs and that a firewall lets it through"
            ) from None
        self.stream, self._offset, self._inlet = stream, offset, inlet
        return info

    @property
    def channel_format(self) -> SampleFormat:
        """As which the samples can be kept without loss."""
        if self._factors is not None:
            return "double64"
        match np.dtype(self._inlet.np_dtype).name:
            case "float32":
                return "float32"
            case "float64" | "int64":
                return "double64"
        return "int32"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._threads[0].join(5.0)

    def check(self) -> None:
        """Raises `Problem` where a thread of this inlet came to an end that nobody asked for."""
        if self._failure is not None:
            raise Problem(self._failure)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            self._failure = (
                f"the stream {self.stream} is read no more ({what}); this is a fault of the "
                "program: report it with the session's reader.log, and begin a new session"
            )
            raise  # to the log, with its traceback

    def _pull(self) -> None:
        pull = self._pull_text if self._buffer is None else self._pull_numbers
        while not self._stopping.is_set():
            try:
                pull()
            except pylsl.util.LostError:
                # A stream without source_id, which liblsl does not look for: it is silent until
                # there is another to follow.
                self._stopping.wait(_PULL_WAIT_S)

    def _pull_text(self) -> None:
        # As bytes: a text that is no UTF-8 is a marker too.
        texts, raw_s = self._inlet.pull_chunk(_PULL_WAIT_S, 64, min_samples=1, as_numpy=True)
        if len(raw_s):
            self._deliver(Chunk(raw_s, texts, self.offset_s, local_clock()))

    def _pull_numbers(self) -> None:
        samples, raw_s = self._inlet.pull_chunk(
            _PULL_WAIT_S,
            _PULL_SAMPLES,
            dest_obj=self._buffer,
            min_samples=1 if self.hurry else self._few,
            as_numpy=True,
        )
        if len(raw_s):
            readable_s = local_clock()
            samples = samples.copy() if self._factors is None else samples * self._factors
            self._deliver(Chunk(raw_s, samples, self.offset_s, readable_s))

    def _watch_offset(self) -> None:
        while not self._stopping.wait(_OFFSET_PERIOD_S):
            inlet, stream, offset = self._inlet, self.stream, self._offset
            try:
                measured = _measure(inlet, stream, offset)
            except (TimeoutError, pylsl.util.LostError):
                continue  # the source is away: the last offset stands until it is back
            if inlet is self._inlet:
                self.offset_s, self.offset_uncertainty_s = measured


def _measure(
    inlet: "pylsl.StreamInlet", stream: FoundStream, offset: ClockOffset
) -> tuple[float, float]:
    """What the sender's stamps need added, and its uncertainty; 0 on this machine: one clock."""
    measured_s, uncertainty_s = time_correction(inlet, _OFFSET_WAIT_S)
    is_here = stream.hostname == socket.gethostname()
    if is_here and abs(measured_s) < _SAME_CLOCK_S:
        measured_s = 0.0
    return offset.believe(measured_s), uncertainty_s


class ReturnGuard:
    """Looks, in a thread of its own, at what answers under the name of a stream that fell silent.

    liblsl reconnects to a source that restarted at another rate without a word, and waits for ever
    for one that restarted with other channels or another source id. Where the source itself does
    not answer and one other stream of its name, shape and channels does, the inlet follows that.

    Args:
        is_chosen: a person has named the source id: no other stream is meant.

    Attributes:
        is_lost: whether nothing has answered for some looks.
        refusal: why the session cannot go on with what came back; None while nothing speaks
            against it.
        said: what a person should know, each time that it changes.
    """

    def __init__(self, inlet: Inlet, is_chosen: bool = False):
        self._inlet = inlet
        self._is_chosen = is_chosen
        self._thread: threading.Thread | None = None
        self._n_missed = 0
        self._told = ""
        self.refusal: str | None = None
        self.said: list[str] = []

    @property
    def is_lost(self) -> bool:
        return self._n_missed > _MISSED_LOOKS

    def look(self) -> bool:
        """Starts looking and returns at once; False where it looks already."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return True

    def _look(self) -> None:
        was = self._inlet.stream
        found = self._answering(was)
        ours = [one for one in found if one.uid == was.uid or (was.source_id and _same(one, was))]
        self._n_missed = 0 if ours else self._n_missed + 1
        for one in ours:
            self.refusal = self._compare(one) or self.refusal
        if self._n_missed >= _MISSED_LOOKS and found and not self._is_chosen:
            self._take(was, found)

    def _take(self, was: FoundStream, found: Sequence[FoundStream]) -> None:
        """Follows the only stream that can be meant, or says why it does not."""
        change = self._compare(found[0])
        if len(found) > 1:
            there = ", ".join(f"'{one.source_id}' on {one.hostname}" for one in found)
            self._say(
                f"the stream '{was.name}' is lost, and {len(found)} others have its name "
                f"({there}): none is taken; stop all but the one that is meant"
            )
        elif change is not None:
            self._say(f"not taken: {change}")
        else:
            try:
                self._inlet.follow(found[0])
            except Problem as problem:
                self._say(str(problem))
                return
            self._n_missed = 0
            self._say(
                f"the stream '{was.name}' came back from another source ('{found[0].source_id}' "
                f"on {found[0].hostname}, it was '{was.source_id}' on {was.hostname}): taken"
            )

    def _say(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            self.said.append(sentence)

    def _answering(self, was: FoundStream) -> list[FoundStream]:
        """All that answer under its name; looks no longer once the stream itself does."""
        resolver = pylsl.ContinuousResolver(prop="name", value=was.name)
        end_s = time.monotonic() + _LOOK_S
        found: list[FoundStream] = []
        while time.monotonic() < end_s and not any(_same(one, was) for one in found):
            time.sleep(0.05)
            found = [FoundStream(info) for info in resolver.results()]
        return found

    def _compare(self, found: FoundStream) -> str | None:
        was = self._inlet.stream
        if found.uid == was.uid:
            return None
        if found.rate_hz != was.rate_hz:
            change = f"at {found.rate_hz:g} Hz, the session began at {was.rate_hz:g} Hz"
        elif found.n_channels != was.n_channels:
            change = f"with {found.n_channels} channels, the session began with {was.n_channels}"
        elif found.channel_format != was.channel_format:
            change = "in another format of samples than the session began with"
        elif was.rate_hz and (differs := self._described_otherwise(found)):
            change = f"with other {differs} than the session began with"
        else:
            return None
        return f"the stream '{was.name}' came back {change}; end it and begin a new session"

    def _described_otherwise(self, found: FoundStream) -> str | None:
        """What its channels' description has else; None where it does not answer in time."""
        inlet = pylsl.StreamInlet(found.info, recover=False)
        try:
            info = inlet.info(_INFO_WAIT_S)
        except (TimeoutError, pylsl.util.LostError):
            return None
        if _labels(info) not in ((), self._inlet.labels):
            return "channel names"
        same = _described(info.get_channel_units(), found) == self._inlet.told_units
        return None if same else "units"


def _same(one: FoundStream, other: FoundStream) -> bool:
    return one.source_id == other.source_id


def _described(told: Sequence[str | None] | None, stream: FoundStream) -> list[str]:
    """A word for each channel; "" where the stream has none, or not as many as channels."""
    words = [word or "" for word in told or ()]
    return words if len(words) == stream.n_channels else [""] * stream.n_channels


def _labels(info: "pylsl.StreamInfo") -> tuple[str, ...]:
    """The labels of all channels; () where one has none."""
    labels = info.get_channel_labels() or ()
    return tuple(labels) if len(labels) == info.channel_count() and all(labels) else ()
