"""Cuts a trial into preprocessed slices that can go out while it is still going on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import TrialTransform
from stream.acquire.trials import Trial

_STEP_S = 0.1  # between slices: a tenth of the work of a whole trial of 1 s at a time
_TAIL_S = 0.04  # the last slice: what is left to be done after the last sample


@dataclass(frozen=True)
class Slice:
    """Preprocessed EEG (output channels, times), from time `first` of the trial on.

    `trial` is as much of it as there was: its samples are a view that is good for a moment. Before
    `first`, `corrects` times that had gone out as estimates come again: they hold what these lack.
    """

    trial: Trial
    first: int
    corrects: int
    array: np.ndarray

    @property
    def final(self) -> bool:
        return self.trial.is_whole


@dataclass(frozen=True)
class _Sent:
    """What has gone out of an open trial: its first `settled` times, and `estimates` after them."""

    matrix: np.ndarray | None
    """That all of it is adapted with."""
    settled: int = 0
    estimates: np.ndarray | None = None

    @property
    def n_estimates(self) -> int:
        return 0 if self.estimates is None else self.estimates.shape[1]


class Slicer:
    """Gives every sample of a trial out, in order, as soon as it can be preprocessed.

    Nothing is waited for at a mark: where the kernel that resamples reaches beyond it, estimates go
    out, and with the next slice what they lacked.

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
        ends = {*range(step, n, step), max(1, n - tail)}
        rows = {end: transform.rows_for(end) for end in ends if end < n}
        rows |= {mark: transform.rows_at(mark) for mark in marks if mark < n}
        # Where several ends need the same samples of the stream, the last of them is meant; one
        # that a later end has gone out before is passed over.
        self._times_at: dict[int, int] = {}
        reached = 0
        for n_rows, end in sorted((n_rows, end) for end, n_rows in rows.items()):
            if end > reached:
                self._times_at[n_rows] = reached = end
        self.stops = tuple(self._times_at)
        self.urgent = tuple(transform.rows_at(mark) for mark in marks)
        self._open: dict[int, _Sent] = {}
        self._rehearse()

    def _rehearse(self) -> None:
        """Makes what the slices need, as the first trial would else wait for it."""
        transform, settled = self._transform, 0
        for n_rows, stop in (*self._times_at.items(), (transform.window.count, transform.n_times)):
            transform.part(np.zeros((n_rows, transform.n_columns), np.float32), settled, stop)
            settled = transform.settled(n_rows, stop)

    def take(self, trial: Trial) -> Slice:
        """The slice from what has gone out up to one of `stops`, or to the end of a whole trial."""
        sent = self._open.pop(trial.number, None)
        if sent is None:
            known = self._adaptation
            sent = _Sent(None if known is None else known.matrix(trial.event.onset_s))
        n_rows, first = len(trial.samples), sent.settled
        stop = self._transform.n_times if trial.is_whole else self._times_at[n_rows]
        array = self._transform.part(trial.samples, first, stop)
        if sent.matrix is not None:
            array = sent.matrix @ array
        if not trial.is_whole:
            settled = self._transform.settled(n_rows, stop)
            estimates = array[:, settled - first :].copy() if settled < stop else None
            self._open[trial.number] = _Sent(sent.matrix, settled, estimates)
        if sent.estimates is not None:
            array[:, : sent.n_estimates] -= sent.estimates
        return Slice(trial, first + sent.n_estimates, sent.n_estimates, array)

    def learn(self, trial: Trial) -> None:
        """Lets the adaptation see a trial that is whole; after it was sent, as it takes a while."""
        if self._adaptation is not None:
            self._adaptation.add(trial.last_stamp_s, self._transform(trial.samples))

    def forget(self, number: int) -> None:
        """Takes back a trial that will not become whole."""
        self._open.pop(number, None)
