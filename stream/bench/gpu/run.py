"""What a CUDA card gives, beside what its chip can do at most.

`run_realtime.py bench gpu`: engines, galleries, painting with SDXL of random weights, answers while
it paints on the same card, and steps of training. Torch suffices; what else is missing, as
diffusers, FAISS for GPUs, ONNX Runtime or TensorRT, is said where it would be measured. A line of
JSON for each, as soon as it is known.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from decoder.devices import device_of
from hvf_core.options import Flag
from hvf_core.problem import Problem, WrongUsage, naming
from stream.bench.gpu.card import Card
from stream.bench.gpu.sections import SECTIONS, Row, apart, measured
from stream.bench.gpu.tables import markdown

_ALL = ",".join(SECTIONS)


def main(
    only: Annotated[str, typer.Option(help="SECTION,SECTION,...")] = _ALL,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="at most: what matters least is left out")
    ] = 10.0,
    device: Annotated[str, typer.Option(help="cuda, cuda:N, or cpu with --tiny")] = "auto",
    tiny: Annotated[bool, Flag("--tiny", help="Tries everything out, on any machine")] = False,
    out: Annotated[Path | None, typer.Option(help="file for the lines of JSON too")] = None,
    table: Annotated[bool, Flag("--markdown", help="Tables at the end")] = False,
    read: Annotated[
        Path | None, typer.Option(help="tables of such a file; measures nothing")
    ] = None,
) -> None:
    """Measures a card; one line of JSON for everything that is measured."""
    if read is not None:
        with naming(read):
            print(markdown([json.loads(line) for line in read.read_text().splitlines()]))
        return
    if unknown := set(only.split(",")) - SECTIONS.keys():
        raise WrongUsage(f"'{unknown.pop()}' is no section; there are {', '.join(SECTIONS)}")
    card = Card(device_of(device), tiny)
    if not card.is_gpu and not tiny:
        raise Problem(
            "torch sees no CUDA card here, which is what this measures: `--tiny` tries it out on "
            "the CPU, and `python run_realtime.py doctor` tells what is missing"
        )
    began_s, said = time.monotonic(), Console(stderr=True, highlight=False)
    ends_s = began_s + 60 * minutes
    rows: list[Row] = []
    for name in only.split(","):
        said.print(f"{time.monotonic() - began_s:5.0f} s  {name}")
        found = measured(name, card, ends_s) if tiny else apart(name, device, tiny, ends_s)
        _tell(found, card, out, rows)
    if table:
        print(markdown(rows))


def _tell(found: Iterable[Row], card: Card, out: Path | None, rows: list[Row]) -> None:
    for row in found:
        rows.append(row | {"machine": card.facts()})
        line = json.dumps(rows[-1])
        print(line, flush=True)
        if out is not None:
            with naming(out), out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    typer.run(main)
