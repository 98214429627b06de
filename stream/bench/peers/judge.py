"""What became of each trial with a peer: answered rightly, wrongly, twice, not at all.

A peer's answer is held against what the bundle and the gallery say offline of the samples that were
pushed. It is wrong where its cosines differ from theirs by more than another way of resampling and
an epoch that is a sample off explain, or where there is no right answer, as samples were lost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stream.bench.peers.job import Answer
from stream.bench.peers.source import Played

Fate = Literal["right", "wrong", "lost", "left out"]
_SLACK = 2e-3  # of a cosine: engines of less precision, and rounding


@dataclass(frozen=True)
class Truth:
    """What the trials of a recording are answered by offline.

    Attributes:
        images: that were shown, one for each trial.
        ids: of the gallery.
        cosines: (trials, variants, images of the gallery); the first variant is the bundle's own
            way, the others resample otherwise, or take the epoch a sample earlier or later.
        first, last: rows of a trial's window after its onset's, both included.
    """

    images: tuple[str, ...]
    ids: tuple[str, ...]
    cosines: np.ndarray
    first: int
    last: int

    def agrees(self, trial: int, answer: Answer) -> bool:
        """Whether an answer may be that of a trial."""
        of_trial = self.cosines[trial]
        own, spread = of_trial[0], np.abs(of_trial - of_trial[0]).max() + _SLACK
        places = {name: place for place, name in enumerate(self.ids)}
        if not answer.ids or not all(name in places for name in answer.ids):
            return False
        rows = [places[name] for name in answer.ids]
        is_near = np.abs(np.array(answer.scores) - own[rows]).max() <= spread
        return bool(is_near and own[rows[0]] >= own.max() - 2 * spread)

    def top(self, trial: int) -> str:
        """The best image, by the bundle's own way."""
        return self.ids[int(self.cosines[trial][0].argmax())]


@dataclass(frozen=True)
class Verdict:
    """What became of a trial.

    Attributes:
        is_whole: all its samples were pushed: it has a right answer, and should be given it.
        n_answers: that the subscriber had.
        latency_s: from the push of the window's last sample, or of its marker where that came
            later, to the first answer; NaN where there is none, or no such sample.
        same_top: its first image is also the first one offline.
    """

    trial: int
    is_whole: bool
    fate: Fate
    n_answers: int
    latency_s: float
    same_top: bool


def judge(played: Played, answers: Sequence[Answer], truth: Truth) -> list[Verdict]:
    """All trials that count and whose markers were pushed; an image is shown once in a turn.

    A trial that is not whole is `left out` where there is no answer to it, which is right.
    """
    plan = played.plan
    by_image: dict[str, list[Answer]] = {}
    for answer in sorted(answers):
        by_image.setdefault(answer.image, []).append(answer)
    verdicts = []
    for trial in range(plan.n_warm_up, len(plan.onsets)):
        if math.isnan(played.marked_s[trial]):
            continue
        first, last = (plan.onsets[trial] + n for n in (truth.first, truth.last))
        is_whole = plan.is_whole(first, last)
        given = by_image.get(truth.images[trial], [])
        fate: Fate
        if not given:
            fate = "lost" if is_whole else "left out"
        else:
            fate = "right" if is_whole and truth.agrees(trial, given[0]) else "wrong"
        known_s = max(played.pushed_s[last], played.marked_s[trial])
        latency_s = given[0].received_s - known_s if given else math.nan
        same_top = bool(given) and given[0].ids[:1] == (truth.top(trial),)
        verdicts.append(Verdict(trial, is_whole, fate, len(given), latency_s, same_top))
    return verdicts


@dataclass(frozen=True)
class Sums:
    """Turns of a peer under a condition, put together.

    Attributes:
        n: trials; `n_whole` of them have a right answer.
        latency_ms: p50, p95, p99 and the largest, of right answers; NaN where there are none.
        cpu: of one core, of all the peer's processes.
        back_s: from when a lost source was there again to the onset of the first trial that was
            answered rightly; NaN where it was never lost, or nothing came.
    """

    n: int
    n_whole: int
    fates: Mapping[Fate, int]
    n_twice: int
    n_same_top: int
    latency_ms: tuple[float, float, float, float]
    cpu: float
    back_s: float


def sums(verdicts: Sequence[Verdict], cpu: float, back_s: float = math.nan) -> Sums:
    """Of all trials of a peer under a condition."""
    fates: dict[Fate, int] = dict.fromkeys(("right", "wrong", "lost", "left out"), 0)
    for one in verdicts:
        fates[one.fate] += 1
    right_ms = [1e3 * one.latency_s for one in verdicts if one.fate == "right"]
    of = np.percentile(right_ms, (50, 95, 99, 100)).tolist() if right_ms else [math.nan] * 4
    return Sums(
        n=len(verdicts),
        n_whole=sum(one.is_whole for one in verdicts),
        fates=fates,
        n_twice=sum(one.n_answers > 1 for one in verdicts),
        n_same_top=sum(one.same_top for one in verdicts if one.fate == "right"),
        latency_ms=(of[0], of[1], of[2], of[3]),
        cpu=cpu,
        back_s=back_s,
    )


def back_after_s(played: Played, verdicts: Sequence[Verdict], rate_hz: float) -> float:
    """See `Sums.back_s`."""
    plan = played.plan
    onsets = [plan.onsets[one.trial] for one in verdicts if one.fate == "right"]
    after = [onset for onset in onsets if plan.away and onset >= plan.away.stop]
    return (min(after) - plan.away.stop) / rate_hz if after else math.nan
