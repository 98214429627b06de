"""Whose trials a bundle learns from, and whose it is tried on: a fold for each bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich import box
from rich.table import Table

from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.result import Evaluation


@dataclass(frozen=True)
class Fold:
    """What one bundle is made of."""

    subject: str
    """Who is decoded; "" where that is not said."""
    learnt: TrialSet
    test: TrialSet | None
    """Trials of this subject that the bundle is tried on; None where there are none."""

    @property
    def items(self) -> list[str]:
        """All stimuli of which features are needed."""
        return [*self.learnt.items, *(self.test.items if self.test else ())]


def folds_of(
    trial_set: TrialSet, subjects: Literal["together", "each", "leave-one-out"], classes: bool
) -> list[Fold]:
    """The folds that a setting asks for; a set of one subject is one for `each` as well.

    A subject is tried on its trials of the split `test` or, where stimuli are classes and it was
    left out, on all that it has.

    Raises:
        Problem: when there is nobody to be left out, or training and test share stimuli or
            concepts, whoever saw them.
    """
    learnt = trial_set.training(classes)
    column = trial_set.table.get("subject")
    names = sorted(column.present) if column else []
    if subjects == "leave-one-out" and len(names) < 2:
        raise Problem(
            f"the trials are of {len(names)} subjects that have a name, and leaving one out needs "
            "two: give the trial sets of all of them"
        )
    if subjects == "together" or len(names) < 2:
        return [Fold("", learnt, None)]
    folds = []
    for name in names:
        own, others = trial_set.select([name], "subject"), [*filter(lambda n: n != name, names)]
        left_out = subjects == "leave-one-out"
        shown = trial_set.select(others, "subject") if left_out else own
        folds.append(Fold(name, shown.training(classes), _test(own, classes and left_out)))
    return folds


def _test(own: TrialSet, all_of_it: bool) -> TrialSet | None:
    if "split" in own.table and "test" in own.table["split"].present:
        return own.select(["test"], "split")
    return own if all_of_it else None


def table_of(results: Sequence[tuple[str, Evaluation]]) -> Table:
    """How often the right image of each subject is found, for a terminal of 80 columns."""
    first = max((found for _, found in results), key=lambda found: len(found.points))
    ways = sorted({found.n_way for _, found in results})
    table = Table(
        title=f"{' to '.join(map(str, ways))}-way retrieval, by the subject decoded",
        caption=f"{first.protocol}; the last epoch, nothing selected\nintervals: {first.interval}",
        box=box.SIMPLE_HEAD,
    )
    for column in ("subject", "repeats", "top-1 %", "top-5 %"):
        table.add_column(column, justify="right")
    for subject, found in results:
        for n, point in enumerate(found.points):
            told = (_percent(point.top1), _percent(point.top5))
            table.add_row(subject if n == 0 else "", str(point.repeats), *told)
    if len(ways) > 1:  # among other numbers of images: they have no common mean, nor chance
        return table
    table.add_section()
    for place, point in enumerate(first.points):
        there = [found.points[min(place, len(found.points) - 1)] for _, found in results]
        means = [np.mean([p.top1.value for p in there]), np.mean([p.top5.value for p in there])]
        repeats = f"{point.repeats}" if len({p.repeats for p in there}) == 1 else "all"
        table.add_row("mean", repeats, *(f"{100 * mean:.1f}" for mean in means))
    chance = (f"{100 * first.chance_top1:.1f}", f"{100 * first.chance_top5:.1f}")
    table.add_row("chance", "", *chance)
    return table


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
