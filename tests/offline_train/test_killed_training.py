"""Trainings that end at any moment go on to the same bits; they leave what was there, no draft."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from decoder.bundle import load_bundle
from decoder.painting.prior import load_prior
from hvf_core.problem import Problem
from offline_train import checkpoint
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.prior.training import make_prior, train_prior
from tests.offline_train import test_prior_training as prior_world
from tests.tiny_sdxl import load_tiny_base, write_tiny_base

pytestmark = pytest.mark.slow

SETTINGS = TrainSettings(
    epochs=4, batch_size=8, dim=8, hidden=8, warmup_steps=0, repeats_per_row=2, device="cpu"
)
PRIOR_SETTINGS = prior_world.SETTINGS.model_copy(
    update={"steps": 6, "checkpoint_every": 2, "sample_every": 3, "log_every": 2}
)
N_RAISED = 17  # the others are killed, in processes of their own
N_STEPS, N_CHECKPOINTS = {"mbp": 12, "prior": 6}, {"mbp": 4, "prior": 3}
MANIFEST_OF = {
    "mbp": "decoder.bundle.write_manifest",
    "prior": "decoder.painting.prior.write_manifest",
}


def make(kind: str, folder: Path, planted: object, on_step: Callable[[int], None]) -> None:
    """Trains, with its state in `folder/state`, and writes `folder/made`."""
    torch.set_num_threads(1)
    state, made = folder / "state", folder / "made"

    def tell(progress: object) -> None:
        on_step(progress.step)

    if kind == "mbp":
        given = (planted.train, planted.features, SETTINGS)
        make_bundle(made, train(*given, tell, state), *given, "a test")
    else:
        base, settings = load_tiny_base(planted.base), PRIOR_SETTINGS
        latents, features = prior_world.world()
        trained = train_prior(latents, features, base, settings, tell, state)
        make_prior(made, trained, features, base, settings, "a test")


def cut_short(end: Callable[[], None], at_write: int) -> Callable[..., None]:
    """A `save_file` of which one call ends in the middle of the file."""
    calls = iter(range(1, 100))

    def save(tensors: dict, path: Path, facts: dict) -> None:
        save_file(tensors, path, facts)
        if next(calls) == at_write:
            os.truncate(path, path.stat().st_size // 2)
            end()

    return save


def make_until(
    kind: str, folder: Path, planted: object, moment: tuple[str, int], end: Callable[[], None]
) -> None:
    """`make`, but at a moment `end` is called: at a step, in a checkpoint, or in what is made."""
    place, number = moment
    with ExitStack() as patches:
        if place == "checkpoint":
            patches.enter_context(patch.object(checkpoint, "save_file", cut_short(end, number)))
        elif place == "made":
            patches.enter_context(patch(MANIFEST_OF[kind], lambda *_: end()))
        make(kind, folder, planted, lambda n: end() if (place, n) == ("step", number) else None)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".draft-" in path.name or ".old-" in path.name]


def moments_of(kind: str) -> list[tuple[str, int]]:
    rng = np.random.default_rng(2)
    moments = [("step", int(n)) for n in rng.integers(1, N_STEPS[kind] + 1, 11)]
    moments += [("checkpoint", int(n)) for n in rng.integers(1, N_CHECKPOINTS[kind] + 1, 5)]
    return [*moments, ("made", 0), ("step", 5), ("checkpoint", 2), ("made", 0)]


@pytest.fixture(scope="module")
def planted(plant: Callable, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    # Of a class that a process which is spawned finds too, as it does not find one of a conftest.
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    return SimpleNamespace(**vars(plant(n_train=24, n_test=2)), base=base)


@pytest.fixture(scope="module")
def killed(planted: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders KIND/NUMBER; the last of each kind are what a training that was killed left."""
    root = tmp_path_factory.mktemp("killed")
    asked = []
    for kind in N_CHECKPOINTS:
        for number, moment in enumerate(moments_of(kind)):
            folder = root / kind / str(number)
            (folder / "made").mkdir(parents=True)
            if number >= N_RAISED:
                asked.append((kind, folder, planted, moment, kill))
    child = multiprocessing.get_context("spawn").Process(target=each_in_a_fork, args=(asked,))
    child.start()
    child.join(200)
    assert child.exitcode == 0
    return root


@pytest.mark.parametrize("kind", N_CHECKPOINTS)
def test_a_training_ended_twenty_times_at_any_moment_goes_on_to_the_same_bits(
    planted: SimpleNamespace, killed: Path, tmp_path: Path, kind: str
) -> None:
    make(kind, tmp_path / "whole", planted, lambda step: None)
    whole = contents(tmp_path / "whole/made")
    moments = moments_of(kind)
    folders = [killed / kind / str(number) for number in range(20)]
    for number, (folder, moment) in enumerate(zip(folders, moments, strict=True)):
        if number < N_RAISED:
            end = (interrupt, fill_disk)[number % 2]
            with pytest.raises((KeyboardInterrupt, OSError, Problem)):
                make_until(kind, folder, planted, moment, end)
        is_left = number >= N_RAISED and moment[0] != "step"
        assert len(drafts(folder)) == is_left, moment
        assert list((folder / "made").iterdir()) == []  # the earlier state, whatever happens
        steps: list[int] = []
        make(kind, folder, planted, steps.append)
        assert contents(folder / "made") == whole, moment
        assert len(steps) == N_STEPS[kind] - kept(kind, moment), moment
        assert drafts(folder) == []
    (load_bundle if kind == "mbp" else load_prior)(folders[-1] / "made")


def kept(kind: str, moment: tuple[str, int]) -> int:
    """Steps that need not be done again."""
    place, number = moment
    between = N_STEPS[kind] // N_CHECKPOINTS[kind]
    done = {"step": (number - 1) // between, "checkpoint": number - 1}.get(place)
    return N_STEPS[kind] if done is None else done * between


def each_in_a_fork(asked: list[tuple]) -> None:
    """From a process that has nothing but imports, as what torch starts outlives no fork."""
    for one in asked:
        child = os.fork()
        if not child:
            make_until(*one)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
