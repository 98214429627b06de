"""What a CUDA card gives, beside what its chip can do at most.

`run_realtime.py bench gpu`: engines, galleries, painting with SDXL of random weights, answers while
it paints on the same card, and steps of training. Torch suffices; what else is missing, as
diffusers, FAISS for GPUs, ONNX Runtime or TensorRT, is said where it would be measured. A line of
JSON for each, as soon as it is known, so that nothing is lost of a run that is ended early.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from decoder.devices import device_of
from hvf_core.options import Flag
from hvf_core.problem import Problem, WrongUsage, naming
from stream.bench.gpu.rows import SECTIONS, Row
from stream.bench.gpu.tables import markdown
from stream.bench.paths import check_file, given

_ALL = ",".join(SECTIONS)
_HAVE = {"section", "what", "machine"}  # all rows


def main(
    only: Annotated[str, typer.Option(help="SECTION,SECTION,...")] = _ALL,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="at most: what matters least is left out")
    ] = 10.0,
    device: Annotated[str, typer.Option(help="cuda, cuda:N, or cpu with --tiny")] = "auto",
    tiny: Annotated[bool, Flag("--tiny", help="Tries everything out, on any machine")] = False,
    out: Annotated[Path | None, typer.Option(help="file for the lines of JSON")] = None,
    table: Annotated[bool, Flag("--markdown", help="Tables at the end")] = False,
    read: Annotated[
        Path | None, typer.Option(help="tables of such a file; measures nothing")
    ] = None,
) -> None:
    """Measures a card; one line of JSON for everything that is measured."""
    if read is not None:
        print(markdown(_rows(read)))
        return
    check_file(out)
    if unknown := set(only.split(",")) - SECTIONS.keys():
        raise WrongUsage(f"'{unknown.pop()}' is no section; there are {', '.join(SECTIONS)}")
    ends_s = time.monotonic() + 60 * minutes
    if not tiny and device_of(device).type == "cpu":
        raise Problem(
            "torch sees no CUDA card here, which is what this measures: `--tiny` tries it out on "
            "the CPU, and `python run_realtime.py doctor` tells what is missing"
        )
    from stream.bench.gpu.card import Card  # here: torch takes seconds
    from stream.bench.gpu.sections import apart, measured

    rows: list[Row] = []
    for name in only.split(","):
        for row in (
            measured(name, Card.named(device, tiny), ends_s)
            if tiny
            else apart(name, device, tiny, ends_s)
        ):
            rows.append(row)
            _tell(row, out)
    if table:
        print(markdown(rows))


def _rows(file: Path) -> list[Row]:
    """What a run has written; raises Problem where it is none of its files."""
    with given(file):
        text = file.read_text(encoding="utf-8", errors="replace")
    try:
        rows = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        rows = []
    if not rows or not all(isinstance(row, dict) and row.keys() >= _HAVE for row in rows):
        raise Problem(f"'{file}' holds no measurements of a card: give a file of `bench gpu --out`")
    return rows


def _tell(row: Row, out: Path | None) -> None:
    line = json.dumps(row)
    if out is None:
        print(line, flush=True)
        return
    with naming(out), out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    p50_ms = row.get("p50_ms")
    told = row.get("why_not") or ("measured" if p50_ms is None else f"{p50_ms:.4g} ms")
    print(f"{row['section']}: {row['what']}: {told}", flush=True)
