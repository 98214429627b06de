"""Paintings from an image, a brain and another brain, on tiny random models."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.painting.prior import Prior, load_prior
from decoder.painting.sampler import Sampler, SamplerSettings
from hvf_core.problem import Problem
from index.encoders.classifier import SemanticNet, SemanticNetConfig
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.commands.app import app
from offline_train.data.features import Features, extract_features
from offline_train.data.images import content_of
from offline_train.data.trial_set import TrialSet, load_trial_set, write_trial_set
from offline_train.paintings.nets import FeatureNet
from offline_train.paintings.paint import paint_conditions
from offline_train.paintings.report import differences_table, scores_table, write_grid
from offline_train.paintings.scores import (
    CEILING,
    FLOOR,
    Paintings,
    PaintingScores,
    brain_name,
    conditions_of,
    derangement,
    score,
)
from offline_train.paintings.settings import PaintingsSettings
from offline_train.paintings.spec import FeatureNetSpec
from offline_train.prior.settings import PriorSettings
from offline_train.prior.training import make_prior, train_prior
from tests.offline_train.conftest import FORMAT
from tests.tiny_sdxl import SIZE_PX, tiny_base, write_tiny_base

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class World:
    """Eight images, four trials of each, a prior, and a bundle that was trained against it."""

    folder: Path
    """Has images, encoders.json, trials, base, prior, bundle."""
    bundle: Bundle
    prior: Prior
    trials: TrialSet
    features: Features


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    names = tuple(f"item{i}" for i in range(8))
    (folder / "images").mkdir()
    images = dict(zip(names, pictures(8, rng), strict=True))
    for name, image in images.items():
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    base = tiny_base(folder / "base")
    encoder = {"name": "vae", "kind": "autoencoder_kl", "source": "./base", "subfolder": "vae"}
    (folder / "encoders.json").write_text(json.dumps([encoder | {"dim": 64, "size_px": 32}]))
    encoders = [load_encoder(spec) for spec in read_specs(folder / "encoders.json")]
    contents = {name: content_of(image) for name, image in images.items()}
    features = extract_features(contents, images.__getitem__, encoders, folder / "features")
    with write_trial_set(folder / "trials", FORMAT, {}) as writer:
        for session in ("s1", "s2", "s3", "s4"):
            writer.append(rng.normal(size=(8, 6, 20)).astype(np.float32), names, session=session)
    trials = load_trial_set(folder / "trials")
    side = SIZE_PX // 8
    latents = rng.normal(size=(8, 4, side, side)).astype(np.float32)
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
    return World(folder, bundle, prior, trials, features)


def pictures(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of 4 x 4 patches, (n, 32, 32, 3)."""
    patches = rng.integers(0, 256, (n, 4, 4, 3))
    return np.kron(patches, np.ones((1, 8, 8, 1))).astype(np.uint8)


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


@pytest.fixture
def sampler(world: World, tmp_path: Path) -> Sampler:
    return Sampler(tiny_base(tmp_path / "base"), world.prior.adapter, SamplerSettings(steps=1))


def test_all_conditions_are_painted_with_the_same_seeds(world: World, sampler: Sampler) -> None:
    z = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    asked = {"a": z, "b": 4 * z}
    painted = paint_conditions(asked, world.prior, sampler, PaintingsSettings(), batch=2)
    assert painted["a"].shape == (1, 3, SIZE_PX, SIZE_PX, 3)
    assert np.array_equal(painted["a"], painted["b"])  # their length does not matter


def test_samples_of_an_image_differ_by_their_noise_only(world: World, sampler: Sampler) -> None:
    z = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    done = []
    painted = paint_conditions(
        {"a": z},
        world.prior,
        sampler,
        PaintingsSettings(seed=5, samples=2),
        lambda *told: done.append(told),
        batch=4,
    )["a"]
    assert painted.shape == (2, 3, SIZE_PX, SIZE_PX, 3)
    assert done == [(4, 6), (6, 6)]
    for sample in range(2):
        for image in range(3):
            z_c = world.prior.condition(torch.from_numpy(z[image : image + 1]))
            alone = sampler.paint(z_c, [5 + 3 * sample + image])[0]
            assert np.abs(painted[sample, image].astype(int) - alone).max() <= 1
    assert not np.array_equal(painted[0], painted[1])


def test_scores_of_samples_are_averaged_for_each_image() -> None:
    rng = np.random.default_rng(0)
    seen, other = pictures(6, rng), pictures(6, rng)
    net = FeatureNet(
        FeatureNetSpec(name="pixels", kind="classifier", source="", size_px=16), lambda x: x
    )
    first, second = (
        score(Paintings(seen, {"a": samples[None]}), [net], {}) for samples in (seen, other)
    )
    both = score(Paintings(seen, {"a": np.stack([seen, other])}), [net], {})
    assert (first.n_samples, both.n_samples, both.n_images) == (1, 2, 6)
    for metric, found in both.scores["a"].items():
        of_each = (first.scores["a"][metric].value, second.scores["a"][metric].value)
        assert found.value == pytest.approx(np.mean(of_each))


def test_further_scores_are_beside_the_others() -> None:
    seen = pictures(4, np.random.default_rng(0))
    darker = {"darker": lambda painted: (painted.mean(axis=(1, 2, 3)) < 100).astype(float)}
    found = score(Paintings(seen, {"a": seen[None] // 4, "b": seen[None]}), [], {}, darker)
    assert (found.scores["a"]["darker"].value, found.scores["b"]["darker"].value) == (1, 0)
    assert list(found.scores["a"]) == ["PixCorr", "SSIM", "darker"]


def test_scores_tell_good_paintings_from_bad_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = pictures(14, rng)

    def spoilt(share: float) -> np.ndarray:
        return ((1 - share) * seen + share * pictures(14, rng)).astype(np.uint8)[None]

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
    assert all(difference.separate for difference in scores.differences)
    assert scores.nets == (two_way, far)
    assert list(scores.definitions) == ["PixCorr", "SSIM", two_way.name, far.name]
    assert "r(i, j) < r(j, j)" in scores.definitions[two_way.name]
    assert f"{far.size_px} px" in scores.definitions[far.name]
    floor = scores.scores[FLOOR]["pixels"]
    assert floor.low < 0.5 < floor.high
    same = score(Paintings(seen, {"a": painted[CEILING], "b": painted[CEILING]}), nets, {})
    assert not same.differences[0].separate
    assert scores_table(scores).row_count == 4
    assert differences_table(scores).row_count == 2
    write_grid(paintings, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 10_000


def test_what_differs_by_chance_is_not_called_separate() -> None:
    rng = np.random.default_rng(0)
    seen, one, other = (pictures(14, rng) for _ in range(3))
    spec = FeatureNetSpec(name="pixels", kind="classifier", source="", size_px=16)
    net = FeatureNet(spec, lambda images: images)
    found = []
    for names in (("one", "other"), ("other", "one")):
        painted = {name: {"one": one, "other": other}[name][None] for name in names}
        found += score(Paintings(seen, painted), [net], {}).differences
    assert max(row.difference.value for row in found) > 0
    assert not any(row.separate for row in found)


def test_a_bundle_of_another_space_is_refused(world: World, tmp_path: Path) -> None:
    learnt = TrainSettings(epochs=1, batch_size=8, dim=12, hidden=8)
    models = train(world.trials, world.features, learnt)
    bundle = make_bundle(tmp_path / "bundle", models, world.trials, world.features, learnt, "test")
    with pytest.raises(Problem, match="paints from the embedding space"):
        conditions_of(bundle, world.prior, world.trials, world.features, [1])


def test_too_few_repeats_or_images_are_refused(world: World) -> None:
    with pytest.raises(Problem, match="has 4 repeats, 9 are to be averaged"):
        conditions_of(world.bundle, world.prior, world.trials, world.features, [1, 9])
    two = world.trials.select(world.trials.items[:2])
    with pytest.raises(Problem, match="has 2 images"):
        conditions_of(world.bundle, world.prior, two, world.features, [1])


def command(world: World, *more: object, seen: str = "--seen", **paths: Path) -> Result:
    told = {name: world.folder / name for name in ("bundle", "prior", "base", "trials", "images")}
    told |= {"encoders": world.folder / "encoders.json", "cache": world.folder / "features"} | paths
    options = [part for name, path in told.items() for part in (f"--{name}", path)]
    given = ["evaluate-prior", *options, "--device", "cpu", seen, *more]
    return CliRunner().invoke(app, [str(part) for part in given if part])


def test_the_command_paints_scores_and_shows(world: World, tmp_path: Path) -> None:
    config = SemanticNetConfig(size_px=32, widths=(4, 6), dim=5, heads={"shape": 3})
    weights = SemanticNet(config).state_dict()
    save_file(weights, tmp_path / "judge.safetensors", {"config": config.model_dump_json()})
    judge = {"kind": "classifier", "source": "./judge.safetensors", "size_px": 32}
    nets = [judge | {"name": "early", "layer": "2"}]
    nets.append(judge | {"name": "late", "score": "distance"})
    (tmp_path / "nets.json").write_text(json.dumps(nets))
    asked = ("--repeats", "1,4", "--steps", 1, "--samples", 2, "--out", tmp_path / "report")
    done = command(world, *asked, nets=tmp_path / "nets.json")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report" / "paintings.json").read_text()
    found = PaintingScores.model_validate_json(text)
    assert found.items == "8 stimuli, SEEN: 32 trials were trained on"
    assert found.conditions == (CEILING, brain_name(4), brain_name(1), FLOOR)
    assert (found.n_images, found.n_samples) == (8, 2)
    assert list(found.scores[FLOOR]) == ["PixCorr", "SSIM", "early", "late"]
    assert {row.metric for row in found.differences} == {"early"}
    assert {"steps": 1, "samples": 2, "device": "cpu"}.items() <= found.settings.items()
    assert {"scikit-image", "torchvision"} <= found.versions.keys()
    with Image.open(tmp_path / "report" / "paintings.png") as picture:
        assert min(picture.size) > 500
    again = command(world, *asked[:-1], tmp_path / "again", nets=tmp_path / "nets.json")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "paintings.json").read_text() == text


def test_the_command_refuses_in_one_sentence_what_does_not_fit(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for path in sorted((world.folder / "images").iterdir())[1:]:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    done = command(world, images=tmp_path / "images", cache=tmp_path / "features")
    assert isinstance(done.exception, Problem)
    assert "has no image of stimulus 'item0'" in str(done.exception)
    assert "was trained on 32 of these 32 trials" in str(command(world, seen="").exception)
    done = command(world, prior=tmp_path / "nowhere")
    assert isinstance(done.exception, Problem)
    done = command(world)  # 20 repeats by default
    assert "has 4 repeats, 20 are to be averaged" in str(done.exception)
    other = write_tiny_base(tmp_path / "base", family="sdxl")
    done = command(world, "--repeats", "1", base=other)
    assert "is for base models of the family 'tiny'" in str(done.exception)


def test_a_bundle_trained_against_the_prior_has_its_hvf_and_space(world: World) -> None:
    assert world.bundle.manifest.space == world.prior.manifest.space
    assert world.bundle.manifest.training["hvf"].startswith("frozen")
    theirs = world.prior.hvf.state_dict()
    for name, array in world.bundle.arrays("hvf").items():
        assert np.array_equal(array, theirs[name].numpy())
    assert load_prior(world.prior.directory).manifest.space == world.prior.manifest.space
