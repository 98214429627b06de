"""Trainings of which nothing can come are refused before an image is read."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvf_core.artifact import file_sha256
from tests.calling import call
from tests.lookalikes.eye import EYE, write_seen
from tests.offline_train.test_folds import stimuli, write


def refused(trials: Path, *asked: object) -> str:
    """What `mbp` says; there are no images, and it would say so if it looked for them."""
    seen = ("--images", trials / "none", "--encoders", "paper-retrieval")
    made = ("--out", trials / "bundle", "--cache", trials / "cache")
    return call("mbp", trials, *seen, *made, *asked, module="offline_train").one_sentence()


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("trials") / "set", ["ann"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--hold-out", 1000), "1000 of 12 stimuli cannot be held out"),
        (("--average", 99), "stimulus 'train00' has 3 repeats, 99 are to be averaged"),
        (("--fusion", "given"), "these are of 3 encoders: give one"),
        (("--preset", "hvf-eeg"), "the trials have 6 channels and 20 times"),
    ],
)
def test_settings(trials: Path, asked: tuple[object, ...], said: str) -> None:
    assert said in refused(trials, *asked)


def test_an_encoder_of_another_width_is_refused_before_it_sees_an_image(
    trials: Path, tmp_path: Path
) -> None:
    images = write_seen(tmp_path / "images", {name: name for name in stimuli("train")})
    seen = ("--preset", "arena", "--images", images, "--encoders", EYE)
    made = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache")
    done = call("mbp", trials, *seen, *made, module="offline_train")
    assert "gives 6 numbers, the settings ask for 1536" in done.one_sentence()
    assert "--set dim=6" in done.one_sentence()
    assert not [*(tmp_path / "cache").glob("eye*")]


def test_a_training_that_ends_before_it_has_begun_says_so(trials: Path, tmp_path: Path) -> None:
    how = ("--labels", "--epochs", 1, "--set", "dim=8", "--set", "hidden=8")
    made = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache")
    done = call("mbp", trials, *how, *made, module="offline_train")
    assert done.out.startswith(
        "the learning rate climbs for 10 steps, the training has 1: it reaches 0 of 0.0005, and "
        "nothing is learnt; give"
    )
    assert "fits into one batch of 1024, so that the training has no more than 1 steps" in done.out


def test_values_that_are_not_finite(trials: Path) -> None:
    """Nobody writes them here; the name of the place spares who does a search."""
    path, manifest = trials / "trials.npy", trials / "trial_set.json"
    np.load(path, mmap_mode="r+")[30, 4, 7] = np.nan
    told = json.loads(manifest.read_text())
    told["files"][path.name] = file_sha256(path)
    manifest.write_text(json.dumps(told))
    assert f"trial 30 of '{trials}' (of stimulus 'train06') is nan in channel O2: mark" in refused(
        trials
    )


def test_a_set_without_trials_to_learn_from(tmp_path: Path) -> None:
    test = write(tmp_path / "set", ["ann"], ["test"])
    assert f"'{test}': no trial is of the split 'train', only of 'test'; give" in refused(test)
