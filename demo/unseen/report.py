"""The table and the picture of what was measured, with each person's figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import JsonValue
from rich import box
from rich.table import Table

from demo.unseen.settings import Cell, Method, UnseenSettings
from hvf_core.artifact import whole_files, write_manifest
from hvf_core.provenance import command_line, provenance
from hvf_core.specs import Frozen
from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.pictures import DPI, GREY
from offline_train.evaluate.result import Evaluation
from offline_train.experiments.numbers import RATES, interval_of

RESULT, PICTURE = "unseen.json", "unseen.png"


class Line(Frozen):
    """One method of calibration, by one number of looks."""

    method: Method
    minutes: int
    answers: bool
    """False: of a person in whom nothing is evoked."""
    repeats: int
    measured: dict[str, Estimate]
    """top1 and top5, in percent."""
    gained: dict[str, Estimate]
    """From no calibration, paired by person and picture, in percent points."""
    people: dict[str, float]
    """Top-1 of each, in percent."""


class Unseen(Frozen):
    """All that was measured: `unseen.json`."""

    simulated: bool = True
    settings: UnseenSettings
    n_way: int
    interval: str = "95 %, bootstrap over people and pictures; of 0 % Wilson's"
    lines: tuple[Line, ...]
    made: dict[str, JsonValue]


def unseen_of(settings: UnseenSettings, found: Mapping[Cell, Evaluation]) -> Unseen:
    """What cells come to: a line for each method, number of minutes and number of looks."""
    return Unseen(
        settings=settings,
        n_way=next(iter(found.values())).n_way,
        lines=tuple(_lines(found)),
        made=provenance(command_line(), "torch", "numpy"),
    )


def _lines(found: Mapping[Cell, Evaluation]) -> Iterator[Line]:
    rows: dict[tuple[bool, Method, int], dict[int, Evaluation]] = {}
    for cell, one in found.items():
        rows.setdefault((cell.answers, cell.method, cell.minutes), {})[cell.person] = one
    for (answers, method, minutes), own in sorted(rows.items(), key=_order):
        before = rows[answers, "none", 0]
        for at, point in enumerate(next(iter(own.values())).points):
            rates = {metric: _rates([*own.values()], at, metric) for metric in RATES}
            usual = {m: _rates([before[person] for person in own], at, m) for m in RATES}
            yield Line(
                method=method,
                minutes=minutes,
                answers=answers,
                repeats=point.repeats,
                measured={m: interval_of(values) for m, values in rates.items()},
                gained={m: interval_of(rates[m] - usual[m], least=-1.0) for m in RATES},
                people={f"{n}": 100 * one.points[at].top1.value for n, one in own.items()},
            )


def _order(row: tuple[tuple[bool, Method, int], object]) -> tuple[bool, int, int]:
    answers, method, minutes = row[0]
    return not answers, get_args(Method).index(method), minutes


def _rates(evaluations: Sequence[Evaluation], at: int, metric: str) -> np.ndarray:
    """(people, 1, pictures), as `interval_of` takes them."""
    rows = [
        np.array(getattr(one.points[at], RATES[metric]))[np.argsort(one.stimuli)]
        for one in evaluations
    ]
    return np.stack(rows)[:, None]


def tables_of(found: Unseen) -> Iterator[Table]:
    """For a terminal of 80 columns: all people together, and each alone."""
    settings, looks = found.settings, _looks(found)
    yield _table(
        found.lines,
        title=f"people whom the model has not seen (simulated), top-1 % among {found.n_way}",
        caption=f"{settings.unseen} people; learnt from {settings.people} others; "
        f"chance {100 / found.n_way:.1f} %\nintervals: {found.interval}",
        columns=[*map(_of_looks, looks), "gained"],
        cells=lambda own: [
            *(_told(line.measured["top1"]) for line in own),
            _told(own[-1].gained["top1"], "+.1f") if own[-1].minutes else "",
        ],
    )
    people = dict.fromkeys(person for line in found.lines for person in line.people)
    yield _table(
        found.lines,
        title=f"each person (simulated), top-1 % from {_of_looks(looks[-1])}",
        caption="",
        columns=[f"person {person}" for person in people],
        cells=lambda own: [
            f"{own[-1].people[person]:.1f}" if person in own[-1].people else "" for person in people
        ],
    )


def _table(
    lines: Sequence[Line],
    title: str,
    caption: str,
    columns: Sequence[str],
    cells: Callable[[list[Line]], list[str]],
) -> Table:
    """A row for each method and number of minutes, made of its lines by rising looks."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("calibration")
    for column in ("min", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    for (answers, method, minutes), rows in groupby(lines, key=_row):
        if not answers and method == "none":
            table.add_section()
        who = "" if answers else ", nobody"
        table.add_row(f"{method}{who}", f"{minutes}", *cells(list(rows)))
    return table


def _row(line: Line) -> tuple[bool, Method, int]:
    return line.answers, line.method, line.minutes


def _looks(found: Unseen) -> list[int]:
    return sorted({line.repeats for line in found.lines})


def _of_looks(n: int) -> str:
    return f"{n} look{'s' * (n > 1)}"


def _told(found: Estimate, form: str = ".1f") -> str:
    between = " to " if "+" in form else "-"
    return f"{found.value:{form}} ({found.low:{form}}{between}{found.high:{form}})"


def write(found: Unseen, folder: Path) -> None:
    """Writes `unseen.json` and `unseen.png`, in place of earlier ones."""
    with whole_files(folder) as draft:
        write_manifest(draft / RESULT, found)
        _figure(found).savefig(draft / PICTURE, dpi=DPI)


def _figure(found: Unseen) -> Figure:
    looks = _looks(found)
    figure = Figure(figsize=(4.6 * len(looks) + 1, 4.4), layout="constrained")
    panels = figure.subplots(1, len(looks), squeeze=False)[0]
    for axes, repeats in zip(panels, looks, strict=True):
        own = [line for line in found.lines if line.answers and line.repeats == repeats]
        _draw(axes, own, 100 / found.n_way)
        axes.set_title(_of_looks(repeats), fontsize=10)
    panels[0].set_ylabel(f"top-1 among {found.n_way}, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"People whom the model has not seen (SIMULATED), n = {found.settings.unseen}\n"
        f"bands: {found.interval}; thin: each person",
        fontsize=10,
    )
    return figure


def _draw(axes: Axes, lines: Sequence[Line], chance: float) -> None:
    methods = [m for m in dict.fromkeys(line.method for line in lines) if m != "none"]
    before = [line for line in lines if line.method == "none"]
    for number, method in enumerate(methods):
        begin = [] if method == "from scratch" else before
        own = [*begin, *(line for line in lines if line.method == method)]
        at = [line.minutes for line in own]
        ends = {e: [getattr(o.measured["top1"], e) for o in own] for e in ("value", "low", "high")}
        colour = colormaps["viridis"](0.8 * number / max(1, len(methods) - 1))
        axes.fill_between(at, ends["low"], ends["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(at, ends["value"], "o-", color=colour, markersize=4, label=method)
        for person in own[-1].people:
            each = [line.people[person] for line in own]
            axes.plot(at, each, color=colour, linewidth=0.6, alpha=0.5)
    axes.axhline(chance, color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(sorted({line.minutes for line in lines}))
    axes.set_xlabel("minutes of calibration")
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
