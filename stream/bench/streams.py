"""The source of the benchmarks of latency, in a process of its own, and a bare LSL client of it.

The source notes when it pushed each sample: whoever holds a sample's stamp can tell how old it is.
"""

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from ctypes import Array, c_double, c_longlong
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np

from hvf_core.problem import Problem, WrongUsage
from stream.acquire.lsl import find_stream, local_clock, pylsl
from stream.bench.processes import end_with_parent
from stream.sources.outlets import Outlets, sleep_until

CHANNELS = tuple(f"C{number}" for number in range(1, 64))
SOA_S = 0.5  # from marker to marker
LOG_SIZE = 2**20  # samples whose moment of pushing is remembered: 17 minutes at 1 kHz
TRIGGER = "Photo"
"""The channel of a simulated photodiode."""
LEAD_S = 1.0  # of the subject's EEG before its first image, and again and again until that comes
_ALWAYS = 2**62  # markers
_NOISE_ROWS = 4096
_PULSE_S = 0.02
_SCREEN_S = (0.012, 0.002)  # of the simulated screen: from marker to light, mean and SD
_FIND_WAIT_S, _START_WAIT_S, _END_WAIT_S = 10.0, 300.0, 5.0
_WARM_UP_S = 2.0

Row = tuple[np.ndarray, str | None]
"""A sample of all channels, and the marker that is sent with it."""
_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Source:
    """The streams `name` (EEG) and `name`-markers.

    Attributes:
        chunk: samples of a push.
        shown: texts of the markers, which come again from the first on; empty: `stimulus-NUMBER`,
            which no gallery holds.
        plays: `subject`: the EEG of the demo's, who sees what is `shown`, which are images of the
            demo; its channels are those of `demo.head`.
        has_trigger: a further channel, `TRIGGER`, rises when the image is on a simulated screen.
    """

    name: str
    rate_hz: float
    channels: tuple[str, ...] = CHANNELS
    soa_s: float = SOA_S
    chunk: int = 1
    shown: tuple[str, ...] = ()
    plays: Literal["noise", "subject"] = "noise"
    has_trigger: bool = False

    def __post_init__(self) -> None:
        if self.rate_hz and not 1 <= self.chunk <= self.marker_every:
            raise WrongUsage(
                f"a push of {self.chunk:,} samples cannot be: at {self.rate_hz:g} Hz, an image "
                f"every {self.soa_s:g} s, it takes 1 to {self.marker_every:,}: what comes from "
                "image to image"
            )

    @property
    def marker_every(self) -> int:
        """Samples from marker to marker."""
        return round(self.soa_s * self.rate_hz)

    @property
    def all_channels(self) -> tuple[str, ...]:
        return (*self.channels, TRIGGER) if self.has_trigger else self.channels

    def text(self, number: int, nth: int) -> str:
        """Of the `nth` marker, which is at a sample."""
        return self.shown[nth % len(self.shown)] if self.shown else f"stimulus-{number}"


@dataclass(frozen=True)
class Pushed:
    """When each sample was pushed: shared between processes, and handed to a new one."""

    rate_hz: float
    start_s: float
    times_s: Array[c_double]

    def at_s(self, stamps_s: np.ndarray) -> np.ndarray:
        """When the samples with these stamps (n,) were pushed; the last `LOG_SIZE` are known."""
        numbers = np.rint((np.asarray(stamps_s) - self.start_s) * self.rate_hz).astype(int)
        return np.ctypeslib.as_array(self.times_s)[numbers % LOG_SIZE]


class RunningSource:
    """The source in its process, for the length of a `with`.

    Args:
        markers: come from the first sample on, for ever; else `show` asks for them.

    Attributes:
        pid: of its process.
    """

    silence_s = 10.0  # after the last marker, after which nothing more is waited for

    def __init__(self, source: Source, markers: bool = True):
        self.source, self.markers = source, f"{source.name}-markers"
        self._times_s = _processes.RawArray("d", LOG_SIZE)
        self._shown = _processes.RawArray("q", [_ALWAYS if markers else 0, 0])
        self._started, started = _processes.Pipe(duplex=False)
        arguments = (source, self._times_s, self._shown, started)
        self._process = _processes.Process(target=play, args=arguments, daemon=True)

    def __enter__(self) -> "RunningSource":
        self._process.start()
        self.pid = self._process.pid or 0
        if not self._started.poll(_START_WAIT_S):  # to record a subject takes a while
            self._process.kill()
            raise Problem(f"the source of the streams has not begun within {_START_WAIT_S:g} s")
        self.pushed = Pushed(self.source.rate_hz, self._started.recv(), self._times_s)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def show(self, n: int) -> None:
        """Sends `n` more markers; a subject goes on in its recording."""
        self._shown[0] += n

    @property
    def n_to_show(self) -> int:
        """Markers that are still to be sent."""
        return self._shown[0] - self._shown[1]

    def pushed_at_s(self, stamp_s: float) -> float:
        """When the sample with this stamp was pushed."""
        return float(self.pushed.at_s(np.array([stamp_s]))[0])

    def hear(self, listener: Callable[..., None], *arguments: object, wait_s: float = 600) -> Any:
        """What a listener in a process of its own sends at its end, after at most `wait_s`."""
        result, out = _processes.Pipe(duplex=False)
        arguments = (self.source, self.pushed, *arguments, out)
        process = _processes.Process(target=listener, args=arguments, daemon=True)
        process.start()
        out.close()  # so that a listener that dies ends the wait
        try:
            if not result.poll(wait_s):
                raise Problem(f"{listener.__name__} has not ended within {wait_s:g} s")
            measured = result.recv()
        except EOFError:
            raise Problem(f"{listener.__name__} ended without a result") from None
        finally:
            process.join(_END_WAIT_S)
            process.kill()
        return measured


class ForeignSource:
    """Streams that somebody else plays, as an amplifier and a stimulus program do.

    When their samples were pushed is not known: their stamps stand for it.
    """

    pid = 0
    silence_s = 60.0  # after which nothing more is waited for

    def __init__(self, eeg: str, markers: str):
        self.source, self.markers = Source(eeg, 0.0), markers

    def show(self, n: int) -> None:
        """Whatever is shown next is waited for."""

    @property
    def n_to_show(self) -> int:
        return 0

    def pushed_at_s(self, stamp_s: float) -> float:
        return stamp_s


def play(
    source: Source, times_s: Array[c_double], shown: Array[c_longlong], started: Connection
) -> None:
    """Plays for ever, and tells the stamp of sample 0.

    Args:
        times_s: shared, (LOG_SIZE,); when each sample was pushed, at its number modulo the size.
        shown: shared, (2,); how many markers are to be sent, and how many were.
    """
    rows = _subject(source, shown) if source.plays == "subject" else _noise(source, shown)
    if source.has_trigger:
        rows = _with_trigger(source, rows)
    end_with_parent()
    log_s = np.ctypeslib.as_array(times_s)
    is_simulated = source.plays == "subject"
    outlets = Outlets(source.name, source.all_channels, source.rate_hz, simulated=is_simulated)
    first = next(rows)  # a subject takes a while to be recorded
    start_s = local_clock()
    started.send(start_s)
    rows = itertools.chain([first], rows)
    n, rate_hz = source.chunk, source.rate_hz
    for number in itertools.count(0, n):
        part = list(itertools.islice(rows, n))
        samples, stamps_s = (
            np.stack([row for row, _ in part]),
            start_s + (number + np.arange(n)) / rate_hz,
        )
        sleep_until(float(stamps_s[-1]))
        places = np.arange(number, number + n) % LOG_SIZE
        log_s[places] = local_clock()
        outlets.push_eeg(samples, stamps_s)
        for (_, text), stamp_s in zip(part, stamps_s.tolist(), strict=True):
            if text is not None:
                outlets.push_marker(text, stamp_s)


def _noise(source: Source, shown: Array[c_longlong]) -> Iterator[Row]:
    noise = np.random.default_rng(0).normal(0, 20, (_NOISE_ROWS, len(source.channels)))
    noise = noise.astype(np.float32)
    for number in itertools.count():
        sample, text = noise[number % _NOISE_ROWS], None
        if number % source.marker_every == 0 and shown[1] < shown[0]:
            text = source.text(number, shown[1])
            shown[1] += 1
        yield sample, text


def _subject(source: Source, shown: Array[c_longlong]) -> Iterator[Row]:
    """The demo's subject, who sees each of what is shown once; after that there is only noise."""
    from demo.live_subject import SEED
    from demo.recordings import responses, simulate_recording
    from demo.stimuli import stimulus_from_id
    from demo.subject import SimulatedSubject, SubjectSettings

    order = [stimulus_from_id(id_) for id_ in source.shown]
    brain = SubjectSettings(rate_hz=source.rate_hz, seed=SEED)
    subject = SimulatedSubject(brain, recording_seed=10_000)
    evoked = responses(brain, order)
    samples = simulate_recording(subject, order, evoked, source.soa_s, source.name).samples
    lead, every = round(LEAD_S * source.rate_hz), source.marker_every
    at = 0
    while True:
        text, nth = None, shown[1]
        if at == lead + nth * every and nth < len(order):
            if nth == shown[0]:  # nobody wants to see it yet
                at -= lead
                continue
            text, shown[1] = order[nth].id, nth + 1
        yield samples[at], text
        at = at + 1 if at + 1 < len(samples) else 0


def _with_trigger(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    """A photodiode, which sees the image a little after its marker."""
    rng, on, rate_hz = np.random.default_rng(1), range(0), source.rate_hz
    for number, (sample, text) in enumerate(rows):
        if text is not None:
            lit = number + max(1, round(rng.normal(*_SCREEN_S) * rate_hz))
            on = range(lit, lit + max(2, round(_PULSE_S * rate_hz)))
        yield np.append(sample, np.float32(number in on)), text


def event_outlet(name: str) -> Any:
    """Markers as mne-lsl takes them: it does not read strings."""
    info = pylsl.StreamInfo(name, "stim", 1, 0, "int32", name)
    info.set_channel_labels(["stimulus"])
    info.set_channel_types("stim")
    info.set_channel_units("none")
    return pylsl.StreamOutlet(info)


def loop_back(source: Source, pushed: Pushed, span_s: float, out: Connection) -> None:
    """The floor: how long LSL itself takes from a push to a pull that waits for it.

    Sends latencies in seconds, one of each sample: (n,).
    """
    end_with_parent()
    inlet = pylsl.StreamInlet(find_stream(source.name, _FIND_WAIT_S).info, max_buflen=10)
    inlet.open_stream(_FIND_WAIT_S)
    buffer = np.empty((1024, len(source.all_channels)), np.float32)
    latencies_s = []
    begin_s = local_clock() + _WARM_UP_S
    while (now_s := local_clock()) < begin_s + span_s:
        _, stamps_s = inlet.pull_chunk(0.02, len(buffer), buffer, min_samples=1, as_numpy=True)
        arrived_s = local_clock()
        if now_s >= begin_s:
            latencies_s.append(arrived_s - pushed.at_s(stamps_s))
    out.send(np.concatenate(latencies_s))
