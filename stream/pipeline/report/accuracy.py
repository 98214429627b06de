"""How right a session's answers were, over time and by what they were made of; and how sure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hvf_core.numbers import wilson
from hvf_core.problem import needed
from stream.pipeline.report.story import Trial

LEAST_SURE = 30
"""Answers below which calibration cannot be judged."""
_BIN = 10  # answers in each bin, at least
_MOST_BINS = 10


class Share(NamedTuple):
    """How many of some answers were right, with a 95 % interval."""

    share: float
    low: float
    high: float
    n: int
    """Answers."""


class Bin(NamedTuple):
    """Answers that were about as sure: how sure on average, and how many of them were right."""

    confidence: float
    right: Share


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Those of which it is known whether they are right, as what was shown is in the gallery."""
    return [trial for trial in trials if trial.answer is not None and trial.answer["rank"]]


def share(hits: Sequence[bool] | np.ndarray, runs: Sequence[int]) -> Share:
    """The share of hits. Of repeats that share EEG only one counts for the interval.

    Args:
        hits: at least one.
        runs: to which run of repeats each answer belongs.
    """
    found = float(np.mean(hits))
    return Share(found, *wilson(found, len(set(runs))), len(hits))


def running(trials: Sequence[Trial], k: int) -> list[Share]:
    """After each answer, the share of those so far with the image among the first k."""
    found, n_hits, runs = [], 0, set()
    for n, trial in enumerate(trials, 1):
        n_hits += _rank(trial) <= k
        runs.add(trial.run)
        found.append(Share(n_hits / n, *wilson(n_hits / n, len(runs)), n))
    return found


def by_repeats(trials: Sequence[Trial], k: int) -> dict[int, Share]:
    """Of final answers, by how many repeats they are made of."""
    some = defaultdict(list)
    for trial in trials:
        some[needed(trial.answer)["n_repeats"]].append((_rank(trial) <= k, trial.run))
    return {n: share(*zip(*rows, strict=True)) for n, rows in sorted(some.items())}


def by_window_end(trials: Sequence[Trial], k: int) -> dict[float, Share]:
    """By when the window ended, provisional answers and the final ones, of the same trials."""
    some = defaultdict(list)
    for trial in trials:
        if trial.early:
            for answer in (*trial.early, needed(trial.answer)):
                some[answer["tmax_s"]].append((answer["rank"] <= k, trial.run))
    return {tmax_s: share(*zip(*rows, strict=True)) for tmax_s, rows in sorted(some.items())}


def sure_answers(trials: Sequence[Trial]) -> list[Trial]:
    """Those whose probabilities may be believed."""
    return [trial for trial in trials if needed(trial.answer)["calibrated"]]


def calibration(trials: Sequence[Trial]) -> list[Bin]:
    """Answers in bins of about as many each, from the least sure to the surest."""
    ordered = sorted(trials, key=lambda trial: needed(trial.answer)["probabilities"][0])
    n_bins = max(1, min(_MOST_BINS, len(ordered) // _BIN))
    bins = []
    for at in np.array_split(np.arange(len(ordered)), n_bins):
        some = [ordered[i] for i in at]
        confidence = float(np.mean([needed(trial.answer)["probabilities"][0] for trial in some]))
        hits = [_rank(trial) == 1 for trial in some]
        bins.append(Bin(confidence, share(hits, [trial.run for trial in some])))
    return bins


def _rank(trial: Trial) -> int:
    rank: int = needed(trial.answer)["rank"]
    return rank
