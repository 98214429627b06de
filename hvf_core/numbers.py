"""How times are summed up wherever a session shows them."""

from collections.abc import Sequence

import numpy as np


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the 95th and 99th percentile and the largest of at least one value."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    rounded = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {name: round(float(value), 4) for name, value in rounded.items()}
