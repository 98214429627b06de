"""The trials of one part of a study, by the code that preprocesses trials live."""

from collections.abc import Callable, Iterator

import numpy as np

from hvf_core.problem import Problem, needed
from offline_train.data.study import CutTrials
from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing, TrialTransform
from stream.acquire.reject import Rejection, RejectSettings
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.trials import Drop, Reason
from stream.sources.cut_recording import cut_trials
from stream.sources.recording import Recording

_BLOCK = 256  # trials read at a time

Outcome = tuple[str, np.ndarray] | Reason
"""A trial's stimulus and samples (output channels, times), or why it was dropped."""


def outcomes(
    data: Recording | CutTrials,
    plan: TrialPlan,
    adaptation: Adaptation | None,
    on_notice: Callable[[str], object],
) -> Iterator[Outcome]:
    """What becomes of every marker of a recording, or of every trial that was cut before.

    Raises:
        Problem: the settings ask of such trials what only a recording has.
    """
    if isinstance(data, CutTrials):
        if adaptation is not None:
            raise Problem(
                f"'{data.name}' holds trials that were cut before, and adaptation follows a "
                "session: leave out --adapt"
            )
        yield from _taken(data, needed(plan.preprocessing), plan.reject)
        return
    for outcome in cut_trials(data, plan, adaptation, on_notice):
        if isinstance(outcome, Drop):
            yield outcome.reason
        else:
            yield outcome.trial.event.stimulus, outcome.array


def _taken(
    cut: CutTrials, preprocessing: Preprocessing, reject: RejectSettings
) -> Iterator[Outcome]:
    transform = preprocessing.prepare(cut.channels, cut.rate_hz)
    window = window_in(cut, transform)
    rejection = Rejection(reject, transform.columns, cut.channels)
    stimuli = iter(cut.stimuli)
    for block in cut.blocks(_BLOCK):
        for trial in block[:, :, window]:
            stimulus = next(stimuli)
            if rejection.why(trial.T) is None:
                yield stimulus, transform(trial.T)
            else:
                yield "rejected"


def window_in(cut: CutTrials, transform: TrialTransform) -> slice:
    """The samples of such a trial that are preprocessed.

    Raises:
        Problem: they go beyond it, or there are filters.
    """
    if transform.stream_filter is not None:
        raise Problem(
            f"'{cut.name}' holds trials that were cut before, and filters need what lies around "
            "them: leave the filters out, or give the recordings"
        )
    window = transform.window
    first = window.first - round(cut.tmin_s * cut.rate_hz)
    if first < 0 or first + window.count > cut.n_times:
        raise Problem(
            f"the trials of '{cut.name}' go from {cut.tmin_s:g} to {cut.tmax_s:g} s, and with its "
            f"baseline and resampling {window.first / cut.rate_hz:g} to "
            f"{window.last / cut.rate_hz:g} s is asked for: ask for less, or give the recordings"
        )
    return slice(first, first + window.count)
