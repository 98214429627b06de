"""Trials of a recording, cut and preprocessed in virtual time by the code that does it live."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stream.acquire.acquisition import Opened
from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial
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
    recording: Recording, plan: TrialPlan, adaptation: Adaptation | None = None
) -> Iterator[CutTrial | Drop]:
    """Cuts a recording in virtual time, in the order of the onsets.

    Trials of stimuli that the plan does not know are passed over.

    Args:
        plan: has a preprocessing, and no marks: a trial comes whole.
        adaptation: as in a live session; it goes on from the state that it has.

    Raises:
        Problem: the recording lacks a channel, or its rate is too low.
    """
    trials = TrialStream(recording.channels, recording.rate_hz, plan, adaptation)
    for one in _said(trials, recording):
        if isinstance(one, Drop) and plan.is_known(one.event.stimulus):
            yield one
        elif isinstance(one, Slice):
            event = one.trial.event
            yield CutTrial(one.trial.number, event.stimulus, event.group, one.array)


def _said(trials: TrialStream, recording: Recording) -> Iterator[Opened | Slice | Trial | Drop]:
    for stream, chunk in play(recording):
        yield from trials.add(stream, chunk)
        yield from trials.due(chunk.readable_s)
    yield from trials.end("no_data", "the recording ended")


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
    for outcome in cut_trials(replace(recording, markers=markers), TrialPlan(preprocessing)):
        if not isinstance(outcome, Drop):
            yield outcome.trial
