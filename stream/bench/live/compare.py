"""Two certificates: what got slower, beyond what chance and another run of the same do."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hvf_core.specs import Frozen
from stream.bench.live.figures import ANSWER, WAYS, Cell

RESAMPLES = 4000
ALPHA = 0.05
"""Of all comparisons together: each is made at its share of it (Bonferroni's)."""
_BLOCK = 10  # trials in a row, which meet the same moment of the machine, are drawn together
_LEAST = 20  # of values in each run
_STAGES_OF = ("centre",)  # cells of which each stage is compared, of others the whole way alone


class Change(Frozen):
    """How a median went from one run to the next, with its interval in shares of the earlier."""

    cell: str
    way: str
    before_ms: float
    after_ms: float
    low: float
    high: float
    verdict: str
    """`slower`, `faster` or ``."""


def compared(
    earlier: Sequence[Cell], later: Sequence[Cell], slower: float, seed: int = 0
) -> list[Change]:
    """All that both have measured, the largest slow-downs first.

    The difference of medians is bootstrapped over blocks of trials, 4,000 times, each interval at a
    confidence of 1 - 0.05 / (number of comparisons); slower is what lies above `slower` (a share of
    the earlier median) with all of its interval, faster what lies below the same share.
    """
    pairs = list(_pairs({one.setup.name: one for one in earlier}, later))
    alpha, rng = ALPHA / max(1, len(pairs)), np.random.default_rng(seed)
    found = [_change(cell, way, *values, alpha, slower, rng) for cell, way, values in pairs]
    return sorted(found, key=lambda one: -one.low)


def told(changes: Sequence[Change], slower: float) -> Iterator[str]:
    """In sentences."""
    by = {kind: [c for c in changes if c.verdict == kind] for kind in ("slower", "faster")}
    for kind, some in by.items():
        for one in some:
            yield (
                f"{kind}: {one.cell}, {WAYS[one.way]}: median {one.before_ms:.2f} → "
                f"{one.after_ms:.2f} ms ({one.low:+.0%} to {one.high:+.0%})"
            )
    if not (n := len(changes)):
        yield f"nothing is compared: no set-up has {_LEAST} values or more in both runs"
    elif not by["slower"]:
        yield f"nothing is slower by more than {slower:.0%} beyond noise, of {n} medians compared"


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
            both = [np.array(one.values_ms.get(way, ())) for one in (before, cell)]
            if min(map(len, both)) >= _LEAST:
                yield cell.setup.name, way, (both[0], both[1])


def _change(
    cell: str,
    way: str,
    before_ms: np.ndarray,
    after_ms: np.ndarray,
    alpha: float,
    slower: float,
    rng: np.random.Generator,
) -> Change:
    median = float(np.median(before_ms))
    differences = _medians(after_ms, rng) - _medians(before_ms, rng)
    low, high = np.quantile(differences, [alpha / 2, 1 - alpha / 2]) / median
    verdict = "slower" if low > slower else "faster" if high < -slower / (1 + slower) else ""
    return Change(
        cell=cell,
        way=way,
        before_ms=median,
        after_ms=float(np.median(after_ms)),
        low=float(low),
        high=float(high),
        verdict=verdict,
    )


def _medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of samples of the values, drawn with replacement in blocks of those that lie together."""
    size = max(1, min(_BLOCK, len(values) // 10))
    n_blocks = -(-len(values) // size)
    medians = []
    for _ in range(0, RESAMPLES, 500):  # at once, for memory
        starts = rng.integers(0, len(values), (500, n_blocks, 1))
        rows = ((starts + np.arange(size)) % len(values)).reshape(500, -1)
        medians.append(np.median(values[rows], axis=1))
    return np.concatenate(medians)
