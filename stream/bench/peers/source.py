"""The one source of all peers: the demo's subject, in turns, under the condition that is asked for.

Between turns its resting EEG goes on without markers, so that peers can connect. A turn begins the
recording anew: whoever has one is sent the same samples and the same images.
"""

import itertools
import math
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from demo.stimuli import Stimulus
from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.bench.peers.conditions import LEAD_S, Condition, Plan
from stream.bench.processes import end_with_parent
from stream.bench.streams import event_outlet
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
    from demo.live_subject import SEED  # here: SciPy and MNE take seconds
    from demo.recordings import responses, simulate_recording
    from demo.subject import SimulatedSubject, SubjectSettings

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

    def _hear(self, wait_s: float) -> Any:
        try:
            if self._line.poll(wait_s):
                return self._line.recv()
        except EOFError:
            raise Problem("the source of the streams has died") from None
        raise Problem(f"the source of the streams has said nothing for {wait_s:g} s")


class _Outlets:
    """All three streams, which can go and come again."""

    def __init__(self, streams: Streams):
        self._streams = streams
        self.open()

    def open(self) -> None:
        streams = self._streams
        self._outlets: Outlets | None = Outlets(
            streams.name, streams.channels, streams.rate_hz, simulated=True
        )
        self._events = event_outlet(f"{streams.name}-events")

    def close(self) -> None:
        """They are gone at once: nobody else may hold them."""
        self._outlets = self._events = None

    def push_eeg(self, sample: np.ndarray, stamp_s: float) -> float:
        """Pushes (1, channels); returns when that began, NaN where there is no stream."""
        if self._outlets is None:
            return math.nan
        now_s = local_clock()
        self._outlets.push_eeg(sample, np.array([stamp_s]))
        return now_s

    def push_marker(self, marker: int | str, stamp_s: float) -> float:
        """The same of a marker: an integer, or text."""
        if self._outlets is None:
            return math.nan
        now_s = local_clock()
        if isinstance(marker, str):
            self._outlets.push_marker(marker, stamp_s)
        else:
            self._events.push_sample([marker], stamp_s)
        return now_s


def _serve(streams: Streams, line: Connection) -> None:
    """Pushes sample by sample, for ever, and answers when it has begun and after each turn."""
    end_with_parent()
    start_s, n_idle = local_clock(), round(LEAD_S * streams.rate_hz)
    stamps_s = (start_s + number / streams.rate_hz for number in itertools.count())
    outlets = _Outlets(streams)
    line.send(())
    while True:
        for row in itertools.cycle(range(n_idle)):
            if line.poll():
                break
            sleep_until(stamp_s := next(stamps_s))
            outlets.push_eeg(streams.samples[[row]], stamp_s)
        line.send(_turn(streams, stamps_s, outlets, *line.recv()))


def _turn(
    streams: Streams,
    stamps_s: Iterator[float],
    outlets: _Outlets,
    condition: Condition,
    plan: Plan,
) -> tuple[np.ndarray, np.ndarray]:
    """Plays a turn; returns when rows and markers were pushed.

    A marker is pushed with the first sample whose time is not before its own and its delay.
    """
    marks = streams.codes if condition.marks == "codes" else streams.names
    lost = {row for gap in plan.lost for row in gap}
    n_rows, n_trials = len(streams.samples), len(plan.onsets)
    pushed_s, marked_s = np.full(n_rows, np.nan), np.full(n_trials, np.nan)
    first_s = next(stamps_s)
    at_s = first_s + (np.array(plan.onsets) + plan.phases) / streams.rate_hz
    due_s = at_s + plan.delays_s
    due = deque(np.argsort(due_s).tolist())
    for row, stamp_s in zip(range(n_rows), itertools.chain([first_s], stamps_s), strict=False):
        sleep_until(stamp_s)
        if row in plan.away:
            outlets.close()
        elif row == plan.away.stop and plan.away:
            outlets.open()
        if row not in lost:
            pushed_s[row] = outlets.push_eeg(streams.samples[[row]], stamp_s)
        while due and (due_s[due[0]] <= stamp_s or row == n_rows - 1):
            trial = due.popleft()
            marked_s[trial] = outlets.push_marker(marks[trial], at_s[trial])
    return pushed_s, marked_s
