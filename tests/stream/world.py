"""A simulated cap, stimulus program and network, and what must become of every trial of theirs.

The amplifier takes sample number n when n periods of its crystal have passed, by the reader's
clock: that is the truth. What is sent is made of it: stamps of clocks that drift and begin anew,
late ones, one for a whole burst, some that are no time; samples that are lost; values in some unit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.clock import ClockOffset
from stream.acquire.trials import Window
from stream.acquire.units import kept_as

MEASURED_EVERY_S = 2.0  # clock offsets, as an inlet does
OUTLIERS_S = (-3.0, -0.08, 0.08, 3.0)


@dataclass(frozen=True)
class SenderClock:
    """A sender's clock, and what the reader measures of it.

    Attributes:
        runs: (since when, by the reader's clock; by how much it is behind that), one after another.
        drift: by how much it falls behind in a second.
        error_s: of a measurement, at most.
        outliers: numbers of measurements that are wrong, never two of three in a row. Not the first
            one, as nobody can know better then.
    """

    runs: tuple[tuple[float, float], ...]
    drift: float
    error_s: float
    outliers: tuple[int, ...]
    seed: int

    def behind_s(self, true_s: float | np.ndarray) -> np.ndarray:
        """What its stamps need added."""
        since_s, behind_s = np.array(self.runs).T
        return behind_s[np.searchsorted(since_s, true_s, "right") - 1] + self.drift * true_s

    def believed_s(self, at_s: np.ndarray) -> np.ndarray:
        """The offsets in force at these times, of which the first is that of the first sample."""
        rng, offset = np.random.default_rng(self.seed), ClockOffset()
        times_s = np.arange(at_s[0], at_s[-1] + MEASURED_EVERY_S, MEASURED_EVERY_S)
        errors_s = rng.uniform(0.5, 1, len(times_s)) * self.error_s
        errors_s[::2] *= -1  # no two in a row are equal, which would count as one
        measured_s = self.behind_s(times_s) + errors_s
        for number in self.outliers:
            measured_s[number : number + 1] += rng.choice(OUTLIERS_S)
        offsets_s = np.array([offset.believe(one) for one in measured_s.tolist()])
        return offsets_s[np.searchsorted(times_s, at_s, "right") - 1]

    @property
    def slack_s(self) -> float:
        """How far off the offset in force is, at most: at first it is up to three rounds old."""
        return self.error_s + abs(self.drift) * 4 * MEASURED_EVERY_S

    def is_new(self, from_s: float, until_s: float) -> bool:
        """Whether, in some of this time, the offset in force may be that of the run before.

        The new one is believed at its second measurement, by the next chunk.
        """
        late_s = 2 * MEASURED_EVERY_S + 0.5
        return any(since_s < until_s and from_s < since_s + late_s for since_s, _ in self.runs)


@dataclass(frozen=True)
class Stamping:
    """How the amplifier's driver stamps: each sample, or at the end of a burst all that it holds.

    Attributes:
        size: samples of a burst; 1: each has its own stamp.
        joined: how many of the first burst are not heard.
        shake_s: by which stamps are early or late, at most.
        late_s: by which they are late on the mean, exponentially distributed.
    """

    size: int = 1
    joined: int = 0
    shake_s: float = 0.0
    late_s: float = 0.0

    def stamps_s(self, numbers: np.ndarray, true_s: np.ndarray, seed: int) -> np.ndarray:
        """By the reader's clock."""
        rng = np.random.default_rng(seed)
        burst = (numbers + self.joined) // self.size
        ends = np.flatnonzero(np.diff(burst, append=burst[-1] + 1))
        ended_s = true_s[ends] + rng.uniform(-1, 1, len(ends)) * self.shake_s
        ended_s += rng.exponential(1, len(ends)) * self.late_s
        return np.maximum.accumulate(ended_s)[np.searchsorted(ends, np.arange(len(burst)))]

    def slack_s(self, period_s: float) -> float:
        """How far off the line through such stamps may be: two samples where bursts have one."""
        if self.size > 1:
            return 2 * period_s + 2 * self.late_s
        return 1.5 * period_s if self.late_s else 2 * self.shake_s

    def n_held(self, rate_hz: float) -> int:
        """Samples that may be kept back, as only later ones tell their time."""
        return max(4, round(0.05 * rate_hz)) + 2 + (3 * self.size if self.size > 1 else 0)


@dataclass(frozen=True)
class Sent:
    """A marker.

    Attributes:
        at: when it is meant, in samples of the amplifier.
        value: what is sent.
        stimulus: what that names; None: nothing; "?": nobody can say whether it names one.
        delay_s: how much later it can be read.
        odd_stamp: its stamp, where that is not the time.
        bad_s: how long a span it marks as bad; None: it marks none.
    """

    at: float
    value: str | bytes
    stimulus: str | None
    delay_s: float = 0.0
    odd_stamp: float | None = None
    bad_s: float | None = None


@dataclass(frozen=True, eq=False)
class World:
    """All that is sent to one session.

    Attributes:
        numbers: of the samples that arrive.
        odd_stamps: by place among them.
        not_finite: numbers of samples that hold a value that is not.
        unit: as the stream spells it, and what that is in microvolts.
    """

    rate_hz: float
    window: Window
    start_s: float
    ppm: int
    numbers: np.ndarray
    stamping: Stamping
    odd_stamps: dict[int, float]
    not_finite: frozenset[int]
    unit: tuple[str, float]
    markers: tuple[Sent, ...]
    eeg_clock: SenderClock
    marker_clock: SenderClock
    chunk_sizes: tuple[int, ...]
    seed: int

    @property
    def period_s(self) -> float:
        return (1 + self.ppm * 1e-6) / self.rate_hz

    def time_s(self, number: float | np.ndarray) -> float | np.ndarray:
        return self.start_s + number * self.period_s

    def readable_s(self, marker: Sent) -> float:
        return self.time_s(marker.at) + marker.delay_s

    def values(self, numbers: np.ndarray) -> np.ndarray:
        """In microvolts, (n, 3); each says which sample and which channel it is of."""
        samples = (100.0 + numbers)[:, None] * [1.0, -1.0, 0.5]
        samples[np.isin(numbers, list(self.not_finite)), 1] = np.nan
        return samples.astype(np.float32)

    # --- what is sent ----------------------------------------------------------------------------

    def arrivals(self) -> list[tuple[StreamKind, Chunk]]:
        """Everything, in the order in which it can be read."""
        return sorted([*self._eeg(), *self._markers()], key=lambda one: one[1].readable_s)

    def _eeg(self) -> Iterator[tuple[StreamKind, Chunk]]:
        spelling, microvolts = self.unit
        sent = (self.values(self.numbers) / microvolts).astype(np.float32)
        _, factor = kept_as(spelling)  # an inlet takes them so to microvolts
        stamps_s = self.stamping.stamps_s(self.numbers, self.time_s(self.numbers), self.seed)
        arrived_s, offsets_s = np.maximum.accumulate(stamps_s), self.eeg_clock.believed_s(stamps_s)
        raw_s = stamps_s - self.eeg_clock.behind_s(stamps_s)
        raw_s[list(self.odd_stamps)] = list(self.odd_stamps.values())
        # A sender that was started again is another connection: no chunk holds samples of both.
        since_s = [since for since, _ in self.eeg_clock.runs[1:]]
        ends = [*np.searchsorted(self.time_s(self.numbers), since_s).tolist(), len(raw_s)]
        start, turn = 0, 0
        while start < len(raw_s):
            size = self.chunk_sizes[turn % len(self.chunk_sizes)]
            part = slice(start, min(start + size, next(end for end in ends if end > start)))
            last = part.stop - 1
            readable_s, offset_s = float(arrived_s[last]), float(offsets_s[last])
            yield "eeg", Chunk(raw_s[part], sent[part] * factor, offset_s, readable_s)
            start, turn = part.stop, turn + 1

    def _markers(self) -> Iterator[tuple[StreamKind, Chunk]]:
        if not self.markers:
            return
        came = sorted(self.markers, key=self.readable_s)
        came_s = np.array([self.readable_s(marker) for marker in came])
        for marker, offset_s in zip(came, self.marker_clock.believed_s(came_s), strict=True):
            raw_s = self.time_s(marker.at)
            raw_s -= self.marker_clock.behind_s(raw_s)
            raw_s = raw_s if marker.odd_stamp is None else marker.odd_stamp
            row = np.array([[marker.value]], object)
            readable_s = self.readable_s(marker)
            yield "markers", Chunk(np.array([raw_s]), row, float(offset_s), readable_s)

    # --- what must become of it ------------------------------------------------------------------

    @cached_property
    def slack_s(self) -> float:
        """By how much stamps of EEG and markers leave open what was when."""
        clocks_s = self.eeg_clock.slack_s + self.marker_clock.slack_s
        return self.stamping.slack_s(self.period_s) + clocks_s

    def onsets(self, marker: Sent) -> range:
        """Numbers of the samples that may be the nearest ones to it."""
        reach = 0.5 + self.slack_s / self.period_s + 1e-6
        return range(int(np.ceil(marker.at - reach)), int(np.floor(marker.at + reach)) + 1)

    def ends(self, marker: Sent, onset: int, waits_s: float) -> set[str]:
        """How a trial with this onset sample may end: `cut`, or reasons; `?`: nobody can know.

        Args:
            waits_s: silence after which samples may be given up.
        """
        first, last = onset + self.window.first, onset + self.window.last
        # Onset and window are one piece: what is lost between the two shifts the window.
        piece = range(min(first, onset), max(last, onset) + 1)
        found = {"no_data"} if piece[0] < self.numbers[0] or piece[-1] > self.numbers[-1] else set()
        n_held = self.stamping.n_held(self.rate_hz)
        size = self.stamping.size
        for before, after in self._losses:
            # Bursts that are shorter, as samples are missing from them, look like those of before
            # until the second of them has ended off the line.
            is_short = size > 1 and after - before <= 2 * size + 4
            if is_short and before - 3 < piece[-1] and piece[0] < after + 3 * size:
                return {"?"}
            if before < piece[-1] and piece[0] < after:
                found.add("gap")
                if (after - before) * self.period_s > waits_s:
                    found.add("no_data")  # nobody could know that the stream would come back
                if self._n_after(after) < n_held:
                    found.add("no_data")  # what came after it was kept back
        if any(first <= number <= last for number in self.not_finite):
            found.add("rejected")
        found |= self._by_bad_spans(first, last) - ({"cut"} if found else set())
        found = found or {"cut"}
        if self.stamping.late_s and size == 1 and piece[0] < self.rate_hz:
            found.add("gap")  # in the first second it is not known by how much stamps come late
        if self._n_after(piece[-1]) < n_held:
            found.add("no_data")  # at the end the clock keeps back what it is in doubt about
        # Nothing is where it was before the offset of a clock that began anew is believed.
        in_doubt = self.eeg_clock.is_new(self.time_s(piece[0]), self.time_s(piece[-1]))
        return found | ({"gap", "no_data", "late"} if in_doubt else set())

    def _n_after(self, number: int) -> int:
        """Samples that arrive after this one."""
        return len(self.numbers) - int(np.searchsorted(self.numbers, number, "right"))

    @cached_property
    def _losses(self) -> list[tuple[int, int]]:
        """The samples before and after each."""
        after = np.flatnonzero(np.diff(self.numbers) > 1) + 1
        return list(
            zip(self.numbers[after - 1].tolist(), self.numbers[after].tolist(), strict=True)
        )

    def _by_bad_spans(self, first: int, last: int) -> set[str]:
        """`rejected` where the window overlaps with one, and `cut` too where it hardly does."""
        found: set[str] = set()
        slack = self.slack_s / self.period_s + 1
        for span in self.markers:
            if span.bad_s is not None and span.odd_stamp is None:
                overlap = min(last - span.at, span.at + span.bad_s / self.period_s - first)
                found |= {"rejected"} if overlap > slack else set()
                found |= {"rejected", "cut"} if abs(overlap) <= slack else set()
        return found
