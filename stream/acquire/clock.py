"""Raw LSL stamps of one stream to the time at which its samples were taken.

Amplifiers stamp samples when their driver wakes up: late by some milliseconds, often whole bursts
at once, and their crystal is off by up to 200 ppm. `StreamClock` tracks the line that the stamps
scatter about, sample by sample, with a Kalman filter for time and period. It looks at gaps first:
liblsl's own smoothing counts samples and is wrong for minutes after a loss of a tenth of a second.
"""

import math
from dataclasses import dataclass

import numpy as np

_PERIOD_TOLERANCE = 200e-6  # how far a device's rate may be from its nominal one
_PERIOD_WANDER = 1e-9  # relative, per sample: a crystal that warms up
_JITTER_FLOOR_S = 20e-6  # stamps that are better than this are followed as they are
_JITTER_MEMORY = 1 / 256  # per sample, for the size of the scatter and the share of bursts
_GAP_PERIODS = 0.75  # stamps this far off the line mean missing samples ...
_GAP_JITTERS = 10.0  # ... unless the stream scatters by a good part of that anyway;
_SHIFT_MEMORY = 1 / 64  # then a lasting shift of this many periods or jitters tells, a bit later
_SHIFT_PERIODS = 0.6
_SHIFT_JITTERS = 2.0
_SAME_MOMENT = 0.25  # samples closer than this part of a period were stamped in one go
_BURST_SHARE = 0.4  # of such samples, in a stream that is stamped burst by burst
_SPAN_DECAY = 0.9995  # per sample, of the longest burst seen


@dataclass(frozen=True)
class Mapped:
    """Stamps on the reader's clock, seconds, and the positions that follow missing samples."""

    stamps_s: np.ndarray
    breaks: np.ndarray


class StreamClock:
    """Maps the stamps of one regular stream; the result does not depend on how they are chunked.

    A stamp that is too far from the line starts a new segment: samples were lost, or the sender's
    clock jumped. The period is kept, so a segment is exact from its first stamps on. In a stream
    that is stamped in bursts only the last sample of a burst tells the time, since the others
    waited for it.
    """

    def __init__(self, rate_hz: float):
        self._nominal_s = 1.0 / rate_hz
        self.period_s = self._nominal_s
        self._time_s = math.nan  # of the last sample, on the line
        self._last_raw_s = math.nan
        self._late_s = 0.0  # of the last stamp, against the line
        self._shift_s = 0.0  # of the last second's stamps, on the mean
        self._jitter_s = 0.25 * self._nominal_s  # mean distance of a stamp from the line
        self._burst_share = 0.0
        self._burst_length = 1.0
        self._run = 1  # samples of the burst so far
        self._span_s = 0.0
        # Covariance of time and period: variances and what they share.
        self._var_time = 0.0
        self._cov = 0.0
        self._var_period = (_PERIOD_TOLERANCE * self._nominal_s) ** 2

    @property
    def drift_ppm(self) -> float:
        """How much longer than nominal the device's sample period is."""
        return (self.period_s / self._nominal_s - 1) * 1e6

    def map(self, raw_s: np.ndarray, offset_s: float) -> Mapped:
        """Maps stamps (n,); `offset_s` takes the sender's clock to the reader's."""
        stamps_s = np.empty(len(raw_s))
        breaks = []
        for position, raw in enumerate(raw_s.tolist()):
            stamps_s[position], is_break = self._step(raw)
            if is_break:
                breaks.append(position)
        return Mapped(stamps_s + offset_s, np.array(breaks, np.intp))

    def _step(self, raw: float) -> tuple[float, bool]:
        if math.isnan(self._time_s):
            self._begin(raw)
            return raw, False
        same_moment = raw - self._last_raw_s < _SAME_MOMENT * self._nominal_s
        bursts = self._burst_share > _BURST_SHARE
        self._burst_share += _JITTER_MEMORY * (same_moment - self._burst_share)
        if bursts and not same_moment:
            self._learn(self._late_s)  # the last stamp ended its burst, so it did not wait
        self._predict()
        late_s = raw - self._time_s
        if abs(late_s) > self._tolerance_s(bursts) or self._has_shifted():
            self._scatter(2 * self._tolerance_s(bursts))
            self._begin(raw - (self._burst_length - 1) * self.period_s if bursts else raw)
            self._last_raw_s = raw
            return self._time_s, True
        if not bursts:
            self._learn(late_s)
        self._note_burst(late_s, same_moment)
        self._late_s, self._last_raw_s = raw - self._time_s, raw
        return self._time_s, False

    def _begin(self, time_s: float) -> None:
        self._time_s = self._last_raw_s = time_s
        self._late_s = self._shift_s = 0.0
        self._run = 1
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

    def _tolerance_s(self, bursts: bool) -> float:
        tolerance_s = max(_GAP_PERIODS * self._nominal_s, _GAP_JITTERS * self._jitter_s)
        return tolerance_s + 1.5 * self._span_s if bursts else tolerance_s

    def _has_shifted(self) -> bool:
        limits_s = (_SHIFT_PERIODS * self._nominal_s, _SHIFT_JITTERS * self._jitter_s)
        return abs(self._shift_s) > max(limits_s)

    def _scatter(self, distance_s: float) -> None:
        self._jitter_s += _JITTER_MEMORY * (distance_s - self._jitter_s)

    def _note_burst(self, late_s: float, same_moment: bool) -> None:
        self._span_s = max(self._span_s * _SPAN_DECAY, late_s)
        if same_moment:
            self._run += 1
        else:
            self._burst_length += 0.1 * (self._run - self._burst_length)
            self._run = 1
