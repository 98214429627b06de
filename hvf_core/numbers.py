"""How times and shares are summed up wherever a session shows them."""

import math
from collections.abc import Sequence

import numpy as np


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the 95th and 99th percentile and the largest of at least one value."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    rounded = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {name: round(float(value), 4) for name, value in rounded.items()}


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share that was found in n cases (Wilson's, by the score test)."""
    z2 = 1.959964**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
