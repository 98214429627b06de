"""Two results on the same images, paired: is one better than the other?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from hvf_core.problem import Problem
from hvf_core.specs import read_spec
from offline_train.evaluate.metrics import estimated_mean
from offline_train.evaluate.result import Comparison, Difference, Evaluation, Results

_METRICS = {"top-1": "hit_rates", "top-5": "top5_rates", "MRR": "reciprocal_ranks"}
_SAME = 1e-9


def read_results(file: Path) -> Results:
    """Reads an `evaluation.json`; a `Problem` says where it is none."""
    return read_spec(file, Results, "the result")


def compare(results: Results, other: Path) -> tuple[Comparison, ...]:
    """Pairs each way of decoding with the same way in another `evaluation.json`.

    Where each result knows only one way, these are paired, whatever they are.

    Raises:
        Problem: the file cannot be read, or is of other images, subjects, repeats or window ends.
    """
    theirs = read_results(other).by_method
    ours = results.by_method
    if len(ours) == len(theirs) == 1:
        pairs = [*zip(ours.values(), theirs.values(), strict=True)]
    else:
        pairs = [(ours[method], theirs[method]) for method in ours if method in theirs]
    if not pairs:
        raise Problem(
            f"the result '{other}' knows {'; '.join(theirs)}, and this one {'; '.join(ours)}: "
            "evaluate one of them in the other's way"
        )
    return tuple(_compare(*pair, other) for pair in pairs)


def _compare(ours: Sequence[Evaluation], theirs: Sequence[Evaluation], other: Path) -> Comparison:
    both = (*ours, *theirs)
    stimuli = sorted(ours[0].stimuli)
    for what, is_same in (
        ("subjects", [one.subject for one in ours] == [one.subject for one in theirs]),
        ("stimuli", all(sorted(one.stimuli) == stimuli for one in both)),
        ("galleries", len({one.origin.images_sha256 for one in both}) == 1),
    ):
        if not is_same:
            raise Problem(
                f"the result '{other}' is of other {what} than this one, and cannot be paired with "
                "it: evaluate both on the same trials, among the same images"
            )
    points = [{(p.tmax_s, p.repeats): p for p in one.points} for one in both]
    shared = [key for key in points[0] if all(key in some for some in points)]
    if not shared:
        raise Problem(
            f"the result '{other}' has no number of repeats and window end that this one has too: "
            "ask for those of it"
        )
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
        n_images=len(stimuli),
        n_subjects=len(ours),
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
        difference=estimated_mean(away, np.random.default_rng(0)),
        better=better,
        worse=worse,
        p=float(p),
    )
