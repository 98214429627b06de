"""An experiment's table as Markdown, CSV and JSON, and its figure."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvf_core.artifact import whole_files, write_manifest
from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.pictures import BLUE, DPI, GREY, count_repeats, draw_line
from offline_train.experiments.numbers import Line, Results

METRICS = {"top1": "top-1 %", "top5": "top-5 %"}
SIMULATED = "SIMULATED: a demo world and a simulated subject, which say nothing about people."
TABLE = "table.json"


def write_report(results: Results, folder: Path) -> None:
    """Writes `table.md`, `table.csv`, `table.json` and `figure.png`, in place of earlier ones."""
    with whole_files(folder) as draft:
        (draft / "table.md").write_text(markdown(results), encoding="utf-8")
        with (draft / "table.csv").open("w", encoding="utf-8", newline="") as file:
            rows = [*_cells(results)]
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        write_manifest(draft / TABLE, results)
        _figure(results).savefig(draft / "figure.png", dpi=DPI)


def markdown(results: Results) -> str:
    """The table with all that is to be said of it."""
    title = f"{results.title} (simulated)" if results.simulated else results.title
    parts = [f"# {title}"]
    parts += [f"**{SIMULATED}**"] if results.simulated else []
    parts += [results.about] if results.about else []
    parts.append("\n".join(_table(results)))
    chance = ", ".join(f"{METRICS[m]} {value:.2g}" for m, value in results.chance.items())
    said = [f"{results.protocol}; by chance {chance}.", f"Intervals: {results.interval}."]
    if results.reference is not None:
        said.append(f"Differences are from '{results.reference}', paired, in percent points.")
    parts.append(" ".join(said))
    cited = [f"[{n}] {source}" for source, n in _sources(results).items()]
    parts.append("\n".join(cited) or "None published.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: Results) -> Iterator[str]:
    axes = _axes(results)
    methods = {line.method for line in results.lines}
    numbered, differ = _sources(results), any(line.differences for line in results.lines)
    extra = list(dict.fromkeys(m for line in results.lines for m in line.published))
    extra = [metric for metric in extra if metric not in METRICS]
    head = ["", *axes, *["decoded by"] * (len(methods) > 1), "repeats", "window end s", "n"]
    is_published = any(line.source for line in results.lines)
    head += [*METRICS.values(), *["top-1 difference"] * differ, *["published"] * is_published]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for line in results.lines:
        row = [line.row, *(line.axes.get(axis, "all") for axis in axes)]
        row += [line.method] * (len(methods) > 1)
        row.append("" if line.repeats is None else str(line.repeats))
        row.append("" if line.tmax_s is None else f"{line.tmax_s:g}")
        row.append(_n(line))
        row += [_told(line.measured.get(metric)) for metric in METRICS]
        row += [_told(line.differences.get("top1"), "+.1f")] * differ
        row += [_published(line, extra, numbered)] * is_published
        yield f"| {' | '.join(row)} |"


def _n(line: Line) -> str:
    if not line.n_runs:
        return "not run"
    missing = f", {line.n_runs} of {line.n_wanted} runs" * (line.n_runs < line.n_wanted)
    kinds = ((line.n_images, "image"), (line.n_subjects, "subject"), (line.n_seeds, "seed"))
    return " x ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in kinds) + missing


def _told(found: Estimate | None, form: str = ".1f") -> str:
    if found is None:
        return ""
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _published(line: Line, extra: Sequence[str], numbered: dict[str, int]) -> str:
    if not line.source:
        return "none published"
    usual = " / ".join(f"{line.published[m]:g}" for m in METRICS if m in line.published)
    others = [
        f"{metric} {line.published[metric]:g}" for metric in extra if metric in line.published
    ]
    return f"{', '.join(filter(None, [usual, *others]))} [{numbered[line.source]}]"


def _sources(results: Results) -> dict[str, int]:
    """The citations that are needed, numbered."""
    cited = dict.fromkeys(line.source for line in results.lines if line.source)
    return {source: n for n, source in enumerate(cited, 1)}


def _axes(results: Results) -> list[str]:
    return list(dict.fromkeys(axis for line in results.lines for axis in line.axes))


def _cells(results: Results) -> Iterator[dict[str, object]]:
    """The lines of the CSV, by the names of its columns."""
    facts = {"method", "repeats", "tmax_s", "n_images", "n_subjects", "n_seeds", "n_runs"}
    for line in results.lines:
        row: dict[str, object] = {"row": line.row}
        row |= {axis: line.axes.get(axis, "") for axis in _axes(results)}
        row |= line.model_dump(include=facts) | {"simulated": results.simulated}
        for kind, known in (("", line.measured), ("_difference", line.differences)):
            for metric in METRICS:
                found = known.get(metric)
                ends = ("value", "low", "high")
                row |= {f"{metric}{kind}_{end}": getattr(found, end, "") for end in ends}
        row |= {f"{metric}_published": line.published.get(metric, "") for metric in METRICS}
        yield row | {"source": line.source}


def _figure(results: Results) -> Figure:
    """Top-1: by repeats where there are several, else a dot for each line."""
    run = [line for line in results.lines if line.measured]
    by_repeats = len({line.repeats for line in run}) > 1
    shown = run if by_repeats else [*results.lines]
    height = 4.6 if by_repeats else 1.8 + 0.36 * len(shown)
    figure = Figure(figsize=(9, height), layout="constrained")
    axes, chance = figure.subplots(), results.chance["top1"]
    if by_repeats:
        _draw_repeats(axes, shown)
        axes.axhline(chance, color=GREY, linestyle="--", linewidth=1, label="chance")
    else:
        _draw_lines(axes, shown)
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    simulated = "\nSIMULATED subject of the demo world" if results.simulated else ""
    figure.suptitle(
        f"{results.title}{simulated}\n{'bands' if by_repeats else 'bars'}: {results.interval}",
        fontsize=9,
    )
    return figure


def _named(line: Line) -> str:
    return ", ".join(filter(None, [line.row, *line.axes.values()]))


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """One below the other, measured and published."""
    at = [n for n, line in enumerate(lines) if "top1" in line.published]
    values = [lines[n].published["top1"] for n in at]
    axes.plot(values, at, "D", color=GREY, fillstyle="none", label="published")
    at = [n for n, line in enumerate(lines) if line.measured]
    found = [lines[n].measured["top1"] for n in at]
    spread = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
    values = [one.value for one in found]
    axes.errorbar(values, at, xerr=spread, fmt="o", color=BLUE, capsize=2, label="measured here")
    axes.set_yticks(range(len(lines)), [_named(line) for line in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("top-1 accuracy, %")
    axes.set_xlim(0, None)


def _draw_repeats(axes: Axes, lines: Sequence[Line]) -> None:
    """A curve for each row, axes, method and window end."""
    curves: dict[str, list[Line]] = {}
    ends = {line.tmax_s for line in lines}
    methods = {line.method for line in lines}
    for line in lines:
        told = [_named(line), *[line.method] * (len(methods) > 1)]
        told += [f"{line.tmax_s:g} s"] * (len(ends) > 1)
        curves.setdefault(", ".join(told), []).append(line)
    for number, (name, of_curve) in enumerate(curves.items()):
        found = {line.repeats or 0: line.measured["top1"] for line in of_curve}
        draw_line(axes, found, colormaps["viridis"](0.9 * number / max(1, len(curves) - 1)), name)
    count_repeats(axes, {line.repeats or 0 for line in lines})
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, None)
