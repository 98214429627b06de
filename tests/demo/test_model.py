"""The model that the demo ships: what it answers, how it is unpacked, and how it is made."""

import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors import SafetensorError

import demo.model
import demo.stimuli
from decoder.bundle import load_bundle
from demo.answers import ANSWERS, answers_of
from demo.model import COMMAND, SHIPPED, DemoModel, pack, ready_model, unpack
from demo.settings import DemoSettings
from demo.training import make_shipped_model
from hvf_core.problem import Problem
from index.gallery import load_gallery

pytestmark = pytest.mark.slow


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gallery's images are grey: to draw them is most of the work of a first run."""
    grey = np.full((8, 8, 3), 128, np.uint8)
    monkeypatch.setattr(demo.model, "render", lambda stimulus: grey)


def test_it_answers_as_when_it_was_made(demo_model: DemoModel, tmp_path: Path) -> None:
    recorded = json.loads((SHIPPED / ANSWERS).read_text())
    found = answers_of(demo_model, tmp_path / "trials")
    asked = ("shown", "evidence", "repeats")
    assert [[a[one] for one in asked] for a in found] == [
        [a[one] for one in asked] for a in recorded
    ]
    of_all = [answers[0]["log_p_of_all"] for answers in (found, recorded)]
    assert np.allclose(*of_all, atol=0.01), (
        f"the gallery's rows are others: make it anew, {COMMAND}"
    )
    gone_wrong = [
        (now, then)
        for now, then in zip(found, recorded, strict=True)
        # Two images may be so near each other that rounding decides which comes first.
        if not math.isclose(now["log_p"], then["log_p"], abs_tol=0.01)
        or not math.isclose(now["log_p_of_answer"], then["log_p_of_answer"], abs_tol=0.01)
    ]
    assert not gone_wrong, (
        f"{len(gone_wrong)} of {len(found)} answers are others than when the shipped model was "
        f"made, such as {gone_wrong[0]}; where that is intended, make it anew: {COMMAND}"
    )


def test_it_was_made_at_todays_settings() -> None:
    recipe = json.loads((SHIPPED / "recipe.json").read_text())
    assert recipe["recipe"] == DemoSettings().model_dump(mode="json"), COMMAND
    assert recipe["command"] == COMMAND


def test_it_remembers_every_trial_of_its_training(demo_model: DemoModel) -> None:
    settings, seen = DemoSettings(), load_bundle(demo_model.bundle).arrays("seen")
    assert seen["trials"].shape == (settings.n_concepts * settings.sessions, 8)
    assert seen["stimuli"].shape == (settings.n_concepts,)
    for name in ("trials", "stimuli"):  # each has numbers of its own
        assert len(np.unique(seen[name], axis=0)) == len(seen[name]), COMMAND


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 7e6


def test_what_was_packed_is_unpacked_again(demo_model: DemoModel, tmp_path: Path, undrawn) -> None:
    pack(demo_model, tmp_path / "shipped")
    again = unpack(tmp_path / "shipped", tmp_path)
    bundle, first = load_bundle(again.bundle), load_bundle(demo_model.bundle)
    assert bundle.manifest == first.manifest  # which has the checksums of all weights
    gallery = load_gallery(again.gallery)
    assert np.allclose(gallery.embeddings, load_gallery(demo_model.gallery).embeddings, atol=1e-6)
    assert all(image.is_file() for image in gallery.images)


def test_drafts_of_runs_that_were_killed_go_and_others_stay(
    tmp_path: Path, monkeypatch, undrawn
) -> None:
    for name in (".demo-old", ".demo-new"):
        (tmp_path / name / "part").mkdir(parents=True)
    os.utime(tmp_path / ".demo-old", (0, 0))
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path))
    model = ready_model()
    assert {path.name for path in tmp_path.iterdir()} == {".demo-new", model.bundle.parent.name}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shutil.copytree(SHIPPED, shipped)
    brain = shipped / "brain.safetensors"
    brain.write_bytes(brain.read_bytes()[:-1] + b"x")
    with pytest.raises(Problem, match=r"brain\.safetensors is damaged"):
        unpack(shipped, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"short")])
def test_a_prior_that_lacks_its_hvf_is_named(spoil, tmp_path: Path, monkeypatch) -> None:
    shutil.copy(demo.model._HVF, tmp_path / "hvf.safetensors")
    spoil(tmp_path / "hvf.safetensors")
    monkeypatch.setattr(demo.model, "_HVF", tmp_path / "hvf.safetensors")
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        Problem, match=r"cannot be loaded from '.*hvf\.safetensors' .*: get it again"
    ):
        ready_model()


def test_first_runs_at_once_leave_one_whole_model(tmp_path, monkeypatch, undrawn) -> None:
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "cache"))
    with ThreadPoolExecutor(3) as pool:
        models = {pool.submit(ready_model) for _ in range(3)}
    (model,) = {one.result() for one in models}
    load_bundle(model.bundle)
    load_gallery(model.gallery)
    assert list((tmp_path / "cache").iterdir()) == [model.bundle.parent]  # no drafts


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Problem, match="HVF_LIVE_CACHE"):
        ready_model()


@pytest.mark.slow
def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "cache"))

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("hvf_core.artifact.save_file", full)
    with pytest.raises(
        Problem, match=r"bundle cannot be written \(.*No space.*\): make room, .* in HVF_LIVE_CACHE"
    ):
        ready_model()
    assert not any((tmp_path / "cache").iterdir())


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path, monkeypatch, undrawn) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HVF_LIVE_CACHE", raising=False)
    with pytest.raises(Problem, match="no home: set HVF_LIVE_CACHE"):
        ready_model()
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path))
    assert ready_model().bundle.is_relative_to(tmp_path)


def test_it_can_be_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = demo.stimuli.test_concepts()[:20]
    monkeypatch.setattr("demo.stimuli.test_concepts", lambda: tests)
    usual = DemoSettings()
    small = usual.model_copy(
        update={
            "n_concepts": 24,
            "n_held_out": 6,
            "sessions": 2,
            "calibration_repeats": (1, 2),
            "training": usual.training.model_copy(update={"epochs": 1, "batch_size": 8}),
        }
    )
    shipped = tmp_path / "shipped"
    make_shipped_model(shipped, small, Console(quiet=True))
    model = unpack(shipped, tmp_path)
    assert load_bundle(model.bundle).manifest.calibration.repeats == (1, 2)
    recorded = json.loads((shipped / ANSWERS).read_text())
    assert answers_of(model, tmp_path / "trials") == recorded
