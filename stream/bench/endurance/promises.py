"""Promises of long sessions: kept or broken, and that nothing grows is one of them.

A process is flat where a robust regression (Theil and Sen: the median slope between all pairs of
points) over the second half of the trials finds no growth beyond a limit: `BYTES_A_TRIAL` and
`HANDLES_A_TRIAL` lie below the whole 95 % interval of one that grows. Points are the medians of 50
blocks, so that what comes and goes within a block is no growth.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

BYTES_A_TRIAL, HANDLES_A_TRIAL = 500.0, 1e-3
"""May come with each trial: its entry in the books takes some bytes until the session ends."""
_N_BLOCKS, _FEWEST = 50, 10
_FILLING = 2400  # trials: the screen keeps 12 answers to each of the demo's 200 images
_MB = 1e6
_TOO_SHORT = f"too short to tell: {2 * _FILLING:,} trials are needed"


@dataclass(frozen=True)
class Promise:
    """What is promised, whether that was kept, and what was seen."""

    what: str
    kept: bool | None
    """None where it was too short to tell."""
    seen: str


@dataclass(frozen=True)
class Growth:
    """By how much something grows with each trial, and the 95 % interval of that."""

    value: float
    low: float
    high: float


def growth(trials: np.ndarray, values: np.ndarray) -> Growth | None:
    """How `values` (n,) grow over the second half of `trials` (n,); None where points are few."""
    from scipy import stats  # here: it takes a second

    late = np.argsort(trials, kind="stable")
    late = late[trials[late] >= (trials.min() + trials.max()) / 2] if len(late) else late
    if len(late) < _FEWEST:
        return None
    blocks = np.array_split(late, min(_N_BLOCKS, len(late)))
    x, y = ([float(np.median(of[block])) for block in blocks] for of in (trials, values))
    slope, _, low, high = stats.theilslopes(y, x)
    return Growth(float(slope), float(low), float(high))


def is_flat(name: str, rows: np.ndarray, soa_s: float) -> Iterator[Promise]:
    """Whether a process takes more and more.

    Args:
        rows: (n, 4): seconds, CPU seconds, bytes in memory, open handles.
        soa_s: from trial to trial.
    """
    trials = rows[:, 0] / soa_s
    for what, column, limit, unit in (
        ("memory", 2, BYTES_A_TRIAL, "bytes"),
        ("handles", 3, HANDLES_A_TRIAL, "handles"),
    ):
        found = growth(trials, rows[:, column])
        if found is None or np.ptp(trials) < 2 * _FILLING:
            yield Promise(f"{what} of {name} flat", None, _TOO_SHORT)
            continue
        n = 1 if unit == "bytes" else 1000
        least, most = rows[:, column].min(), rows[:, column].max()
        span = f"{least / _MB:.1f} to {most / _MB:.1f} MB" if n == 1 else f"{least:g} to {most:g}"
        each = "a trial" if n == 1 else f"in {n} trials"
        seen = (
            f"{n * found.value:+.3g} {unit} {each} ({n * found.low:+.3g} to {n * found.high:+.3g}; "
            f"at most {n * limit:g}), {span}"
        )
        yield Promise(f"{what} of {name} flat", found.low <= limit, seen)


def table(promises: Iterable[Promise]) -> str:
    """The promises as a table of Markdown."""
    told = [*promises]
    judged = [p for p in told if p.kept is not None]
    rows = [f"| {p.what} | {'yes' if p.kept else 'NO'} | {p.seen} |" for p in judged]
    if n_open := len(told) - len(judged):
        rows.append(f"| nothing grows ({n_open} looked at) | - | {_TOO_SHORT} |")
    return "\n".join(["| promise | kept | seen |\n|---|---|---|", *rows])


def all_kept(promises: Iterable[Promise]) -> bool:
    """Whether none was broken."""
    return all(promise.kept is not False for promise in promises)


def append_json(path: Path | None, promises: Sequence[Promise], facts: Mapping[str, Any]) -> None:
    """Appends all of it to a file, if one is wanted, as a line."""
    if path is not None:
        line = json.dumps({**facts, "promises": [asdict(one) for one in promises]})
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
