"""How long a training at full size takes: `python -m tests.lookalikes.full_training FOLDER`.

Beside its own matrix products alone, which are run between its epochs: both then have the same
machine, whoever else uses it. Trials and features are noise.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as offline_train has it, before torch

import numpy as np
import torch
import typer

from decoder.bundle import ImageEncoderRecord
from offline_train.brain.rows import Rows
from offline_train.brain.settings import PRESETS, count_steps
from offline_train.brain.train import Progress, train
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set
from offline_train.together import Group

RETRIEVAL = {"RN50": 1024, "ViT-B-32": 512, "SDXL-VAE": 1024}
Shape = tuple[int, int]
CLOCK = time.process_time
"""Of all threads: that others use the machine as well then matters little."""
_N_STATES = 4
"""Numbers kept for each weight: itself, its gradient and both moments of AdamW."""


def noise_set(
    folder: Path, n_images: int, n_channels: int, repeats: int, subjects: int
) -> TrialSet:
    """Trials of 1 s at 250 Hz; made once."""
    if not (folder / "trial_set.json").is_file():
        names = tuple(f"C{i}" for i in range(n_channels))
        format = TrialFormat(channels=names, rate_hz=250, tmin_s=0, tmax_s=0.996)
        rng = np.random.default_rng(0)
        with write_trial_set(folder, format) as writer:
            for subject in range(subjects):
                for _ in range(repeats):
                    for start in range(0, n_images, 1024):
                        shown = [f"{i:05d}" for i in range(start, min(start + 1024, n_images))]
                        trials = rng.standard_normal((len(shown), n_channels, 250), np.float32)
                        writer.append(trials, shown, subject=str(subject))
    return load_trial_set(folder)


def noise_features(items: tuple[str, ...]) -> Features:
    rng = np.random.default_rng(1)
    encoders = tuple(
        ImageEncoderRecord(name=name, dim=dim, checksum="noise") for name, dim in RETRIEVAL.items()
    )
    arrays = {k: rng.standard_normal((len(items), d), np.float32) for k, d in RETRIEVAL.items()}
    return Features(items, encoders, arrays)


def products(n: int, n_inputs: int, width: int = 1024) -> Iterator[tuple[Shape, Shape]]:
    """The matrix products of a step of `n` rows: forward, and back to weights and to inputs."""
    for d in (n_inputs, *RETRIEVAL.values()):  # into nothing that is learnt: not back to inputs
        yield (n, d), (d, width)
        yield (width, n), (n, d)
    for _ in range(2 * 2):  # two matrices in each of two residual blocks
        yield (n, width), (width, width)
        yield (width, n), (n, width)
        yield (n, width), (width, width)
    yield (n, width), (width, n)
    yield (n, n), (n, width)
    yield (n, n), (n, width)


class Products:
    """Runs the products of an epoch, with matrices that are there already."""

    def __init__(self, n_rows: int, n_inputs: int, batch_size: int) -> None:
        sizes = [min(batch_size, n_rows - start) for start in range(0, n_rows, batch_size)]
        self._shapes = [pair for n in sizes for pair in products(n, n_inputs)]
        shapes = {shape for a, b in self._shapes for shape in (a, b, (a[0], b[1]))}
        self._matrices = {shape: torch.randn(shape) for shape in shapes}

    def __call__(self) -> float:
        """Seconds of the CPU that an epoch's take."""
        start = CLOCK()
        for a, b in self._shapes:
            torch.mm(self._matrices[a], self._matrices[b], out=self._matrices[a[0], b[1]])
        return CLOCK() - start


class _Enough(Exception):
    """Enough steps have been taken."""


class Memory:
    """The most memory that this process has had: of its own, and with files that are mapped."""

    def __init__(self) -> None:
        self.peak, self.peak_mapped = 0, 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            self.peak_mapped = max(self.peak_mapped, self.now("VmRSS"))
            time.sleep(0.02)

    @staticmethod
    def now(name: str = "RssAnon") -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith(name)]
        return int(line.split()[1]) * 1024


def main(
    folder: Annotated[Path, typer.Argument(help="Where trials are made and kept")],
    images: int = 16_540,
    channels: int = 17,
    repeats: int = 1,
    subjects: int = 1,
    every_trial: Annotated[bool, typer.Option("--every-trial")] = False,
    epochs: int = 25,
    steps: Annotated[int | None, typer.Option(help="End after so many")] = None,
    held_gb: float | None = None,
    beside: Annotated[bool, typer.Option(help="Run the products alone between epochs")] = True,
) -> None:
    """Trains; prints what it took of the CPU, beside its products, and of memory."""
    name = f"{images}x{channels}x{repeats}x{subjects}"
    trial_set = noise_set(folder / name, images, channels, repeats, subjects)
    features = noise_features(trial_set.items)
    changes = {"epochs": epochs, "held_gb": held_gb, "device": "cpu"}
    if every_trial:
        changes |= {"repeats_per_row": 1, "rows_per_item": None}
    settings = PRESETS["paper"].model_copy(update=changes)
    n_inputs = channels * 250
    rows = Rows(trial_set, settings, Group.alone("cpu"))
    weights = 4 * _N_STATES * (n_inputs * 1024 + sum(RETRIEVAL.values()) * 1024 + 4 * 1024**2)
    seen = sum(array.nbytes for array in features.embeddings.values())
    held = 4 * n_inputs * (len(trial_set) if every_trial else rows.n)
    must = weights + seen + held * rows.is_held
    alone = Products(rows.n, n_inputs, settings.batch_size) if beside else None
    per_epoch = count_steps(rows.n, settings) // epochs
    before, memory = Memory.now(), Memory()
    products_s, epochs_s = list[float](), list[float]()
    begun = CLOCK()

    def follow(step: Progress) -> None:
        nonlocal begun
        if step.step == steps:
            raise _Enough
        if step.step % per_epoch:
            return
        epochs_s.append(CLOCK() - begun)
        told = f"epoch {step.epoch}: {epochs_s[-1]:.2f} s"
        if alone is not None:
            products_s.append(alone())
            told += f", its products alone {products_s[-1]:.2f} s"
        print(told, flush=True)
        begun = CLOCK()

    with suppress(_Enough):
        train(trial_set, features, settings, follow)
    print(
        f"{rows.n} rows an epoch; {np.median(epochs_s or [np.nan]):.2f} s of the CPU an epoch, "
        f"{sum(epochs_s):.0f} s in all; "
        f"{(memory.peak - before + seen) / 1e9:.2f} GB, of which {must / 1e9:.2f} must be there; "
        f"{memory.peak_mapped / 1e9:.2f} GB with all that the program and mapped files take (RSS)"
    )
    if products_s:
        ratios = np.array(epochs_s) / np.array(products_s)
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        print(f"{middle:.2f} times its products in the median epoch ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    typer.run(main)
