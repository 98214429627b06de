"""Accuracies and calibration errors with their uncertainty."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import hypergeom

from hvf_core.numbers import wilson
from hvf_core.specs import Frozen

N_BINS = 15
"""Of Guo et al., ICML 2017."""
RESAMPLES, RESAMPLES_AT_ONCE = 2000, 100


class Estimate(Frozen):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def estimated_mean(values: np.ndarray, rng: np.random.Generator) -> Estimate:
    """The mean of values (n,), one for each of the units that a new study would draw anew.

    The interval is the percentiles' of the bootstrap over these units.
    """
    return estimated_means(values[:, None], rng)[0]


def estimated_rate(values: np.ndarray, rng: np.random.Generator, least: float = 0.0) -> Estimate:
    """`estimated_rates` of a single column, values (n,)."""
    return estimated_rates(values[:, None], rng, least)[0]


def estimated_rates(
    values: np.ndarray, rng: np.random.Generator, least: float = 0.0
) -> list[Estimate]:
    """`estimated_means` of what lies between `least` and 1, and is no surer where all are alike."""
    found = estimated_means(values, rng)
    for at in np.flatnonzero(np.ptp(values, axis=0) == 0):
        low, high = interval_of_alike(found[at].value, len(values), least)
        found[at] = Estimate(value=found[at].value, low=low, high=high)
    return found


def interval_of_alike(value: float, n: int, least: float = 0.0) -> tuple[float, float]:
    """The interval of the mean of n values that are all alike, and could be from `least` to 1.

    The bootstrap draws nothing else of them, as if nothing were uncertain. As many as Wilson's
    interval of none in n allows may be others, at either end: of shares of 0 or 1 that is his own.
    """
    _, others = wilson(0.0, n)
    return value - others * (value - least), value + others * (1 - value)


def estimated_means(values: np.ndarray, rng: np.random.Generator) -> list[Estimate]:
    """`estimated_mean` of each column of values (n, columns), resampled together."""
    means = np.concatenate([times @ values for times in _drawn(len(values), rng)]) / len(values)
    ends = np.quantile(means, [0.025, 0.975], axis=0).T
    return [
        Estimate(value=float(value), low=float(low), high=float(high))
        for value, (low, high) in zip(values.mean(axis=0), ends, strict=True)
    ]


def among(rank: np.ndarray, n_way: int, k: int) -> np.ndarray:
    """What is expected of an answer among `k` images: the right one and k - 1 of the gallery.

    Exact: of the k - 1, drawn without replacement, as many lie ahead of the right one as the
    hypergeometric distribution says, and nothing needs to be drawn.

    Args:
        rank: of the right image among all `n_way`, from 0, of any shape.

    Returns:
        Whether it comes first and among the first five, and its reciprocal rank, as expected:
        (..., 3).
    """
    ranks, where = np.unique(rank, return_inverse=True)
    ahead = np.arange(k)
    p = hypergeom.pmf(ahead, n_way - 1, ranks[:, None], k - 1)
    gains = np.stack([ahead < 1, ahead < 5, 1 / (1 + ahead)], axis=1)
    return (p @ gains)[where.reshape(rank.shape)]


class ReliabilityBin(Frozen):
    """Answers of about the same confidence, which is in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean."""
    accuracy: float


def reliability_bins(
    confidence: np.ndarray, hit: np.ndarray, n_bins: int = N_BINS
) -> tuple[ReliabilityBin, ...]:
    """Sorts answers by confidence into bins of equal width; those that stay empty are left out.

    Args:
        confidence: probability of the first answer, of any shape.
        hit: whether it was right, of the same shape.
    """
    bins = _bin_of(confidence, n_bins).ravel()
    n = np.bincount(bins, minlength=n_bins)
    confidences, hits = (np.bincount(bins, x.ravel(), n_bins) for x in (confidence, hit))
    return tuple(
        ReliabilityBin(
            low=m / n_bins,
            high=(m + 1) / n_bins,
            n=n[m],
            confidence=confidences[m] / n[m],
            accuracy=hits[m] / n[m],
        )
        for m in np.flatnonzero(n)
    )


def expected_calibration_error(
    confidence: np.ndarray, hit: np.ndarray, n_bins: int = N_BINS
) -> float:
    """ECE of the first answers: the mean over all answers of |accuracy - confidence| of their bin.

    Bins of equal width, as in Guo et al., ICML 2017 (equation 5), who take 15 of them; for the
    arguments see `reliability_bins`.
    """
    bins = reliability_bins(confidence, hit, n_bins)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / confidence.size


def ece_interval(
    confidence: np.ndarray, hit: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Bootstrap interval of the ECE, resampling stimuli with all their answers.

    ECE sums absolute values, so that resampled ones lean upwards, the more the fewer stimuli. The
    percentiles are therefore moved down by the mean of that lean (Efron and Tibshirani 1993), to 0
    at the lowest.

    Args:
        confidence: (answers, stimuli).
        hit: whether each answer was right, of the same shape.
    """
    n_answers, n_stimuli = confidence.shape
    cells = _bin_of(confidence, N_BINS) * n_stimuli + np.arange(n_stimuli)
    gaps = np.bincount(cells.ravel(), (hit - confidence).ravel(), N_BINS * n_stimuli)
    gaps = gaps.reshape(N_BINS, n_stimuli).T / (n_answers * n_stimuli)
    resampled = np.concatenate(
        [np.abs(times @ gaps).sum(axis=1) for times in _drawn(n_stimuli, rng)]
    )
    lean = resampled.mean() - np.abs(gaps.sum(axis=0)).sum()
    low, high = np.quantile(resampled - lean, [0.025, 0.975]).tolist()
    return max(0.0, low), high


def ece_of_noise(
    confidence: np.ndarray, rng: np.random.Generator, n_simulations: int = 100
) -> tuple[float, float]:
    """The ECE that perfectly calibrated answers of these confidences show by chance, on average.

    Outcomes are drawn from the confidences themselves. Answers for one stimulus are neither
    independent nor all alike, so both extremes are simulated.

    Args:
        confidence: (answers, stimuli).

    Returns:
        The mean ECE if all answers are independent, and if those of a stimulus share their luck.
    """
    bins = _bin_of(confidence, N_BINS).ravel()
    totals = np.zeros(2)
    for _ in range(n_simulations):
        luck = rng.random(confidence.shape)
        for i, lucks in enumerate([luck, luck[:1]]):
            gaps = ((lucks < confidence) - confidence).ravel()
            totals[i] += np.abs(np.bincount(bins, gaps, N_BINS)).sum()
    independent, shared = totals / (n_simulations * confidence.size)
    return float(independent), float(shared)


def _bin_of(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)


def _drawn(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of n units is in each resample, (resamples, n).

    In portions, because a resample of many stimuli is as large as all of them.
    """
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        picks = rng.integers(n, size=(RESAMPLES_AT_ONCE, n))
        cells = picks + n * np.arange(len(picks))[:, None]
        yield np.bincount(cells.ravel(), minlength=picks.size).reshape(picks.shape)
