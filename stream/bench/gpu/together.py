"""Answers while SDXL paints on the same card: in one process, and in two as a session has them.

Blocks of answers alternate, in an order drawn anew in every round: nothing paints; it paints, and
the answers' stream is as any other; it paints, and the answers' stream goes first. Within a process
the card keeps to priorities; two processes share it by time, whatever their streams are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Event, Thread

import numpy as np
import torch

from decoder.brain.mbp import MBP
from decoder.engines.graph import UnitLength
from hvf_core.problem import Problem
from stream.bench.gpu.answers import drawn, graph_of_answers
from stream.bench.gpu.card import Card, Figures, spread
from stream.bench.gpu.painting import graph_of_steps
from stream.bench.gpu.sdxl import embedding, random_base, random_sampler, size_of
from stream.bench.gpu.sections import Cell
from stream.bench.processes import end_with_parent

_PAUSE_S = 0.01  # between two answers
_PATIENCE_S = 90.0
_IDLE = "nothing paints"
_AS_ANY = "it paints, the answers' stream is as any other"
_FIRST = "it paints, the answers' stream goes first"

Switch = Callable[[bool], None]
"""Has the painter paint, or pause; it has done so when this returns."""
_processes = get_context("spawn")


def cells(card: Card) -> Iterator[Cell]:
    """MBP, 200 images and all that follows in one graph, beside images of 512 px."""
    about = "answers beside SDXL at 512 px"
    yield Cell(f"{about}, in two processes", 50, lambda: _two_processes(card))
    yield Cell(f"{about}, in one process", 40, lambda: _one_process(card))


def _two_processes(card: Card) -> Figures:
    here, there = _processes.Pipe()
    painter = _processes.Process(target=paint_as_told, args=(there, str(card.device), card.tiny))
    painter.start()
    there.close()

    def switch(paints: bool) -> None:
        here.send(paints)
        _heard(here)

    with ExitStack() as last:
        last.callback(painter.join, 10)
        last.callback(painter.kill)
        _heard(here)
        return _alternated(card, _answers(card), switch) | {"used_gib": card.used_gib()}


def _heard(here: Connection) -> None:
    """Waits for the painter's word."""
    try:
        if here.poll(_PATIENCE_S):
            here.recv()
            return
    except (EOFError, ConnectionError):
        raise Problem("the process that paints has ended, and what it says is above") from None
    raise Problem(f"the process that paints has said nothing for {_PATIENCE_S:g} s")


def paint_as_told(there: Connection, device: str, tiny: bool) -> None:
    """The painter's process: paints one image after the other, as long as it is told to."""
    end_with_parent()
    card = Card.named(device, tiny)
    sampler = random_sampler(card, random_base(card), size_of(card).px)
    paints = False
    there.send("ready")
    while True:
        if not paints or there.poll():
            paints = there.recv()
            if paints:
                sampler.paint(embedding(card), [0], lambda step: False)
            card.wait()
            there.send("done")
        if paints:
            sampler.paint(embedding(card), [0], lambda step: not there.poll())


def _one_process(card: Card) -> Figures:
    base = random_base(card)
    random_sampler(card, base, size_of(card).px)
    steps = graph_of_steps(card, base)  # as a graph, so that Python has time for the answers
    answers = _answers(card)
    painter = _Painter(partial(steps, np.zeros(1, np.float32)))  # once all is captured
    try:
        return _alternated(card, answers, painter.switch)
    finally:
        painter.end()


class _Painter:
    """Takes steps of denoising in a thread, as long as it is told to."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step, self._ends = step, False
        self._paints, self._is_idle = Event(), Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def switch(self, paints: bool) -> None:
        if paints:
            self._paints.set()
        else:
            self._paints.clear()
            self._is_idle.clear()
            self._is_idle.wait(_PATIENCE_S)
        if not self._thread.is_alive():
            raise Problem("the thread that paints has ended, and what it says is above")

    def end(self) -> None:
        self._ends = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ends:
            if self._paints.wait(0.001):
                self._step()
            else:
                self._is_idle.set()


def _answers(card: Card) -> dict[str, Callable[[], object]]:
    """An answer on a stream as any other, and one on a stream that goes first."""
    shape, dim, n = ((6, 20), 16, 20) if card.tiny else ((63, 250), 1024, 200)
    torch.manual_seed(0)
    unit = UnitLength(MBP(*shape, dim, dim).eval().requires_grad_(False))
    gallery = drawn(n, dim, torch.device("cpu"), torch.float32)
    trial = np.random.default_rng(0).standard_normal(shape, np.float32)
    plain, first = (
        partial(graph_of_answers(card, unit, gallery, shape, urgent=urgent), trial)
        for urgent in (False, True)
    )
    return {_IDLE: plain, _AS_ANY: plain, _FIRST: first}


def _alternated(card: Card, answers: dict[str, Callable[[], object]], switch: Switch) -> Figures:
    """Percentiles by condition; a round has a block of each."""
    rounds, block = (1, 2) if card.tiny else (6, 40)
    rng = np.random.default_rng(0)
    taken_ms: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(rounds):
        for name in rng.permutation(list(answers)):
            switch(name != _IDLE)
            taken_ms[name] += _block(answers[name], block)
    switch(False)
    return {name: spread(np.array(ms)) for name, ms in taken_ms.items()}


def _block(answer: Callable[[], object], n: int) -> list[float]:
    taken_ms = []
    for _ in range(n):
        time.sleep(_PAUSE_S)
        began_s = time.perf_counter()
        answer()
        taken_ms.append(1e3 * (time.perf_counter() - began_s))
    return taken_ms
