"""A slow, obvious model of the way from samples and markers to trials.

All samples that were not lost lie in one list with the number that the amplifier gave them. A trial
is due where every number of its window is in that list, and then holds exactly those samples.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle

import numpy as np

from stream.acquire.acquisition import Acquisition
from stream.acquire.chunk import Chunk
from stream.acquire.clock import StreamClock
from stream.acquire.markers import Event
from stream.acquire.trials import Cutting, Drop, Trial, Window

HALF_A_SAMPLE = 0.5 * (1 + 1e-3)  # rate errors up to 1000 ppm are no misalignment


@dataclass(frozen=True)
class SentMarker:
    """A marker with its onset, on the reader's clock, and how much later it can be read."""

    onset_s: float
    text: str
    delay_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Session:
    """What was sent and not lost. `numbers` and `raw_s` are of the samples that arrive."""

    rate_hz: float
    window: Window
    numbers: np.ndarray
    raw_s: np.ndarray
    markers: tuple[SentMarker, ...]
    n_channels: int = 3
    eeg_offset_s: float = 0.0
    marker_offset_s: float = 0.0

    @cached_property
    def stamps_s(self) -> np.ndarray:
        """On the line that the clock draws through all raw stamps at once."""
        return StreamClock(self.rate_hz).map(self.raw_s, self.eeg_offset_s).stamps_s

    def samples(self, numbers: np.ndarray) -> np.ndarray:
        """Every value says which sample and which channel it is."""
        values = numbers[:, None] * self.n_channels + np.arange(self.n_channels)
        return values.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a marker ended, and with the how-manieth arrival; `reason` is empty for a trial."""

    number: int
    event: Event
    reason: str
    step: int
    trial: Trial | None = None
    samples: np.ndarray | None = None


def arrivals(session: Session, chunk_sizes: Collection[int]) -> list[tuple[str, Chunk]]:
    """EEG and markers as they can be read, in that order."""
    chunks: list[tuple[str, Chunk]] = []
    sizes, start = cycle(chunk_sizes), 0
    while start < len(session.numbers):
        part = slice(start, start + next(sizes))
        raw_s, samples = session.raw_s[part], session.samples(session.numbers[part])
        readable_s = float(raw_s[-1] + session.eeg_offset_s)
        chunks.append(("eeg", Chunk(raw_s, samples, session.eeg_offset_s, readable_s)))
        start = part.stop
    for marker in session.markers:
        raw_s = np.array([marker.onset_s - session.marker_offset_s])
        row = np.array([[marker.text]], object)
        readable_s = marker.onset_s + marker.delay_s
        chunks.append(("markers", Chunk(raw_s, row, session.marker_offset_s, readable_s)))
    return sorted(chunks, key=lambda entry: entry[1].readable_s)


def run(session: Session, chunk_sizes: Collection[int], **options) -> list[Outcome]:
    """What the code under test makes of a session, in the order in which it says so."""
    cutting = Cutting(session.window, session.rate_hz, **options)
    acquisition = Acquisition(session.n_channels, cutting)
    outcomes: list[Outcome] = []
    step = -1
    for step, (stream, chunk) in enumerate(arrivals(session, chunk_sizes)):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            told = acquisition.add_markers(chunk)
            outcomes += _outcomes((one for one in told if isinstance(one, Drop)), step)
        outcomes += _outcomes(acquisition.due(chunk.readable_s), step)
    outcomes += _outcomes(acquisition.end("no_data", "the session ended"), step + 1)
    assert acquisition.cutter.next_end_s == np.inf
    return outcomes


def _outcomes(decided: Collection[Trial | Drop], step: int) -> Iterator[Outcome]:
    for outcome in decided:
        if isinstance(outcome, Drop):
            yield Outcome(outcome.number, outcome.event, outcome.reason, step)
        else:  # the view is good until the next chunk only
            samples = outcome.samples.copy()
            yield Outcome(outcome.number, outcome.event, "", step, outcome, samples)


def arrived(session: Session) -> list[SentMarker]:
    """The markers in the order of their running numbers."""
    return sorted(session.markers, key=lambda marker: marker.onset_s + marker.delay_s)


def reasons(session: Session, onset_s: float) -> set[str]:
    """Why there can be no trial at this onset; none for a trial."""
    found: set[str] = set()
    if not len(session.stamps_s):
        return {"no_data"}  # too few came to tell the time
    row = int(np.argmin(np.abs(session.stamps_s - onset_s)))
    if abs(session.stamps_s[row] - onset_s) > HALF_A_SAMPLE / session.rate_hz:
        inside = session.stamps_s[0] < onset_s < session.stamps_s[-1]
        found.add("gap" if inside else "no_data")
    window = session.window
    wanted = session.numbers[row] + np.arange(window.first, window.last + 1)
    here = set(session.numbers.tolist())
    if wanted[0] < session.numbers[0] or wanted[-1] > session.numbers[-1]:
        found.add("no_data")
    between = wanted[(wanted >= session.numbers[0]) & (wanted <= session.numbers[-1])]
    if not here.issuperset(between.tolist()):
        found.add("gap")
    if "gap" in found and row + window.first < 0:
        found.add("no_data")  # fewer samples came before the onset than the window takes
    if "gap" in found and onset_s + window.last / session.rate_hz > session.stamps_s[-1]:
        found.add("no_data")  # the stream ended before the window did
    return found


def check_trial(session: Session, outcome: Outcome) -> None:
    """The trial holds the samples of its window around the sample nearest to its onset."""
    trial, window = outcome.trial, session.window
    assert outcome.samples.shape == (window.count, session.n_channels)
    first = round(float(outcome.samples[0, 0])) // session.n_channels
    numbers = np.arange(first, first + window.count)
    np.testing.assert_array_equal(outcome.samples, session.samples(numbers))
    stamps_s = session.stamps_s[np.searchsorted(session.numbers, numbers)]
    onset = int(np.searchsorted(session.numbers, first - window.first))
    distance_s = session.stamps_s[onset] - trial.event.onset_s
    assert abs(distance_s) <= np.abs(session.stamps_s - trial.event.onset_s).min() + 1e-9
    assert abs(trial.residual_s) <= HALF_A_SAMPLE / session.rate_hz
    assert abs(trial.residual_s - distance_s) < 1e-9
    assert abs(trial.first_stamp_s - stamps_s[0]) < 1e-9
    assert abs(trial.last_stamp_s - stamps_s[-1]) < 1e-9
