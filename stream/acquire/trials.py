"""Cuts trials out of the ring: every event ends as exactly one trial or one drop, with a reason.

Before its end a trial can be handed out as far as it is there, at stops that are asked for.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stream.acquire.clock import CLOCKS_APART_S
from stream.acquire.markers import BadSpan, Event
from stream.acquire.reject import Rejection
from stream.acquire.ring import Ring

Reason = Literal[
    "gap",
    "late",
    "overflow",
    "rejected",
    "no_data",
    "duplicate",
    "unknown_stimulus",
    "paused",
    "node_lost",
    "shutdown",
]


# Samples from the onset to its nearest sample, where none is missing; the excess over a half is for
# a rate that is not quite the nominal one.
_MAX_RESIDUAL = 0.525
# How much longer or shorter a trial may last by its stamps than by the declared rate: a part of it,
# and samples by which the stamps may be wrong.
_MAX_STRETCH, _MAX_STRETCH_SAMPLES = 0.01, 2.0
_TOLD = 100  # characters of a stimulus that a reason quotes


@dataclass(frozen=True)
class Window:
    """Samples of a trial, counted from the onset sample; both ends belong to it, as in MNE."""

    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @classmethod
    def of(cls, tmin_s: float, tmax_s: float, rate_hz: float) -> "Window":
        return cls(round(tmin_s * rate_hz), round(tmax_s * rate_hz))


@dataclass(frozen=True)
class Cutting:
    """Where trials are cut in a stream, and which markers and trials are refused.

    Attributes:
        window: the samples that a trial takes.
        rate_hz: nominal rate of the stream.
        stops: lengths, in samples from the window's first on, at which a part is handed out.
        urgent: those of them that somebody waits for; the window's end always is.
        history_s: how far back in time a marker may lie when it arrives.
        no_data_after_s: a trial whose samples have not come this long after its end is dropped.
        is_known: whether a stimulus may open a trial.
        first_number: of the first trial.
        is_left_out: whether a marker ends as `paused`, as it did where a session is repeated.
    """

    window: Window
    rate_hz: float
    stops: tuple[int, ...] = ()
    urgent: tuple[int, ...] = ()
    history_s: float = 30.0
    no_data_after_s: float = 2.0
    is_known: Callable[[str], bool] = lambda stimulus: True
    first_number: int = 1
    is_left_out: Callable[[Event], bool] = lambda event: False


@dataclass(frozen=True)
class Trial:
    """A trial that was cut, or the beginning of one that is going on.

    `samples` is a (times, channels) view into the ring, up to the last one that is handed out.
    """

    number: int
    event: Event
    residual_s: float  # stamp of the onset sample minus the onset: at most half a sample
    first_stamp_s: float
    last_stamp_s: float
    readable_s: float  # when the last sample or marker that it needed became readable
    samples: np.ndarray
    is_whole: bool


@dataclass(frozen=True)
class Drop:
    """A trial that could not be cut."""

    number: int
    event: Event
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Opened:
    """A marker that opened a trial, with its running number."""

    number: int
    event: Event


@dataclass
class _Open:
    """A trial whose end is still to come."""

    number: int
    event: Event
    opened_s: float  # the newest stamp then
    onset_sample: int | None = None
    n_stops: int = 0  # that it has passed


class TrialCutter:
    """Opens a trial for every event and cuts it when its last sample is there.

    The caller appends to `ring`, hands over events, and asks for what is due. `now_s` is the
    stream's time: the newest stamp plus the time for which no sample has come since.

    Attributes:
        is_known: of `Cutting`; this and the next ones may be changed between two trials.
        rejection: refuses trials; None takes all.
        keeps_bad: trials that overlap with spans that were marked bad are taken too.
        is_paused: markers open no trials; those that are open go on.
    """

    def __init__(self, ring: Ring, cutting: Cutting):
        window, rate_hz = cutting.window, cutting.rate_hz
        self.is_known = cutting.is_known
        self.rejection: Rejection | None = None
        self.keeps_bad = False
        self.is_paused = False
        self._ring = ring
        self._window = window
        self._rate_hz = rate_hz
        self._no_data_after_s = cutting.no_data_after_s
        self._patience_s = window.last / rate_hz + cutting.no_data_after_s
        self._number = cutting.first_number
        self._is_left_out = cutting.is_left_out
        self._stops = sorted(stop for stop in cutting.stops if stop < window.count)
        ends = sorted({*cutting.urgent, window.count})
        self._ends_s = [(window.first + rows - 1) / rate_hz for rows in ends]  # from the onset on
        self._pending: list[_Open] = []  # by onset
        self._bad: list[BadSpan] = []  # by start

    @property
    def next_end_s(self) -> float:
        """When the next sample comes that somebody waits for; infinite while no trial is open."""
        now_s, next_s = self._ring.newest_stamp_s, math.inf
        for open_ in self._pending:
            onset_s = open_.event.onset_s
            n_passed = bisect_right(self._ends_s, now_s - onset_s)
            next_s = min(next_s, onset_s + self._ends_s[min(n_passed, len(self._ends_s) - 1)])
        return next_s

    def open(self, event: Event) -> list[Opened | Drop]:
        """Gives the event its running number, and drops it at once where it can be no trial."""
        number, self._number = self._number, self._number + 1
        opened = Opened(number, event)
        stimulus = event.stimulus[:_TOLD]  # which may be a megabyte; the marker's record has all
        if event.is_duplicate:
            return [opened, Drop(number, event, "duplicate", f"'{stimulus}' with this stamp")]
        if event.fault:
            return [opened, Drop(number, event, "no_data", event.fault)]
        if not self.is_known(event.stimulus):
            return [opened, Drop(number, event, "unknown_stimulus", f"'{stimulus}'")]
        if self.is_paused or self._is_left_out(event):
            return [opened, Drop(number, event, "paused", "the session was paused")]
        open_ = _Open(number, event, self._ring.newest_stamp_s)
        insort(self._pending, open_, key=lambda open_: open_.event.onset_s)
        return [opened]

    def mark_bad(self, span: BadSpan) -> None:
        """Trials that overlap with this span are rejected, as MNE's Epochs rejects them."""
        insort(self._bad, span, key=lambda bad: bad.start_s)

    def due(self, now_s: float) -> list[Trial | Drop]:
        """What can be decided now, by onset, then beginnings of what is still open.

        All windows are alike, so the trial with the earliest onset is always the first to end.
        Each view is good until the ring moves on.
        """
        outcomes: list[Trial | Drop] = []
        while self._pending and (outcome := self._cut(self._pending[0], now_s)) is not None:
            outcomes.append(outcome)
            del self._pending[0]
        if self._stops:
            outcomes += filter(None, map(self._part, self._pending))
        return outcomes

    def drop_pending(self, reason: Reason, detail: str) -> list[Drop]:
        """Ends every trial that is still open."""
        drops = [Drop(open_.number, open_.event, reason, detail) for open_ in self._pending]
        self._pending.clear()
        return drops

    def _cut(self, open_: _Open, now_s: float) -> Trial | Drop | None:
        number, event = open_.number, open_.event
        ring, window = self._ring, self._window
        # Half a sample past the onset no later sample can be nearer to it, and one and a half
        # before the end the last one cannot be there.
        if ring.newest_stamp_s < event.onset_s + max(0.5, window.last - 1.5) / self._rate_hz:
            return self._waited_out(open_, now_s)
        onset = ring.nearest(event.onset_s)
        if open_.onset_sample not in (None, onset):
            return Drop(number, event, "gap", "the sender's clock went back within the trial")
        first, last = onset + window.first, onset + window.last
        between = self._is_between(onset, event)
        is_before = between and event.onset_s < float(ring.stamps_s(ring.oldest, 1)[0])
        # Samples that are missing between the onset and the window shift it too.
        start, stop = max(min(first, onset), ring.oldest), min(max(last, onset) + 1, ring.next)
        if not is_before and (between or ring.broken(start, stop - start)):
            return Drop(number, event, "gap", "samples are missing in the window")
        if first < ring.oldest or is_before:
            if ring.oldest == 0:
                return Drop(number, event, "no_data", "the window begins before the stream")
            return Drop(number, event, "late", "the window's data had left the buffer")
        if last >= ring.next:
            return self._waited_out(open_, now_s)
        if (bad := self._bad_within(first, last)) is not None:
            return Drop(number, event, "rejected", bad.why)
        samples = ring.view(first, window.count)
        why = self._stretched(first, last)
        # The samples of a window are read only where there is something to look for.
        rejection, is_finite = self.rejection, ring.is_finite_from(first)
        if why is None and rejection is not None and (rejection.has_limits or not is_finite):
            why = rejection.why(samples)
        if why is not None:
            return Drop(number, event, "rejected", why)
        return self._trial(number, event, onset, window.count)

    def _bad_within(self, first: int, last: int) -> BadSpan | None:
        """The first span marked bad with which these samples overlap."""
        if self.keeps_bad or not self._bad:
            return None
        oldest_s, first_s, last_s = (
            float(self._ring.stamps_s(number, 1)[0]) for number in (self._ring.oldest, first, last)
        )
        self._bad = [span for span in self._bad if span.stop_s >= oldest_s]
        begun = self._bad[: bisect_left(self._bad, last_s, key=lambda span: span.start_s)]
        return next((span for span in begun if span.stop_s > first_s), None)

    def _stretched(self, first: int, last: int) -> str | None:
        """Why these samples are no window of its seconds, though none is missing; else None."""
        first_s, last_s = (float(self._ring.stamps_s(number, 1)[0]) for number in (first, last))
        lasts_s, declared_s = last_s - first_s, (last - first) / self._rate_hz
        allowed_s = _MAX_STRETCH * declared_s + _MAX_STRETCH_SAMPLES / self._rate_hz
        if abs(lasts_s - declared_s) <= allowed_s:
            return None
        return (
            f"its samples last {lasts_s:.3f} s, not {declared_s:.3f} s: they come at "
            f"{(last - first) / lasts_s:.1f} Hz, not at {self._rate_hz:g} Hz"
        )

    def _part(self, open_: _Open) -> Trial | None:
        """The trial up to the last stop that it has passed since it was asked for before."""
        ring = self._ring
        if open_.n_stops == len(self._stops):
            return None
        onset_s = open_.event.onset_s
        if open_.onset_sample is None:
            # From half a sample past the onset on, its nearest sample is known.
            if ring.newest_stamp_s < onset_s + 0.5 / self._rate_hz:
                return None
            open_.onset_sample = ring.nearest(onset_s)
        onset, first = open_.onset_sample, open_.onset_sample + self._window.first
        n_stops = bisect_right(self._stops, ring.next - first)
        if n_stops <= open_.n_stops:
            return None
        open_.n_stops = n_stops
        last = first + self._stops[n_stops - 1] - 1
        start, stop = min(first, onset), max(last, onset) + 1
        is_lost = start < ring.oldest or ring.broken(start, stop - start)
        if is_lost or self._is_between(onset, open_.event):
            return None  # at its end it is said why
        return self._trial(open_.number, open_.event, onset, self._stops[n_stops - 1])

    def _is_between(self, onset: int, event: Event) -> bool:
        """Whether samples are missing at the onset itself: not even the nearest one is near.

        Where none are, the line of the stamps was corrected there.
        """
        ring = self._ring
        residual_s = float(ring.stamps_s(onset, 1)[0]) - event.onset_s
        if abs(residual_s) <= _MAX_RESIDUAL / self._rate_hz:
            return False
        before = onset - (residual_s > 0)  # the last sample before the onset
        return before < ring.oldest or before + 1 == ring.next or ring.broken(before, 2)

    def _trial(self, number: int, event: Event, onset: int, count: int) -> Trial:
        ring, first = self._ring, onset + self._window.first
        last = first + count - 1
        return Trial(
            number=number,
            event=event,
            residual_s=float(ring.stamps_s(onset, 1)[0]) - event.onset_s,
            first_stamp_s=float(ring.stamps_s(first, 1)[0]),
            last_stamp_s=float(ring.stamps_s(last, 1)[0]),
            readable_s=max(ring.readable_s(last), event.readable_s),
            samples=ring.view(first, count),
            is_whole=count == self._window.count,
        )

    def _waited_out(self, open_: _Open, now_s: float) -> Drop | None:
        number, event = open_.number, open_.event
        # Before the first sample nobody knows how far the stamps of a fast replay lie behind.
        since_s = event.onset_s if self._ring.next else max(event.onset_s, event.readable_s)
        if now_s - since_s > self._patience_s:
            waited = f"no samples {self._patience_s:.1f} s after onset"
            return Drop(number, event, "no_data", waited)
        # A source that catches up, after it was frozen, has done so by then.
        is_late = self._ring.newest_stamp_s - open_.opened_s > self._no_data_after_s
        if is_late and event.onset_s - now_s > CLOCKS_APART_S:
            ahead = f"{event.onset_s - now_s:.0f} s ahead of the EEG: is it of another clock?"
            return Drop(number, event, "no_data", ahead)
        return None
