"""An LSL inlet whose samples are handed on the moment they can be read, with their raw stamps."""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.channels import renamed
from stream.acquire.chunk import Chunk
from stream.acquire.clock import ClockOffset
from stream.acquire.lsl import GONE, FoundStream, local_clock, pylsl, time_correction
from stream.acquire.units import Signal, kept_as

_PULL_WAIT_S = 0.02  # how soon a stopping inlet notices
_PULL_SAMPLES = 4096
_FEW_S = 0.008  # of samples that are delivered together while nobody waits for one
_OPEN_WAIT_S = 5.0
_OFFSET_WAIT_S = 5.0
_OFFSET_PERIOD_S = 2.0  # liblsl measures anew this often
_SAME_CLOCK_S = 1e-3  # an offset of no more, beyond half the round trip, can be a wrong measurement


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
        header: all that the stream says of itself, XML.
        labels: from the stream's description; numbers from 1 where it has none.
        channels: the same by the names that they have here.
        signal: what the stream says that it records.
        kinds: what it says of each channel, its own type where it does not.
        units: of the channels that are a signal, as they are kept.
        told_units: of all channels, in the stream's words.
        hurry: every sample is delivered as it comes; else a few at a time, which costs less.
        in_doubt: its source was started again, and samples wait until somebody has looked at what
            it sends now, and calls `go_on`.
        order: where each of `channels` is in what comes, if their order is another than at first.
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
        self.in_doubt = threading.Event()
        self.order: Sequence[int] | None = None
        self._few = max(1, int(_FEW_S * stream.rate_hz))
        self._deliver = deliver
        self._stopping = threading.Event()
        self._failure: str | None = None
        info = self.follow(stream)
        self.is_simulated = info.desc().child_value("simulated") == "true"
        self.header = info.as_xml()
        self.labels = labels_of(info) or tuple(str(i + 1) for i in range(stream.n_channels))
        self.channels = renamed(self.labels, names or {})
        shape = (_PULL_SAMPLES, stream.n_channels)
        is_text = self._inlet.channel_format == pylsl.cf_string
        self._buffer = None if is_text else np.empty(shape, self._inlet.np_dtype)
        told = described(info.get_channel_types(), stream)
        self.kinds = kinds = [kind or stream.type for kind in told]
        units = described(info.get_channel_units(), stream)
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

    def go_on(self, stream: FoundStream, order: Sequence[int] | None) -> None:
        """Takes what its source sends from now on, as this stream and in this `order`."""
        self.stream, self.order = stream, order
        self.in_doubt.clear()

    def follow(self, stream: FoundStream, order: Sequence[int] | None = None) -> "pylsl.StreamInfo":
        """Takes its samples from this stream from now on; returns what it says of itself.

        Raises:
            Problem: it does not answer.
        """
        # Where another stream has its source id, liblsl would go on with that one.
        inlet = pylsl.StreamInlet(stream.info, max_buflen=360, recover=not stream.twins)
        try:
            info = inlet.info(_OPEN_WAIT_S)
            inlet.open_stream(_OPEN_WAIT_S)
            offset = ClockOffset()
            self.offset_s, self.offset_uncertainty_s = _measure(inlet, stream, offset)
        except GONE as error:
            raise Problem(
                f"the LSL stream {stream} was found but does not answer ({error or 'time-out'}); "
                "check that its program still runs and that a firewall lets it through"
            ) from None
        self.order = order
        self.stream, self._offset, self._inlet = stream, offset, inlet
        self.in_doubt.clear()
        return info

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
                # A stream without a source id of its own, which liblsl does not look for: it is
                # silent until there is another to follow.
                self._stopping.wait(_PULL_WAIT_S)

    def _pull_text(self) -> None:
        # As bytes: a text that is no UTF-8 is a marker too.
        texts, raw_s = self._inlet.pull_chunk(_PULL_WAIT_S, 64, min_samples=1, as_numpy=True)
        if len(raw_s):
            self._deliver(Chunk(raw_s, texts, self.offset_s, local_clock()))

    def _pull_numbers(self) -> None:
        inlet = self._inlet
        samples, raw_s = inlet.pull_chunk(
            _PULL_WAIT_S,
            _PULL_SAMPLES,
            dest_obj=self._buffer,
            min_samples=1 if self.hurry else self._few,
            as_numpy=True,
        )
        readable_s = local_clock()
        # liblsl follows a source that was started again by itself, whatever it sends now; it says
        # so before the first of its samples can be pulled.
        if inlet.was_clock_reset():
            self.in_doubt.set()
        if not len(raw_s):
            return
        while self.in_doubt.is_set() and not self._stopping.is_set():
            self._stopping.wait(_PULL_WAIT_S)
        if inlet is not self._inlet or self.in_doubt.is_set():
            return
        samples = samples if self.order is None else samples[:, self.order]
        samples = samples.copy()  # of the buffer
        if self._factors is None:
            self._deliver(Chunk(raw_s, samples, self.offset_s, readable_s))
        else:
            scaled = samples * self._factors
            self._deliver(Chunk(raw_s, scaled, self.offset_s, readable_s, samples))

    def _watch_offset(self) -> None:
        while not self._stopping.wait(_OFFSET_PERIOD_S):
            inlet, stream, offset = self._inlet, self.stream, self._offset
            try:
                measured = _measure(inlet, stream, offset)
            except GONE:
                continue  # the source is away: the last offset stands until it is back
            if inlet is self._inlet:
                self.offset_s, self.offset_uncertainty_s = measured


def _measure(
    inlet: "pylsl.StreamInlet", stream: FoundStream, offset: ClockOffset
) -> tuple[float, float]:
    """What the sender's stamps need added, and its uncertainty; 0 on this machine: one clock."""
    measured_s, uncertainty_s = time_correction(inlet, _OFFSET_WAIT_S)
    # A process that was stopped answers late, and LSL takes half the way there and back for it.
    error_s = _SAME_CLOCK_S + uncertainty_s / 2
    if stream.hostname == socket.gethostname() and abs(measured_s) < error_s:
        measured_s = 0.0
    return offset.believe(measured_s), uncertainty_s


def described(told: Sequence[str | None] | None, stream: FoundStream) -> list[str]:
    """A word for each channel; "" where the stream has none, or not as many as channels."""
    words = [word or "" for word in told or ()]
    return words if len(words) == stream.n_channels else [""] * stream.n_channels


def labels_of(info: "pylsl.StreamInfo") -> tuple[str, ...]:
    """The labels of all channels; () where one has none."""
    labels = info.get_channel_labels() or ()
    return tuple(labels) if len(labels) == info.channel_count() and all(labels) else ()
