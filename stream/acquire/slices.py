"""Cuts a trial into preprocessed slices that can go out while it is still going on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import TrialTransform
from stream.acquire.trials import Trial

_STEP_S = 0.1  # between slices: a tenth of the work of a whole trial of 1 s at a time
_TAIL_S = 0.02  # the last slice: what is left to be done after the last sample


@dataclass(frozen=True)
class Slice:
    """Preprocessed EEG (output channels, times), from time `first` of the trial on.

    `trial` is as much of it as there was: its samples are a view that is good for a moment.
    """

    trial: Trial
    first: int
    array: np.ndarray

    @property
    def final(self) -> bool:
        return self.trial.is_whole


class Slicer:
    """Gives every sample of a trial out once, in order, as soon as it can be preprocessed.

    Args:
        transform: of the stream.
        marks: numbers of times (samples of the result) after which somebody waits for a slice.
        adaptation: what the session's earlier trials say about its covariance; None for none.

    Attributes:
        stops: lengths of a trial, in samples of the stream, at which a part of it is wanted.
        urgent: those that somebody waits for.
    """

    def __init__(
        self,
        transform: TrialTransform,
        marks: Sequence[int] = (),
        adaptation: Adaptation | None = None,
    ) -> None:
        self._transform = transform
        self._adaptation = adaptation
        n, rate_hz = transform.n_times, transform.rate_hz
        step, tail = max(1, round(_STEP_S * rate_hz)), max(1, round(_TAIL_S * rate_hz))
        ends = {*range(step, n, step), *marks, max(1, n - tail)}
        # Where several ends need the same samples of the stream, the last of them is meant.
        self._times_at = {transform.rows_for(end): end for end in sorted(ends) if end < n}
        self.stops = tuple(self._times_at)
        self.urgent = tuple(transform.rows_for(mark) for mark in marks)
        # How much of an open trial has gone out, and the matrix that all of it is adapted with.
        self._open: dict[int, tuple[int, np.ndarray | None]] = {}

    def take(self, trial: Trial) -> Slice:
        """The slice from what has gone out up to one of `stops`, or to the end of a whole trial."""
        if trial.number in self._open:
            start, matrix = self._open.pop(trial.number)
        else:
            known = self._adaptation
            start, matrix = 0, None if known is None else known.matrix(trial.event.onset_s)
        stop = self._transform.n_times
        if not trial.is_whole:
            stop = self._times_at[len(trial.samples)]
            self._open[trial.number] = stop, matrix
        array = self._transform.part(trial.samples, start, stop)
        return Slice(trial, start, array if matrix is None else matrix @ array)

    def learn(self, trial: Trial) -> None:
        """Lets the adaptation see a trial that is whole; after it was sent, as it takes a while."""
        if self._adaptation is not None:
            self._adaptation.add(trial.last_stamp_s, self._transform(trial.samples))

    def forget(self, number: int) -> None:
        """Takes back a trial that will not become whole."""
        self._open.pop(number, None)
