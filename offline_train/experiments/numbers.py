"""The numbers of an experiment's table: means of runs with intervals, beside published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, JsonValue

from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from offline_train.evaluate.metrics import Estimate, interval_of_alike
from offline_train.evaluate.result import method_of
from offline_train.experiments.plan import Planned, RunRecord
from offline_train.experiments.settings import SUBJECT, Experiment, flat, text_of

RATES = {"top1": "hit_rates", "top5": "top5_rates"}
"""What a point knows of each image, by metric."""
INTERVAL = (
    "95 %, bootstrap over images and, where there are several, seeds and subjects, all drawn anew; "
    "Wilson's where all are alike"
)
_RESAMPLES = 2000


class Line(Frozen):
    """One line of a table."""

    row: str
    axes: dict[str, str]
    """By setting; `subject` where the line is of one alone."""
    method: str
    """How it was decoded."""
    tmax_s: float | None = None
    repeats: int | None = None
    n_images: int = 0
    n_subjects: int = 0
    n_seeds: int = 0
    n_runs: int = 0
    n_wanted: int = 0
    """Runs that the file asks for."""
    measured: dict[str, Estimate] = Field(default_factory=dict)
    """By metric, in percent."""
    differences: dict[str, Estimate] = Field(default_factory=dict)
    """From the reference's line, paired by image, seed and subject; in percent points."""
    published: dict[str, float] = Field(default_factory=dict)
    source: str = ""
    """The citation of what is published; empty where none is."""


class Results(Frozen):
    """All that is known of an experiment: `table.json`."""

    title: str
    about: str
    subjects: tuple[str, ...]
    simulated: bool
    """Whether the trials are of a simulated subject."""
    chance: dict[str, float]
    """By metric, in percent."""
    protocol: str
    interval: str = INTERVAL
    reference: str | None
    lines: tuple[Line, ...]
    made: dict[str, JsonValue]


_Axes = tuple[tuple[str, str], ...]
_Point = tuple[str, float, int]
"""Method, window end, number of repeats."""


@dataclass(frozen=True)
class _Rates:
    """What the runs of a line know of each image."""

    stimuli: tuple[str, ...]
    """In the order of their names: subjects have seen them in others."""
    rates: Mapping[str, np.ndarray]
    """(subjects, seeds, images) by metric; NaN where a run is missing."""
    n_wanted: int
    """Runs that the file asks for."""


def results_of(
    experiment: Experiment, planned: Sequence[Planned], made: dict[str, JsonValue]
) -> Results | None:
    """The table of the runs that are done; None where there are none."""
    records = {one.decided_by: record for one in planned if (record := one.record()) is not None}
    if not records:
        return None
    subjects = sorted({one.run.subject for one in planned})
    groups: dict[tuple[str, _Axes], list[Planned]] = {}
    for one in planned:
        axes = tuple(one.run.axes.items())
        groups.setdefault((one.run.row, axes), []).append(one)
        if experiment.by_subject and len(subjects) > 1:
            of_one = (*axes, (SUBJECT, one.run.subject))
            groups.setdefault((one.run.row, of_one), []).append(one)
    known = {
        (row, shown, point): found
        for (row, shown), some in groups.items()
        for point, found in _points(some, records).items()
    }
    lines = [
        _line(row, dict(shown), point, found, known.get((experiment.reference or "", shown, point)))
        for (row, shown, point), found in known.items()
    ]
    first = next(iter(records.values())).evaluations[0]
    return Results(
        title=experiment.title,
        about=experiment.about,
        subjects=tuple(filter(None, subjects)),
        simulated=any(one.simulated for record in records.values() for one in record.evaluations),
        chance={"top1": 100 * first.chance_top1, "top5": 100 * first.chance_top5},
        protocol=f"{first.n_way}-way retrieval; the last epoch, nothing selected on test data",
        reference=experiment.reference,
        lines=tuple(_with_published(lines, experiment)),
        made=made,
    )


def _points(planned: Sequence[Planned], records: Mapping[str, RunRecord]) -> dict[_Point, _Rates]:
    """What the runs of a line know, by method, window end and number of repeats."""
    subjects = list(dict.fromkeys(one.run.subject for one in planned))
    seeds = list(dict.fromkeys(one.run.seed for one in planned))
    found: dict[_Point, _Rates] = {}
    for one in planned:
        record = records.get(one.decided_by)
        for evaluation in record.evaluations if record is not None else ():
            stimuli = tuple(sorted(evaluation.stimuli))
            order = np.argsort(evaluation.stimuli)
            for point in evaluation.points:
                key = (evaluation.method, point.tmax_s, point.repeats)
                if key not in found:
                    shape = (len(subjects), len(seeds), len(stimuli))
                    rates = {metric: np.full(shape, np.nan) for metric in RATES}
                    found[key] = _Rates(stimuli, rates, len(planned))
                if found[key].stimuli != stimuli:
                    raise Problem(
                        f"'{one.run.name}' saw other images than '{planned[0].run.name}'"
                        ", so that they have no common mean: make an experiment of each"
                    )
                at = (subjects.index(one.run.subject), seeds.index(one.run.seed))
                for metric, field in RATES.items():
                    found[key].rates[metric][at] = np.array(getattr(point, field))[order]
    return found


def _line(
    row: str, axes: dict[str, str], point: _Point, found: _Rates, reference: _Rates | None
) -> Line:
    is_there = ~np.isnan(found.rates["top1"]).any(axis=2)
    method, tmax_s, repeats = point
    away = {}
    if reference is not None and reference is not found:
        away = {m: found.rates[m] - reference.rates[m] for m in RATES}
    return Line(
        row=row,
        axes=axes,
        method=method,
        tmax_s=tmax_s,
        repeats=repeats,
        n_images=len(found.stimuli),
        n_subjects=int(is_there.any(axis=1).sum()),
        n_seeds=int(is_there.any(axis=0).sum()),
        n_runs=int(is_there.sum()),
        n_wanted=found.n_wanted,
        measured={metric: interval_of(values) for metric, values in found.rates.items()},
        differences={m: interval_of(v, -1.0) for m, v in away.items() if not np.isnan(v).all()},
    )


def interval_of(rates: np.ndarray, least: float = 0.0) -> Estimate:
    """Mean in percent, and the interval that `INTERVAL` tells of.

    Subjects, seeds and images are drawn anew, each by itself, and what they cross in is averaged.

    Args:
        rates: (subjects, seeds, images), NaN for all images of a run that is missing.
        least: that one of them could be; the most is 1.
    """
    rng = np.random.default_rng(0)
    n_images = rates.shape[2]
    there = ~np.isnan(rates).any(axis=2)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES) for n in rates.shape]
    runs = drawn[0][:, :, None] * drawn[1][:, None, :] * there
    means = np.nan_to_num(rates).reshape(-1, n_images) @ drawn[2].T / n_images
    sums = (runs.reshape(_RESAMPLES, -1) * means.T).sum(axis=1)
    counts = runs.sum(axis=(1, 2))
    value = float(np.nanmean(rates))
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], [0.025, 0.975]).tolist()
    if np.nanmin(rates) == np.nanmax(rates):
        low, high = interval_of_alike(value, n_images, least)
    return Estimate(value=100 * value, low=100 * low, high=100 * high)


def _with_published(lines: Sequence[Line], experiment: Experiment) -> list[Line]:
    """Each published figure beside what was measured; what is not run here, in lines of its own."""
    found = list(lines)
    most = max(line.repeats or 0 for line in lines)
    end_s = max(line.tmax_s or 0 for line in lines)
    for one in experiment.published:
        at = {axis: text_of(value) for axis, value in flat(one.at).items()}
        known = {"published": one.values, "source": experiment.sources[one.source]}
        method = method_of(one.evidence)
        fitting = [
            i
            for i, line in enumerate(lines)
            if line.row == one.row
            and at.items() <= line.axes.items()
            and (SUBJECT in at) == (SUBJECT in line.axes)
            and (line.method, line.repeats, line.tmax_s) == (method, one.repeats or most, end_s)
        ]
        for i in fitting:
            found[i] = found[i].model_copy(update=known)
        if not fitting:
            found.append(Line(row=one.row, axes=at, method=method, repeats=one.repeats, **known))
    return found
