"""Accuracies with their uncertainty."""

import numpy as np
from scipy.stats import binomtest


def binomial_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion of `hits` in `n` independent trials (Wilson 1927)."""
    interval = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    values: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean, resampling the units that `values` (n,) has one of each."""
    picks = rng.integers(len(values), size=(n_resamples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
