"""Two certificates: what got slower, beyond what chance and another run of the same do."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hvf_core.specs import Frozen
from stream.bench.live.figures import ANSWER, N_OF_P99, WAYS, Cell

RESAMPLES = 4000
ALPHA = 0.05
"""Of all comparisons together: each is made at its share of it (Bonferroni's)."""
_BLOCK = 10  # trials in a row, which meet the same moment of the machine, are drawn together
_LEAST = 20  # of values in each run
_STAGES_OF = ("centre", "live")  # cells of which each stage is compared, of others the whole way
_NEEDS = {50: _LEAST, 99: N_OF_P99}
"""Percentiles that are compared, and the values in each run without which they are not."""


class Change(Frozen):
    """How a percentile went from one run to the next, with its interval in shares of the earlier.

    Attributes:
        n: values of the run that has fewer.
        resolution_ms: by which it would have had to change to be named.
        verdict: `slower`, `faster` or ``.
    """

    cell: str
    way: str
    percentile: int
    n: int
    before_ms: float
    after_ms: float
    low: float
    high: float
    resolution_ms: float
    verdict: str


def compared(
    earlier: Sequence[Cell], later: Sequence[Cell], slower: float, seed: int = 0
) -> list[Change]:
    """All that both have measured, the largest slow-downs first.

    The difference of percentiles is bootstrapped over blocks of trials, 4,000 times, each interval
    at a confidence of 1 - 0.05 / (number of comparisons); slower is what lies above `slower` (a
    share of the earlier one) with all of its interval, faster what lies below the same share.
    """
    pairs = list(_pairs({one.setup.name: one for one in earlier}, later))
    asked = [(*pair, k) for pair in pairs for k, least in _NEEDS.items() if _n(pair[2]) >= least]
    alpha, rng = ALPHA / max(1, len(asked)), np.random.default_rng(seed)
    found = [_change(*one, alpha, slower, rng) for one in asked]
    return sorted(found, key=lambda one: -one.low)


def told(changes: Sequence[Change], slower: float) -> Iterator[str]:
    """In sentences."""
    by = {kind: [c for c in changes if c.verdict == kind] for kind in ("slower", "faster", "")}
    if not changes:
        yield f"nothing is compared: no set-up has {_LEAST} values or more in both runs"
    elif not by["slower"]:
        yield f"nothing is slower by more than {slower:.0%} beyond noise, of {len(changes)} figures"
    for kind in ("slower", "faster"):
        for one in by[kind]:
            yield (
                f"{kind}: {one.cell}, {WAYS[one.way]}: p{one.percentile} {one.before_ms:.2f} → "
                f"{one.after_ms:.2f} ms ({one.low:+.0%} to {one.high:+.0%})"
            )
    rest: dict[tuple[str, int], list[Change]] = {}
    for one in by[""]:
        rest.setdefault((one.cell, one.n), []).append(one)
    for (cell, n), same in rest.items():
        same.sort(key=lambda one: (list(WAYS).index(one.way), one.percentile))
        each = (f"{one.way} p{one.percentile} ({one.resolution_ms:.2f} ms)" for one in same)
        yield f"{cell}: no change that {n} values can tell (resolution) in {', '.join(each)}"


def _pairs(
    earlier: Mapping[str, Cell], later: Sequence[Cell]
) -> Iterator[tuple[str, str, tuple[np.ndarray, np.ndarray]]]:
    for cell in later:
        before = earlier.get(cell.setup.name)
        # Another number of trials is no other set-up.
        same = {"n_trials": cell.setup.n_trials}
        if before is None or before.setup.model_copy(update=same) != cell.setup:
            continue
        for way in WAYS if cell.setup.kind in _STAGES_OF else (ANSWER,):
            first, second = (np.array(one.values_ms.get(way, ())) for one in (before, cell))
            yield cell.setup.name, way, (first, second)


def _n(both: tuple[np.ndarray, np.ndarray]) -> int:
    return min(map(len, both))


def _change(
    cell: str,
    way: str,
    both_ms: tuple[np.ndarray, np.ndarray],
    percentile: int,
    alpha: float,
    slower: float,
    rng: np.random.Generator,
) -> Change:
    before, after = (float(np.percentile(ms, percentile)) for ms in both_ms)
    earlier, later = (_percentiles(ms, percentile, rng) for ms in both_ms)
    low, high = np.quantile(later - earlier, [alpha / 2, 1 - alpha / 2]) / before
    verdict = "slower" if low > slower else "faster" if high < -slower / (1 + slower) else ""
    return Change(
        cell=cell,
        way=way,
        percentile=percentile,
        n=_n(both_ms),
        before_ms=before,
        after_ms=after,
        low=float(low),
        high=float(high),
        resolution_ms=before * (slower + float(high - low) / 2),
        verdict=verdict,
    )


def _percentiles(values: np.ndarray, percentile: int, rng: np.random.Generator) -> np.ndarray:
    """Of samples of the values, drawn with replacement in blocks of those that lie together."""
    size = max(1, min(_BLOCK, len(values) // 10))
    n_blocks = -(-len(values) // size)
    found = []
    for _ in range(0, RESAMPLES, 500):  # at once, for memory
        starts = rng.integers(0, len(values), (500, n_blocks, 1))
        rows = ((starts + np.arange(size)) % len(values)).reshape(500, -1)
        found.append(np.percentile(values[rows], percentile, axis=1))
    return np.concatenate(found)
