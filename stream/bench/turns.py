"""Turns: what a benchmark compares runs interleaved, and so meets the same machine."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

Way = TypeVar("Way", bound=Hashable)


def in_turn(ways: Mapping[Way, Callable[[], float]], rounds: int) -> dict[Way, np.ndarray]:
    """Takes every way once a round, in an order drawn anew, after a round that does not count.

    Args:
        ways: do something once and give the seconds that it took.
        rounds: how often.

    Returns:
        Milliseconds of each way, (rounds,).
    """
    rng = np.random.default_rng(0)
    jobs = list(ways)
    taken_s: dict[Way, list[float]] = {job: [] for job in jobs}
    for _ in range(1 + rounds):
        for i in rng.permutation(len(jobs)):
            taken_s[jobs[i]].append(ways[jobs[i]]())
    return {job: 1e3 * np.array(seconds[1:]) for job, seconds in taken_s.items()}
