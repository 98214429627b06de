"""Tells how a stream of a live session is, and minds what comes back in its place."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import zmq

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.inlet import Inlet
from stream.acquire.lsl import local_clock
from stream.acquire.units import odd_size, unknown_units
from stream.acquire.watch.health import HealthMonitor, MarkerMonitor
from stream.acquire.watch.rate import Flow
from stream.acquire.watch.return_guard import ReturnGuard
from stream.pipeline.wire.bus import send
from stream.pipeline.wire.messages import StreamHealth

_REPORT_S = 1.0
_ODD_LOOKS = 3  # each at a second
_GUARD_S: dict[StreamKind, float] = {"eeg": 1.0, "markers": 3.0}


class StreamWatch:
    """Reports the health of a stream every second, and at once when its state changes.

    Args:
        passed_over: channels that are flat by nature, such as triggers.
        is_chosen: a person has named its source id, so that no other stream is meant.
    """

    def __init__(
        self,
        kind: StreamKind,
        inlet: Inlet,
        reports: zmq.SyncSocket,
        passed_over: Sequence[str] = (),
        is_chosen: bool = False,
    ):
        self._kind = kind
        self._inlet = inlet
        self._reports = reports
        names = [name for name in inlet.channels if name not in passed_over]
        self._columns = [inlet.channels.index(name) for name in names]
        self._health: HealthMonitor | MarkerMonitor = MarkerMonitor()
        if kind == "eeg":
            self._health = HealthMonitor(tuple(names), inlet.stream.rate_hz)
        self._guard = ReturnGuard(inlet, is_chosen)
        self._state = ""
        self._n_odd = 0
        notice = unknown_units(inlet.units) if kind == "eeg" else None
        self._said = [f"stream '{inlet.stream.name}': {notice}"] if notice else []
        self._had_gap = False  # a source that is back at once was away for as long as its gap
        self._next_report_s = 0.0
        self._next_guard_s = 0.0

    def arrived(self, chunk: Chunk, n_gaps: int) -> None:
        """Takes a chunk of the stream."""
        self._health.arrived(chunk.samples[:, self._columns], chunk.readable_s)
        self._had_gap |= n_gaps > 0

    def look(self, flow: Flow) -> list[str]:
        """Call it often: a stall is noticed here. Returns what a person should know.

        `flow` is that of the EEG.

        Raises:
            Problem: a stream came back under this name with other channels or at another rate, or
                the stream is read no more.
        """
        self._inlet.check()
        now_s = time.monotonic()
        if isinstance(self._health, MarkerMonitor):
            self._health.is_lost = self._guard.is_lost
        state = self._health.state(local_clock())
        if state != self._state or now_s >= self._next_report_s:
            self._state, self._next_report_s = state, now_s + _REPORT_S
            self._report(flow if self._kind == "eeg" else Flow())
        may_be_another = self._had_gap or self._health.is_quiet(local_clock())
        if self._inlet.in_doubt.is_set() or (may_be_another and now_s >= self._next_guard_s):
            self._next_guard_s = now_s + _GUARD_S[self._kind]
            self._had_gap &= not self._guard.look()
        if self._guard.refusal is not None:
            raise Problem(self._guard.refusal)
        said, self._guard.said = self._guard.said, []
        self._judge_size()
        said, self._said = said + self._said, []
        return said

    def _judge_size(self) -> None:
        """Says, once, that the values cannot be EEG: after some seconds, as filters settle."""
        if isinstance(self._health, MarkerMonitor) or self._n_odd == _ODD_LOOKS:
            return
        if self._health.newest is None:
            return
        newest, self._health.newest = self._health.newest, None
        sentence = odd_size(newest, self._inlet.signal)
        self._n_odd = 0 if sentence is None else self._n_odd + 1
        if sentence is not None and self._n_odd == _ODD_LOOKS:
            self._said.append(sentence)

    def _report(self, flow: Flow) -> None:
        send(
            self._reports,
            StreamHealth(
                stream=self._inlet.stream.name,
                kind=self._kind,
                **flow._asdict(),
                offset_s=self._inlet.offset_s,
                offset_uncertainty_s=self._inlet.offset_uncertainty_s,
                **asdict(self._health.report(local_clock())),
            ),
        )
