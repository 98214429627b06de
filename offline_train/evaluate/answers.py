"""Answers for many stimuli at once, at the ends of the window, while the last repeat goes on.

The offline twin of a live session's answers: the same EEG is known, and is embedded at once for
many stimuli.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from decoder.bundle import Bundle, BundleManifest
from decoder.calibration import Calibration, Evidence, log_probabilities, temperature_of
from decoder.evidence import known_mean
from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialSet

BATCH = 256
"""Trials embedded at a time."""


@dataclass(frozen=True)
class WindowEnd:
    """Where the trial that is going on is cut."""

    tmax_s: float
    n_times: int
    """Samples up to there, which belongs to them."""


def window_ends(
    manifest: BundleManifest, tmax_s: Sequence[float] | None = None
) -> tuple[WindowEnd, ...]:
    """The ends of the window at which answers are wanted, rising; None is that of a final answer.

    Raises:
        Problem: when one lies outside the bundle's window, or there is none.
    """
    ends = {}
    for end_s in sorted([manifest.tmax_s] if tmax_s is None else tmax_s):
        n_times = manifest.mark(end_s)
        ends[n_times] = WindowEnd(min(end_s, manifest.tmax_s), n_times)
    if not ends:
        raise Problem("no tmax is given: name at least one, or none at all for the final answer")
    return tuple(ends.values())


def check_trials(bundle: Bundle, trial_set: TrialSet) -> None:
    """Refuses trials that are not cut and preprocessed as the bundle needs them.

    Raises:
        Problem: when channels, rate, window or preprocessing differ.
    """
    for name in ("channels", "rate_hz", "tmin_s", "tmax_s", "preprocessing"):
        has, needs = getattr(trial_set.format, name), getattr(bundle.manifest, name)
        if has != needs:
            raise Problem(
                f"the trial set has {name} {has}, the bundle needs {needs}: "
                "prepare the trials as the bundle's were prepared"
            )


def embed(brain: nn.Module, trials: np.ndarray) -> np.ndarray:
    """Embeds trials (n, channels, times) as float32 (n, dim), not normalised."""
    with torch.inference_mode():
        return np.concatenate(
            [
                brain(torch.from_numpy(trials[start : start + BATCH])).numpy()
                for start in range(0, len(trials), BATCH)
            ]
        )


def draw_in_order(
    trial_set: TrialSet, n_repeats: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draws repeats of every stimulus without replacement, in a random order of presentation.

    Returns:
        Positions of trials in the set, (n_repeats,) for each of its `items`.

    Raises:
        Problem: when a stimulus has fewer than `n_repeats` trials, or none are asked for.
    """
    if n_repeats < 1:
        raise Problem(f"{n_repeats} repeats are to be drawn: ask for at least one")
    _, groups = trial_set.draw_repeats(n_repeats, rng)
    return [rng.permutation(group) for group in groups]


@dataclass(frozen=True)
class Answerer:
    """What turns EEG into scores of a gallery's images: softmax of scores / T is the answer."""

    brain: nn.Module
    """In evaluation mode."""
    gallery: np.ndarray
    """float32 (n_gallery, dim), L2-normalised."""
    logit_scale: float
    tmax_s: float
    """End of the whole window."""
    calibration: Calibration | None = None

    def scores(
        self,
        trial_set: TrialSet,
        groups: Sequence[np.ndarray],
        ends: Sequence[WindowEnd],
        evidence: Evidence,
    ) -> Iterator[tuple[WindowEnd, slice, np.ndarray]]:
        """Scores the gallery for groups of repeats, the last of which goes on up to each end.

        With averaged EEG scores are `exp(logit_scale) · cosine`, with added evidence they are the
        sum of the log-probabilities of the single repeats.

        Args:
            trial_set: the trials.
            groups: positions of the repeats of a stimulus, equally many each, in the order seen.
            ends: of the window.
            evidence: how repeats are put together.

        Yields:
            The end, which groups, and scores (groups, n_gallery), block by block.

        Raises:
            Problem: when an embedding is not finite or all zero.
        """
        of_block = self._scores_of_mean if evidence == "mean" else self._scores_added
        at_once = BATCH if evidence == "mean" else max(1, BATCH // len(groups[0]))
        for start in range(0, len(groups), at_once):
            block = slice(start, min(start + at_once, len(groups)))
            for end, scores in of_block(trial_set, groups[block], ends):
                yield end, block, scores

    def _scores_of_mean(
        self, trial_set: TrialSet, groups: Sequence[np.ndarray], ends: Sequence[WindowEnd]
    ) -> Iterator[tuple[WindowEnd, np.ndarray]]:
        n_times = trial_set.format.n_times
        # What is known up to an end is the whole mean before it, and the earlier one after it.
        whole = np.empty((len(groups), *trial_set.data.shape[1:]), np.float32)
        earlier = np.empty_like(whole)
        for row, group in enumerate(groups):
            trials = trial_set.data[trial_set.rows[group]]
            whole[row] = known_mean(trials, n_times)
            earlier[row] = known_mean(trials, 0)
        for end in ends:
            known = np.concatenate([whole[..., : end.n_times], earlier[..., end.n_times :]], axis=2)
            yield end, np.exp(self.logit_scale) * self._cosines(known)

    def _scores_added(
        self, trial_set: TrialSet, groups: Sequence[np.ndarray], ends: Sequence[WindowEnd]
    ) -> Iterator[tuple[WindowEnd, np.ndarray]]:
        trials = np.stack([trial_set.data[trial_set.rows[group]] for group in groups])
        before = np.zeros((len(groups), len(self.gallery)))
        for repeat in range(trials.shape[1] - 1):
            before += self._single(trials[:, repeat], self.tmax_s)
        for end in ends:
            last = trials[:, -1].copy()
            last[..., end.n_times :] = 0
            yield end, before + self._single(last, end.tmax_s)

    def _single(self, trials: np.ndarray, tmax_s: float) -> np.ndarray:
        """Log-probabilities of single trials, (n, n_gallery)."""
        temperature = temperature_of(self.calibration, "mean", tmax_s, 1)
        return log_probabilities(self._cosines(trials), self.logit_scale, temperature)

    def _cosines(self, trials: np.ndarray) -> np.ndarray:
        z = embed(self.brain, np.ascontiguousarray(trials))
        lengths = np.linalg.norm(z, axis=1, keepdims=True)
        if not np.isfinite(lengths.sum()) or not lengths.all():
            raise Problem(
                "an embedding holds values that are not finite, or only zeros: "
                "the trial's EEG or the bundle's weights are damaged"
            )
        # In torch, like the network: a second pool of threads, NumPy's, would fight for the cores.
        return (torch.from_numpy(z / lengths) @ torch.from_numpy(self.gallery).T).numpy()
