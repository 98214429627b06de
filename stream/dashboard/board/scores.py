"""How right answers were and how long they took, counted up while they come."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hvf_core.numbers import wilson
from stream.client import Retrieval
from stream.pipeline.books.summary import STAGES

_N_BINS = 10  # of confidence
_NEWEST = 2000  # answers of which latencies are told
BUDGETS_MS: Mapping[str, float | None] = dict.fromkeys(STAGES) | {"total": 16.7}
"""Of the stages. The whole may take a frame of a screen of 60 Hz, which the certificate of `bench
live` asks for as well."""


@dataclass
class Hits:
    """How often the image that was shown was the first, and among the first five."""

    n: int = 0
    first: int = 0
    five: int = 0
    runs: set[int] = field(default_factory=set)

    def add(self, rank: int, run: int) -> None:
        self.n += 1
        self.first += rank == 1
        self.five += rank <= 5
        self.runs.add(run)

    def told(self) -> dict[str, Any]:
        """Shares with a 95 % interval; repeats that share EEG count once for it."""
        return {"n": self.n, "top1": self._share(self.first), "top5": self._share(self.five)}

    def _share(self, n_hits: int) -> dict[str, float]:
        share = n_hits / self.n
        low, high = wilson(share, len(self.runs))
        return {"rate": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


class _Answer(NamedTuple):
    group: str
    n_repeats: int
    rank: int
    sure: float | None
    """Its confidence, where that is calibrated."""


class Accuracy:
    """Counts final answers whose image is in the gallery, in the order of their trials."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}
        self._newest, self._is_late = 0, False
        self._begin()

    def add(self, answer: Retrieval) -> None:
        """Takes the final answer of a trial, whenever it comes."""
        about = answer.about
        self._answers[about.trial] = _Answer(
            about.group or about.stimulus,
            answer.answer.n_repeats,
            answer.rank,
            answer.confidence if answer.calibrated else None,
        )
        if about.trial < self._newest:
            self._is_late = True  # which runs there are depends on the order
        else:
            self._newest = about.trial
            self._count(self._answers[about.trial])

    def told(self) -> dict[str, Any] | None:
        """None while there is nothing to tell, as in a blind session."""
        if self._is_late:
            self._is_late = False
            self._begin()
            for trial in sorted(self._answers):
                self._count(self._answers[trial])
        if not self._all.n:
            return None
        rows = sorted(self._by_repeats.items())
        by_repeats = [{"repeats": n_repeats, **hits.told()} for n_repeats, hits in rows]
        return {**self._all.told(), "by_repeats": by_repeats, "calibration": self._calibration()}

    def _begin(self) -> None:
        self._all, self._by_repeats = Hits(), defaultdict[int, Hits](Hits)
        self._last: dict[str, tuple[int, int]] = {}  # of each group: repeats, run
        self._n_runs = 0
        self._bins = np.zeros((_N_BINS, 3))  # answers, their confidence, how many were right

    def _count(self, one: _Answer) -> None:
        before, run = self._last.get(one.group, (0, 0))
        if one.n_repeats <= before or not run:  # the group has begun again
            self._n_runs += 1
            run = self._n_runs
        self._last[one.group] = (one.n_repeats, run)
        if not one.rank:
            return
        self._all.add(one.rank, run)
        self._by_repeats[one.n_repeats].add(one.rank, run)
        if one.sure is not None:
            at = min(int(one.sure * _N_BINS), _N_BINS - 1)
            self._bins[at] += (1, one.sure, one.rank == 1)

    def _calibration(self) -> dict[str, Any] | None:
        n, confidence, right = self._bins.T
        if not n.sum():
            return None
        return {
            "n": int(n.sum()),
            "mean_confidence": round(float(confidence.sum() / n.sum()), 4),
            # The expected calibration error: how far bins are from being as right as they are sure.
            "ece": round(float(np.abs(right - confidence).sum() / n.sum()), 4),
        }


class Latency:
    """How long each stage of the newest answers took."""

    def __init__(self) -> None:
        self._took_ms = {stage: deque[float](maxlen=_NEWEST) for stage in STAGES}
        self._n: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._over: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._told: list[dict[str, Any]] | None = []  # None once something has come since

    def add(self, stamps: Mapping[str, float]) -> None:
        """Takes the stamps of a final answer."""
        self._told = None
        for stage, span in STAGES.items():
            if span.start in stamps and span.end in stamps:
                took_ms = (stamps[span.end] - stamps[span.start]) * 1e3
                budget_ms = BUDGETS_MS[stage]
                self._took_ms[stage].append(took_ms)
                self._n[stage] += 1
                self._over[stage] += budget_ms is not None and took_ms > budget_ms

    def told(self) -> list[dict[str, Any]]:
        """A row for each stage that was measured."""
        if self._told is None:
            self._told = list(self._rows())
        return self._told

    def _rows(self) -> Iterator[dict[str, Any]]:
        for stage, took_ms in self._took_ms.items():
            if took_ms:
                p50, p95, p99 = (round(float(p), 3) for p in np.percentile(took_ms, [50, 95, 99]))
                row = {"stage": stage, "n": self._n[stage], "p50_ms": p50, "p95_ms": p95}
                budget_ms = BUDGETS_MS[stage]
                yield row | {"p99_ms": p99, "budget_ms": budget_ms, "over": self._over[stage]}
