"""One session's way from chunks to trials: clock, ring, markers, cutter, in the order of the data.

Everything after the inlet is here and pure, so live streams and recordings take the same way.
"""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from stream.acquire.clock import StreamClock
from stream.acquire.filters import StreamFilter
from stream.acquire.inlet import Chunk
from stream.acquire.markers import Event, Marker, MarkerReader, MarkerRule
from stream.acquire.reject import Rejection
from stream.acquire.ring import Ring
from stream.acquire.trials import Drop, Reason, Trial, TrialCutter, Window


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
    ):
        self._clock = StreamClock(rate_hz)
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
        )
        self._filter = stream_filter
        self._kept_back: np.ndarray | None = None  # samples whose time the clock does not know yet
        self._last_arrival_s: float | None = None

    @property
    def n_pending(self) -> int:
        return self._cutter.n_pending

    def add_eeg(self, chunk: Chunk) -> None:
        """Appends samples (n, channels) in microvolts, as soon as the clock knows their time."""
        samples = chunk.samples
        if self._kept_back is not None:
            samples = np.concatenate([self._kept_back, samples])
        mapped = self._clock.map(chunk.raw_s, chunk.offset_s)
        n = len(mapped.stamps_s)
        self._kept_back = samples[n:].copy() if self._clock.n_kept_back else None
        samples = samples[:n]
        if self._filter is not None and n:
            samples = self._filter(samples, mapped.breaks)
        self._ring.append(mapped.stamps_s, samples, mapped.breaks, chunk.readable_s)
        self._last_arrival_s = chunk.readable_s

    def add_markers(self, chunk: Chunk) -> list[Opened]:
        """Opens a trial for each marker that names a stimulus."""
        opened = []
        for raw_s, row in zip(chunk.raw_s.tolist(), chunk.samples, strict=True):
            marker = Marker(raw_s + chunk.offset_s, str(row[0]), chunk.readable_s)
            event = self._marker_reader.read(marker)
            if event is not None:
                opened.append(Opened(event, *self._cutter.open(event)))
        return opened

    def due(self, now_s: float) -> list[Trial | Drop]:
        """Trials whose last sample is there, and drops. `now_s` is on the clock of `readable_s`."""
        if self._last_arrival_s is None:
            return self._cutter.due(now_s)
        # Stream time: a source whose stamps lag, such as a fast replay, is not taken for silent.
        return self._cutter.due(self._ring.newest_stamp_s + now_s - self._last_arrival_s)

    def end(self, reason: Reason, detail: str) -> list[Drop]:
        """Drops what is still open."""
        return self._cutter.drop_pending(reason, detail)
