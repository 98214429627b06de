"""Brain encoders that several processes train together are those that one alone trains."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import load_bundle
from offline_train.brain import train as training
from tests.calling import Done, call
from tests.offline_train.test_folds import SUBJECTS, write
from tests.together import together

pytestmark = pytest.mark.slow


def mbp(trials: Path, folder: Path) -> Done:
    """Leaves each of three subjects out; ten rows and the last four of an epoch are shared."""
    how = ("epochs=3", "batch_size=10", "dim=8", "hidden=8", "lr=2e-3", "warmup_steps=2")
    # What dropout draws is each process's own.
    asked = [part for one in (*how, "dropout=0") for part in ("--set", one)]
    asked += ["--labels", "--leave-one-out", "--cache", folder / "cache", "--out", folder / "out"]
    return call("mbp", trials, *asked, module="offline_train")


def _train_in(rank: int, trials: Path, folder: Path, n_losses: int) -> None:
    """One process of several, of which the second is killed after it has had so many losses."""
    left, infonce = iter(range(n_losses)), training.infonce

    def counted(*given: object) -> object:
        if rank == 1 and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return infonce(*given)

    training.infonce = counted
    done = mbp(trials, folder)
    (folder / f"said-{rank}").write_text(done.out + done.err)
    os._exit(done.code)


def weights(folder: Path) -> dict[str, np.ndarray]:
    bundles = {name: load_bundle(folder / "out" / name / "bundle") for name in SUBJECTS}
    return {
        f"{name} {part} {key}": array
        for name, bundle in bundles.items()
        for part in ("brain", "hvf")
        for key, array in bundle.arrays(part).items()
    }


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trials") / "set", SUBJECTS)


@pytest.fixture(scope="module")
def alone(trials: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("alone")
    assert mbp(trials, folder).code == 0
    return weights(folder)


def test_three_processes_make_what_one_makes_and_one_tells(
    trials: Path, alone: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert together(_train_in, trials, tmp_path, 99, n=3) == [0, 0, 0]
    assert_same(weights(tmp_path), alone)
    told, *others = ((tmp_path / f"said-{rank}").read_text() for rank in range(3))
    assert "3 bundles, in SUBJECT/bundle" in told
    assert others == ["", ""]


def test_one_that_is_killed_ends_the_other_with_a_sentence_and_one_alone_goes_on(
    trials: Path, alone: dict[str, np.ndarray], tmp_path: Path
) -> None:
    # In the second subject's second epoch.
    assert together(_train_in, trials, tmp_path, 9 + 4) == [1, -signal.SIGKILL]
    said = (tmp_path / "said-0").read_text().strip().splitlines()[-1]
    assert said.startswith("another process of this training has ended (")
    assert said.endswith(f"goes on from the last state in '{tmp_path}/cache/checkpoints'")
    assert (tmp_path / "out/ann/bundle").is_dir()
    assert not (tmp_path / "out/bob/bundle").exists()
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        count = training.infonce
        patch.setattr(training, "infonce", lambda *given: steps.append(1) or count(*given))
        assert mbp(trials, tmp_path).code == 0
    assert len(steps) == 6 + 9, "what was done is not done again"
    assert_same(weights(tmp_path), alone)


def test_a_launcher_that_started_one_of_several_is_told(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `accelerate launch --cpu --num_processes 2` leaves them.
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    done = mbp(trials, tmp_path)
    assert done.code == 1
    assert "was asked for several processes and has started one" in done.err
    assert not (tmp_path / "out").exists()
