"""Answers for many stimuli at once, at the ends of the window, while the last repeat goes on.

The offline twin of a live session's answers: the same EEG is known, and is embedded at once for
many stimuli.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from decoder.bundle import Bundle, BundleManifest
from decoder.evidence import Weights, known_mean
from hvf_core.problem import Problem
from index.gallery import Gallery
from offline_train.data.trial_set import TrialSet
from stream.acquire.settings import as_made

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
        Problem: when channels, rate, window or preprocessing differ, or what was fitted for it.
    """
    for name in ("channels", "rate_hz", "tmin_s", "tmax_s", "preprocessing"):
        has, needs = getattr(trial_set.format, name), getattr(bundle.manifest, name)
        if name == "preprocessing":
            has, needs = _differing(as_made(has), as_made(needs))
        if has != needs:
            raise Problem(
                f"the trial set has {name} {has}, the bundle needs {needs}: "
                "prepare the trials as the bundle's were prepared"
            )
    fitted = bundle.arrays("preprocessing")
    for name in {"whitener", "scale"} & fitted.keys() & trial_set.preprocessing_arrays.keys():
        has, needs = trial_set.preprocessing_arrays[name], fitted[name]
        if has.shape != needs.shape or not np.allclose(has, needs, 1e-3, 1e-3 * abs(needs).max()):
            raise Problem(
                f"the {name} of the trial set was fitted to other trials than the bundle's, which "
                "a live session uses: make the set with `prepare-test` and this bundle"
            )


def _differing(
    has: Mapping[str, Any], needs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of two tables what differs."""
    names = [name for name in {**has, **needs} if has.get(name) != needs.get(name)]
    return {name: has.get(name) for name in names}, {name: needs.get(name) for name in names}


def check_repeats(trial_set: TrialSet, repeats: Sequence[int]) -> None:
    """Refuses numbers of repeats that a stimulus does not have, before anything is embedded."""
    if not repeats:
        raise Problem("no number of repeats is given: name at least one, such as 1")
    stimulus, trials = min(trial_set.repeats.items(), key=lambda one: len(one[1]))
    if len(trials) < max(repeats):
        raise Problem(
            f"stimulus {stimulus!r} has {len(trials)} repeats, {max(repeats)} are to be averaged: "
            "ask for fewer, or leave it out"
        )


def rows_of(gallery: Gallery, items: Sequence[str]) -> np.ndarray:
    """The rows of stimuli in a gallery, (n,).

    Raises:
        Problem: when one is not in it.
    """
    rows = [gallery.row_of(item) for item in items]
    if None in rows:
        raise Problem(
            f"stimulus {items[rows.index(None)]!r} is not among the gallery's {len(gallery)} "
            "images: add it, or leave it out"
        )
    return np.array(rows)


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
    """What turns EEG into an image's log-likelihoods: their softmax at a temperature is the answer.

    The batched twin of `decoder.live.LiveDecoder`.
    """

    brain: nn.Module
    """In evaluation mode."""
    gallery: np.ndarray
    """float32 (n_gallery, dim), L2-normalised."""
    weights: Weights
    """How repeats are put together."""
    tmax_s: float
    """End of the whole window."""
    averages_predictions: bool = False
    """Instead: each repeat is embedded alone, and their embeddings are averaged as they are."""

    def log_likelihoods(
        self, trial_set: TrialSet, groups: Sequence[np.ndarray], ends: Sequence[WindowEnd]
    ) -> Iterator[tuple[WindowEnd, slice, np.ndarray]]:
        """Scores the gallery for groups of repeats, the last of which goes on up to each end.

        Args:
            groups: positions of the repeats of a stimulus, equally many each, in the order seen.

        Yields:
            The end, which groups, and log-likelihoods but for a constant, (groups, n_gallery),
            block by block.

        Raises:
            Problem: when an embedding is not finite or all zero.
        """
        for end, block, z in self.queries(trial_set, groups, ends):
            # In torch, like the network: NumPy's pool of threads would fight for the cores.
            found = torch.from_numpy(z) @ torch.from_numpy(self.gallery).T
            yield end, block, found.numpy()

    def queries(
        self, trial_set: TrialSet, groups: Sequence[np.ndarray], ends: Sequence[WindowEnd]
    ) -> Iterator[tuple[WindowEnd, slice, np.ndarray]]:
        """What the gallery is asked, float32 (groups, dim), in the order of `log_likelihoods`."""
        is_alone = self.weights.alone or self.averages_predictions
        at_once = max(1, BATCH // len(groups[0])) if is_alone else BATCH
        for start in range(0, len(groups), at_once):
            block = slice(start, min(start + at_once, len(groups)))
            seen = [trial_set.rows[group] for group in groups[block]]
            earlier = np.zeros(1, np.float32)
            if is_alone:
                for repeat in zip(*(rows[:-1] for rows in seen), strict=True):
                    trials = trial_set.data[list(repeat)]
                    earlier = earlier + self._weighted(trials, self.tmax_s)
                seen = [rows[-1:] for rows in seen]
            for end in ends:
                known = [known_mean(trial_set.data[rows], end.n_times) for rows in seen]
                z = earlier + self._weighted(np.stack(known), end.tmax_s)
                if self.averages_predictions:
                    weight = np.float32(self.weights.of_one(end.tmax_s))
                    z *= weight / np.linalg.norm(z, axis=1, keepdims=True)
                yield end, block, z

    def _weighted(self, trials: np.ndarray, tmax_s: float) -> np.ndarray:
        """Unit-length embeddings times the weight of their cosines, float32 (n, dim).

        Where predictions are averaged, the embeddings as they are.
        """
        z = embed(self.brain, np.ascontiguousarray(trials))
        lengths = np.linalg.norm(z, axis=1, keepdims=True)
        if not np.isfinite(lengths.sum()) or not lengths.all():
            raise Problem(
                "an embedding holds values that are not finite, or only zeros: "
                "the trial's EEG or the bundle's weights are damaged"
            )
        if self.averages_predictions:
            return z
        return z * (self.weights.of_one(tmax_s) / lengths)
