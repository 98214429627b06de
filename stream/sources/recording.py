"""A recording of EEG or MEG and markers, whatever wrote it: one plain value."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.channels import brain_channels, renamed
from stream.acquire.markers import BadSpan
from stream.acquire.units import Signal, odd_size, unknown_units

JOIN_PAUSE_S = 0.1
"""Put between two pieces that were joined: long enough to be found, too short for a lost stream."""
_SECONDS = 20  # that are looked at
_ODD = 30.0  # times more or less than the others: a cap's electrodes differ by a few times

Offsets = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class RecordedMarker:
    """A marker of a recording; `stamp_s` is in seconds, as recorded.

    `text` is the annotation's description, the code of a stim channel as a decimal number, or the
    value in an XDF marker stream, where several columns become one JSON list.
    """

    stamp_s: float
    text: str


@dataclass(frozen=True, eq=False)
class Recording:
    """EEG, or MEG, and markers of one file.

    `samples` is float32 (n, channels), in `units` per channel: "microvolts" for every voltage,
    "femtoteslas" for every flux density, else as in the file, "" where that is unknown. `kinds`
    says in the file's words what each channel records; empty where it does not say. `stamps_s` is
    float64 (n,), seconds, raw: from 0 on for files that MNE reads, with a pause where two pieces
    were joined, as recorded for XDF; `bad_spans` are on the same clock, and `notices` are sentences
    that a person should hear; what is `simulated` is nobody's EEG, and what is `joined` was several
    recordings, or trials. An XDF stamp counts on the clock
    of the machine that sent it; adding the stream's offset, given as (stamp, offset) pairs in
    seconds, takes it to the recorder's clock. Other files have one clock and no offsets.
    """

    path: Path
    name: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    stamps_s: np.ndarray
    samples: np.ndarray
    markers: tuple[RecordedMarker, ...]
    eeg_offsets: Offsets = ()
    marker_offsets: Offsets = ()
    kinds: tuple[str, ...] = ()
    bad_spans: tuple[BadSpan, ...] = ()
    notices: tuple[str, ...] = ()
    simulated: bool = False
    joined: bool = False

    def corrected(self, names: Mapping[str, str], rate_hz: float | None) -> "Recording":
        """The same with channels by other names (see `channels.renamed`), and at its true rate."""
        channels = renamed(self.channels, names)
        return replace(self, channels=channels, rate_hz=rate_hz or self.rate_hz)

    def signal(self, channels: Iterable[str]) -> Signal:
        """What those of these channels that there are record, for the most part."""
        at = self._at(channels)
        kinds = [self.kinds[i] for i in at] if self.kinds else []
        return Signal.of(kinds, [self.units[i] for i in at])

    def join_notices(self) -> tuple[str, ...]:
        """Tells the pauses between what was joined from gaps, which they look like."""
        pauses_s = np.diff(self.stamps_s) - 1 / self.rate_hz
        n = int((np.abs(pauses_s - JOIN_PAUSE_S) < 1e-6).sum()) if self.joined else 0
        joints = f"{n} joints are" if n > 1 else "a joint is"
        told = (
            f"{joints} among the gaps, where what was recorded apart is played one after the other "
            f"with {JOIN_PAUSE_S:g} s between, so that the rate seems lower than it was"
        )
        return (told,) if n else ()

    @property
    def brain_channels(self) -> tuple[str, ...]:
        """Those that record EEG or MEG, see `channels.brain_channels`."""
        return brain_channels(self.channels, self.kinds)

    def size(self, channels: Iterable[str]) -> float:
        """By how much these channels move within a second, SD of the median one.

        It goes by twenty seconds of the recording at most; what does not move at all counts not.
        """
        sizes = [seconds.std(axis=0) for seconds in self._seconds(channels)]
        moving = [np.median(one[one > 0]) for one in sizes if (one > 0).any()]
        return float(np.median(moving)) if moving else 0.0

    def odd_channels(self, channels: Iterable[str]) -> dict[str, str]:
        """Those of these channels that are dead or wildly scaled, and by how much they move.

        It goes by the others of the same unit, and as `size` by twenty seconds at most.
        """
        at = self._at(channels)
        if not at:
            return {}
        sizes = np.median([seconds.std(axis=0) for seconds in self._seconds(channels)], axis=0)
        units, odd = np.array([self.units[i] for i in at]), {}
        for i, size, unit in zip(at, sizes, units, strict=True):
            alike = sizes[(units == unit) & (sizes > 0)]
            usual = float(np.median(alike)) if len(alike) else 0.0
            if size < usual / _ODD or size > usual * _ODD:
                odd[self.channels[i]] = f"{size:.3g} beside {usual:.3g}"
        return odd

    def unit_notices(self) -> Iterator[str]:
        """Sentences on units that nobody knows, and on values that cannot be EEG in theirs."""
        eeg = [i for i, kind in enumerate(self.kinds) if kind.lower() == "eeg"]
        sentence = unknown_units({self.channels[i]: self.units[i] for i in eeg})
        if sentence is not None:
            yield f"'{self.path.name}': {sentence}"
        names = [self.channels[i] for i in eeg]
        odd = [odd_size(one, self.signal(names)) for one in self._seconds(names)] if eeg else []
        if odd and odd.count(None) < len(odd) / 2:
            yield f"'{self.path.name}': {next(filter(None, odd))}"

    def _at(self, channels: Iterable[str]) -> list[int]:
        wanted = {name.casefold() for name in channels}
        return [i for i, name in enumerate(self.channels) if name.casefold() in wanted]

    def _seconds(self, channels: Iterable[str]) -> Iterator[np.ndarray]:
        """Some of its seconds, (n, channels)."""
        at = self._at(channels)
        length = round(self.rate_hz)
        last = max(1, len(self.samples) - length)
        for start in np.unique(np.linspace(0, last, _SECONDS, endpoint=False, dtype=int)):
            yield self.samples[start : start + length, at]

    @property
    def duration_s(self) -> float:
        """From the first sample to the end of the last one."""
        return float(self.stamps_s[-1] - self.stamps_s[0]) + 1 / self.rate_hz

    def slice(self, start_s: float, stop_s: float) -> "Recording":
        """What was recorded from `start_s` up to, without, `stop_s` after the first sample.

        All stamps stay as they are. What was marked before the first or after the last sample of
        the whole belongs to these. Raises `Problem` where that leaves no sample.
        """
        eeg_s = self.stamps_s + offsets_at(self.eeg_offsets, self.stamps_s)
        marker_s = np.array([marker.stamp_s for marker in self.markers])
        marker_s += offsets_at(self.marker_offsets, marker_s)
        first_s, last_s = eeg_s[0] + start_s, eeg_s[0] + stop_s
        wanted = (eeg_s >= first_s) & (eeg_s < last_s)
        if not wanted.any():
            raise Problem(
                f"there is no sample from {start_s:g} s to {stop_s:g} s in '{self.path}', "
                f"which lasts {self.duration_s:.1f} s; choose a span inside it"
            )
        from_s = first_s if start_s > 0 else -np.inf
        until_s = last_s if stop_s < self.duration_s else np.inf
        wanted_markers = (marker_s >= from_s) & (marker_s < until_s)
        return replace(
            self,
            stamps_s=self.stamps_s[wanted],
            samples=self.samples[wanted],
            markers=tuple(self.markers[i] for i in np.flatnonzero(wanted_markers)),
        )


def offsets_at(offsets: Offsets, stamps_s: Sequence[float] | np.ndarray) -> np.ndarray:
    """The offset in force at each stamp: the last that was taken up to it, else the first."""
    if not offsets:
        return np.zeros(len(stamps_s))
    times_s, offsets_s = np.array(sorted(offsets)).T
    return offsets_s[np.maximum(np.searchsorted(times_s, stamps_s, side="right") - 1, 0)]


def sorted_markers(markers: Iterable[tuple[float, str]]) -> tuple[RecordedMarker, ...]:
    recorded = [RecordedMarker(float(stamp_s), text) for stamp_s, text in markers]
    return tuple(sorted(recorded, key=lambda marker: marker.stamp_s))


def unreadable(path: Path, error: BaseException) -> Problem:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return Problem(
        f"'{path}' cannot be read ({reason}); check that the file is complete and that those "
        "that belong to it lie beside it"
    )
