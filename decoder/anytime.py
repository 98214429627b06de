"""Trials that arrive in slices, and what is known of them at any time.

The first layer of MBP is linear: the share of every slice is added as it arrives, and once the last
one is in, only the small residual head is left to run. Ends of the window are marks at which an
answer is wanted; shares are kept apart between them, so that repeats can be averaged up to each.
Encoders that are not linear at the input keep the EEG itself and run as a whole at every mark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoder.brain.base import BrainEncoder, LinearInputEncoder
from hvf_core.problem import Problem


class LinearShares:
    """Shares of a linear first layer: a part is its sum over the samples between two marks."""

    def __init__(self, encoder: LinearInputEncoder, marks: Sequence[int]) -> None:
        self.marks, self.n_channels = tuple(marks), encoder.n_channels
        self._starts = (0, *self.marks[:-1])
        self.shape = (len(marks), encoder.dim)
        self.rest, self.rest_shape = encoder.head, (encoder.dim,)
        weight = encoder.project.weight.detach()
        # By time, so that the weights of a slice lie side by side in memory.
        by_time = weight.view(encoder.dim, encoder.n_channels, encoder.n_times).permute(2, 1, 0)
        self._weight = by_time.reshape(-1, encoder.dim).clone().numpy()
        self._bias = encoder.project.bias.detach().double().numpy()
        self._eeg = np.empty(encoder.n_times * encoder.n_channels, np.float32)
        self._sum = np.empty(encoder.dim)
        self._input = np.empty(encoder.dim, np.float32)

    def add(self, shown: np.ndarray, first: int, eeg: np.ndarray) -> None:
        """Adds EEG (channels, times) from sample `first` on to `shown` (parts, width), in place."""
        stop = first + eeg.shape[1]
        for share, start, end in zip(shown, self._starts, self.marks, strict=True):
            a, b = max(first, start), min(stop, end)
            if a < b:
                self._add_to(share, a, eeg[:, a - first : b - first])

    def _add_to(self, share: np.ndarray, first: int, eeg: np.ndarray) -> None:
        n_channels, n_times = eeg.shape
        by_time = self._eeg[: eeg.size]
        np.copyto(by_time.reshape(n_times, n_channels), eeg.T)
        rows = self._weight[first * n_channels : (first + n_times) * n_channels]
        share += by_time @ rows  # NumPy: the first call of torch's after a rest takes 0.2 ms more

    def n_parts(self, mark: int) -> int:
        """How many parts the samples up to a mark fill."""
        return self.marks.index(mark) + 1

    def rest_input(self, known: np.ndarray) -> np.ndarray:
        """From (parts, width) to float32 `rest_shape`, good until the next call."""
        total = known[0] if len(known) == 1 else np.sum(known, axis=0, out=self._sum)
        return np.add(total, self._bias, out=self._input, casting="same_kind")


class WholeTrials:
    """The EEG itself, a part for every sample, for encoders that need all of it at once."""

    def __init__(self, encoder: BrainEncoder, marks: Sequence[int]) -> None:
        self.marks, self.n_channels = tuple(marks), encoder.n_channels
        self.shape = (encoder.n_times, encoder.n_channels)
        self.rest, self.rest_shape = encoder, (encoder.n_channels, encoder.n_times)
        self._input = np.empty(self.rest_shape, np.float32)

    def add(self, shown: np.ndarray, first: int, eeg: np.ndarray) -> None:
        shown[first : first + eeg.shape[1]] += eeg.T

    def n_parts(self, mark: int) -> int:
        return mark

    def rest_input(self, known: np.ndarray) -> np.ndarray:
        np.copyto(self._input, known.T, casting="same_kind")
        return self._input


Shares = LinearShares | WholeTrials
"""How slices add up to what is known of a trial, an array of the shape (parts, width).

`rest` is what is left to run then, on what `rest_input` makes of it.
"""


def shares_of(encoder: BrainEncoder, marks: Sequence[int]) -> Shares:
    """How an encoder's trials are added up.

    Args:
        encoder: in evaluation mode.
        marks: ends of the window at which answers are wanted, in samples counted from its begin,
            rising; the last one is the whole window.
    """
    rising = list(marks) == sorted(set(marks))
    if not marks or not rising or marks[0] < 1 or marks[-1] != encoder.n_times:
        raise ValueError(f"marks {list(marks)} must rise from 1 or more to {encoder.n_times}")
    if isinstance(encoder, LinearInputEncoder):
        return LinearShares(encoder, marks)
    return WholeTrials(encoder, marks)


@dataclass
class _Open:
    """A trial that is going on."""

    shown: np.ndarray
    n_times: int = 0


class Anytime:
    """The trials that are going on, added up by the encoder's shares."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._open: dict[int, _Open] = {}

    def add(
        self, trial: int, first: int, eeg: np.ndarray, final: bool = False, corrects: int = 0
    ) -> list[int]:
        """Adds a slice; one from sample 0 on opens the trial, anew if it was open.

        Args:
            trial: its number.
            first: place of the slice's first new sample in the window.
            eeg: float32 (channels, times), preprocessed.
            final: no more of the trial will come.
            corrects: samples before `first` that come again: they are added to what was there.

        Returns:
            The marks that the trial reaches with it.

        Raises:
            Problem: another number of channels, more samples than the window has or, at the end,
                fewer, values that are not finite, or a slice that does not follow the one before
                it. The trial is forgotten.
        """
        trial_so_far = self._open.pop(trial, None)
        if first == 0 or trial_so_far is None:
            trial_so_far = _Open(np.zeros(self._shares.shape, np.float32))
        n_before = trial_so_far.n_times
        self._check(trial, first - corrects, first, n_before, eeg, final)
        self._shares.add(trial_so_far.shown, first - corrects, eeg)
        trial_so_far.n_times += eeg.shape[1] - corrects
        self._open[trial] = trial_so_far
        return [mark for mark in self._shares.marks if n_before < mark <= trial_so_far.n_times]

    def begin(self, trial: int, n_times: int) -> None:
        """Opens a trial of which so many samples are there, all zero."""
        self._open[trial] = _Open(np.zeros(self._shares.shape, np.float32), n_times)

    def follows(self, trial: int, first: int) -> bool:
        """Whether a slice from sample `first` on opens a trial, or goes on where it is."""
        return first == 0 or (trial in self._open and self._open[trial].n_times == first)

    def shown(self, trial: int) -> np.ndarray:
        """What an open trial has shown so far, float32 (parts, width), not to be changed."""
        return self._open[trial].shown

    def forget(self, trial: int) -> None:
        """Lets a trial go, where it is open."""
        self._open.pop(trial, None)

    def _check(
        self, trial: int, start: int, first: int, n_before: int, eeg: np.ndarray, final: bool
    ) -> None:
        if eeg.ndim != 2 or eeg.shape[0] != self._shares.n_channels:
            raise Problem(
                f"trial {trial} has a slice of shape {eeg.shape}, the bundle needs "
                f"({self._shares.n_channels} channels, times): run the reader with the same bundle"
            )
        if first != n_before:
            raise Problem(
                f"trial {trial} goes on with sample {first} where sample {n_before} was expected: "
                "a slice of it was lost"
            )
        stop, n_times = start + eeg.shape[1], self._shares.marks[-1]
        if stop > n_times or (final and stop < n_times):
            raise Problem(
                f"trial {trial} has {stop} samples, the bundle's window has {n_times}: "
                "run the reader with the same bundle"
            )
        # A sum is finite where every value is, and takes one call.
        if not math.isfinite(eeg.sum()) and not np.isfinite(eeg).all():
            raise Problem(
                f"trial {trial} holds values that are not finite: look at the amplifier's channels"
            )
