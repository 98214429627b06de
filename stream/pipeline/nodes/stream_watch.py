"""Tells how the EEG stream of a live session is, and refuses one that came back changed."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import zmq

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.health import HealthMonitor
from stream.acquire.inlet import Inlet, ReturnGuard
from stream.acquire.lsl import local_clock
from stream.pipeline.wire.bus import send
from stream.pipeline.wire.messages import StreamHealth

_REPORT_S = 1.0
_GUARD_S = 1.0


class StreamWatch:
    """Reports the health of a stream every second, and at once when its state changes.

    Args:
        passed_over: channels that are flat by nature, such as triggers.
    """

    def __init__(self, inlet: Inlet, reports: zmq.SyncSocket, passed_over: Sequence[str]):
        self._inlet = inlet
        self._reports = reports
        names = [name for name in inlet.channels if name not in passed_over]
        self._columns = [inlet.channels.index(name) for name in names]
        self._health = HealthMonitor(tuple(names), inlet.stream.rate_hz)
        self._guard = ReturnGuard(inlet.stream, inlet.labels)
        self._state = "waiting"
        self._had_gap = False  # a source that is back at once was away for as long as its gap
        self._next_report_s = 0.0
        self._next_guard_s = 0.0

    def arrived(self, chunk: Chunk, n_gaps: int) -> None:
        """Takes a chunk of EEG."""
        self._health.arrived(chunk.samples[:, self._columns], n_gaps, chunk.readable_s)
        self._had_gap |= n_gaps > 0

    def look(self, drift_ppm: float) -> None:
        """Call it often: a stall is noticed here.

        Raises:
            Problem: a stream came back under this name with other channels or at another rate.
        """
        state = self._health.state(local_clock())
        now_s = time.monotonic()
        if state != self._state or now_s >= self._next_report_s:
            self._state, self._next_report_s = state, now_s + _REPORT_S
            self._report(drift_ppm)
        may_be_another = self._had_gap or state in ("stalled", "lost", "recovered")
        if may_be_another and now_s >= self._next_guard_s:
            self._next_guard_s = now_s + _GUARD_S
            self._had_gap &= not self._guard.look()
        if self._guard.refusal is not None:
            raise Problem(self._guard.refusal)

    def _report(self, drift_ppm: float) -> None:
        send(
            self._reports,
            StreamHealth(
                stream=self._inlet.stream.name,
                drift_ppm=drift_ppm,
                offset_s=self._inlet.offset_s,
                offset_uncertainty_s=self._inlet.offset_uncertainty_s,
                **asdict(self._health.report(local_clock())),
            ),
        )
