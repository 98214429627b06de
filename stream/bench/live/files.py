"""What a certificate leaves: certificate.jsonl, a line of JSON for each cell, and answers.csv.

Both grow while it is measured: a run that was ended has what came so far.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from hvf_core.problem import Problem
from hvf_core.specs import first_fault
from stream.bench.listeners import Answer
from stream.bench.live.figures import FORMAT, Cell
from stream.bench.paths import given

CERTIFICATE, ANSWERS, PAGE = "certificate.jsonl", "answers.csv", "certificate.html"
_ABOUT = ("cell", "trial", "stimulus", "n_repeats", "window_end_s", "provisional", "rank")


class Results:
    """The two files in a folder, which is made.

    Args:
        ways: of which each answer has a column, in ms: the moments at its ends.
    """

    def __init__(self, folder: Path, ways: Mapping[str, tuple[str, str]]):
        with given(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._ways = folder, ways
        if (folder / CERTIFICATE).exists():
            raise Problem(f"'{folder}' holds a certificate already; name another with --out")
        head = [*_ABOUT, *(f"{name.replace(' ', '_')}_ms" for name in ways)]
        table = folder / ANSWERS
        with given(table), table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(head)

    def add(self, cell: Cell, answers: Sequence[Answer]) -> None:
        """Enters what was measured."""
        lines, table = self._folder / CERTIFICATE, self._folder / ANSWERS
        with given(lines), lines.open("a", encoding="utf-8") as file:
            file.write(cell.model_dump_json() + "\n")
        with given(table), table.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._row(cell, one) for one in answers)

    def _row(self, cell: Cell, one: Answer) -> list[object]:
        about = (cell.setup.name, one.trial, one.stimulus, one.n_repeats, one.tmax_s)
        moments, took = one.moments, list[str]()
        for start, end in self._ways.values():
            known = start in moments and end in moments
            took.append(f"{1e3 * (moments[end] - moments[start]):.4f}" if known else "")
        return [*about, int(one.provisional), one.rank, *took]


def read_certificate(path: Path) -> list[Cell]:
    """The cells of an earlier run.

    Raises:
        Problem: it is none, or of another format.
    """
    with given(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    cells = []
    for number, line in enumerate(lines, 1):
        try:
            cells.append(Cell.model_validate_json(line))
        except ValidationError as error:
            fault = f"line {number} of '{path}' is no measurement ({first_fault(error)})"
            raise Problem(f"{fault}: give the certificate.jsonl of `bench live`") from None
        if cells[-1].format != FORMAT:
            was = f"'{path}' has format {cells[-1].format}"
            raise Problem(f"{was}, and this program compares format {FORMAT}: measure it again")
    if not cells:
        raise Problem(f"'{path}' holds no measurements: give the certificate.jsonl of `bench live`")
    return cells
