"""Raw LSL stamps of one stream to the time at which its samples were taken.

Amplifiers stamp samples when their driver wakes up: late by some milliseconds, often whole bursts
at once, and their crystal is off by up to 200 ppm. `StreamClock` tracks the line that the stamps
scatter about, sample by sample, with a Kalman filter for time and period. It looks at gaps first:
liblsl's own smoothing counts samples and is wrong for minutes after a loss of a tenth of a second.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

_PERIOD_TOLERANCE = 200e-6  # how far a device's rate may be from its nominal one
_PERIOD_WANDER = 1e-9  # relative, per sample: a crystal that warms up
_JITTER_AT_FIRST = 0.05  # periods; of stamps about the line, on the mean
_JITTER_FLOOR_S = 20e-6  # stamps that are better than this are followed as they are
_MEMORY = 1 / 256  # per sample, for the size of the scatter and the share of bursts
_OFF_PERIODS = 0.75  # a stamp this far off the line is late, or follows missing samples ...
_OFF_JITTERS = 8.0  # ... unless the stream scatters by a good part of that anyway
_DOUBT_S = 0.05  # stamps that stay off the line for longer, and ...
_DOUBT_SAMPLES = 4  # ... for more samples, are not late: samples are missing
_SHIFT_MEMORY = 1 / 64  # a smaller loss shows as a lasting shift of the stamps ...
_SHIFT_PERIODS = 0.6  # ... by this many periods ...
_SHIFT_JITTERS = 2.0  # ... or, in a stream that scatters, this many jitters
_OPENING_MOMENTS = 3
_LONGEST_OPENING_S = 1.0  # a burst that is no longer is heard to its end before time begins
_SAME_MOMENT = 0.25  # samples closer than this part of a period were stamped in one go
_BURST_SHARE = 0.4  # of such samples, in a stream that is stamped burst by burst
_BURST_JITTER_AT_FIRST_S, _BURST_JITTER_AT_FIRST = 1e-3, 1 / 32  # and of the longest burst
_SPAN_MEMORY_S = 8.0  # for how long the longest burst was
_OFFSET_STEP_S = 5e-3
_UNIX_S = (1e9, 5e9)  # the years 2001 to 2128
CLOCKS_APART_S = 60.0
"""Stamps that are further apart, of what came together, are of different clocks."""
_NO_TIME_S = 1e12  # a stamp further from 0 than this many seconds is none
_SHORTEST_STEP = 0.01  # periods; corrections never turn time back


@dataclass(frozen=True)
class Mapped:
    """Samples whose time is known: the oldest that were not given out before.

    Attributes:
        stamps_s: on the reader's clock, seconds; increasing between breaks.
        breaks: positions of samples that follow missing ones, or a jump of the sender's clock.
    """

    stamps_s: np.ndarray
    breaks: np.ndarray


def is_time(stamp_s: float) -> bool:
    """Whether a stamp can be one: not so NaN, infinity and absurd numbers."""
    return abs(stamp_s) < _NO_TIME_S


def looks_like(stamp_s: float, readable_s: float) -> str:
    """The clock that a stamp seems to be of, when it could be read at `readable_s`."""
    if _UNIX_S[0] < stamp_s < _UNIX_S[1]:
        return "Unix time"
    if abs(stamp_s - readable_s) > CLOCKS_APART_S:
        return "a device's own time"
    return "the session's clock"


class ClockOffset:
    """Believes a measured clock offset once its neighbours confirm it.

    One measurement may be wrong by as much as the network kept one packet waiting: the median of
    the last three is in force, so that a jump counts from its second measurement on.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=3)

    def believe(self, measured_s: float) -> float:
        """Takes a measurement, in seconds; returns the offset in force."""
        if not self._recent or measured_s != self._recent[-1]:  # else liblsl has not measured anew
            self._recent.append(measured_s)
        return median(self._recent) if len(self._recent) == 3 else self._recent[0]


class StreamClock:
    """Maps the stamps of one regular stream; the result does not depend on how they are chunked.

    A stamp that is far off the line is kept back until the next ones tell whether it was late, or
    samples are missing before it: at most for `_DOUBT_S`, and only then. After missing samples a
    new segment begins; the period is kept, so it is exact from its first stamps on. In a stream
    that is stamped in bursts only the last sample of a burst tells the time, since the others
    waited for it: doubts last until one burst has ended on the line, or two off it.
    """

    def __init__(self, rate_hz: float):
        self._nominal_s = 1.0 / rate_hz
        self._patience = max(_DOUBT_SAMPLES, round(_DOUBT_S * rate_hz))
        self.period_s = self._nominal_s
        self._time_s = math.nan  # of the last sample on the line
        self._given_s = -math.inf  # the last stamp given out in this segment
        self._last_raw_s = math.nan
        self._late_s = 0.0  # of the last stamp, against the line
        self._shift_s = 0.0  # of the last stamps, on the mean
        self._doubtful: list[float] = []  # raw stamps that are kept back
        self._opening: list[float] = []  # raw stamps until the first burst has ended
        self._longest_opening = max(2, round(_LONGEST_OPENING_S * rate_hz))
        self._offset_s = math.nan
        self._n_learnt = 0
        self._jitter_s = _JITTER_AT_FIRST * self._nominal_s
        self._burst_share = 0.0
        self._span_s = 0.0  # of a burst
        self._n_off = 0  # bursts in a row that ended off the line
        self._span_decay = 1 - self._nominal_s / _SPAN_MEMORY_S  # per sample
        # Covariance of time and period: variances and what they share.
        self._var_time = 0.0
        self._cov = 0.0
        self._var_period = (_PERIOD_TOLERANCE * self._nominal_s) ** 2

    @property
    def drift_ppm(self) -> float:
        """How much longer than nominal the device's sample period is."""
        return (self.period_s / self._nominal_s - 1) * 1e6

    def map(self, raw_s: np.ndarray, offset_s: float) -> Mapped:
        """Takes stamps (n,); `offset_s` takes the sender's clock to the reader's."""
        stamps_s: list[float] = []
        breaks: list[int] = []
        for raw in raw_s.tolist():
            self._step(raw, stamps_s, breaks)
        if stamps_s:
            # More than an error of measuring: the sender's clock is another one from here on.
            if abs(offset_s - self._offset_s) > max(_OFFSET_STEP_S, _OFF_PERIODS * self._nominal_s):
                breaks = sorted({0, *breaks})
            self._offset_s = offset_s
        return Mapped(np.array(stamps_s) + offset_s, np.array(breaks, np.intp))

    def _step(self, raw: float, stamps_s: list[float], breaks: list[int]) -> None:
        if math.isnan(self._time_s):
            self._opening.append(raw)
            if self._is_open():
                self._open(stamps_s, breaks)
            return
        bursts = self._burst_share > _BURST_SHARE
        before = self._doubtful[-1] if self._doubtful else self._last_raw_s
        if not is_time(raw):  # as if it had come like the one before, or on the line
            beside_s = 0.0 if bursts and self._doubtful else self.period_s
            raw = (before if self._doubtful else self._time_s) + beside_s
        after_s = raw - before
        same_moment = abs(after_s) < _SAME_MOMENT * self._nominal_s
        self._burst_share += _MEMORY * (same_moment - self._burst_share)
        begins = not same_moment and 0 < after_s < _LONGEST_OPENING_S  # a burst, if there are any
        if bursts and begins:
            self._end_burst()
        late_s = raw - self._time_s - (len(self._doubtful) + 1) * self.period_s
        # A burst that waited for longer than others did is heard to its end: only that tells the
        # time. In the others nothing has to be on the line before it.
        off_s = self._off_s() + (self._span_s if bursts and not self._doubtful else 0.0)
        if abs(late_s) > off_s or self._has_shifted():
            self._doubtful.append(raw)
            is_lost = self._has_shifted() or (not bursts and len(self._doubtful) > self._patience)
            if is_lost and (not bursts or (begins and len(self._doubtful) > 1)):
                self._break(stamps_s, breaks)
            return
        self._clear_doubts(0.0 if bursts else off_s, stamps_s)
        self._predict()
        if bursts:
            self._span_s = max(self._span_s * self._span_decay, late_s)
        else:
            self._learn(late_s)
        self._last_raw_s, self._late_s = raw, raw - self._time_s
        stamps_s.append(self._give())

    def _end_burst(self) -> None:
        """The last stamp ended its burst, so it did not wait: learns how late it was.

        Samples are missing where it is off the line, and that of the next burst too: one alone was
        late, and a burst from which some are missing may have waited for as long as the others.
        """
        if self._doubtful or abs(self._late_s) > self._off_s():
            self._n_off += 1
            return
        self._n_off = 0
        self._learn(self._late_s)

    def _is_open(self) -> bool:
        """Whether enough came to tell how the stream is stamped: some bursts, or samples alone."""
        if len(self._opening) > self._longest_opening:
            return True
        before, newest = [math.nan, *self._opening][-2:]
        if not newest - before >= _SAME_MOMENT * self._nominal_s:
            return False
        ends, _ = self._moments()
        return len(ends) >= _OPENING_MOMENTS

    def _moments(self) -> tuple[list[tuple[int, float]], int]:
        """Place and stamp of the last sample of each burst that has ended; the longest burst."""
        timed = _agreeing(self._opening)
        ends, longest, start = [], 0, 0
        for (place, raw), (after, later) in pairwise(timed):
            if later - raw >= _SAME_MOMENT * self._nominal_s:
                ends.append((place, raw))
                longest, start = max(longest, place - start + 1), after
        return ends, longest

    def _open(self, stamps_s: list[float], breaks: list[int]) -> None:
        """The line begins with the first sample; in bursts all but the last of each had waited."""
        (ends, longest), period_s = self._moments(), self.period_s
        opening, self._opening = self._opening, []
        if longest > 1:
            self._burst_share, self._span_s = 1.0, (longest - 1) * period_s
            self._jitter_s = _BURST_JITTER_AT_FIRST_S + _BURST_JITTER_AT_FIRST * self._span_s
            first_s = min(raw - place * period_s for place, raw in ends)
        else:
            first_s = next((raw - i * period_s for i, raw in _agreeing(opening)), 0.0)
        self._begin(first_s)
        stamps_s.append(self._give())
        for raw in opening[1:]:
            self._step(raw, stamps_s, breaks)

    def _clear_doubts(self, off_s: float, stamps_s: list[float]) -> None:
        """The stamps that were kept back were late: their samples lie on the line.

        `off_s` is how much of that is learnt from; those of a burst, which waited, tell nothing.
        """
        for raw in self._doubtful:
            self._predict()
            late_s = raw - self._time_s
            if off_s:
                self._scatter(min(off_s, abs(late_s)))
                self._learn(max(-off_s, min(off_s, late_s)))
            stamps_s.append(self._give())
        self._doubtful.clear()

    def _break(self, stamps_s: list[float], breaks: list[int]) -> None:
        """Samples are missing before those that were kept back: a new line begins with them."""
        breaks.append(len(stamps_s))
        kept, self._doubtful = self._doubtful, []
        # Stamps are late, hardly ever early: the earliest, seen from the first, tells the time, but
        # for one that lies alone.
        firsts = sorted(raw - i * self.period_s for i, raw in enumerate(kept))
        pairs = [one for one, later in pairwise(firsts) if later - one < _DOUBT_S]
        self._begin((pairs or firsts)[0])
        self._given_s = -math.inf
        stamps_s.append(self._give())
        self._last_raw_s = kept[0]
        for raw in kept[1:]:  # among them more may be missing
            self._step(raw, stamps_s, breaks)

    def _give(self) -> float:
        self._given_s = max(self._time_s, self._given_s + _SHORTEST_STEP * self._nominal_s)
        return self._given_s

    def _begin(self, time_s: float) -> None:
        self._time_s = time_s
        if math.isnan(self._last_raw_s):
            self._last_raw_s = time_s
        self._late_s = self._shift_s = 0.0
        self._n_off = 0
        self._var_time, self._cov = max(self._jitter_s, _JITTER_FLOOR_S) ** 2, 0.0

    def _predict(self) -> None:
        self._time_s += self.period_s
        self._var_time += 2 * self._cov + self._var_period
        self._cov += self._var_period
        self._var_period += (_PERIOD_WANDER * self._nominal_s) ** 2

    def _learn(self, late_s: float) -> None:
        """Takes a stamp that is `late_s` off the line into account."""
        self._scatter(abs(late_s - self._shift_s))
        self._shift_s += _SHIFT_MEMORY * (late_s - self._shift_s)
        noise = max(self._jitter_s, _JITTER_FLOOR_S) ** 2
        total = self._var_time + noise
        gain_time, gain_period = self._var_time / total, self._cov / total
        self._time_s += gain_time * late_s
        self.period_s += gain_period * late_s
        self._var_period -= gain_period * self._cov
        self._cov *= 1 - gain_time
        self._var_time *= 1 - gain_time

    def _scatter(self, distance_s: float) -> None:
        self._n_learnt += 1
        memory = max(_MEMORY, 1 / (self._n_learnt + 16))  # quick at first
        self._jitter_s += memory * (distance_s - self._jitter_s)

    def _off_s(self) -> float:
        return max(_OFF_PERIODS * self._nominal_s, _OFF_JITTERS * self._jitter_s)

    def _has_shifted(self) -> bool:
        limits_s = (_SHIFT_PERIODS * self._nominal_s, _SHIFT_JITTERS * self._jitter_s)
        return abs(self._shift_s) > max(limits_s) or self._n_off > 1


def _agreeing(raw_s: list[float]) -> list[tuple[int, float]]:
    """Places and values of the stamps that are times, but for those that lie alone."""
    timed = [(i, raw) for i, raw in enumerate(raw_s) if is_time(raw)]
    ends = (-math.inf, *(raw for _, raw in timed), math.inf)
    return [
        one
        for one, before, after in zip(timed, ends, ends[2:], strict=False)
        if min(abs(one[1] - before), abs(one[1] - after)) < _LONGEST_OPENING_S or len(timed) == 1
    ]
