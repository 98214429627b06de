"""One session's way from chunks to trials: clock, ring, markers, cutter, in the order of the data.

Everything after the inlet is here and pure, so live streams and recordings take the same way.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from stream.acquire.chunk import Chunk
from stream.acquire.clock import Mapped, StreamClock
from stream.acquire.cross_check import Agreement, CrossCheck
from stream.acquire.filters import StreamFilter
from stream.acquire.markers import Event, Marker, MarkerReader, MarkerRule, marker_text
from stream.acquire.reject import Rejection
from stream.acquire.ring import Ring
from stream.acquire.trials import Drop, Part, Reason, Trial, TrialCutter, Window
from stream.acquire.triggers import TriggerReader


@dataclass(frozen=True)
class Opened:
    """A marker that opened a trial; `drop` where it ended at once."""

    event: Event
    number: int
    drop: Drop | None


class Acquisition:
    """Takes chunks of EEG and markers, gives trials and drops.

    Args:
        n_channels: of the EEG stream.
        rate_hz: its nominal rate.
        window: the samples that a trial takes, see `TrialTransform.window`.
        history_s: how far back in time a marker may lie when it arrives.
        known_stimuli: others are dropped as `unknown_stimulus`; None accepts all.
        stream_filter: applied to the EEG before anything is cut.
        rejection: refuses trials; None takes all.
        stops, urgent: where parts of trials are handed out before their end; see `TrialCutter`.
        triggers: reads a trigger channel of the EEG stream, and the channel's column.
        cross_check: trigger channel and marker stream are compared, and only markers open trials.

    Attributes:
        agreement: of triggers and markers so far; None where they are not compared.
    """

    def __init__(
        self,
        n_channels: int,
        rate_hz: float,
        window: Window,
        *,
        marker_rule: MarkerRule | None = None,
        history_s: float = 30.0,
        no_data_after_s: float = 2.0,
        known_stimuli: Container[str] | None = None,
        first_number: int = 1,
        stream_filter: StreamFilter | None = None,
        rejection: Rejection | None = None,
        triggers: tuple[TriggerReader, int] | None = None,
        cross_check: bool = False,
        stops: Sequence[int] = (),
        urgent: Sequence[int] = (),
    ):
        self._clock = StreamClock(rate_hz)
        self._triggers = triggers
        self._cross_check = CrossCheck() if cross_check else None
        self._marker_reader = MarkerReader(marker_rule or MarkerRule())
        reach = max(window.last, 0) - min(window.first, 0) + 1
        self._ring = Ring(int(history_s * rate_hz) + reach, n_channels)
        self._cutter = TrialCutter(
            self._ring,
            window,
            rate_hz,
            known_stimuli=known_stimuli,
            no_data_after_s=no_data_after_s,
            first_number=first_number,
            rejection=rejection,
            stops=stops,
            urgent=urgent,
        )
        self._filter = stream_filter
        self._kept_back: np.ndarray | None = None  # samples whose time the clock does not know yet
        self._last_arrival_s: float | None = None

    @property
    def n_pending(self) -> int:
        return self._cutter.n_pending

    @property
    def n_ignored(self) -> int:
        """Markers that opened no trial."""
        return self._marker_reader.n_ignored

    @property
    def next_due_in_s(self) -> float:
        """Stream time until the next trial is whole; infinite while none is open."""
        return self._cutter.next_end_s - self._ring.newest_stamp_s

    @property
    def drift_ppm(self) -> float:
        """By how much the sample period is longer than nominal."""
        return self._clock.drift_ppm

    @property
    def agreement(self) -> Agreement | None:
        return self._cross_check.agreement() if self._cross_check is not None else None

    def add_eeg(self, chunk: Chunk) -> tuple[list[Opened], int]:
        """Appends samples (n, channels) in microvolts, as soon as the clock knows their time.

        Returns:
            The trials that a trigger channel opened, and the number of gaps in the samples.
        """
        samples = chunk.samples
        if self._kept_back is not None:
            samples = np.concatenate([self._kept_back, samples])
        mapped = self._clock.map(chunk.raw_s, chunk.offset_s)
        n = len(mapped.stamps_s)
        self._kept_back = samples[n:].copy() if self._clock.n_kept_back else None
        samples = samples[:n]
        triggers = self._read_triggers(samples, mapped, chunk.readable_s)
        if self._filter is not None and n:
            samples = self._filter(samples, mapped.breaks)
        self._ring.append(mapped.stamps_s, samples, mapped.breaks, chunk.readable_s)
        self._last_arrival_s = chunk.readable_s
        opened = []
        for marker in triggers:
            if self._cross_check is not None:
                self._cross_check.trigger(marker.stamp_s)
            else:
                opened += self._open(marker)
        return opened, len(mapped.breaks)

    def _read_triggers(
        self, samples: np.ndarray, mapped: Mapped, readable_s: float
    ) -> list[Marker]:
        """Codes in samples that are about to be appended."""
        if self._triggers is None:
            return []
        reader, column = self._triggers
        markers = []
        for number, code in reader.read(samples[:, column]):
            position = number - self._ring.next
            if position < 0:  # it rose in an earlier chunk, and has held long enough only now
                stamp_s = self._ring.stamps_s(number, 1)[0]
                follows_gap = number > 0 and self._ring.broken(number - 1, 2)
            else:
                stamp_s = mapped.stamps_s[position]
                follows_gap = position in mapped.breaks
            if follows_gap:
                # It rose while samples were missing: nobody knows when, and no sample is near.
                stamp_s = (self._before(mapped, position) + stamp_s) / 2
            markers.append(Marker(float(stamp_s), str(code), readable_s))
        return markers

    def _before(self, mapped: Mapped, position: int) -> float:
        """Stamp of the sample before a position; negative positions are in the ring."""
        if position > 0:
            return mapped.stamps_s[position - 1]
        return self._ring.stamps_s(self._ring.next + position - 1, 1)[0]

    def add_markers(self, chunk: Chunk) -> list[Opened]:
        """Opens a trial for each marker that names a stimulus."""
        opened = []
        for raw_s, row in zip(chunk.raw_s.tolist(), chunk.samples, strict=True):
            marker = Marker(raw_s + chunk.offset_s, marker_text(row), chunk.readable_s)
            entries = self._open(marker)
            if self._cross_check is not None and entries and not entries[0].event.is_duplicate:
                self._cross_check.marker(marker.stamp_s)
            opened += entries
        return opened

    def _open(self, marker: Marker) -> list[Opened]:
        event = self._marker_reader.read(marker)
        return [] if event is None else [Opened(event, *self._cutter.open(event))]

    def due(self, now_s: float) -> list[Trial | Drop | Part]:
        """Trials, drops and parts that are there now. `now_s` is on the clock of `readable_s`."""
        if self._last_arrival_s is None:
            return self._cutter.due(now_s)
        # Stream time: a source whose stamps lag, such as a fast replay, is not taken for silent.
        return self._cutter.due(self._ring.newest_stamp_s + now_s - self._last_arrival_s)

    def end(self, reason: Reason, detail: str) -> list[Drop]:
        """Drops what is still open."""
        return self._cutter.drop_pending(reason, detail)
