"""A recording as files hold it: samples at even steps, so that none is missing in between.

Every sample is placed by the session's own clock. Where samples were lost, or the amplifier was
started again, the missing ones are zeros that are marked as such; after a long pause, and where the
sender's clock went back, another run begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream.acquire.clock import StreamClock
from stream.sources.recording import Recording
from stream.sources.virtual_time import play

LONGEST_GAP_S = 60.0
"""A longer one is no gap but a pause, and is not written as zeros."""
_NEAR = 0.75  # samples: at a rate that is not quite the nominal one the nearest may be half one off


@dataclass(frozen=True, eq=False)
class Run:
    """A part of a recording.

    Attributes:
        recording: of which it is a part.
        samples: float32 (n, channels), those that were recorded.
        stamps_s: (n,) when they were taken, on the session's clock.
        places: (n,) where they are in the file.
        gaps: first place, and number, of those that nobody recorded.
    """

    recording: Recording
    samples: np.ndarray
    stamps_s: np.ndarray
    places: np.ndarray
    gaps: Sequence[tuple[int, int]]

    @property
    def n_times(self) -> int:
        """Of the file."""
        return int(self.places[-1]) + 1

    def is_recorded(self, place: int) -> bool:
        """Whether a place in the file has a sample that was recorded."""
        return bool(self.places[self._at(place)] == place)

    def stamp_s(self, place: int) -> float:
        """When the sample at a place was taken."""
        return float(self.stamps_s[self._at(place)])

    def _at(self, place: int) -> int:
        return min(int(np.searchsorted(self.places, place)), len(self.places) - 1)

    def nearest(self, at_s: float) -> int:
        """The number of the sample nearest to a moment, the earlier of two, as trials are cut."""
        after = int(np.searchsorted(self.stamps_s, at_s))
        if after in (0, len(self.stamps_s)):
            return min(after, len(self.stamps_s) - 1)
        return after - int(at_s - self.stamps_s[after - 1] <= self.stamps_s[after] - at_s)

    def apart_s(self, at_s: float) -> float:
        """How far a moment is from the nearest sample."""
        return abs(float(self.stamps_s[self.nearest(at_s)]) - at_s)

    def place_of(self, at_s: float) -> int:
        """Where a moment is in the file; before 0 or after its end, where it is outside of it."""
        number = self.nearest(at_s)
        beyond = (at_s - float(self.stamps_s[number])) * self.recording.rate_hz
        return int(self.places[number]) + (round(beyond) if abs(beyond) > _NEAR else 0)


def runs_of(recording: Recording) -> Iterator[Run]:
    """The runs of a recording, in order."""
    clock, stamps, breaks, n = StreamClock(recording.rate_hz), [], [], 0
    for stream, chunk in play(recording):
        if stream == "eeg":
            mapped = clock.map(chunk.raw_s, chunk.offset_s)
            stamps.append(mapped.stamps_s)
            breaks += [n + int(one) for one in mapped.breaks]
            n += len(mapped.stamps_s)
    # The clock may have kept back the last ones, as nobody knows their time.
    stamps_s, samples = np.concatenate(stamps), recording.samples[:n]
    apart_s = {at: float(stamps_s[at] - stamps_s[at - 1]) for at in breaks if at}
    starts = [0, *(at for at, one_s in apart_s.items() if not 0 < one_s <= LONGEST_GAP_S)]
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        if start == stop:  # the clock knows of none
            continue
        places, gaps = np.arange(stop - start), []
        for at, one_s in apart_s.items():
            if start < at < stop:
                # One at least: a trial that spans a jump of the clock is none.
                gaps.append((int(places[at - start]), max(round(one_s * recording.rate_hz) - 1, 1)))
                places[at - start :] += gaps[-1][1]
        yield Run(recording, samples[start:stop], stamps_s[start:stop], places, gaps)
