"""Trials of a recording, cut and preprocessed in virtual time by the code that does it live."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Opened, Trial
from stream.sources.recording import RecordedMarker, Recording
from stream.sources.virtual_time import play


def cut_trials(
    recording: Recording,
    plan: TrialPlan,
    adaptation: Adaptation | None = None,
    on_notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[Slice | Drop]:
    """Cuts a recording in virtual time, in the order of the onsets; see `TrialStream`.

    Trials of stimuli that the plan does not know are passed over.

    Args:
        plan: has a preprocessing, and no marks: a trial comes whole, in one slice.
        adaptation: as in a live session; it goes on from the state that it has.
        on_notice: is called with what a person should know of the recording's clocks and rate.
    """
    told = (recording.channels, recording.rate_hz)
    trials = TrialStream(*told, plan, adaptation, recording.kinds)
    for one in run_through(trials, recording):
        if isinstance(one, Slice) or (isinstance(one, Drop) and plan.is_known(one.event.stimulus)):
            yield one
    for sentence in trials.acquisition.notices:
        on_notice(sentence)


def run_through(
    trials: TrialStream, recording: Recording
) -> Iterator[Opened | Slice | Trial | Drop]:
    """All that a trial stream says of a recording, from its first chunk to its end."""
    for stream, chunk in play(recording):
        yield from trials.add(stream, chunk)
        yield from trials.due(chunk.readable_s)
    yield from trials.end("no_data", "the recording ended")


def rest_windows(recording: Recording, preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """Windows of a resting recording, one after the other, cut and preprocessed as trials are.

    Yields:
        float32 (output channels, times).
    """
    window = preprocessing.prepare(recording.channels, recording.rate_hz).window
    onsets = np.arange(-min(window.first, 0), len(recording.stamps_s), window.count)
    markers = tuple(RecordedMarker(float(recording.stamps_s[onset]), "rest") for onset in onsets)
    for outcome in cut_trials(replace(recording, markers=markers), TrialPlan(preprocessing)):
        if isinstance(outcome, Slice):
            yield outcome.array
