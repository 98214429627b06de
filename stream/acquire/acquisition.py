"""One session's way from chunks to trials: clock, ring, markers, cutter, in the order of the data.

Everything after the inlet is here and pure, so live streams and recordings take the same way.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stream.acquire.chunk import Chunk
from stream.acquire.clock import CLOCKS_APART_S, Mapped, StreamClock, looks_like
from stream.acquire.filters import StreamFilter
from stream.acquire.markers import BadSpan, Event, Marker, MarkerReader, MarkerRule, marker_text
from stream.acquire.ring import Ring
from stream.acquire.trials import Cutting, Drop, Opened, Reason, Trial, TrialCutter
from stream.acquire.triggers import TriggerReader
from stream.acquire.watch.cross_check import CrossCheck
from stream.acquire.watch.rate import Flow, RateWatch

_STILL_S = 0.5  # between two looks: the process, or the machine, stood still
_SETTLED_S = 1.0  # after that, LSL has handed over what it kept meanwhile


class Attention:
    """Until when all that came was taken, by a process that may fall behind, or stand still.

    Attributes:
        awake_s: since when it looks without a pause: what came before is no silence of the stream.
        until_s: all that came until then was taken, on the safe side; 0 in virtual time.
    """

    def __init__(self) -> None:
        self.awake_s = self._looked_s = -np.inf
        self.until_s = 0.0

    def look(self, now_s: float, taken_s: float | None) -> float:
        """Call it at each look at what came. Returns until when nothing that came is left.

        Args:
            now_s: of the look.
            taken_s: when the last that was taken could be read, where more waits behind it.
        """
        if now_s - self._looked_s > _STILL_S:
            self.awake_s = now_s
        self._looked_s = now_s
        until_s = now_s if taken_s is None else taken_s
        if now_s - self.awake_s > _SETTLED_S:
            self.until_s = max(self.until_s, until_s)
        return until_s


class Acquisition:
    """Takes chunks of EEG and markers, gives trials and drops.

    Args:
        n_channels: of the EEG stream.
        stream_filter: applied to the EEG before anything is cut.
        triggers: reads a trigger channel of the EEG stream, and the channel's column.
        cross_check: trigger channel and marker stream are compared, and only markers open trials.

    Attributes:
        cutter: what the trials are cut by.
        marker_reader: what markers mean.
        n_gaps: in the samples so far.
        notices: sentences that a person should read, until somebody takes them.
        attention: of whoever hands over what comes as it comes.
    """

    def __init__(
        self,
        n_channels: int,
        cutting: Cutting,
        *,
        marker_rule: MarkerRule | None = None,
        stream_filter: StreamFilter | None = None,
        triggers: tuple[TriggerReader, int] | None = None,
        cross_check: bool = False,
    ):
        window, rate_hz = cutting.window, cutting.rate_hz
        self._clock = StreamClock(rate_hz)
        self._rate_hz = rate_hz
        self._rate_watch, self._told_rate = RateWatch(rate_hz), False
        self._triggers = triggers
        self._cross_check = CrossCheck() if cross_check else None
        self.marker_reader = MarkerReader(marker_rule or MarkerRule())
        reach = max(window.last, 0) - min(window.first, 0) + 1
        self._ring = Ring(int(cutting.history_s * rate_hz) + reach, n_channels)
        self.cutter = TrialCutter(self._ring, cutting)
        self.n_gaps = 0
        self.attention = Attention()
        self.notices: list[str] = []
        self._told_clocks = False
        self._filter = stream_filter
        self._kept_back: np.ndarray | None = None  # samples whose time the clock does not know yet
        self._last_arrival_s: float | None = None

    @property
    def next_due_in_s(self) -> float:
        """Stream time until somebody's next sample is there; infinite while no trial is open."""
        return self.cutter.next_end_s - self._ring.newest_stamp_s

    @property
    def flow(self) -> Flow:
        """How the samples of the EEG come."""
        rate_hz = self._rate_watch.rate_hz
        if rate_hz is None:
            return Flow(gaps=self.n_gaps)
        drift_ppm = None if self._told_rate else round(self._clock.drift_ppm, 3)
        return Flow(round(rate_hz, 3), drift_ppm, self.n_gaps)

    def facts(self) -> dict[str, Any]:
        """What a summary tells of the streams; `cross_check` only where there is one."""
        facts: dict[str, Any] = {
            **self.flow._asdict(),
            "nominal_hz": self._rate_hz,
            "ignored_markers": self.marker_reader.n_ignored,
        }
        if self._filter is not None:
            facts["filter_delay_ms_at_10_hz"] = round(1e3 * self._filter.delay_s, 2)
        if self._cross_check is not None:
            facts["cross_check"] = asdict(self._cross_check.agreement())
        return facts

    def add_eeg(self, chunk: Chunk) -> list[Opened | Drop]:
        """Appends samples (n, channels) in microvolts, as soon as the clock knows their time.

        Returns:
            What a trigger channel opened, each followed by its drop where it ended at once.
        """
        samples = chunk.samples
        if self._kept_back is not None:
            samples = np.concatenate([self._kept_back, samples])
        self._compare_rates(chunk)
        mapped = self._clock.map(chunk.raw_s, chunk.offset_s)
        n = len(mapped.stamps_s)
        self._kept_back = samples[n:].copy() if n < len(samples) else None
        samples = samples[:n]
        triggers = self._read_triggers(samples, mapped, chunk.readable_s)
        if self._filter is not None and n:
            samples = self._filter(samples, mapped.breaks)
        self._ring.append(mapped.stamps_s, samples, mapped.breaks, chunk.readable_s)
        self._last_arrival_s = chunk.readable_s
        self.n_gaps += len(mapped.breaks)
        opened: list[Opened | Drop] = []
        for marker in triggers:
            if self._cross_check is not None:
                self._cross_check.triggers_s.append(marker.stamp_s)
            else:
                opened += self._open(marker)
        return opened

    def _compare_rates(self, chunk: Chunk) -> None:
        """Tells, once, that the samples come at another rate than was declared."""
        if not len(chunk.raw_s):
            return
        real_hz = self._rate_watch.add(len(chunk.raw_s), float(chunk.raw_s[-1]))
        if real_hz is not None and not self._told_rate:
            self._told_rate = True
            self.notices.append(
                f"the EEG stream declares a rate of {self._rate_hz:g} Hz, its samples come at "
                f"{real_hz:.2f} Hz ({real_hz / self._rate_hz - 1:+.1%}): it declares a wrong rate, "
                "or loses samples again and again; trials are cut by the declared one, and those "
                "that are 1 % too long or short by it are dropped, so mend it in the program that "
                "sends the stream, or give the true one with --true-rate"
            )

    def _read_triggers(
        self, samples: np.ndarray, mapped: Mapped, readable_s: float
    ) -> list[Marker]:
        """Codes that held long enough by samples that are about to be appended."""
        if self._triggers is None:
            return []
        reader, column = self._triggers
        markers = []
        for number, code in reader.read(samples[:, column]):
            position = number - self._ring.next
            stamp_s = self._stamp_s(mapped, position)
            if position in mapped.breaks or self._ring.broken(number - 1, 2):
                # It rose while samples were missing: nobody knows when, and no sample is near.
                stamp_s = (self._stamp_s(mapped, position - 1) + stamp_s) / 2
            markers.append(Marker(stamp_s, str(code), readable_s))
        return markers

    def _stamp_s(self, mapped: Mapped, position: int) -> float:
        """Of a new sample; at a negative position of an earlier one, in the ring."""
        if position >= 0:
            return float(mapped.stamps_s[position])
        return float(self._ring.stamps_s(self._ring.next + position, 1)[0])

    def add_markers(self, chunk: Chunk) -> list[Opened | Drop]:
        """Opens a trial for each marker that names a stimulus, as `add_eeg` does."""
        opened: list[Opened | Drop] = []
        for raw_s, row in zip(chunk.raw_s.tolist(), chunk.samples, strict=True):
            marker = Marker(raw_s, marker_text(row), chunk.readable_s, chunk.offset_s)
            entries = self._open(marker)
            if self._cross_check is not None and entries and not _is_odd(entries[0].event):
                self._cross_check.markers_s.append(marker.stamp_s)
            opened += entries
        return opened

    def _open(self, marker: Marker) -> list[Opened | Drop]:
        if (span := BadSpan.of(marker)) is not None:
            self.cutter.mark_bad(span)
            return []
        event = self.marker_reader.read(marker)
        return self.cutter.open(event) if event is not None else []

    def due(self, now_s: float) -> list[Trial | Drop]:
        """What is there now, see `TrialCutter.due`; `now_s` is on the clock of `readable_s`."""
        # Stream time: a source whose stamps lag, such as a fast replay, is not taken for silent.
        if self._last_arrival_s is not None:
            now_s += self._ring.newest_stamp_s - max(self._last_arrival_s, self.attention.awake_s)
        outcomes = self.cutter.due(now_s)
        self._compare_clocks(outcomes, now_s)
        return outcomes

    def end(self, reason: Reason, detail: str) -> list[Drop]:
        """Drops what is still open."""
        drops = self.cutter.drop_pending(reason, detail)
        self._compare_clocks(drops, self._ring.newest_stamp_s)
        return drops

    def _compare_clocks(self, outcomes: Sequence[Trial | Drop], now_s: float) -> None:
        """Tells, once, of a trial that was dropped since its marker is far off the EEG."""
        if self._told_clocks or self._last_arrival_s is None:
            return
        for event in (one.event for one in outcomes if isinstance(one, Drop)):
            apart_s, eeg_s = event.onset_s - now_s, self._ring.newest_stamp_s
            if CLOCKS_APART_S < abs(apart_s) < np.inf:
                self._told_clocks = True
                side = "after" if apart_s > 0 else "before"
                marker_clock = looks_like(event.onset_s, event.readable_s)
                eeg_clock = looks_like(eeg_s, self._last_arrival_s)
                self.notices.append(
                    f"the marker '{event.stimulus[:60]}' is stamped {event.onset_s:.3f} s (it "
                    f"looks like {marker_clock}), {abs(apart_s):.0f} s {side} the EEG's "
                    f"{eeg_s:.3f} s (it looks like {eeg_clock}): are they of different clocks? "
                    "Stamp both with LSL's, pylsl.local_clock()"
                )
                return


def _is_odd(event: Event) -> bool:
    return event.is_duplicate or bool(event.fault)
