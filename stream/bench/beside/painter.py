"""Whether a painter delays the decoder, how old its images are, and what memory it takes.

`run_realtime.py bench painter-isolation`: the real decoder node, started by the real supervisor,
is given trials at a steady rate. The real painting node's loop paints them beside it, with a
stand-in for the diffusion model that keeps torch busy for 2 s a picture. In every second block of
trials the painter is suspended, so that both halves of the comparison come from the same
minutes of the same machine.

This program plays the reader, which sends all but the last 20 ms of a trial and, after that pause,
the last slice; and the results node. A latency is from the sending of the last slice to the arrival
of the answer. An image's age is from there to when it is finished.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
import zmq

from decoder.painting.step import Start, Step
from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.acquire.settings import PreprocessSettings
from stream.bench.beside.pairs import show_pairs
from stream.bench.processes import end_with_parent
from stream.bench.untrained import random_gallery, untrained_bundle
from stream.pipeline.nodes.node import Lifeline
from stream.pipeline.nodes.paint import NICENESS, serve
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.bus import drain, open_socket, send
from stream.pipeline.wire.config import LiveSource, PaintingSettings, SessionConfig
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.messages import (
    Embedded,
    Message,
    NodeState,
    Painted,
    Retrieval,
    TrialRef,
    TrialSlice,
)
from stream.pipeline.wire.nodes import DECODE, PAINT, READER, node

_N_CHANNELS, _N_TIMES, _RATE_HZ = 63, 250, 250.0
_TAIL = 5  # samples of the last slice
_DIM, _N_IMAGES = 1024, 200
_SOA_S = 0.2
_JOB_S, _N_STEPS = 2.0, 8  # of a picture
_PICTURE_PX = 512
_BLOCK = 50  # trials until the painter is switched
_N_WARM_UP = 10  # trials
_PATIENCE_S = 5.0

_processes = multiprocessing.get_context("spawn")


class PretendedPainter:
    """Convolves, as a UNet does, for the time that a diffusion model would need."""

    about = "pretends"

    def __init__(self) -> None:
        import torch

        self.facts: dict[str, Any] = {}
        torch.set_num_threads(1)
        images, weights = torch.randn(1, 64, 64, 64), torch.randn(64, 64, 3, 3)
        self._estimate = images
        self._work = partial(torch.nn.functional.conv2d, images, weights, padding=1)
        small = np.random.default_rng(0).integers(0, 256, (_PICTURE_PX // 16,) * 2 + (3,), np.uint8)
        self._picture = np.kron(small, np.ones((16, 16, 1), np.uint8))

    def paint(
        self, job: Embedded, seed: int, on_step: Callable[[Step], bool], start: Start | None
    ) -> np.ndarray | None:
        for i in range(_N_STEPS):
            end_s = time.monotonic() + _JOB_S / _N_STEPS
            while time.monotonic() < end_s:
                self._work()
            if not on_step(Step(i, _N_STEPS, self._estimate, lambda _: self._picture[None])):
                return None
        return self._picture

    def adopt(self, config: SessionConfig) -> None:
        """No setting changes what it does."""


def paint(config: SessionConfig) -> None:
    """The painting node, but for what it paints with."""
    end_with_parent()
    if hasattr(os, "nice"):  # Windows has none
        os.nice(NICENESS)
    serve(config, Lifeline(PAINT, "", supervised=False), PretendedPainter())


@dataclass
class Seen:
    """What came back, by whether the painter ran at the time."""

    latency_ms: dict[bool, list[list[float]]] = field(default_factory=lambda: {True: [], False: []})
    """Of every trial, block by block."""
    images: list[Mapping[str, float]] = field(default_factory=list)
    """Their stamps."""
    rss_mb: list[float] = field(default_factory=list)
    """Of the painter, after each block in which it ran."""


class Bench:
    """The peers of the decoder and of the painter."""

    def __init__(self, config: SessionConfig):
        self._config = config
        self._reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
        self._trials = open_socket(zmq.PUSH, config.endpoints.trials, bind=True)
        rng = np.random.default_rng(0)
        self._eeg = rng.standard_normal((_N_CHANNELS, _N_TIMES)).astype(np.float32)
        self._next_s = local_clock()
        self._trial = 0
        self.seen = Seen()

    def greet(self) -> None:
        """Waits for the decoder, which takes slices from whoever knows it."""
        while self._reports.poll(int(1e3 * _PATIENCE_S)):
            for message in drain(self._reports):
                if isinstance(message, NodeState):
                    send(
                        self._trials, NodeState(node=READER, incarnation="", to=message.incarnation)
                    )
                    return
        raise Problem(f"the decoder has said nothing within {_PATIENCE_S:g} s")

    def trial(self) -> float:
        """Sends a trial when its time has come; milliseconds until its answer was there."""
        self._trial += 1
        self._next_s = max(self._next_s + _SOA_S, local_clock())
        last = _N_TIMES - _TAIL
        self._wait(self._next_s - 0.02)
        self._send(0, last)
        self._wait(self._next_s)
        sent_s = self._send(last, _N_TIMES)
        while local_clock() < sent_s + _PATIENCE_S:
            self._reports.poll(100)
            if any(self._take(message) for message in drain(self._reports)):
                return (local_clock() - sent_s) * 1e3
        raise Problem(f"no answer to trial {self._trial} within {_PATIENCE_S:g} s")

    def _send(self, first: int, stop: int) -> float:
        now_s = local_clock()
        part = TrialSlice(
            about=TrialRef(
                session=self._config.session,
                trial=self._trial,
                stimulus="0",
                group=str(self._trial),
                repeat=1,
                onset_s=now_s,
            ),
            first=first,
            corrects=0,
            final=stop == _N_TIMES,
            residual_s=0.0,
            stamps=dict.fromkeys(("window_end", "readable", "cut"), now_s),
            array=self._eeg[:, first:stop],
        )
        while not send(self._trials, part):  # until the decoder is connected
            time.sleep(0.001)
        return now_s

    def _wait(self, until_s: float) -> None:
        """Takes what comes meanwhile, as a results node does."""
        while (left_s := until_s - local_clock()) > 0:
            self._reports.poll(max(1, int(left_s * 1e3)))
            for message in drain(self._reports):
                self._take(message)

    def _take(self, message: Message) -> bool:
        """Whether this is the answer to the trial that was sent last."""
        match message:
            case Painted():
                self.seen.images.append(message.stamps)
            case Retrieval():
                is_final = not message.answer.provisional
                return is_final and message.about.trial == self._trial
        return False


def models(folder: Path) -> tuple[Path, Path]:
    """An untrained bundle for 63 channels and a gallery of random embeddings."""
    channels = tuple(f"E{i}" for i in range(_N_CHANNELS))
    settings = PreprocessSettings(
        channels=channels,
        output_channels=channels,
        rate_hz=_RATE_HZ,
        tmin_s=0.0,
        tmax_s=(_N_TIMES - 1) / _RATE_HZ,
        whitening="none",
    )
    bundle = untrained_bundle(folder / "bundle", settings, _DIM)
    random_gallery(folder / "gallery", bundle, _N_IMAGES)
    return bundle.directory, folder / "gallery"


def main(
    trials: Annotated[int, typer.Option(min=2, help="beside it, and as many without")] = 1000,
) -> None:
    """Decodes beside a painter and beside a stopped one, in turn, and prints one table."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, gallery = models(Path(folder))
        config = SessionConfig(
            session="benchmark",
            folder=Path(folder),
            endpoints=Endpoints.local(),
            source=LiveSource(eeg="none", markers=None),
            bundle=bundle,
            gallery=gallery,
            painting=PaintingSettings(prior=Path(folder) / "none"),
        )
        config.write()
        bench = Bench(config)
        painter = _processes.Process(target=paint, args=(config,), daemon=True)
        painter.start()
        supervisor = Supervisor(config, [node(DECODE)], None)
        try:
            supervisor.wait_until_ready()
            bench.greet()
            running_s = measure(bench, psutil.Process(painter.pid), trials)
        finally:
            painter.kill()
            supervisor.end()
    show(bench.seen, running_s)


def measure(bench: Bench, painter: psutil.Process, n_trials: int) -> list[tuple[float, float]]:
    """Fills `bench.seen`; returns when the painter was running."""
    for _ in range(_N_WARM_UP):
        bench.trial()
    bench.seen = Seen()
    running_s = []
    for first in range(0, n_trials, _BLOCK):
        n = min(_BLOCK, n_trials - first)
        for runs in (True, False) if first // _BLOCK % 2 else (False, True):
            painter.resume() if runs else painter.suspend()
            began_s = local_clock()
            bench.seen.latency_ms[runs].append([bench.trial() for _ in range(n)])
            if runs:
                running_s.append((began_s, local_clock()))
                bench.seen.rss_mb.append(painter.memory_info().rss / 2**20)
    painter.resume()
    return running_s


def show(seen: Seen, running_s: list[tuple[float, float]]) -> None:
    """Prints what was seen."""
    said = [f"memory of the painter: {min(seen.rss_mb):.0f} to {max(seen.rss_mb):.0f} MB"]
    # An image that was stopped with its painter is as old as the pause was long.
    ages_s = [
        stamps["painted"] - stamps["readable"]
        for stamps in seen.images
        if any(begin <= stamps["readable"] and stamps["painted"] <= end for begin, end in running_s)
    ]
    if ages_s:
        said.append(
            f"{len(ages_s)} images begun and finished while it ran; age when finished: p50 "
            f"{np.median(ages_s):.2f} s, max {max(ages_s):.2f} s"
        )
    show_pairs(
        f"a picture in {_JOB_S:g} s, a trial every {_SOA_S:g} s; {os.cpu_count()} cores",
        "sent → answer, ms",
        ("stopped", "running"),
        {"painter ": (seen.latency_ms[False], seen.latency_ms[True])},
        *said,
    )
