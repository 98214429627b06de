"""The numbers of the certificate: how late, how steady, and whether that is what was required."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hvf_core.numbers import wilson
from hvf_core.specs import Frozen
from stream.bench.listeners import Answer
from stream.bench.live.cells import Setup
from stream.bench.live.settings import Requirements
from stream.bench.measured_session import took_ms

FORMAT = 1
"""Of a line of certificate.jsonl."""
ANSWER = "answer"
"""The way that is certified: push of the window's last sample to the answer at a subscriber."""
WAYS = {
    ANSWER: "push of the window's last sample → answer at a subscriber",
    "answer at LSL": "push of the window's last sample → answer at an LSL client outside",
    "LSL": "push → readable in the reader",
    "cut": "readable → trial cut",
    "hop": "cut → in the decoder",
    "embed": "in the decoder → embedded",
    "search": "embedded → images found",
    "publish": "found → published",
    "to subscriber": "published → at the subscriber, unpacked",
    "preview": "push → first preview of the painting at a subscriber",
    "image": "push → painted image at a subscriber",
    "raw LSL": "push → pull by a bare LSL client, of every sample, without a session",
}
N_OF_P99 = 300
"""Of fewer trials the largest three are no percentile."""
_DRIFT_S = 300.0


def ways_of(setup: Setup) -> Mapping[str, str]:
    """The ways in words; of somebody else's streams nobody knows the push, and the stamp is it."""
    is_theirs = setup.plays == "live"
    return {k: what.replace("push", "stamp", 1) for k, what in WAYS.items()} if is_theirs else WAYS


class Figures(Frozen):
    """Of n values in ms; lag is the mean, and jitter the SD from trial to trial."""

    n: int
    p50: float
    p95: float
    p99: float
    p99_9: float
    max: float
    mean: float
    sd: float

    @classmethod
    def of(cls, values_ms: Sequence[float] | np.ndarray) -> "Figures":
        """Of at least one value."""
        values = np.asarray(values_ms, float)
        p50, p95, p99, p99_9 = np.percentile(values, [50, 95, 99, 99.9])
        told = (p50, p95, p99, p99_9, values.max(), values.mean())
        sd = values.std(ddof=1) if len(values) > 1 else 0.0
        names = ("p50", "p95", "p99", "p99_9", "max", "mean", "sd")
        rounded = (round(float(value), 4) for value in (*told, sd))
        return cls(n=len(values), **dict(zip(names, rounded, strict=True)))


class Used(Frozen):
    """What a process took: of one core, and in memory at most."""

    cpu: float
    memory_mb: float
    files: int


class Accuracy(Frozen):
    """How right the answers of a window end and a number of repeats were, and how late they came.

    Shares have 95 % intervals (Wilson's), over trials.
    """

    tmax_s: float
    n_repeats: int
    n: int
    top1: tuple[float, float, float]
    """Share, lower and upper end."""
    top5: tuple[float, float, float]
    p50_ms: float
    p99_ms: float


class Steady(Frozen):
    """Of n offsets in ms; the drift is the slope of a line through them, in ms an hour.

    It is None of what lasted for less than 5 minutes, as a slope of so few says nothing of an hour.
    """

    n: int
    mean: float
    sd: float
    drift_ms_per_h: float | None = None
    drift_low: float | None = None
    drift_high: float | None = None

    @classmethod
    def of(cls, at_s: np.ndarray, values_ms: np.ndarray) -> "Steady | None":
        """Of values at some times, with the drift's 95 % interval; None of fewer than 3."""
        if len(values_ms) < 3:
            return None
        found = {"mean": float(values_ms.mean()), "sd": float(values_ms.std(ddof=1))}
        if np.ptp(at_s) >= _DRIFT_S:
            found |= cls._drift(at_s, values_ms)
        return cls(n=len(values_ms), **{name: round(value, 4) for name, value in found.items()})

    @staticmethod
    def _drift(at_s: np.ndarray, values_ms: np.ndarray) -> dict[str, float]:
        from scipy.stats import linregress, t

        found = linregress((at_s - at_s.mean()) / 3600, values_ms)
        half = float(t.ppf(0.975, len(values_ms) - 2)) * float(found.stderr)
        slope = float(found.slope)
        return {"drift_ms_per_h": slope, "drift_low": slope - half, "drift_high": slope + half}


class Cell(Frozen):
    """What was measured of one set-up: a line of certificate.jsonl, with machine and requirements.

    Attributes:
        values_ms: of each way, in the order of trials; of raw LSL some of the samples.
        fails: what was required and not kept, in words; empty: it has passed.
        not_measured: why there is nothing, or "".
    """

    bench: str = "live"
    format: int = FORMAT
    began: str
    machine: Mapping[str, Any]
    requirements: Requirements
    setup: Setup
    not_measured: str = ""
    figures: Mapping[str, Figures] = {}
    values_ms: Mapping[str, tuple[float, ...]] = {}
    used: Mapping[str, Used] = {}
    cpu: float = 0.0
    shown: int = 0
    lost: int = 0
    twice: int = 0
    engine: str = ""
    accuracy: tuple[Accuracy, ...] = ()
    photon: Mapping[str, Steady] = {}
    fails: tuple[str, ...] = ()
    load: tuple[float, float] = (0.0, 0.0)

    @property
    def verdict(self) -> str:
        if self.not_measured:
            return "not measured"
        return "fail" if self.fails else "pass"


def late(found: Figures) -> str:
    """The percentile that is certified, which so many values can show."""
    return "p99" if found.n >= N_OF_P99 else "p95"


def judged(
    found: Figures | None, lost: int, twice: int, cpu: float, cores: int, required: Requirements
) -> Iterator[str]:
    """What of the requirements was not kept, in words."""
    if lost + twice > required.lost:
        yield f"lost: {lost}, twice: {twice} (at most {required.lost})"
    if found is None:
        yield "no answers"
        return
    limits = ((late(found), required.p99_ms), ("p50", required.p50_ms))
    for name, limit in limits:
        if (value := getattr(found, name)) > limit:
            yield f"{name} {value:.1f} ms (at most {limit:g})"
    if found.sd > required.jitter_ms:
        yield f"jitter {found.sd:.1f} ms (at most {required.jitter_ms:g})"
    if cpu > required.cpu * cores:
        yield f"CPU {100 * cpu:.0f} % of a core (at most {100 * required.cpu * cores:.0f})"


def accuracy_of(answers: Sequence[Answer], way: tuple[str, str]) -> tuple[Accuracy, ...]:
    """By window end and repeats, of the answers of which it is known whether they are right."""
    groups: dict[tuple[float, int], list[Answer]] = {}
    for one in answers:
        if one.rank:
            groups.setdefault((one.tmax_s, one.n_repeats), []).append(one)
    found = []
    for (tmax_s, n_repeats), some in sorted(groups.items()):
        n, ranks, ms = len(some), np.array([one.rank for one in some]), took_ms(some, way)
        shares = [float((ranks <= k).mean()) for k in (1, 5)]
        top1, top5 = ((round(s, 4), *(round(e, 4) for e in wilson(s, n))) for s in shares)
        p50, p99 = (round(float(p), 4) for p in np.percentile(ms, [50, 99]))
        found.append(
            Accuracy(
                tmax_s=tmax_s,
                n_repeats=n_repeats,
                n=n,
                top1=(top1[0], top1[1], top1[2]),
                top5=(top5[0], top5[1], top5[2]),
                p50_ms=p50,
                p99_ms=p99,
            )
        )
    return tuple(found)
