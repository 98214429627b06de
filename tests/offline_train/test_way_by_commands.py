"""A data set's whole way by the commands that its page shows: prepare, mbp, gallery, evaluate."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.calling import call
from tests.lookalikes import things, things_eeg2
from tests.lookalikes.eye import EYE, write_seen
from tests.lookalikes.things import TEST, TRAIN

pytestmark = pytest.mark.slow
SMALL = ("dim=16", "hidden=16", "warmup_steps=0", "batch_size=20", "device=cpu")


def run(*arguments: object) -> str:
    done = call(*arguments, module="offline_train")
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    things.write_metadata(things_eeg2.raw(folder / "data", rate_hz=250))
    how = ("--pickles", "--per-session", "--channels", "Oz,Pz,O1,O2", "--tmax", 0.196)
    run("prepare", folder / "data", *how, "--out", folder / "trials")
    return folder / "trials"


def top1(trials: Path, place: Path, told: dict[str, str]) -> float:
    """How often the right one of four comes first, where training images show what is `told`."""
    place.mkdir()
    seen = ("--encoders", EYE, "--cache", place / "features")
    small = [part for one in SMALL for part in ("--set", one)]
    how = ("--epochs", 30, "--lr", 3e-3, "--hold-out", 10, "--preset", "paper", *small)
    learnt = write_seen(place / "train", told)
    asked = write_seen(place / "test", {name: name for name in TEST})
    said = run("mbp", trials, "--images", learnt, *seen, *how, "--out", place / "bundle")
    assert "calibrated on 10 stimuli" in said
    bundle = ("--bundle", place / "bundle")
    run("gallery", *bundle, "--images", asked, *seen, "--out", place / "gallery")
    among = ("--gallery", place / "gallery", "--trials", trials)
    run("evaluate", *bundle, *among, "--repeats", 4, "--out", place / "report")
    found = json.loads((place / "report" / "evaluation.json").read_text())
    return float(found["evaluations"][0]["points"][-1]["top1"]["value"])


def test_ids_are_right_and_shuffled_ones_at_chance(trials: Path, tmp_path: Path) -> None:
    other = np.random.default_rng(0).permutation(TRAIN).tolist()
    assert top1(trials, tmp_path / "right", {name: name for name in TRAIN}) == 1
    assert top1(trials, tmp_path / "shuffled", dict(zip(TRAIN, other, strict=True))) < 0.6
