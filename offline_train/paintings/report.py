"""Scores of paintings as a person reads them: a table, and a grid of pictures."""

from pathlib import Path

import matplotlib.figure
import numpy as np
from rich.table import Table

from offline_train.paintings.scores import CEILING, FLOOR, Paintings, PaintingScores

_SAID = {CEILING: "painted from\nthe image", FLOOR: "from another\nimage's trials"}


def scores_table(scores: PaintingScores) -> Table:
    """Metrics by conditions, with intervals; so turned, the paper's fit a terminal."""
    table = Table(
        title=f"paintings of {scores.items}, 95 % intervals over images",
        title_justify="left",
    )
    table.add_column("painted from")
    for condition in scores.conditions:
        table.add_column(condition)
    for metric in scores.scores[scores.conditions[0]]:
        of_metric = [scores.scores[condition][metric] for condition in scores.conditions]
        cells = [f"{s.value:.3f}\n{s.low:.2f}–{s.high:.2f}" for s in of_metric]
        table.add_row(metric, *cells)
    return table


def differences_table(scores: PaintingScores) -> Table:
    """Paired differences of neighbouring conditions by every two-way metric."""
    title = f"differences, paired by image; {scores.items}"
    table = Table(title=title, title_justify="left")
    for heading in ("metric", "better", "worse", "difference", "separate"):
        table.add_column(heading)
    for row in scores.differences:
        s = row.difference
        text = f"{s.value:+.3f} ({s.low:+.3f} to {s.high:+.3f})"
        table.add_row(row.metric, row.better, row.worse, text, "yes" if row.separate else "no")
    return table


def write_grid(paintings: Paintings, file: Path, rows: int = 8, title: str = "") -> None:
    """A picture: one row for each of the first images, one column for what was seen and painted."""
    columns = [("seen", paintings.seen)] + [
        (_SAID.get(name, name.replace(", ", "\n")), samples[0])
        for name, samples in paintings.samples.items()
    ]
    rows = min(rows, len(paintings.seen))
    figure = matplotlib.figure.Figure(
        figsize=(1.35 * len(columns), 1.35 * rows + 0.9), layout="constrained"
    )
    axes = np.atleast_2d(figure.subplots(rows, len(columns), squeeze=False))
    for column, (name, pictures) in enumerate(columns):
        axes[0, column].set_title(name, fontsize=9)
        for row in range(rows):
            axes[row, column].imshow(pictures[row])
            axes[row, column].set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=130)
