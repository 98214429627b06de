"""Measures one set-up of the certificate: a source, a session on it, and what became of it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decoder.bundle import open_bundle
from demo.head import CHANNELS as HEAD
from demo.settings import ASSETS, PRIOR
from hvf_core.problem import Problem
from index.gallery import open_gallery
from stream.acquire.lsl import find_stream
from stream.acquire.settings import PreprocessSettings, as_made
from stream.bench.listeners import Answer
from stream.bench.live.cells import Setup
from stream.bench.live.figures import ANSWER, Cell, Figures, Used, accuracy_of, judged
from stream.bench.live.settings import Requirements
from stream.bench.machine import load
from stream.bench.measured_session import (
    STAGES,
    WAY,
    WAY_LSL,
    MeasuredSession,
    measure_session,
)
from stream.bench.streams import ForeignSource, RunningSource, Source, loop_back
from stream.bench.untrained import random_gallery, untrained_bundle

MOMENTS = {
    ANSWER: WAY,
    "answer at LSL": WAY_LSL,
    **STAGES,
    "preview": ("pushed", "preview"),
    "image": ("pushed", "image"),
}
_N_WARM_UP, _LEAST_WARM_UP, _WARM_UP_S = 10, 3, 2.0  # not as many where images come slowly
_LOOP_BACK_S = 4.0  # before and after
_N_KEPT = 2000  # of the loop-back's samples
_numbers = itertools.count(1)


@dataclass
class Bench:
    """What all set-ups share; models that are not there are made in `folder`, once.

    Attributes:
        about: bench, machine, requirements and beginning, as each line has them.
    """

    bundle: Path
    gallery: Path
    folder: Path
    requirements: Requirements
    about: dict[str, Any]
    streams: tuple[str, str] = ("", "")
    n_warm_up: int = _N_WARM_UP
    loop_back_s: float = _LOOP_BACK_S
    _made: dict[tuple[Any, ...], Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._manifest = open_bundle(self.bundle).manifest
        self.preprocessing = PreprocessSettings(**as_made(self._manifest.preprocessing))
        self.n_images = len(open_gallery(self.gallery))

    def measure(self, setup: Setup) -> tuple[Cell, Sequence[Answer]]:
        """One line of the certificate, and its answers; what cannot be measured says why."""
        before = load()
        about = {**self.about, "requirements": self.requirements, "setup": setup}
        try:
            measured, found = self._run(setup)
        except Problem as problem:
            return Cell(**about, not_measured=str(problem), load=(before, load())), ()
        if setup.plays == "live":
            about["setup"] = setup.model_copy(update=self._heard(measured))
        values_ms = {name: measured.took_ms(way) for name, way in MOMENTS.items()} | found
        figures = {name: Figures.of(ms) for name, ms in values_ms.items() if len(ms)}
        fails = judged(
            figures.get(ANSWER),
            measured.n_lost,
            measured.n_twice,
            measured.cpu,
            self.about["machine"]["cores"],
            self.requirements,
        )
        answers = (*measured.provisionals, *measured.finals)
        photon = {}
        if setup.trigger is not None:
            from stream.bench.live.photon import steadiness  # here: MNE takes a second

            eeg = self.streams[0] or measured.folder.name  # which a source of ours is called as
            photon = steadiness(measured, eeg, setup.trigger)
        cell = Cell(
            **about,
            figures=figures,
            values_ms={k: tuple(np.round(v, 4).tolist()) for k, v in values_ms.items() if len(v)},
            used={
                name: Used(
                    cpu=round(one.cpu, 4),
                    memory_mb=round(one.rss_bytes / 1e6, 1),
                    files=int(one.at[-1, 3]),
                )
                for name, one in measured.usage.items()
            },
            cpu=round(measured.cpu, 4),
            shown=measured.n_shown,
            lost=measured.n_lost,
            twice=measured.n_twice,
            engine=str(measured.summary.get("decoder", {}).get("engine", "")),
            accuracy=accuracy_of(answers, WAY) if setup.plays != "noise" else (),
            photon=photon,
            fails=tuple(fails),
            load=(before, load()),
        )
        return cell, answers

    def _heard(self, measured: MeasuredSession) -> dict[str, float]:
        """What the streams were that are there."""
        stream = find_stream(self.streams[0], 10.0).info
        ends_s = [one.moments["window_end"] for one in measured.finals]
        soa_s = float(np.median(np.diff(ends_s))) if len(ends_s) > 1 else math.nan
        return {
            "channels": stream.channel_count(),
            "rate_hz": stream.nominal_srate(),
            "soa_s": round(soa_s, 3),
        }

    def _run(self, setup: Setup) -> tuple[MeasuredSession, dict[str, np.ndarray]]:
        name = f"bench-{self.folder.name}-{next(_numbers)}"
        options: list[object] = ["--engine", setup.engine]
        options += ["--tmax", ",".join(map(str, setup.tmax_s))] if setup.tmax_s else []
        options += ["--trigger", setup.trigger] if setup.trigger else []
        options += ["--paint", PRIOR, "--base", ASSETS] if setup.kind == "painting" else []
        models = self._bundle(setup), self._gallery(setup)
        folder, n, n_warm_up = self.folder / name, setup.n_trials, self._n_warm_up(setup)
        if setup.plays == "live":
            foreign = ForeignSource(*self.streams)
            return measure_session(foreign, *models, n, folder, options, n_warm_up=0), {}
        with RunningSource(self._source(setup, name), markers=False) as running:
            floors = [self._floor(running)] if setup.kind == "centre" else []
            measured = measure_session(running, *models, n, folder, options, n_warm_up=n_warm_up)
            floors += [self._floor(running)] if floors else []
        return measured, {"raw LSL": np.concatenate(floors)} if floors else {}

    def _n_warm_up(self, setup: Setup) -> int:
        return min(self.n_warm_up, max(_LEAST_WARM_UP, round(_WARM_UP_S / setup.soa_s)))

    def _source(self, setup: Setup, name: str) -> Source:
        """What is shown are the images of the gallery, each once before any comes again."""
        n, rng = setup.n_trials + self._n_warm_up(setup), np.random.default_rng(0)
        ids = np.array(open_gallery(self._gallery(setup)).ids[:n])
        orders = [rng.permutation(ids) for _ in range(-(-n // len(ids)))]
        shown = tuple(map(str, np.concatenate(orders)[:n]))
        return Source(
            name,
            setup.rate_hz,
            self._channels(setup.channels),
            setup.soa_s,
            setup.chunk,
            shown,
            "subject" if setup.plays == "subject" else "noise",
            has_trigger=setup.trigger is not None,
        )

    def _channels(self, n: int) -> tuple[str, ...]:
        own = self.preprocessing.channels
        if n == len(own):
            return own
        return HEAD[-n:] if n <= len(HEAD) else (*HEAD, *(f"X{i}" for i in range(len(HEAD), n)))

    def _bundle(self, setup: Setup) -> Path:
        """The bundle, or where its channels or rate do not fit, an untrained one of its width."""
        own = self.preprocessing
        rate_hz = min(own.rate_hz, setup.rate_hz)
        if setup.channels == len(own.channels) and rate_hz == own.rate_hz:
            return self.bundle
        key = ("bundle", setup.channels, rate_hz)
        if key not in self._made:
            self._made[key] = folder = self.folder / "-".join(map(str, key))
            channels = self._channels(setup.channels)
            changes = {
                "channels": channels,
                "output_channels": channels[-len(own.output_channels) :],
                "rate_hz": rate_hz,
                "tmax_s": own.tmin_s + round((own.tmax_s - own.tmin_s) * rate_hz) / rate_hz,
                "reference": "none",
            }
            settings = own.model_copy(update=changes)
            untrained_bundle(folder, settings, self._manifest.embedding_dim)
        return self._made[key]

    def _gallery(self, setup: Setup) -> Path:
        bundle = self._bundle(setup)
        if setup.images == self.n_images and bundle == self.bundle:
            return self.gallery
        key = ("gallery", bundle.name, setup.images)
        if key not in self._made:
            self._made[key] = folder = self.folder / "-".join(map(str, key))
            random_gallery(folder, open_bundle(bundle), setup.images)
        return self._made[key]

    def _floor(self, running: RunningSource) -> np.ndarray:
        """What LSL alone takes, in ms, of some of the samples."""
        took_s = running.hear(loop_back, self.loop_back_s)
        picks = np.linspace(0, len(took_s) - 1, min(len(took_s), _N_KEPT // 2)).astype(int)
        return 1e3 * took_s[picks]
