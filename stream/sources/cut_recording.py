"""Trials of a recording, cut and preprocessed in virtual time by the code that does it live."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stream.acquire.acquisition import Acquisition
from stream.acquire.adaptation import Adaptation
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import Rejection, RejectSettings
from stream.acquire.slices import Slicer
from stream.acquire.trials import Drop, Trial
from stream.acquire.triggers import TriggerReader
from stream.sources.recording import RecordedMarker, Recording
from stream.sources.virtual_time import play


@dataclass(frozen=True)
class CutTrial:
    """A preprocessed trial, (output channels, times) float32."""

    number: int
    stimulus: str
    group: str
    trial: np.ndarray


def cut_trials(
    recording: Recording,
    preprocessing: Preprocessing,
    marker_rule: MarkerRule | None = None,
    *,
    keep: Callable[[str], bool] = lambda stimulus: True,
    reject: RejectSettings | None = None,
    adaptation: Adaptation | None = None,
    triggers: tuple[TriggerReader, int] | None = None,
) -> Iterator[CutTrial | Drop]:
    """Cuts a recording in virtual time, in the order of the onsets.

    Args:
        keep: whether trials of a stimulus are wanted; others are passed over.
        reject: limits; trials that hold NaN are rejected in any case.
        adaptation: as in a live session; it goes on from the state that it has.
        triggers: reads trials out of a channel of the recording, and the channel's column.

    Raises:
        Problem: the recording lacks a channel, or its rate is too low.
    """
    transform = preprocessing.prepare(recording.channels, recording.rate_hz)
    slicer = Slicer(transform, adaptation=adaptation)
    acquisition = Acquisition(
        len(recording.channels),
        recording.rate_hz,
        transform.window,
        marker_rule=marker_rule,
        stream_filter=preprocessing.stream_filter(recording.rate_hz, transform.columns),
        rejection=Rejection(reject or RejectSettings(), transform.columns, recording.channels),
        triggers=triggers,
    )

    def outcomes(due: Iterable[Trial | Drop]) -> Iterator[CutTrial | Drop]:
        for outcome in due:
            stimulus = outcome.event.stimulus
            if not keep(stimulus):
                continue
            if isinstance(outcome, Drop):
                yield outcome
            else:
                part = slicer.last(outcome)
                slicer.learn(outcome)
                yield CutTrial(outcome.number, stimulus, outcome.event.group, part.array)

    for stream, chunk in play(recording):
        if stream == "eeg":
            opened, _ = acquisition.add_eeg(chunk)
        else:
            opened = acquisition.add_markers(chunk)
        yield from outcomes(entry.drop for entry in opened if entry.drop is not None)
        yield from outcomes(acquisition.due(chunk.readable_s))
    yield from outcomes(acquisition.end("no_data", "the recording ended"))


def rest_windows(recording: Recording, preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """Windows of a resting recording, one after the other, cut and preprocessed as trials are.

    Yields:
        float32 (output channels, times).

    Raises:
        Problem: the recording lacks a channel, or its rate is too low.
    """
    window = preprocessing.prepare(recording.channels, recording.rate_hz).window
    onsets = np.arange(-min(window.first, 0), len(recording.stamps_s), window.count)
    markers = tuple(RecordedMarker(float(recording.stamps_s[onset]), "rest") for onset in onsets)
    for outcome in cut_trials(replace(recording, markers=markers), preprocessing):
        if not isinstance(outcome, Drop):
            yield outcome.trial
