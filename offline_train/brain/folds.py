"""Whose trials a bundle learns from, and whose it is tried on: a fold for each bundle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from hvf_core.problem import Problem
from offline_train.brain.settings import TrainSettings
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.result import Evaluation


@dataclass(frozen=True)
class Fold:
    """What one bundle is made of."""

    subject: str
    """Who is decoded; "" where that is not said."""
    learnt: TrialSet
    held_out: TrialSet | None
    """Trials of other stimuli, that the bundle is calibrated on; None where there are none."""
    test: TrialSet | None
    """Trials of this subject that the bundle is tried on; None where there are none."""

    @property
    def items(self) -> list[str]:
        """All stimuli of which features are needed."""
        parts = (self.learnt, self.held_out, self.test)
        return [item for part in parts if part is not None for item in part.items]


def folds_of(trial_set: TrialSet, settings: TrainSettings, classes: bool) -> list[Fold]:
    """The folds that the settings ask for; a set of one subject is one for `each` as well.

    A subject is tried on its trials of the split `test` or, where stimuli are classes and it was
    left out, on all that it has.

    Raises:
        Problem: when there is nobody to be left out, training and test share stimuli or concepts,
            whoever saw them, or not so many stimuli can be held out.
    """
    subjects, learnt = settings.subjects, trial_set.training(classes)
    column = trial_set.table.get("subject")
    names = sorted(column.present) if column else []
    if subjects == "leave-one-out" and len(names) < 2:
        raise Problem(
            f"the trials are of {len(names)} subjects that have a name, and leaving one out needs "
            "two: give the trial sets of all of them"
        )
    if subjects == "together" or len(names) < 2:
        return [_fold("", learnt, None, settings, classes)]
    folds = []
    for name in names:
        own, others = trial_set.select([name], "subject"), [*filter(lambda n: n != name, names)]
        left_out = subjects == "leave-one-out"
        shown = trial_set.select(others, "subject") if left_out else own
        test = _test(own, classes and left_out)
        folds.append(_fold(name, shown.training(classes), test, settings, classes))
    return folds


def tenth_to_hold_out(sizes: Sequence[int]) -> int:
    """Of the stimuli, at most 200, by the sizes of their concepts, which are held out whole.

    None where that is not two, which a calibration needs, or where no concept is so small.
    """
    tenth = min(200, sum(sizes) // 10)
    return tenth if tenth >= 2 and sum(size for size in sizes if size <= tenth) >= 2 else 0


def _fold(
    subject: str, learnt: TrialSet, test: TrialSet | None, settings: TrainSettings, classes: bool
) -> Fold:
    n, held_out = settings.hold_out, None
    if n is None:
        # Classes cannot be held out as images can: a model knows only those that it has learnt.
        n = 0 if classes else tenth_to_hold_out([*map(len, learnt.concepts.values())])
    if n:
        learnt, held_out = learnt.hold_out(n, settings.seed)
    return Fold(subject, learnt, held_out, test)


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
