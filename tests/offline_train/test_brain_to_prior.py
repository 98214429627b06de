"""A brain encoder that is trained against the frozen HVF of a Fusion Prior."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from decoder.bundle import HVFRecord, load_bundle
from decoder.hvf import HVF
from decoder.painting.prior import (
    Prior,
    PriorManifest,
    check_bundle,
    load_prior,
    make_projector,
    save_prior,
)
from hvf_core.options import TRAIN
from hvf_core.problem import Problem
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.brain.train import Progress, TrainedModels, make_bundle, train
from offline_train.commands.app import app
from offline_train.data.trial_set import write_trial_set
from offline_train.evaluate.answers import embed
from tests.offline_train.conftest import FORMAT, Planted
from tests.tiny_sdxl import WIDTH, tiny_adapter, tiny_unet, write_tiny_base

pytestmark = pytest.mark.slow

SETTINGS = TrainSettings(
    epochs=4, batch_size=32, lr=2e-3, dim=24, hidden=32, warmup_steps=0, device="cpu"
)


@pytest.fixture(scope="module")
def planted(plant: Callable[..., Planted]) -> Planted:
    return plant(n_train=100, n_test=20)


def write_prior(folder: Path, planted: Planted, dropout: float = 0.0) -> Prior:
    torch.manual_seed(3)
    encoders = planted.features.encoders
    hvf = HVF({e.name: e.dim for e in encoders}, SETTINGS.dim, 40, dropout)
    manifest = PriorManifest(
        embedding_dim=SETTINGS.dim,
        projector_hidden=48,
        hvf=HVFRecord(hidden=40),
        cross_attention_dim=WIDTH,
        n_cross_attentions=3,
        family="tiny",
        base="tiny",
        image_encoders=encoders,
        space="",
        z_norm=SETTINGS.dim**0.5,
    )
    adapter = tiny_adapter(tiny_unet(), SETTINGS.dim)
    return save_prior(folder, manifest, hvf, make_projector(SETTINGS.dim, 48), adapter)


@pytest.fixture
def prior(planted: Planted, tmp_path: Path) -> Prior:
    return write_prior(tmp_path / "prior", planted)


def learn(planted: Planted, hvf: HVF, **changes: object) -> TrainedModels:
    settings = SETTINGS.model_copy(update=changes)
    return train(planted.train, planted.features, settings, frozen_hvf=hvf)


def bundle_of(planted: Planted, models: TrainedModels, folder: Path):
    return make_bundle(folder, models, planted.train, planted.features, SETTINGS, "a test")


def test_the_bundle_has_the_priors_hvf_and_space(
    planted: Planted, prior: Prior, tmp_path: Path
) -> None:
    before = {name: t.clone() for name, t in prior.hvf.state_dict().items()}
    models = learn(planted, prior.hvf)
    bundle = bundle_of(planted, models, tmp_path / "bundle")
    assert bundle.manifest.space == prior.manifest.space
    assert bundle.manifest.hvf.hidden == 40
    assert bundle.manifest.training["hvf"] == f"frozen, of the space {prior.manifest.space}"
    check_bundle(prior, load_bundle(tmp_path / "bundle").manifest)
    assert all(torch.equal(t, before[name]) for name, t in models.hvf.state_dict().items())
    assert all(p.grad is None for p in prior.hvf.parameters())


def test_trials_come_to_lie_at_their_images(planted: Planted, prior: Prior) -> None:
    models = learn(planted, prior.hvf, epochs=30, batch_size=64)
    items = planted.train.items
    means = planted.train.mean(list(planted.train.repeats.values()))
    shown = planted.features.select(items)
    with torch.no_grad():
        z_f = prior.hvf({name: torch.from_numpy(x) for name, x in shown.embeddings.items()})
    z_b = torch.nn.functional.normalize(torch.from_numpy(embed(models.brain, means)))
    nearest = (z_b @ torch.nn.functional.normalize(z_f).T).argmax(dim=1)
    found = (nearest == torch.arange(len(z_f))).float().mean()
    assert found > 0.6  # by chance 0.01


def test_an_hvf_in_training_mode_is_taken_without_its_dropout(
    planted: Planted, tmp_path: Path
) -> None:
    prior = write_prior(tmp_path / "prior", planted)
    disturbed = HVF({"semantic": 10, "pixels": 16}, SETTINGS.dim, 40, dropout=0.5)
    disturbed.load_state_dict(prior.hvf.state_dict())
    assert disturbed.training
    assert learn(planted, disturbed).history == learn(planted, prior.hvf).history
    assert disturbed.training
    assert disturbed.head.dropout.p == 0.5


def test_the_released_code_disturbs_its_targets(planted: Planted, prior: Prior) -> None:
    assert (PRESETS["paper"].target_dropout, PRESETS["released"].target_dropout) == (0.0, 0.1)
    clean = learn(planted, prior.hvf)
    noisy = learn(planted, prior.hvf, target_dropout=0.1)
    assert noisy.history != clean.history
    assert noisy.history == learn(planted, prior.hvf, target_dropout=0.1).history
    assert not noisy.hvf.training


def test_an_interrupted_training_goes_on_and_another_hvf_is_another_training(
    planted: Planted, prior: Prior, tmp_path: Path
) -> None:
    def interrupt(progress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    given = (planted.train, planted.features, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train(*given, interrupt, tmp_path / "state", prior.hvf)
    other = HVF({"semantic": 10, "pixels": 16}, SETTINGS.dim, 40)
    for hvf in (other, None):
        steps: list[Progress] = []
        train(*given, steps.append, tmp_path / "state", hvf)
        assert steps[0].step == 1  # it does not go on from what is not its own
    resumed = train(*given, checkpoint_dir=tmp_path / "state", frozen_hvf=prior.hvf)
    assert resumed.history == learn(planted, prior.hvf).history


def test_an_hvf_of_another_width_is_refused(planted: Planted, prior: Prior) -> None:
    with pytest.raises(Problem, match="gives embeddings of 24 numbers, the settings ask for 32"):
        learn(planted, prior.hvf, dim=32)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_make_a_prior_and_a_bundle_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    names = [f"p{n:02d}" for n in range(12)]
    for name in names:
        patches = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        image = Image.fromarray(patches).resize((80, 64), Image.Resampling.NEAREST)
        image.save(tmp_path / "images" / f"{name}.png")
    write_tiny_base(tmp_path / "base")
    vae = {"name": "vae", "kind": "autoencoder_kl", "source": "./base", "subfolder": "vae"}
    encoders = [vae | {"dim": 64, "size_px": 32}, vae | {"name": "big", "dim": 256, "size_px": 64}]
    for file, listed in (("both.json", encoders), ("small.json", encoders[:1])):
        (tmp_path / file).write_text(json.dumps(listed))
    with write_trial_set(tmp_path / "trials", FORMAT, {}) as writer:
        for session in ("s1", "s2"):
            trials = rng.standard_normal((12, 6, 20)).astype(np.float32)
            writer.append(trials, names, session=session)
    seen = ("--images", tmp_path / "images", "--cache", tmp_path / "cache", "--encoders")
    small = ("--preset", "demo", "--steps", 3, "--batch-size", 4, "--samples", 2, "--dim", 12)
    out = ("--base", tmp_path / "base", "--device", "cpu", "--precision", "no", "--out")

    done = command("prior", *seen, tmp_path / "both.json", *small, *out, tmp_path / "prior")
    assert done.exit_code == 0, done.output
    assert f"next: {TRAIN} mbp" in done.output
    assert list((tmp_path / "prior-tensorboard").glob("events*"))
    cached = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert cached == {"vae", "big", "contents", "checkpoints"}, "'big' gave the latents as well"
    done = command("prior", *seen, tmp_path / "small.json", *small, *out, tmp_path / "prior-2")
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "cache").glob("latents-64px-*/latents.npy"))
    manifest = load_prior(tmp_path / "prior-2").manifest
    assert manifest.training["settings"]["steps"] == 3
    assert manifest.training["n_images"] == 10

    mbp = ("mbp", tmp_path / "trials", "--out", tmp_path / "bundle", "--epochs", 1, "--prior")
    new = ("--cache", tmp_path / "new")
    done = command(*mbp, tmp_path / "prior", *seen, tmp_path / "small.json", *new)
    assert isinstance(done.exception, Problem)
    assert "was trained with the image encoders vae, big" in str(done.exception)
    assert str(done.exception).endswith("give the same --encoders")
    assert not [*(tmp_path / "new").glob("vae*")]
    done = command(*mbp, tmp_path / "prior", *seen, tmp_path / "both.json", "--hold-out", 0)
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "bundle").manifest.embedding_dim == 12

    def too_much(latents, features, *given: object, **more: object) -> None:
        assert list(features.items) != sorted(features.items)
        of_the_same_images = features.at(np.arange(12))["big"].reshape(12, 4, 8, 8)
        assert np.array_equal(latents[np.arange(12)], of_the_same_images)
        raise torch.OutOfMemoryError

    monkeypatch.setattr("offline_train.prior.training.train_prior", too_much)
    done = command("prior", *seen, tmp_path / "both.json", *small, *out, tmp_path / "third")
    assert "4 images in 1 parts: give --parts 2" in str(done.exception)


def test_a_prior_cannot_be_trained_on_images_of_one_name_or_none(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "base")
    asked = ("prior", "--base", tmp_path / "base", "--encoders", "paper-prior", "--out", "prior")
    (tmp_path / "images").mkdir()
    done = command(*asked, "--images", tmp_path / "images")
    assert "there is no image in" in str(done.exception)
    for kind in ("png", "jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"cat.{kind}")
    done = command(*asked, "--images", tmp_path / "images")
    assert "have the same id" in str(done.exception)
    (tmp_path / "not.safetensors").write_bytes(b"x" * 50)
    done = command(*asked, "--images", tmp_path, "--start-from", tmp_path / "not.safetensors")
    assert "cannot be read as safetensors" in str(done.exception)
