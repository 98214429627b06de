"""Evaluations as tables for a terminal of 80 columns."""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

from rich import box
from rich.table import Table

from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.result import (
    THRESHOLDS,
    Comparison,
    Evaluation,
    Noise,
    OverSubjects,
    Results,
    Selective,
    Spread,
)


def tables(results: Results) -> Iterator[Table]:
    """All tables of a result; of several subjects one row for each, as each has its page."""
    for method, of_method in results.by_method.items():
        if len(of_method) == 1:
            yield accuracy_table(of_method[0])
            yield among_table(of_method[0])
            yield selective_table(of_method[0])
        else:
            yield subjects_table(method, of_method)
    for one in results.over_subjects:
        yield spread_table(one, results.by_method[one.method][0])


def accuracy_table(evaluation: Evaluation) -> Table:
    """By window end and repeats."""
    pooled = evaluation.pooled
    table = _table(
        title=f"{evaluation.n_way}-way retrieval of {evaluation.items}",
        caption=f"{evaluation.protocol}; evidence: {evaluation.evidence}\n"
        f"intervals: {evaluation.interval}\n"
        f"{evaluation.calibration}; pooled ECE {percent(pooled.ece)} %, "
        f"by noise alone {noise(pooled.noise)} %",
        columns=("tmax s", "repeats", "top-1 %", "top-5 %", "ECE %", "noise %"),
    )
    for end_s, points in groupby(evaluation.points, lambda point: point.tmax_s):
        for i, point in enumerate(points):
            end = "" if i else f"{end_s:g}"
            shares = map(percent, (point.top1, point.top5, point.ece))
            table.add_row(end, str(point.repeats), *shares, noise(point.noise))
        table.add_section()
    chance = (f"{100 * share:.1f}" for share in (evaluation.chance_top1, evaluation.chance_top5))
    table.add_row("chance", "", *chance, "", "")
    return table


def among_table(evaluation: Evaluation) -> Table:
    """Among fewer images, as papers report, and the mean reciprocal rank among all."""
    last = evaluation.last
    table = _table(
        title=f"top-1 % among k images at {last[0].tmax_s:g} s; {evaluation.items}",
        caption="the right one and k - 1 others drawn from the gallery: exact expectation; "
        f"MRR among all {evaluation.n_way}\n{evaluation.method}",
        columns=("repeats", *(f"k = {one.k}" for one in last[0].among), "MRR %"),
    )
    for point in last:
        shares = (f"{100 * one.top1.value:.1f}" for one in point.among)
        table.add_row(str(point.repeats), *shares, percent(point.mrr))
    return table


def selective_table(evaluation: Evaluation) -> Table:
    """Accuracy and coverage of the last answers when unsure ones are withheld."""
    last = evaluation.last
    table = _table(
        title=f"top-1 % (answered %) at {last[0].tmax_s:g} s, when less sure answers are "
        f"withheld; {evaluation.items}",
        caption=f"{evaluation.method}\n{evaluation.calibration}",
        # The first threshold withholds nothing.
        columns=("repeats", *(f"sure {threshold:g}" for threshold in THRESHOLDS[1:])),
    )
    for point in last:
        table.add_row(str(point.repeats), *map(selective, point.selective[1:]))
    return table


def subjects_table(method: str, evaluations: list[Evaluation]) -> Table:
    """A row for each subject: the whole window, the most repeats."""
    first, most = evaluations[0], max(point.repeats for point in evaluations[0].last)
    table = _table(
        title=f"{first.n_way}-way retrieval, {most} repeat{'s' * (most > 1)}, "
        f"{first.points[-1].tmax_s:g} s; {method}",
        caption=f"{first.protocol}\nintervals: {first.interval}\n{first.calibration}",
        names=("subject", "of"),
        columns=("top-1 %", "top-5 %", "MRR %"),
    )
    for one in evaluations:
        point = next(p for p in one.last if p.repeats == most)
        of = one.items.replace(f" of {one.subject}", "", 1)
        table.add_row(one.subject, of, *map(percent, (point.top1, point.top5, point.mrr)))
    return table


def spread_table(over: OverSubjects, first: Evaluation) -> Table:
    """Mean and SD over subjects, by window end and repeats."""
    table = _table(
        title=f"mean ± SD over {len(over.subjects)} subjects{' (simulated)' * first.simulated}; "
        f"{over.method}",
        caption=f"{first.n_way}-way; chance {100 * first.chance_top1:.1f} and "
        f"{100 * first.chance_top5:.1f} %; SD with n - 1",
        columns=("tmax s", "repeats", "top-1 %", "top-5 %", "MRR %"),
    )
    for p in over.points:
        table.add_row(f"{p.tmax_s:g}", str(p.repeats), *map(spread, (p.top1, p.top5, p.mrr)))
    return table


def _table(title: str, caption: str, columns: Iterable[str], names: Collection[str] = ()) -> Table:
    """Columns of numbers, behind those of names, which may be long."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=bool(names))
    return table


def compared(comparison: Comparison) -> str:
    """The comparison's last point, of the whole window and the last number of repeats."""
    one = comparison.differences[-3]  # of top-1, before top-5 and MRR
    word = "above" if one.difference.value >= 0 else "below"
    subjects = f" of {comparison.n_subjects} subjects" * (comparison.n_subjects > 1)
    how = comparison.ours
    if comparison.ours != comparison.theirs:
        how += f" against {comparison.theirs}"
    how += ", by the same bundle" * comparison.same_bundles
    return (
        f"top-1 from {one.repeats} repeat{'s' * (one.repeats > 1)} at {one.tmax_s:g} s "
        f"({how}) is {100 * one.ours:.1f} %, {100 * abs(one.difference.value):.1f} points {word} "
        f"the {100 * one.theirs:.1f} % of '{comparison.other}': "
        f"{signed(one.difference)} (95 %, paired over "
        f"{comparison.n_images} images{subjects}), better on {one.better}, worse on {one.worse} "
        f"(exact sign test, p = {one.p:.2g})"
    )


def percent(found: Estimate) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def signed(found: Estimate) -> str:
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def noise(found: Noise) -> str:
    return f"{100 * found.independent:.1f}-{100 * found.shared:.1f}"


def spread(found: Spread) -> str:
    return f"{100 * found.mean:.1f} ± {100 * found.sd:.1f}"


def selective(found: Selective) -> str:
    accuracy = "-" if found.accuracy is None else f"{100 * found.accuracy:.1f}"
    return f"{accuracy} ({100 * found.coverage:.0f})"
