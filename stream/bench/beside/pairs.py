"""Blocks of answers without something and with it, in turn: a table, and what lies between them."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from hvf_core.screen import Screen

Blocks = Sequence[Sequence[float]] | np.ndarray
"""Milliseconds, block by block."""


def show_pairs(
    title: str,
    head: str,
    names: tuple[str, str],
    pairs: Mapping[str, tuple[Blocks, Blocks]],
    *more: str,
) -> None:
    """Prints both halves of each pair, which are called by `names`, and more sentences."""
    from offline_train.evaluate.metrics import estimated_mean  # here: SciPy takes a second

    table = Table(title=title, title_justify="left")
    for column in (head, "p50", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == head else "right")
    said = []
    for what, halves in pairs.items():
        for name, blocks in zip(names, halves, strict=True):
            values = np.concatenate(blocks)
            cells = [*np.percentile(values, [50, 95, 99]), values.max()]
            row = f"{what}{name}, n = {len(values)}"
            table.add_row(row, *(f"{value:.2f}" for value in cells))
        without, beside = (np.array([np.median(of) for of in blocks]) for blocks in halves)
        found = estimated_mean(beside - without, np.random.default_rng(0))
        said.append(
            f"median, {what}{names[1]} - {names[0]}: {found.value:+.3f} ms (95 % interval "
            f"{found.low:+.3f} to {found.high:+.3f}, {len(without)} pairs of blocks)"
        )
    Screen(highlight=False).print(table, *said, *more, sep="\n")
