"""Two results on the same images, paired: is one better than the other?"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from scipy.stats import binomtest

from hvf_core.problem import Problem
from hvf_core.specs import read_spec
from offline_train.evaluate.metrics import estimated_rate
from offline_train.evaluate.result import Comparison, Difference, Evaluation, Results

_METRICS = {"top-1": "hit_rates", "top-5": "top5_rates", "MRR": "reciprocal_ranks"}
_SAME = 1e-9


def read_results(file: Path) -> Results:
    """Reads an `evaluation.json`; a `Problem` says where it is none."""
    return read_spec(file, Results, "the result")


class Question(NamedTuple):
    """What one subject is asked in one way of decoding: known before anything is decoded."""

    method: str
    subject: str
    stimuli: frozenset[str]
    images_sha256: str
    """Of the ids of the gallery's images."""
    points: frozenset[tuple[float, int]]
    """Window ends and numbers of repeats."""

    @classmethod
    def of(cls, one: Evaluation) -> Self:
        """What was asked for an evaluation."""
        points = frozenset((point.tmax_s, point.repeats) for point in one.points)
        stimuli = frozenset(one.stimuli)
        return cls(one.method, one.subject, stimuli, one.origin.images_sha256, points)


def paired(questions: Sequence[Question], theirs: Results, other: Path) -> list[tuple[str, str]]:
    """Each way of decoding, with the same way in another result.

    Where each knows only one way, these are paired, whatever they are.

    Args:
        questions: to all subjects in all ways of decoding; their answers may be still to come.
        other: where the other result is from.

    Raises:
        Problem: the results are of other images, subjects, repeats or window ends.
    """
    ours, known = (
        {method: [one for one in some if one.method == method] for method, *_ in some}
        for some in (questions, [Question.of(one) for one in theirs.evaluations])
    )
    alone = len(ours) == len(known) == 1
    pairs = [*zip(ours, known, strict=True)] if alone else [(m, m) for m in ours if m in known]
    if not pairs:
        raise Problem(
            f"the result '{other}' knows {'; '.join(known)}, and this one {'; '.join(ours)}: "
            "evaluate one of them in the other's way"
        )
    for method, their_method in pairs:
        _refuse_unlike(ours[method], known[their_method], other)
    return pairs


def _refuse_unlike(ours: Sequence[Question], theirs: Sequence[Question], other: Path) -> None:
    both = (*ours, *theirs)
    for what, is_same in (
        ("subjects", [one.subject for one in ours] == [one.subject for one in theirs]),
        ("stimuli", len({one.stimuli for one in both}) == 1),
        ("galleries", len({one.images_sha256 for one in both}) == 1),
    ):
        if not is_same:
            raise Problem(
                f"the result '{other}' is of other {what} than this one, and cannot be paired with "
                "it: evaluate both on the same trials, among the same images"
            )
    if not frozenset.intersection(*(one.points for one in both)):
        raise Problem(
            f"the result '{other}' has no number of repeats and window end that this one has too: "
            "ask for those of it"
        )


def compare(results: Results, other: Path) -> tuple[Comparison, ...]:
    """Compares each way of decoding as `paired` pairs it with those of another `evaluation.json`.

    Raises:
        Problem: the file cannot be read, or cannot be paired.
    """
    theirs = read_results(other)
    pairs = paired([Question.of(one) for one in results.evaluations], theirs, other)
    return tuple(_compare(results.by_method[m], theirs.by_method[n], other) for m, n in pairs)


def _compare(ours: Sequence[Evaluation], theirs: Sequence[Evaluation], other: Path) -> Comparison:
    both = (*ours, *theirs)
    points = [{(p.tmax_s, p.repeats): p for p in one.points} for one in both]
    shared = [key for key in points[0] if all(key in some for some in points)]
    models = [[one.origin.bundle_sha256 for one in some] for some in (ours, theirs)]
    orders = [np.argsort(one.stimuli) for one in both]
    differences = []
    for key in shared:
        for metric, field in _METRICS.items():
            of_all = [
                np.array(getattr(some[key], field))[order]
                for some, order in zip(points, orders, strict=True)
            ]
            means = (np.mean(some, axis=0) for some in (of_all[: len(ours)], of_all[len(ours) :]))
            differences.append(_difference(key, metric, *means))
    return Comparison(
        other=str(other),
        ours=ours[0].method,
        theirs=theirs[0].method,
        n_images=len(ours[0].stimuli),
        n_subjects=len(ours),
        same_bundles=models[0] == models[1],
        differences=tuple(differences),
    )


def _difference(
    key: tuple[float, int], metric: str, ours: np.ndarray, theirs: np.ndarray
) -> Difference:
    away = ours - theirs
    better, worse = int((away > _SAME).sum()), int((away < -_SAME).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return Difference(
        tmax_s=key[0],
        repeats=key[1],
        metric=metric,
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        difference=estimated_rate(away, np.random.default_rng(0), -1.0),
        better=better,
        worse=worse,
        p=float(p),
    )
