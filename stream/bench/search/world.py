"""Galleries of the demo world of any size, and a simulated subject's trials to look up in them.

Pictures are drawn, encoded and fused by the demo's bundle, a block at a time, and kept in the cache
of this machine: whatever ends it costs a block at most.
"""

import hashlib
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.nn import functional

import demo
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.evidence import Weights
from decoder.hvf import load_hvf
from demo.evaluation import simulated_tests
from demo.model import ready_model
from demo.settings import ASSETS
from demo.stimuli import (
    Stimulus,
    gallery_stimuli,
    render,
    stimuli,
    test_concepts,
    training_concepts,
)
from hvf_core.artifact import cache_folder, whole_file
from index.encoders.load import ImageEncoder, load_encoder
from index.encoders.spec import read_specs
from index.search.measure import Queries
from stream.bench.processes import workers

BLOCK = 512
"""Pictures between two writes."""
REPEATS = 10
"""Trials of each of the 200 test images; half of them are means of all ten."""
_AT_ONCE = 2**14
_DEMO = Path(demo.__file__).parent
_MADE_BY = ("**/world/*.py", "stimuli.py", "subject.py", "head.py")
"""What pictures and trials are made by: others are made where it changes."""


def pictures() -> list[Stimulus]:
    """All pictures of the demo world: the test images first, the others in an order drawn once."""
    first = gallery_stimuli()
    known = {stimulus.id for stimulus in first}
    rest = stimuli(training_concepts() + test_concepts(), 100)
    order = np.random.default_rng(0).permutation(len(rest))
    return first + [rest[i] for i in order if rest[i].id not in known]


class World:
    """Embeddings as a gallery of the demo's bundle holds them, and those of trials."""

    def __init__(self, console: Console) -> None:
        self.bundle = load_bundle(ready_model().bundle)
        digest = hashlib.sha256(self.bundle.manifest.model_dump_json().encode())
        for file in sorted(path for made_by in _MADE_BY for path in _DEMO.glob(made_by)):
            digest.update(file.read_bytes())
        self.folder = cache_folder() / f"bench-search-{digest.hexdigest()[:12]}"
        self._console = console

    def embeddings(self, n: int, n_pictures: int) -> np.ndarray:
        """The first `n`, float32 (n, dim); after `n_pictures` they are drawn.

        What is drawn has the mean and the covariance of those of pictures.
        """
        fused = self._fused(min(n, n_pictures))
        if n <= n_pictures:
            return fused
        path = self.folder / f"drawn-{n}-after-{n_pictures}.npy"
        if not path.exists():
            with whole_file(path) as draft:
                self._draw(draft, n, fused)
        return np.load(path, mmap_mode="r")

    def _fused(self, n: int) -> np.ndarray:
        blocks = [self.folder / f"fused-{at:05d}.npy" for at in range(-(-n // BLOCK))]
        missing = [at for at, path in enumerate(blocks) if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        if missing:
            n_processes = min(os.cpu_count() or 1, len(missing))
            with workers(n_processes) as pool:
                done = pool.map(_fuse, missing, [blocks[at] for at in missing])
                told = f"drawing, encoding and fusing {BLOCK * len(missing)} pictures"
                for _ in track(done, told, len(missing), console=self._console):
                    pass
        return np.concatenate([np.load(path) for path in blocks])[:n]

    def _draw(self, path: Path, n: int, fused: np.ndarray) -> None:
        mean = fused.mean(0)
        values, vectors = np.linalg.eigh(np.cov(fused.T))
        mix = (np.sqrt(values.clip(0)) * vectors).T.astype(np.float32)
        out = np.lib.format.open_memmap(path, "w+", np.float32, (n, fused.shape[1]))
        out[: len(fused)] = fused
        rng = np.random.default_rng(0)
        starts = range(len(fused), n, _AT_ONCE)
        for first in track(starts, f"drawing {n - len(fused)} embeddings", console=self._console):
            last = min(first + _AT_ONCE, n)
            rows = mean + rng.standard_normal((last - first, len(mean)), np.float32) @ mix
            out[first:last] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        out.flush()

    def queries(self) -> Queries:
        """Embeddings of trials of the 200 test images (simulated), in no order.

        Half are of single trials, half of means of two to ten of them.
        """
        path = self.folder / "queries.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory() as folder, whole_file(path) as draft:
                vectors, n_repeats = self._asked(Path(folder) / "trials")
                order = np.random.default_rng(0).permutation(len(vectors))
                with draft.open("wb") as file:
                    np.savez(file, vectors=vectors[order], n_repeats=n_repeats[order])
        kept, of = np.load(path), self.bundle.manifest
        weights = Weights("mean", of.logit_scale, of.calibration)
        factors = [
            weights.of_one(of.tmax_s) / weights.temperature(of.tmax_s, n)
            for n in kept["n_repeats"].tolist()
        ]
        return Queries(kept["vectors"], np.array(factors), "brain")

    @torch.inference_mode()
    def _asked(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        trials = simulated_tests(self.bundle, folder, REPEATS)
        shown = list(trials.repeats.values())
        groups = [repeats[[at]] for repeats in shown for at in range(REPEATS)]
        groups += [repeats[:n] for repeats in shown for n in range(2, REPEATS + 1)]
        brain = load_brain_encoder(self.bundle).eval()
        embedded = functional.normalize(brain(torch.from_numpy(trials.mean(groups))), dim=1)
        return embedded.numpy(), np.array([len(group) for group in groups])


@cache
def _tools() -> tuple[list[ImageEncoder], torch.nn.Module]:
    torch.set_num_threads(1)
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    return encoders, load_hvf(load_bundle(ready_model().bundle))


@torch.inference_mode()
def _fuse(at: int, path: Path) -> None:
    """Makes a block; in a process of its own."""
    encoders, hvf = _tools()
    images = [render(stimulus) for stimulus in pictures()[at * BLOCK :][:BLOCK]]
    features = {e.spec.name: torch.from_numpy(e.encode(images)) for e in encoders}
    with whole_file(path) as draft, draft.open("wb") as file:
        np.save(file, functional.normalize(hvf(features), dim=1).numpy())
