"""Paintings from an image, a brain and another brain, on tiny random models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.brain_encoders import load_brain_encoder
from decoder.bundle import Bundle
from decoder.fusion_prior import Prior, load_prior
from decoder.problem import Problem
from decoder.sampler import Sampler, SamplerSettings
from offline_train.evaluate_reconstruction import (
    CEILING,
    FLOOR,
    Paintings,
    brain_name,
    conditions_of,
    derangement,
    paint_conditions,
    score,
)
from offline_train.feature_nets import FeatureNet, FeatureNetSpec
from offline_train.features import Features
from offline_train.prior_settings import PriorSettings
from offline_train.prior_training import make_prior, train_prior
from offline_train.reconstruction_report import differences_table, scores_table, write_grid
from offline_train.train import TrainSettings, make_bundle, train
from offline_train.trial_set import TrialSet
from tests.offline_train.conftest import Planted
from tests.tiny_sdxl import SIZE_PX, tiny_base


@dataclass(frozen=True)
class World:
    bundle: Bundle
    prior: Prior
    trials: TrialSet
    features: Features
    base: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, plant: Callable[..., Planted]) -> World:
    folder = tmp_path_factory.mktemp("world")
    planted = plant(8, 2)
    trials, features = planted.train, planted.features.select(planted.train.items)
    base = tiny_base(folder / "base")
    side = SIZE_PX // 8
    latents = np.random.default_rng(0).normal(size=(8, 4, side, side)).astype(np.float32)
    settings = PriorSettings(
        steps=2,
        batch_size=4,
        dim=12,
        hvf_hidden=8,
        projector_hidden=8,
        n_samples=0,
        precision="no",
        device="cpu",
    )
    trained = train_prior(latents, features, base, settings)
    prior = make_prior(folder / "prior", trained, features, base, settings, "test")
    learnt = TrainSettings(epochs=1, batch_size=8, dim=12, hidden=8)
    models = train(trials, features, learnt, frozen_hvf=prior.hvf)
    bundle = make_bundle(folder / "bundle", models, trials, features, learnt, "test")
    return World(bundle, prior, trials, features, folder / "base")


def test_conditions_are_the_embeddings_of_images_and_of_mean_trials(world: World) -> None:
    found = conditions_of(world.bundle, world.prior, world.trials, world.features, [1, 4])
    assert list(found) == [CEILING, brain_name(4), brain_name(1), FLOOR]
    shown = world.features.select(world.trials.items)
    with torch.no_grad():
        z_f = world.prior.hvf({n: torch.from_numpy(x) for n, x in shown.embeddings.items()})
    assert np.allclose(found[CEILING], z_f.numpy(), atol=1e-6)
    for row, item in enumerate(world.trials.items):
        mean = world.trials.data[world.trials.rows[world.trials.repeats[item]]].mean(axis=0)
        z_b = load_brain_encoder(world.bundle)(torch.from_numpy(mean[None])).detach().numpy()
        assert np.allclose(found[brain_name(4)][row], z_b[0], atol=1e-4)
    everyone = {tuple(z) for z in found[brain_name(4)].round(5).tolist()}
    assert {tuple(z) for z in found[FLOOR].round(5).tolist()} == everyone
    assert not np.isclose(found[FLOOR], found[brain_name(4)]).all(axis=1).any()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_derangement_moves_everything(n: int) -> None:
    for seed in range(20):
        order = derangement(n, np.random.default_rng(seed))
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()


def test_all_conditions_are_painted_with_the_same_seeds(world: World) -> None:
    sampler = Sampler(
        tiny_base(world.base.with_name("again")), world.prior.adapter, SamplerSettings(steps=1)
    )
    z = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    painted = paint_conditions({"a": z, "b": 5 * z}, world.prior, sampler, batch=2)
    assert painted["a"].shape == (3, SIZE_PX, SIZE_PX, 3)
    # Length does not matter, nor the batch, but for rounding.
    assert np.abs(painted["a"].astype(int) - painted["b"]).max() <= 1
    kept = paint_conditions({"b": 5 * z}, world.prior, sampler, rescale=False)
    assert not np.array_equal(kept["b"], painted["b"])


def test_scores_tell_good_paintings_from_bad_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = np.kron(rng.integers(0, 256, (14, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)

    def spoilt(share: float) -> np.ndarray:
        noise = np.kron(rng.integers(0, 256, (14, 4, 4, 3)), np.ones((1, 8, 8, 1)))
        return ((1 - share) * seen + share * noise).astype(np.uint8)

    painted = {CEILING: spoilt(0.2), brain_name(1): spoilt(0.75), FLOOR: spoilt(1.0)}
    two_way = FeatureNetSpec(name="pixels", kind="classifier", source="", size_px=16)
    far = two_way.model_copy(update={"name": "far", "score": "distance"})
    nets = [FeatureNet(spec, lambda images: images) for spec in (two_way, far)]
    paintings = Paintings(seen, painted)
    scores = score(paintings, nets, {"seed": 0})
    values = {name: {m: s.value for m, s in found.items()} for name, found in scores.scores.items()}
    for better, worse in ((CEILING, brain_name(1)), (brain_name(1), FLOOR)):
        assert values[better]["PixCorr"] > values[worse]["PixCorr"]
        assert values[better]["SSIM"] > values[worse]["SSIM"]
        assert values[better]["far"] < values[worse]["far"]
    assert [(d.metric, d.better, d.worse) for d in scores.differences] == [
        ("pixels", CEILING, brain_name(1)),
        ("pixels", brain_name(1), FLOOR),
    ]
    assert scores.separates
    floor = scores.scores[FLOOR]["pixels"]
    assert floor.low < 0.5 < floor.high
    same = score(Paintings(seen, {"a": painted[CEILING], "b": painted[CEILING]}), nets, {})
    assert not same.separates
    assert scores_table(scores).row_count == 3
    assert differences_table(scores).row_count == 2
    write_grid(paintings, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 10_000


def test_a_bundle_of_another_space_is_refused(world: World, tmp_path: Path) -> None:
    learnt = TrainSettings(epochs=1, batch_size=8, dim=12, hidden=8)
    models = train(world.trials, world.features, learnt)
    bundle = make_bundle(tmp_path / "bundle", models, world.trials, world.features, learnt, "test")
    with pytest.raises(Problem, match="paints from the embedding space"):
        conditions_of(bundle, world.prior, world.trials, world.features, [1])


def test_too_few_repeats_are_refused(world: World) -> None:
    with pytest.raises(Problem, match="9"):
        conditions_of(world.bundle, world.prior, world.trials, world.features, [1, 9])


def test_a_bundle_trained_against_the_prior_has_its_hvf_and_space(world: World) -> None:
    assert world.bundle.manifest.space == world.prior.manifest.space
    assert world.bundle.manifest.training["hvf"].startswith("frozen")
    theirs = world.prior.hvf.state_dict()
    for name, array in world.bundle.arrays("hvf").items():
        assert np.array_equal(array, theirs[name].numpy())
    assert load_prior(world.prior.directory).manifest.space == world.prior.manifest.space
