"""An LSL inlet whose samples are handed on the moment they can be read, with their raw stamps.

A stream that comes back must be the one that went away: the same channels, the same rate.
"""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.lsl import FoundStream, local_clock, pylsl, time_correction
from stream.acquire.units import Signal, kept_as

_PULL_WAIT_S = 0.02  # how soon a stopping inlet notices
_PULL_SAMPLES = 4096
_FEW_S = 0.004  # of samples that are delivered together while nobody waits for one
_OPEN_WAIT_S = 5.0
_OFFSET_WAIT_S = 5.0
_OFFSET_PERIOD_S = 2.0  # liblsl measures anew this often
_LOOK_S, _INFO_WAIT_S = 1.0, 2.0  # for a stream that returned
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
        self._inlet = pylsl.StreamInlet(stream.info, max_buflen=360, recover=True)
        try:
            info = self._inlet.info(_OPEN_WAIT_S)
            self._inlet.open_stream(_OPEN_WAIT_S)
            self.offset_s = self._measure_offset()
        except (TimeoutError, pylsl.util.LostError) as error:
            raise Problem(
                f"the LSL stream {stream} was found but does not answer ({error or 'time-out'}); "
                "check that its program still runs and that a firewall lets it through"
            ) from None
        self.labels = _labels(info) or tuple(str(i + 1) for i in range(stream.n_channels))
        self.channels = tuple((names or {}).get(label, label) for label in self.labels)
        shape = (_PULL_SAMPLES, stream.n_channels)
        is_text = self._inlet.channel_format == pylsl.cf_string
        self._buffer = None if is_text else np.empty(shape, self._inlet.np_dtype)
        kept = [kept_as(unit or "") for unit in info.get_channel_units() or ()]
        self.signal = Signal.of([stream.type], [unit for unit, _ in kept])
        factors = [
            1.0 if name in unscaled else factor
            for name, (_, factor) in zip(self.channels, kept, strict=False)
        ]
        # None where all are in microvolts, or in no unit that is known.
        is_scaled = not is_text and len(kept) == stream.n_channels and set(factors) != {1.0}
        self._factors = np.array(factors) if is_scaled else None
        self._threads = [
            threading.Thread(target=self._pull, name=f"inlet {stream.name}", daemon=True),
            threading.Thread(target=self._watch_offset, name=f"clock {stream.name}", daemon=True),
        ]

    @property
    def channel_format(self) -> str:
        """As which the samples can be kept without loss."""
        if self._factors is not None:
            return "double64"
        kinds = {"float32": "float32", "float64": "double64", "int64": "double64"}
        return kinds.get(np.dtype(self._inlet.np_dtype).name, "int32")

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._threads[0].join(5.0)

    def _pull(self) -> None:
        pull = self._pull_text if self._buffer is None else self._pull_numbers
        try:
            while not self._stopping.is_set():
                pull()
        except pylsl.util.LostError:
            return  # a stream without source_id cannot recover: the reader sees it as silence

    def _pull_text(self) -> None:
        rows, raw_s = self._inlet.pull_chunk(_PULL_WAIT_S, 64, min_samples=1)
        if len(raw_s):
            texts = np.array(rows, object)
            self._deliver(Chunk(np.asarray(raw_s), texts, self.offset_s, local_clock()))

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

    def _measure_offset(self) -> float:
        """What the sender's stamps need added; 0 on this machine, where LSL has one clock."""
        offset_s, self.offset_uncertainty_s = time_correction(self._inlet, _OFFSET_WAIT_S)
        is_here = self.stream.hostname == socket.gethostname()
        return 0.0 if is_here and abs(offset_s) < _SAME_CLOCK_S else offset_s

    def _watch_offset(self) -> None:
        while not self._stopping.wait(_OFFSET_PERIOD_S):
            try:
                self.offset_s = self._measure_offset()
            except (TimeoutError, pylsl.util.LostError):
                continue  # the source is away: the last offset stands until it is back


class ReturnGuard:
    """Looks, in a thread of its own, at what answers under the name of a stream that fell silent.

    liblsl reconnects to a source that restarted at another rate without a word, and waits for ever
    for one that restarted with other channels.

    Attributes:
        refusal: why the session cannot go on with what came back; None while nothing speaks
            against it.
    """

    def __init__(self, stream: FoundStream, channels: Sequence[str]):
        self._stream = stream
        self._channels = tuple(channels)
        self._thread: threading.Thread | None = None
        self.refusal: str | None = None

    def look(self) -> bool:
        """Starts looking and returns at once; False where it looks already."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return True

    def _look(self) -> None:
        for info in pylsl.resolve_byprop("name", self._stream.name, 1, _LOOK_S):
            found = FoundStream(info)
            if found.source_id == self._stream.source_id:
                self.refusal = self._compare(found) or self.refusal

    def _compare(self, found: FoundStream) -> str | None:
        was = self._stream
        if found.rate_hz != was.rate_hz:
            change = f"at {found.rate_hz:g} Hz, the session began at {was.rate_hz:g} Hz"
        elif found.n_channels != was.n_channels:
            change = f"with {found.n_channels} channels, the session began with {was.n_channels}"
        elif self._labels(found) not in ((), self._channels):
            change = "with other channel names than the session began with"
        else:
            return None
        return f"the stream '{was.name}' came back {change}; end it and begin a new session"

    def _labels(self, found: FoundStream) -> tuple[str, ...]:
        """Its channel names; () where it has none, or does not answer in time."""
        inlet = pylsl.StreamInlet(found.info, recover=False)
        try:
            return _labels(inlet.info(_INFO_WAIT_S))
        except (TimeoutError, pylsl.util.LostError):
            return ()


def _labels(info: "pylsl.StreamInfo") -> tuple[str, ...]:
    """The labels of all channels; () where one has none."""
    labels = info.get_channel_labels() or ()
    return tuple(labels) if len(labels) == info.channel_count() and all(labels) else ()
