"""The source of the latency benchmark, and the two other programs that listen to it.

Each runs in a process of its own. A sample carries its number in the first channel, and the source
notes when it pushed it, so that whoever holds the sample can tell how old it is.
"""

import itertools
import multiprocessing
import time
from collections.abc import Callable
from ctypes import Array, c_double
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from stream.acquire.lsl import find_stream, local_clock, pylsl
from stream.sources.outlets import Outlets, sleep_until

CHANNELS = tuple(f"C{number}" for number in range(1, 64))
SOA_S = 0.5  # from marker to marker
LOG_SIZE = 2**20  # samples whose moment of pushing is remembered: 17 minutes at 1 kHz
_NOISE_ROWS = 4096
_FIND_WAIT_S = 10.0
_WARM_UP_S = 2.0
_POLL_S = 0.001  # mne-lsl has no call that waits; it acquires at this interval itself

SharedTimes = Array[c_double]
_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Source:
    """Streams `name` (EEG), `name`-markers (strings) and `name`-events (the same, as integers)."""

    name: str
    rate_hz: float


@dataclass(frozen=True)
class Round:
    """One program's turn: latencies in seconds by what was measured, and its use of one core."""

    latency_s: dict[str, np.ndarray]
    cpu: float


class RunningSource:
    """The source in its process, for the length of a `with`."""

    def __init__(self, source: Source):
        self.source = source
        self.pushed_s = _processes.RawArray("d", LOG_SIZE)
        self._started, started = _processes.Pipe(duplex=False)
        arguments = (source, self.pushed_s, started)
        self._process = _processes.Process(target=play, args=arguments, daemon=True)

    def __enter__(self) -> "RunningSource":
        self._process.start()
        self._start_s = self._started.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def pushed_at_s(self, stamp_s: float) -> float:
        """When the sample with this stamp was pushed."""
        return self.pushed_s[round((stamp_s - self._start_s) * self.source.rate_hz) % LOG_SIZE]

    def hear(self, listener: Callable[..., None], *arguments: object) -> Round:
        """One turn of a listener in a process of its own."""
        result, out = _processes.Pipe(duplex=False)
        arguments = (self.source, self.pushed_s, *arguments, out)
        process = _processes.Process(target=listener, args=arguments, daemon=True)
        process.start()
        out.close()  # so that a listener that dies ends the wait
        try:
            measured = result.recv()
        except EOFError:
            raise SystemExit(f"{listener.__name__} ended without a result") from None
        process.join()
        return measured


def play(source: Source, pushed_s: SharedTimes, started: Connection) -> None:
    """Plays for ever, and tells the stamp of sample 0.

    Args:
        pushed_s: shared, (LOG_SIZE,); when each sample was pushed, at its number modulo the size.
    """
    log_s = np.ctypeslib.as_array(pushed_s)
    outlets = Outlets(source.name, CHANNELS, source.rate_hz)
    events = _event_outlet(f"{source.name}-events")
    noise = np.random.default_rng(0).normal(0, 20, (_NOISE_ROWS, len(CHANNELS)))
    noise = noise.astype(np.float32)
    marker_every = round(SOA_S * source.rate_hz)
    start_s = local_clock()
    started.send(start_s)
    for number in itertools.count():
        samples = noise[[number % _NOISE_ROWS]]
        samples[0, 0] = number
        stamp_s = start_s + number / source.rate_hz
        sleep_until(stamp_s)
        log_s[number % LOG_SIZE] = local_clock()
        outlets.push_eeg(samples, np.array([stamp_s]))
        if number % marker_every == 0:
            outlets.push_marker(f"stimulus-{number}", stamp_s)
            events.push_sample([1], stamp_s)


def _event_outlet(name: str) -> Any:
    """Markers as mne-lsl takes them: it does not read strings."""
    info = pylsl.StreamInfo(name, "stim", 1, 0, "int32", name)
    info.set_channel_labels(["stimulus"])
    info.set_channel_types("stim")
    info.set_channel_units("none")
    return pylsl.StreamOutlet(info)


def loop_back(
    source: Source, pushed_s: SharedTimes, label: str, span_s: float, out: Connection
) -> None:
    """The floor: how long LSL itself takes from a push to a pull that waits for it.

    Sends a `Round` with one latency per sample.
    """
    log_s = np.ctypeslib.as_array(pushed_s)
    inlet = pylsl.StreamInlet(find_stream(source.name, _FIND_WAIT_S).info, max_buflen=10)
    inlet.open_stream(_FIND_WAIT_S)
    buffer = np.empty((1024, len(CHANNELS)), np.float32)
    latencies = []
    begin_s = local_clock() + _WARM_UP_S
    cpu_s = 0.0
    while (now_s := local_clock()) < begin_s + span_s:
        samples, _ = inlet.pull_chunk(0.02, len(buffer), buffer, min_samples=1, as_numpy=True)
        arrived_s = local_clock()
        if now_s < begin_s:
            cpu_s = time.process_time()
            continue
        latencies.append(arrived_s - log_s[samples[:, 0].astype(int) % LOG_SIZE])
    out.send(Round({label: np.concatenate(latencies)}, (time.process_time() - cpu_s) / span_s))


def mne_lsl_epochs(
    source: Source,
    pushed_s: SharedTimes,
    label: str,
    window_s: tuple[float, float],
    n_warm_up: int,
    n_trials: int,
    out: Connection,
) -> None:
    """mne-lsl's EpochsStream, polled: as its documentation shows, but as often as it acquires.

    It cuts the window and does nothing else, in particular no baseline and no resampling. Sends a
    `Round` with one latency per epoch, from the push of its last sample to when its data is held.
    """
    from mne_lsl.stream import EpochsStream, StreamLSL

    log_s = np.ctypeslib.as_array(pushed_s)
    tmin_s, tmax_s = window_s
    eeg = StreamLSL(2 * (tmax_s - tmin_s), name=source.name)
    # All flags: what its documentation asks for where events come from a second stream.
    eeg.connect(processing_flags="all", timeout=_FIND_WAIT_S)
    events = StreamLSL(100, name=f"{source.name}-events")
    events.connect(processing_flags="all", timeout=_FIND_WAIT_S)
    epochs = EpochsStream(
        eeg,
        bufsize=4,
        event_id={"stimulus": 1},
        event_channels="stimulus",
        event_stream=events,
        tmin=tmin_s,
        tmax=tmax_s,
        baseline=None,
    ).connect()
    latencies: list[float] = []
    begin_s = cpu_s = 0.0
    while len(latencies) < n_warm_up + n_trials:
        n_new = epochs.n_new_epochs
        if n_new == 0:
            time.sleep(_POLL_S)
            continue
        data = epochs.get_data(n_new)
        readable_s = local_clock()
        if len(latencies) <= n_warm_up:
            begin_s, cpu_s = readable_s, time.process_time()
        last = data[:, 0, -1].astype(int)
        latencies += (readable_s - log_s[last % LOG_SIZE]).tolist()
    span_s, cpu_s = local_clock() - begin_s, time.process_time() - cpu_s
    for stream in (epochs, events, eeg):
        stream.disconnect()
    out.send(Round({label: np.array(latencies[n_warm_up:])}, cpu_s / span_s))
