"""Numbers as a person gives them, and times as they are summed up wherever they are shown."""

import math
from collections.abc import Sequence

import numpy as np

from hvf_core.problem import WrongUsage


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the 95th and 99th percentile and the largest of at least one value."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    rounded = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {name: round(float(value), 4) for name, value in rounded.items()}


def numbers(text: str, option: str) -> tuple[float, ...]:
    """The finite numbers of a comma-separated list.

    Raises:
        WrongUsage: one of them is none.
    """
    try:
        found = tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise WrongUsage(f"{option} '{text}' is no list of numbers such as 0.3,0.5")
    return found
