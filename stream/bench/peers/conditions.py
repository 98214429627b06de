"""Conditions of the streams that peers are compared under, and what is pushed when under each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEAD_S = 1.0  # of EEG before the first image, as the demo records it
_MAX_PHASE = 0.49  # of a sample: the nearest sample to a marker is always the one that was meant
_FIRST_FAULT_S = 1.0  # after the first trial that counts
_GAPS_APART_S = 4.0


@dataclass(frozen=True)
class Condition:
    """What is done to the streams.

    Attributes:
        what: in words, for the table.
        marks: what markers are: integer codes, as of a trigger box, or the images' names as text.
        gap_s: of EEG that is lost every 4 s; its stamps go on.
        delays_s: from the stamp of a marker to its push, for one marker after the other.
        away_s: both streams are gone for so long, once.
    """

    what: str
    marks: Literal["codes", "text"] = "codes"
    gap_s: float = 0.0
    delays_s: tuple[float, ...] = (0.0,)
    away_s: float = 0.0


CONDITIONS: Mapping[str, Condition] = {
    "clean": Condition("integer codes, nothing is lost or late"),
    "gaps": Condition("0.3 s of EEG are lost every 4 s", gap_s=0.3),
    "late": Condition(
        "markers are pushed 0, 0.5 and 1.5 s after their stamps, in turn: out of order, and some "
        "after the window's end",
        delays_s=(0.0, 0.5, 1.5),
    ),
    "text": Condition("markers are strings, the images' names", marks="text"),
    "reconnect": Condition("the source is gone for 1.5 s, once, and comes back", away_s=1.5),
}


@dataclass(frozen=True)
class Plan:
    """What a turn pushes, by rows of the recording: samples from its first one on.

    Attributes:
        onsets: rows at which images were shown, one for each trial.
        phases: stamps of the markers after those of their rows, in samples.
        delays_s: from the stamps of markers to their pushes.
        lost: rows that are not pushed.
        away: rows, among the lost, at which there are no streams at all.
        n_warm_up: first trials, which do not count.
    """

    onsets: tuple[int, ...]
    phases: tuple[float, ...]
    delays_s: tuple[float, ...]
    lost: tuple[range, ...]
    away: range
    n_warm_up: int

    def is_whole(self, first: int, last: int) -> bool:
        """Whether all rows from first to last, both included, are pushed."""
        return all(last < gap.start or gap.stop <= first for gap in self.lost)


def plan(
    condition: Condition, n_warm_up: int, n_trials: int, soa_s: float, rate_hz: float, seed: int
) -> Plan:
    """The turn of `n_trials` after `n_warm_up` clean ones; markers fall between samples at will."""
    n = n_warm_up + n_trials
    onsets = tuple(round((LEAD_S + i * soa_s) * rate_hz) for i in range(n))
    begin_s = LEAD_S + n_warm_up * soa_s + _FIRST_FAULT_S
    end_s = LEAD_S + n * soa_s

    def rows(start_s: float, length_s: float) -> range:
        return range(round(start_s * rate_hz), round((start_s + length_s) * rate_hz))

    gaps = np.arange(begin_s, end_s, _GAPS_APART_S) if condition.gap_s else np.empty(0)
    away = rows(max(begin_s, (begin_s + end_s) / 2 - condition.away_s), condition.away_s)
    delays_s = [condition.delays_s[i % len(condition.delays_s)] for i in range(n_trials)]
    return Plan(
        onsets=onsets,
        phases=tuple(np.random.default_rng(seed).uniform(-_MAX_PHASE, _MAX_PHASE, n).tolist()),
        delays_s=(*[0.0] * n_warm_up, *delays_s),
        lost=(*(rows(at_s, condition.gap_s) for at_s in gaps.tolist()), *([away] if away else [])),
        away=away,
        n_warm_up=n_warm_up,
    )
