"""Pictures of an evaluation: accuracy by repeats and window end, and a reliability diagram."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.result import Evaluation, Reliability, Results

DPI = 150
BLUE, GREY = "#1f5f9e", "#6b6b6b"


def write_pictures(results: Results, folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Draws accuracy and reliability of each evaluation into a folder; JSON is enough for it.

    Returns:
        By method and subject, `accuracy.png` and `reliability.png`; where there are several
        evaluations, their numbers are in the names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[tuple[str, str], list[Path]] = {}
    for number, one in enumerate(results.evaluations, 1):
        for name, draw in (("accuracy", _draw_accuracy), ("reliability", _draw_reliability)):
            figure = Figure(figsize=(10, 4.6), layout="constrained")
            draw(figure, one)
            path = folder / f"{name}{f'-{number}' if len(results.evaluations) > 1 else ''}.png"
            figure.savefig(path, dpi=DPI)
            drawn.setdefault((one.method, one.subject), []).append(path)
    return drawn


def _draw_accuracy(figure: Figure, evaluation: Evaluation) -> None:
    ends = sorted({point.tmax_s for point in evaluation.points})
    # One hue, light to dark with the window; its lightest third does not show on white.
    colours = colormaps["Blues"](np.linspace(0.35, 1.0, len(ends))) if len(ends) > 1 else [BLUE]
    panels = figure.subplots(1, 2, sharex=True)
    for axes, k in zip(panels, (1, 5), strict=True):
        for end, colour in zip(ends, colours, strict=True):
            found = {p.repeats: getattr(p, f"top{k}") for p in evaluation.points if p.tmax_s == end}
            draw_line(axes, found, colour, f"{end:g} s", 0.5 / (2 + len(ends)), 100)
        chance = 100 * (evaluation.chance_top1 if k == 1 else evaluation.chance_top5)
        axes.axhline(chance, color=GREY, linestyle="--", linewidth=1.2, label="chance")
        axes.set_ylabel(f"top-{k} accuracy, %")
        axes.set_ylim(0, None)
        count_repeats(axes, {point.repeats for point in evaluation.points})
    handles, labels = panels[0].get_legend_handles_labels()
    # From the top down as the lines are, the whole window first.
    order = [*reversed(range(len(ends))), len(ends)]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        title="known up to",
        loc="outside right center",
        frameon=False,
    )
    drawn = "bars" if len({point.repeats for point in evaluation.points}) == 1 else "bands"
    figure.suptitle(
        f"{evaluation.n_way}-way retrieval of {evaluation.items}, {evaluation.method}\n"
        f"{drawn}: {evaluation.interval}; {_calibrated(evaluation)}",
        fontsize=11,
    )


def draw_line(
    axes: Axes,
    found: Mapping[int, Estimate],
    colour: ColorType,
    label: str,
    band_alpha: float = 0.15,
    factor: float = 1,
) -> None:
    """Draws a share by the number of repeats, in percent once it is times a factor.

    Its interval is a band, and a bar where one number of repeats makes no band.
    """
    repeats = sorted(found)
    of = {
        end: [factor * getattr(found[n], end) for n in repeats] for end in ("value", "low", "high")
    }
    if len(repeats) > 1:
        low, high = of["low"], of["high"]
        axes.fill_between(repeats, low, high, color=colour, alpha=band_alpha, linewidth=0)
    else:
        axes.vlines(repeats, of["low"], of["high"], color=colour, linewidth=1.8)
    axes.plot(repeats, of["value"], "o-", color=colour, markersize=4, linewidth=1.8, label=label)


def count_repeats(axes: Axes, repeats: Collection[int]) -> None:
    """Makes the abscissa that of these numbers of repeats."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(repeats), [str(n) for n in sorted(repeats)])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("repeats of the stimulus")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_reliability(figure: Figure, evaluation: Evaluation) -> None:
    shown = [("all answers", evaluation.pooled)]
    if evaluation.final is not None and evaluation.final != evaluation.pooled:
        shown.append((f"final answers, {evaluation.tmax_s:g} s", evaluation.final))
    panels = figure.subplots(
        2,
        len(shown),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": [3, 1]},
    )
    for column, (name, reliability) in enumerate(shown):
        _draw_bins(panels[0, column], panels[1, column], name, reliability)
    panels[0, 0].set_ylabel("top-1 accuracy, %")
    panels[1, 0].set_ylabel("answers")
    panels[0, 0].legend(loc="upper left", frameon=False, fontsize=9)
    figure.suptitle(
        f"reliability of the first answer, {evaluation.method}, {evaluation.n_way}-way\n"
        f"{evaluation.items}; {_calibrated(evaluation)}",
        fontsize=11,
    )


def _calibrated(evaluation: Evaluation) -> str:
    return f"probabilities {evaluation.calibration.partition(':')[0]}"


def _draw_bins(above: Axes, below: Axes, name: str, reliability: Reliability) -> None:
    low = [100 * b.low for b in reliability.bins]
    width = [100 * (b.high - b.low) for b in reliability.bins]
    accuracy = [100 * b.accuracy for b in reliability.bins]
    confidence = [100 * b.confidence for b in reliability.bins]
    counts = [b.n for b in reliability.bins]
    above.bar(
        low,
        accuracy,
        width,
        align="edge",
        color=BLUE,
        alpha=0.35,
        edgecolor="white",
        label="accuracy of a bin",
    )
    above.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1.2, label="perfectly calibrated")
    above.plot(
        confidence,
        accuracy,
        "o",
        color=BLUE,
        markersize=5,
        clip_on=False,
        label="at its mean confidence",
    )
    above.set(xlim=(0, 100), ylim=(0, 100))
    ece, noise = reliability.ece, reliability.noise
    above.set_title(
        f"{name}: ECE {100 * ece.value:.1f} % ({100 * ece.low:.1f} to {100 * ece.high:.1f})\n"
        f"by noise alone {100 * noise.independent:.1f} to {100 * noise.shared:.1f} %",
        fontsize=10,
    )
    below.bar(low, counts, width, align="edge", color=GREY, edgecolor="white")
    below.set_yscale("log")
    below.set_ylim(0.7, None)  # so that a single answer shows
    below.set_xlabel("confidence, %")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
