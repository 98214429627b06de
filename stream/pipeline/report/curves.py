"""The curves of the page: how right the answers were, how sure, and how late."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stream.pipeline.books.painting_tally import Numbers, add_spans
from stream.pipeline.books.summary import STAGES
from stream.pipeline.report.accuracy import (
    LEAST_SURE,
    Share,
    by_repeats,
    by_window_end,
    calibration,
    ranked,
    running,
    sure_answers,
)
from stream.pipeline.report.charts import (
    Frame,
    band,
    bars,
    chart,
    dots,
    level,
    line,
    text,
    ticks,
    time_axis,
    told_share,
    upright,
)
from stream.pipeline.report.markup import (
    chart_with,
    legend,
    note,
    section,
    side_by_side,
    table,
)
from stream.pipeline.report.story import Story, Trial, n_runs

_INTERVALS = "Intervals are Wilson's, 95 %."
_REPEATS = (
    " Answers to repeats of one image share EEG: for the intervals "
    "each image, up to where its repeats begin anew, counts once."
)
_BINS, _LEAST_MS = 24, 1e-3
_SETTLED = 20  # answers, of which the first few are all right or all wrong


def accuracy_part(story: Story, summary: Mapping[str, Any]) -> str:
    """How right the answers were, in time, by repeats and by the end of the window."""
    trials = ranked(story.decoded)
    if not trials:
        return ""
    n_way = summary["n_way"]
    ks = (1, min(5, n_way)) if n_way > 1 else (1,)
    kinds = [(f"c{i}", f"top-{k}") for i, k in enumerate(ks, 1)]
    charts = [_running(trials, story, ks, n_way)]
    for found, title, label in (
        ({k: by_repeats(trials, k) for k in ks}, "By repeats", "repeats in the answer"),
        ({k: by_window_end(trials, k) for k in ks}, "By the window's end", "s after the onset"),
    ):
        if len(found[1]) > 1:
            charts.append(_by(found, title, label, n_way))
    sure = _calibration(trials)
    return section(
        "accuracy",
        "Accuracy",
        legend(*kinds, ("chance", "chance")),
        side_by_side(*charts, sure),
        "" if sure else note(_not_judged(trials)),
        note(_INTERVALS + _REPEATS * (n_runs(trials) < len(trials))),
    )


def _running(trials: Sequence[Trial], story: Story, ks: Sequence[int], n_way: int) -> str:
    unit_s, unit = time_axis(story.end_s - story.start_s)
    times = [(trial.at_s - story.start_s) / unit_s for trial in trials]
    found = {k: running(trials, k) for k in ks}
    last = max((story.end_s - story.start_s) / unit_s, times[-1], 1e-3)
    settled = [one.share for shares in found.values() for one in shares[_SETTLED:]]
    most = max([shares[-1].high for shares in found.values()] + settled)
    frame = shares_frame((0.0, last), f"time ({unit})", ticks(0, last), most)
    marks = [level(frame, k / n_way) for k in ks]
    for i, k in enumerate(ks, 1):
        spans = [(x, one.low, one.high) for x, one in zip(times, found[k], strict=True)]
        values = [(x, one.share) for x, one in zip(times, found[k], strict=True)]
        marks += [band(frame, spans, f"c{i}"), line(frame, values, f"c{i}")]
    told = "; ".join(f"top-{k} {told_share(found[k][-1])}" for k in ks)
    svg = chart(frame, f"All answers so far, over time: {told}", marks)
    return chart_with("All answers so far", svg, f"In the end {told}.")


def _by(found: Mapping[int, Mapping[Any, Share]], title: str, label: str, n_way: int) -> str:
    keys = list(found[1])
    margin = (keys[-1] - keys[0]) * 0.07
    at = keys if len(keys) <= 8 else [x for x in ticks(keys[0], keys[-1], 6) if x == round(x, 3)]
    most = max(one.high for shares in found.values() for one in shares.values())
    frame = shares_frame((keys[0] - margin, keys[-1] + margin), label, at, most)
    marks = [level(frame, k / n_way) for k in found]
    for i, shares in enumerate(found.values(), 1):
        marks.append(line(frame, [(x, one.share) for x, one in shares.items()], f"c{i} thin"))
        marks.append(dots(frame, list(shares.items()), f"c{i}", 3 * (2 * i - 3)))
    n = [one.n for one in found[1].values()]
    each = f"n = {n[0]} each" if len(set(n)) == 1 else f"n = {min(n)} to {max(n)}"
    told = "; ".join(f"{x:g}: {one.share:.1%}" for x, one in found[1].items())
    return chart_with(title, chart(frame, f"{title}, top-1: {told}", marks), f"{each}.")


def shares_frame(
    x: tuple[float, float], label: str, x_ticks: Sequence[float], most: float
) -> Frame:
    """Axes for shares up to the largest one, but no closer than 5 %."""
    top = next(top for top in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if most <= top + 1e-9)
    return Frame(x, (0, top), label, "right", x_ticks, ticks(0, top), as_y=_percent)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _not_judged(trials: Sequence[Trial]) -> str:
    n = len(sure_answers(trials))
    if not n:
        return "The probabilities of these answers are not calibrated: there is nothing to judge."
    return (
        f"Whether the probabilities mean what they say cannot be told from {n} answers; a curve is "
        f"drawn from {LEAST_SURE} on."
    )


def _calibration(trials: Sequence[Trial]) -> str:
    sure = sure_answers(trials)
    if len(sure) < LEAST_SURE:
        return ""
    bins = calibration(sure)
    frame = Frame(
        (0, 1),
        (0, 1),
        "how sure (mean of a bin)",
        "right",
        x_ticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
        y_ticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
        as_x=_percent,
        as_y=_percent,
    )
    shares = [(one.confidence, one.right) for one in bins]
    diagonal = f'<path class="level" d="M{frame.px(0)} {frame.py(0)}L{frame.px(1)} {frame.py(1)}"/>'
    marks = [diagonal, dots(frame, shares, "c1")]
    n = [one.right.n for one in bins]
    told = "; ".join(f"{x:.0%} sure: {one.share:.0%} right" for x, one in shares)
    each = str(n[0]) if len(set(n)) == 1 else f"{min(n)} to {max(n)}"
    title = "Calibration of the first answer"
    caption = f"{len(bins)} bins of n = {each}. On the dashed line, probabilities are true."
    return chart_with(title, chart(frame, f"{title}: {told}", marks), caption)


def latency_part(story: Story, summary: Mapping[str, Any]) -> str:
    """How late answers were, and where the time went; each figure where it means something."""
    told: Mapping[str, Mapping[str, float]] = summary["latency_ms"]
    spans_ms: defaultdict[str, Numbers] = defaultdict(list)
    for trial in story.trials:
        if trial.answer is not None:
            there = {name: span for name, span in STAGES.items() if name in told}
            add_spans(there, trial.answer["stamps"], spans_ms)
    rows = [_row(STAGES[name].name, told[name]) for name in told]
    for tmax_s, one in summary["by_tmax"].items():
        if one["latency_ms"]:
            rows.append(_row(f"provisional, at {tmax_s} s", one["latency_ms"]))
    if not rows:
        return ""
    total_ms = spans_ms["total"]
    return section(
        "latency",
        "Latency",
        side_by_side(_histogram(total_ms, told["total"]), _stages(spans_ms)) if total_ms else "",
        table(("", "p50 (ms)", "p95 (ms)", "p99 (ms)", "largest (ms)"), rows, "numbers"),
        note(_NOT_TIMED) if story.decoded and "total" not in told else "",
    )


_NOT_TIMED = "Nobody waits for an answer in virtual time: only what its stages took means anything."


def _row(name: str, told: Mapping[str, float]) -> tuple[str, ...]:
    return (name, *(f"{told[key]:.2f}" for key in ("p50", "p95", "p99", "max")))


def _histogram(values_ms: Sequence[float], told: Mapping[str, float]) -> str:
    """How many answers took how long; a late one may take a thousand times as long as others."""
    logs = np.log10(np.maximum(values_ms, _LEAST_MS))
    low, high = float(logs.min()) - 0.05, float(logs.max()) + 0.05
    while len(labelled := _round_values(10**low, 10**high)) < 3:  # one alone tells no scale
        low, high = low - 0.05, high + 0.05
    counts, edges = np.histogram(logs, _BINS, (low, high))
    most = float(counts.max())
    frame = Frame(
        (low, high),
        (0, most * 1.3),
        "window's end → answer (ms)",
        "answers",
        [float(x) for x in np.log10(labelled)],
        [n for n in ticks(0, most, 4) if n == round(n)],
        as_x=lambda x: f"{10**x:.4g}",
    )
    marks = [bars(frame, edges.tolist(), counts.tolist(), "c1")]
    for row, name in enumerate(("p50", "p95", "p99")):
        at = math.log10(max(told[name], _LEAST_MS))
        marks.append(upright(frame, at, f"{name} {told[name]:.1f}", row))
    title = "From the window's end to the answer"
    percentiles = ", ".join(f"{name} {told[name]:.2f} ms" for name in ("p50", "p95", "p99"))
    caption = f"n = {len(values_ms)}. The largest was {told['max']:.1f} ms."
    return chart_with(title, chart(frame, f"{title}: {percentiles}", marks), caption)


def _round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between two values; of more than eight the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [k * 10.0**n for n in powers for k in (1, 2, 5) if low <= k * 10.0**n <= high]
    return values if len(values) <= 8 else [10.0**n for n in powers if low <= 10.0**n <= high]


def _stages(spans_ms: Mapping[str, Sequence[float]]) -> str:
    """What the stages took, one after the other, where they add up to the whole."""
    stages = [name for name in STAGES if name != "total" and spans_ms.get(name)]
    total_ms = np.array(spans_ms["total"])
    if any(len(spans_ms[name]) != len(total_ms) for name in stages):
        return ""
    took = np.array([spans_ms[name] for name in stages])
    if not np.allclose(took.sum(axis=0), total_ms, atol=1e-3):
        return ""
    # Of few answers the middle half holds some all the same.
    low, high = (
        np.percentile(total_ms, 25, method="lower"),
        np.percentile(total_ms, 75, method="higher"),
    )
    late = np.percentile(total_ms, 95)
    means = took[:, (total_ms >= low) & (total_ms <= high)].mean(axis=1)
    slowest = took[:, total_ms >= late].mean(axis=1)
    names = [STAGES[name].name.removeprefix("· ") for name in stages]
    total, most = float(means.sum()), int(slowest.argmax())
    if (took < 0).any() or total <= 0:  # stamps of a clock that was set meanwhile
        return ""
    frame = Frame((0, total), (0, len(stages)), "ms", "", ticks(0, total, 6), left_px=172)
    marks, at = [], 0.0
    for i, (name, mean) in enumerate(zip(names, means.tolist(), strict=True)):
        marks.append(_step(frame, len(stages) - i, (at, at + mean), name))
        at += mean
    title = "Where the time goes"
    caption = (
        f"Means of the middle half of answers, which add up to {total:.2f} ms. The slowest 5 % "
        f"took {slowest.sum():.1f} ms, most of it {names[most]} ({slowest[most]:.1f} ms)."
    )
    return chart_with(title, chart(frame, f"{title}: {caption}", marks), caption)


def _step(frame: Frame, row: int, span: tuple[float, float], name: str) -> str:
    """A stage as a bar, with its name and how long it took."""
    top, bottom = frame.py(row - 0.25), frame.py(row - 0.75)
    left, right = frame.px(span[0]), max(frame.px(span[1]), frame.px(span[0]) + 1)
    middle, room = (top + bottom) / 2 + 4, frame.px(frame.x[1])
    told = f"{span[1] - span[0]:.2f}"
    if right + 40 < room:
        value = text(right + 5, middle, told)
    elif left - 40 > frame.left_px:
        value = text(left - 5, middle, told, "end")
    else:
        value = text((left + right) / 2, middle, told, "middle", ' class="in"')
    bar = f'<path class="bar c1" d="M{left} {top}H{right:g}V{bottom}H{left}Z"/>'
    return bar + text(frame.left_px - 8, middle, name, "end") + value
