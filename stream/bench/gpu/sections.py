"""What is measured, in sections of cells: each cell is tried, and says its figures or why not.

A section has a process of its own, so that neither memory, nor a fault after which CUDA answers no
more, is carried into the next one.
"""

import gc
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pkgutil import resolve_name
from typing import NamedTuple

import torch

from decoder.engines.passes import CannotRun
from hvf_core.problem import Problem
from hvf_core.provenance import command_line
from stream.bench.gpu.card import Card, Figures
from stream.bench.gpu.rows import SECTIONS, Row
from stream.bench.machine import machine
from stream.bench.processes import end_with_parent

_FAULTS = (Problem, CannotRun, ImportError, RuntimeError, MemoryError, OSError)
"""What a cell may end in: torch's errors of CUDA and of its memory are RuntimeErrors."""
_GRACE_S = 20.0  # beyond its time, until a process is taken to hang

_processes = get_context("spawn")


class Cell(NamedTuple):
    """One thing that is measured."""

    what: str
    needs_s: float
    """Roughly, on a card of 2023."""
    measure: Callable[[], Figures]


def measured(name: str, card: Card, ends_s: float) -> Iterator[Row]:
    """The rows of a section as they come; `ends_s` on the clock of `time.monotonic`."""
    about: Row = {"bench": "gpu", "section": name, "machine": machine() | card.facts()}
    if not card.is_gpu:
        torch.set_num_threads(1)  # what is so small takes longer with more
    try:
        cells = resolve_name(SECTIONS[name])(card)
        for cell in cells:
            left_s = ends_s - time.monotonic()
            if left_s < cell.needs_s:
                why = f"{left_s:.0f} s were left, and it takes about {cell.needs_s:g}"
                yield about | {"what": cell.what, "why_not": why}
                continue
            yield about | {"what": cell.what} | _tried(cell.measure)
    except _FAULTS as error:
        yield about | {"what": "all that follows", "why_not": _sentence(error)}


def apart(name: str, device: str, tiny: bool, ends_s: float) -> Iterator[Row]:
    """The same from a process of its own, which is ended where it hangs."""
    here, there = _processes.Pipe(duplex=False)
    left_s = ends_s - time.monotonic()
    process = _processes.Process(target=_send, args=(there, name, device, tiny, left_s))
    process.start()
    there.close()
    try:
        while here.poll(max(0.0, ends_s + _GRACE_S - time.monotonic())):
            row = here.recv()
            if "machine" in row:  # its own command is that of a process that was spawned
                row["machine"]["command"] = command_line()
            yield row
    except EOFError:
        process.join(_GRACE_S)
    finally:  # it may hang, or nobody waits for it any more
        process.kill()
        process.join()
    if process.exitcode:
        why = f"its process ended with status {process.exitcode}, and what it says is above"
        yield {"bench": "gpu", "section": name, "what": "all that follows", "why_not": why}


def _send(there: Connection, name: str, device: str, tiny: bool, left_s: float) -> None:
    end_with_parent()
    ends_s = time.monotonic() + left_s
    for row in measured(name, Card.named(device, tiny), ends_s):
        there.send(row)


def _tried(measure: Callable[[], Figures]) -> Figures:
    try:
        return measure()
    except _FAULTS as error:
        return {"why_not": _sentence(error)}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _sentence(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name.partition('.')[0]} is not installed"
    first_line, *_ = str(error).splitlines() or [""]
    return first_line[:300] or type(error).__name__
