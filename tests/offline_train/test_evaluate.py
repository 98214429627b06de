"""Evaluation: accuracies known beforehand, intervals, and what does not belong together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from decoder.problem import Problem
from offline_train.build_gallery import build_gallery
from offline_train.evaluate import Evaluation, embed, evaluate
from offline_train.metrics import binomial_interval, bootstrap_interval
from offline_train.train import TrainSettings, make_bundle, train

SETTINGS = TrainSettings(
    epochs=3, batch_size=64, dim=32, hidden=32, warmup_steps=0, lr=2e-3, device="cpu"
)


@pytest.fixture(scope="module")
def trained(plant, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    planted = plant(n_train=200, n_test=40)
    models = train(planted.train, planted.features, SETTINGS)
    directory = tmp_path_factory.mktemp("trained") / "bundle"
    bundle = make_bundle(
        directory, models, planted.train, planted.features, SETTINGS, command="a test"
    )
    items = planted.test.items
    gallery = build_gallery(
        items, items, planted.features, models.hvf, bundle.manifest.space, "a test"
    )
    return planted, models, bundle, gallery


def test_accuracies_are_those_of_a_plain_count(trained: tuple) -> None:
    planted, models, bundle, gallery = trained
    point = evaluate(bundle, planted.test, gallery, repeats=[4]).points[0]
    items, means = planted.test.averaged(None, np.random.default_rng(0))
    order = np.argsort(-(embed(models.brain, means) @ gallery.embeddings.T), axis=1)
    assert items == gallery.ids
    rank = np.array([np.flatnonzero(row == i)[0] for i, row in enumerate(order)])
    assert point.top1.value == pytest.approx(np.mean(rank == 0))
    assert point.top5.value == pytest.approx(np.mean(rank < 5))
    assert point.draws == 1
    for accuracy in (point.top1, point.top5):
        assert accuracy.low <= accuracy.value <= accuracy.high


def test_an_evaluation_is_repeatable_json_and_a_table(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    first = evaluate(bundle, planted.test, gallery, repeats=[1, 2], draws=3, seed=5)
    assert first == evaluate(bundle, planted.test, gallery, repeats=[1, 2], draws=3, seed=5)
    assert Evaluation.model_validate(json.loads(first.model_dump_json())) == first
    assert (first.n_way, first.n_items) == (40, 40)
    assert (first.chance_top1, first.chance_top5) == (1 / 40, 5 / 40)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(first.table())
    assert "40-way" in capture.get()
    assert f"{100 * first.points[1].top1.value:.1f}" in capture.get()


def test_top5_of_two_images_is_certain(trained: tuple) -> None:
    planted, models, bundle, _ = trained
    items = planted.test.items[:2]
    gallery = build_gallery(
        items, items, planted.features, models.hvf, bundle.manifest.space, "a test"
    )
    evaluation = evaluate(bundle, planted.test.select(items), gallery, repeats=[1])
    assert evaluation.chance_top5 == evaluation.points[0].top5.value == 1


def test_what_does_not_belong_together_is_refused(trained: tuple, tmp_path: Path) -> None:
    planted, models, bundle, gallery = trained
    with pytest.raises(Problem, match="embedding space"):
        evaluate(bundle, planted.test, replace(gallery, space="other"), repeats=[1])
    other = planted.test.format.model_copy(update={"rate_hz": 200.0})
    with pytest.raises(Problem, match="rate_hz 200"):
        evaluate(bundle, replace(planted.test, format=other), gallery, repeats=[1])
    items = planted.test.items[1:]
    smaller = build_gallery(
        items, items, planted.features, models.hvf, bundle.manifest.space, "a test"
    )
    with pytest.raises(Problem, match="'item0200' is not among the gallery's 39 images"):
        evaluate(bundle, planted.test, smaller, repeats=[1])
    with pytest.raises(Problem, match="has 4 repeats, 5 are"):
        evaluate(bundle, planted.test, gallery, repeats=[5])


def test_wilsons_interval_has_its_published_value() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857, table I: 81 of 263.
    assert binomial_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).standard_normal(4000)
    half = 1.96 * values.std() / np.sqrt(4000)
    low, high = bootstrap_interval(values, np.random.default_rng(1))
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)
