"""Training: the paper's numbers, a planted problem, a null control, and resuming."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from decoder.bundle import load_bundle
from hvf_core.problem import Problem
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import PRESETS, TrainSettings, count_steps, learning_rate
from offline_train.brain.train import (
    BrainAndImages,
    Progress,
    TrainedModels,
    make_bundle,
    train,
)
from offline_train.data.features import Features, label_features
from offline_train.data.trial_set import TrialSet
from offline_train.data.trial_table import Column
from offline_train.evaluate.answers import embed
from offline_train.evaluate.retrieval import evaluate

pytestmark = pytest.mark.slow

SMALL = TrainSettings(
    epochs=20, batch_size=128, lr=2e-3, dim=64, hidden=64, warmup_steps=0, device="cpu"
)


def bundle_and_gallery(planted, features: Features, directory: Path) -> tuple:
    """Trains on the given features; the gallery is of the test items' true features."""
    models = train(planted.train, features, SMALL)
    bundle = make_bundle(directory, models, planted.train, features, SMALL, command="a test")
    test_items = planted.test.items
    gallery = build_gallery(test_items, test_items, planted.features, bundle, "a test")
    return bundle, gallery


def test_the_papers_training_has_425_steps() -> None:
    assert count_steps(16_540, PRESETS["paper"]) == 425


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    settings = TrainSettings(lr=1.0, warmup_steps=10)
    rates = [learning_rate(step, 110, settings) for step in range(111)]
    assert rates[0] == 0
    assert rates[5] == 0.5
    assert rates[10] == max(rates) == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0)
    assert learning_rate(0, 110, settings.model_copy(update={"warmup_steps": 0})) == 1


def test_training_follows_the_recipe_step_by_step(plant) -> None:
    """Against a plain loop with torch's own schedule and cross-entropy, one batch an epoch."""
    planted = plant(n_train=60, n_test=2)
    settings = SMALL.model_copy(
        update={"epochs": 8, "dropout": 0.0, "warmup_steps": 3, "weight_decay": 0.5}
    )
    items = planted.train.items
    means = planted.train.mean(list(planted.train.repeats.values()))
    trials = torch.from_numpy(means)
    images = planted.features.select(items).embeddings
    images = {name: torch.from_numpy(array) for name, array in images.items()}

    torch.manual_seed(settings.seed)
    model = BrainAndImages(6, 20, {"semantic": 10, "pixels": 16}, settings)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=2e-3, betas=(0.9, 0.995), weight_decay=0.5, fused=False
    )
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 3, 1))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[3])
    losses = []
    for _ in range(8):
        brain = torch.nn.functional.normalize(model.brain(trials))
        logits = (
            model.logit_scale.exp() * brain @ torch.nn.functional.normalize(model.hvf(images)).T
        )
        there, back = (
            torch.nn.functional.cross_entropy(x, torch.arange(60)) for x in (logits, logits.T)
        )
        loss = (there + back) / 2
        optimizer.zero_grad()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        assert norm > 1, "so that clipping is part of the test"
        for gradient in gradients:
            gradient /= norm
        optimizer.step()
        schedule.step()
        losses.append(loss.item())

    trained = train(planted.train, planted.features, settings)
    assert [epoch["loss"] for epoch in trained.history] == pytest.approx(losses, rel=1e-4)
    assert trained.logit_scale == pytest.approx(model.logit_scale.item(), abs=1e-5)
    torch.testing.assert_close(
        trained.brain.project.weight, model.brain.project.weight, atol=1e-4, rtol=0
    )


def test_a_planted_problem_is_learnt_and_found_again_in_a_bundle(plant, tmp_path: Path) -> None:
    planted = plant(n_train=500, n_test=100)
    bundle, gallery = bundle_and_gallery(planted, planted.features, tmp_path / "bundle")
    evaluation = evaluate(bundle, planted.test, gallery, repeats=[1, 4])
    single, mean = evaluation.points
    assert single.top1.value > 0.3
    assert mean.top1.value > single.top1.value + 0.1
    assert mean.top5.value > 0.9
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.channels == planted.train.format.channels
    assert manifest.preprocessing == {"baseline": None}
    assert manifest.training["command"] == "a test"
    assert manifest.training["settings"]["seed"] == SMALL.seed
    assert manifest.training["trials_sha256"] == planted.train.checksum
    np.testing.assert_array_equal(bundle.arrays("preprocessing")["whitener"], np.eye(6))


@pytest.mark.parametrize("control", ["permuted features", "no signal"])
def test_what_cannot_be_learnt_stays_at_chance(plant, tmp_path: Path, control: str) -> None:
    planted = plant(n_train=500, n_test=100, signal=0.0 if control == "no signal" else 1.0)
    features = planted.features
    if control == "permuted features":
        order = np.random.default_rng(0).permutation(500).tolist() + list(range(500, 600))
        features = replace(
            features, embeddings={k: x[order] for k, x in features.embeddings.items()}
        )
    bundle, gallery = bundle_and_gallery(planted, features, tmp_path / "bundle")
    top5 = evaluate(bundle, planted.test, gallery, repeats=[4]).points[0].top5.value
    interval = binomtest(round(100 * top5), 100).proportion_ci(0.999, "wilson")
    assert interval.low <= 0.05 <= interval.high


def interrupt_at(step: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return on_progress


def weights(models: TrainedModels) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("brain", "hvf")
        for name, tensor in getattr(models, part).state_dict().items()
    } | {"logit_scale": torch.tensor(models.logit_scale)}


def equal(a: TrainedModels, b: TrainedModels) -> bool:
    a_weights, b_weights = weights(a), weights(b)
    return a.history == b.history and all(
        torch.equal(tensor, b_weights[name]) for name, tensor in a_weights.items()
    )


FEW = SMALL.model_copy(update={"epochs": 4, "batch_size": 32, "repeats_per_row": 2})


def test_an_interrupted_training_goes_on_to_the_very_same_weights(plant, tmp_path: Path) -> None:
    planted = plant(n_train=80, n_test=2)
    state = torch.get_rng_state()
    whole = train(planted.train, planted.features, FEW)
    with pytest.raises(KeyboardInterrupt):
        train(planted.train, planted.features, FEW, interrupt_at(8), tmp_path)
    torch.manual_seed(99)  # a new process has another state
    steps = []
    resumed = train(planted.train, planted.features, FEW, steps.append, tmp_path)
    assert [progress.step for progress in steps] == [7, 8, 9, 10, 11, 12]
    assert equal(resumed, whole)
    assert not equal(
        train(planted.train, planted.features, FEW.model_copy(update={"seed": 1})), whole
    )
    torch.set_rng_state(state)
    train(planted.train, planted.features, FEW)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_that_is_done_is_not_repeated(plant, tmp_path: Path) -> None:
    planted = plant(n_train=40, n_test=2)
    done = train(planted.train, planted.features, FEW, checkpoint_dir=tmp_path)
    assert equal(train(planted.train, planted.features, FEW, interrupt_at(1), tmp_path), done)


def test_another_training_begins_for_itself_and_a_damaged_checkpoint_is_refused(
    plant, tmp_path: Path
) -> None:
    planted = plant(n_train=40, n_test=2)
    few = planted.train.subset(range(100))
    train(planted.train, planted.features, FEW, checkpoint_dir=tmp_path)
    [path] = tmp_path.iterdir()
    faster = FEW.model_copy(update={"lr": 1e-3})
    for trials, settings in ((planted.train, faster), (few, FEW)):
        alone = train(trials, planted.features, settings)
        assert equal(train(trials, planted.features, settings, checkpoint_dir=tmp_path), alone)
    assert len(list(tmp_path.iterdir())) == 3
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Problem, match=r"damaged .* delete it"):
        train(planted.train, planted.features, FEW, checkpoint_dir=tmp_path)


def test_two_classes_are_told_apart_from_single_trials(plant, tmp_path: Path) -> None:
    planted = plant(n_train=2, n_test=2)
    trials, signs = planted_classes(planted.train)
    changes = {"epochs": 10, "batch_size": 64, "dropout": 0.0}
    settings = SMALL.model_copy(update=changes | {"repeats_per_row": 1, "rows_per_item": None})
    features = label_features(["left", "right"])
    first_half = trials.subset(range(200))
    models = train(first_half, features, settings)
    bundle = make_bundle(tmp_path / "bundle", models, first_half, features, settings, "a test")
    classes = build_gallery(["left", "right"], ["l", "r"], features, bundle, "a test")
    z = embed(models.brain, trials.mean([[i] for i in range(200, 400)]))
    decoded = np.argmax(z @ classes.embeddings.T, axis=1)
    assert np.mean(decoded == signs[200:]) > 0.8


def planted_classes(like: TrialSet) -> tuple[TrialSet, np.ndarray]:
    """400 noisy trials of two classes that differ in one direction."""
    rng = np.random.default_rng(3)
    signs = rng.integers(2, size=400)
    pattern = rng.standard_normal((6, 20))
    data = (2 * signs[:, None, None] - 1) * 0.2 * pattern + rng.standard_normal((400, 6, 20))
    trials = replace(
        like,
        data=data.astype(np.float32),
        rows=np.arange(400),
        table={"stimulus": Column(("left", "right"), signs)},
    )
    return trials, signs


def test_what_cannot_be_trained_is_refused(plant) -> None:
    planted = plant(n_train=10, n_test=2)
    with pytest.raises(Problem, match="needs at least two"):
        train(planted.train.select(["item0003"]), planted.features, SMALL)
    with pytest.raises(Problem, match="'item0000' has no features"):
        train(planted.train, planted.features.select(planted.test.items), SMALL)
    with pytest.raises(Problem, match="has 4 repeats, 5 are"):
        train(planted.train, planted.features, SMALL.model_copy(update={"repeats_per_row": 5}))
    with pytest.raises(Problem, match="diverged"):
        train(planted.train, planted.features, SMALL.model_copy(update={"logit_scale": math.inf}))
