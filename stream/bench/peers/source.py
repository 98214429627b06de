"""The one source of all peers: the demo's subject, in turns, under the condition that is asked for.

Between turns its resting EEG goes on without markers, so that peers can connect. A turn begins the
recording anew: whoever has one is sent the same samples and the same images.
"""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from demo.live_subject import SEED
from demo.recordings import responses, simulate_recording
from demo.stimuli import Stimulus
from demo.subject import SimulatedSubject, SubjectSettings
from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock, pylsl
from stream.bench.peers.conditions import LEAD_S, Condition, Plan
from stream.sources.outlets import Outlets, sleep_until

_START_WAIT_S, _TURN_WAIT_S, _END_WAIT_S = 120.0, 600.0, 5.0
_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Streams:
    """Streams `name` (EEG), `name`-markers (strings) and `name`-events (integers), and what is in.

    Attributes:
        channels: of the EEG, in microvolts.
        samples: float32 (rows, channels), a recording that every turn begins anew.
        codes, names: of the image of each trial, as markers tell it.
    """

    name: str
    channels: tuple[str, ...]
    rate_hz: float
    samples: np.ndarray
    codes: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Played:
    """A turn that is over; all times are of the LSL clock.

    Attributes:
        pushed_s: when the push of each row began; NaN where it was lost.
        marked_s: when the marker of each trial was pushed; NaN where there was no stream for it.
    """

    plan: Plan
    pushed_s: np.ndarray
    marked_s: np.ndarray


def recorded(shown: Sequence[Stimulus], soa_s: float, rate_hz: float) -> np.ndarray:
    """EEG of the demo's subject, who sees these from `LEAD_S` on: float32 (rows, channels)."""
    brain = SubjectSettings(rate_hz=rate_hz, seed=SEED)
    subject = SimulatedSubject(brain, recording_seed=10_000)
    return simulate_recording(subject, shown, responses(brain, shown), soa_s, "peers").samples


class TurnSource:
    """The source in its process, for the length of a `with`."""

    def __init__(self, streams: Streams):
        self.streams = streams
        self._line, line = _processes.Pipe()
        self._process = _processes.Process(target=_serve, args=(streams, line), daemon=True)

    def __enter__(self) -> "TurnSource":
        self._process.start()
        self._hear(_START_WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join(_END_WAIT_S)

    def play(self, condition: Condition, plan: Plan) -> Played:
        """One turn, to its last sample and marker."""
        self._line.send((condition, plan))
        return Played(plan, *self._hear(_TURN_WAIT_S))

    def _hear(self, wait_s: float) -> tuple[np.ndarray, np.ndarray]:
        try:
            if self._line.poll(wait_s):
                return self._line.recv()
        except EOFError:
            raise Problem("the source of the streams has died") from None
        raise Problem(f"the source of the streams has said nothing for {wait_s:g} s")


class _Open:
    """All three streams, for as long as there are any."""

    def __init__(self, streams: Streams):
        self._outlets = Outlets(streams.name, streams.channels, streams.rate_hz, simulated=True)
        # Beside strings integers, which are all that mne-lsl takes.
        info = pylsl.StreamInfo(f"{streams.name}-events", "stim", 1, 0, "int32", streams.name)
        info.set_channel_labels(["stimulus"])
        info.set_channel_types("stim")
        info.set_channel_units("none")
        self._events = pylsl.StreamOutlet(info)
        self.push_eeg = self._outlets.push_eeg

    def mark(self, marker: int | str, stamp_s: float) -> None:
        if isinstance(marker, str):
            self._outlets.push_marker(marker, stamp_s)
        else:
            self._events.push_sample([marker], stamp_s)


def _serve(streams: Streams, line: Connection) -> None:
    """Pushes sample by sample, for ever, and answers when it has begun and after each turn."""
    start_s, n_idle = local_clock(), round(LEAD_S * streams.rate_hz)
    stamps_s = (start_s + number / streams.rate_hz for number in itertools.count())
    streams_out = _Open(streams)
    line.send((np.empty(0), np.empty(0)))
    while True:
        for row in itertools.cycle(range(n_idle)):
            if line.poll():
                break
            sleep_until(stamp_s := next(stamps_s))
            streams_out.push_eeg(streams.samples[[row]], np.array([stamp_s]))
        condition, plan = line.recv()
        streams_out = _turn(streams, condition, plan, stamps_s, streams_out, line)


def _turn(
    streams: Streams,
    condition: Condition,
    plan: Plan,
    stamps_s: Iterator[float],
    streams_out: _Open | None,
    line: Connection,
) -> _Open:
    """Plays a turn and sends its moments; returns the streams, which are others if they were away.

    A marker is pushed with the first sample whose time is not before its own and its delay.
    """
    marks = streams.codes if condition.marks == "codes" else streams.names
    lost = {row for gap in plan.lost for row in gap}
    n_rows, n_trials = len(streams.samples), len(plan.onsets)
    pushed_s, marked_s = np.full(n_rows, np.nan), np.full(n_trials, np.nan)
    first_s, due = 0.0, deque[tuple[float, int, float]]()
    for row, stamp_s in zip(range(n_rows), stamps_s, strict=False):
        if row == 0:
            first_s = stamp_s
            for trial in range(n_trials):
                at_s = first_s + (plan.onsets[trial] + plan.phases[trial]) / streams.rate_hz
                due.append((at_s + plan.delays_s[trial], trial, at_s))
            due = deque(sorted(due))
        sleep_until(stamp_s)
        if plan.away and row == plan.away.start:
            streams_out = None  # liblsl closes them
        elif plan.away and row == plan.away.stop:
            streams_out = _Open(streams)
        if row not in lost and streams_out is not None:
            pushed_s[row] = local_clock()
            streams_out.push_eeg(streams.samples[[row]], np.array([stamp_s]))
        while due and (due[0][0] <= stamp_s or row == n_rows - 1):
            _, trial, at_s = due.popleft()
            if streams_out is not None:
                marked_s[trial] = local_clock()
                streams_out.mark(marks[trial], at_s)
    line.send((pushed_s, marked_s))
    return streams_out or _Open(streams)
