"""A bundle for one person: in another mixture of the channels the images are found again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.linalg import expm

from decoder.bundle import Bundle, load_bundle
from hvf_core.problem import Problem
from index.gallery import Gallery
from offline_train.brain.gallery import build_gallery
from offline_train.brain.person.personal import personalise
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.data.trial_set import ADAPTED, TrialSet, load_trial_set, write_trial_set
from offline_train.evaluate.retrieval import evaluate
from stream.acquire.preprocess import trial_covariance
from stream.acquire.settings import PreprocessSettings
from tests.offline_train.conftest import FORMAT, Planted

pytestmark = pytest.mark.slow


class World(NamedTuple):
    bundle: Bundle
    gallery: Gallery
    minutes: TrialSet
    """Of a person whose channels are mixed otherwise than in training."""
    later: TrialSet
    """Of the same person, of other images."""


@pytest.fixture(scope="module", params=[1.0, 0.0], ids=["signal", "null"])
def world(
    request: pytest.FixtureRequest,
    plant: Callable[..., Planted],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[World, bool]:
    """The same model and people; the person of the minutes answers to images, or to none."""
    folder, signal = tmp_path_factory.mktemp("person"), request.param
    planted, null = plant(200, 160), plant(200, 160, signal=0.0)
    cut = PreprocessSettings(
        channels=FORMAT.channels,
        output_channels=FORMAT.channels,
        rate_hz=FORMAT.rate_hz,
        tmin_s=FORMAT.tmin_s,
        tmax_s=FORMAT.tmax_s,
        baseline_s=None,
        whitening="none",
    )
    format = FORMAT.model_copy(update={"preprocessing": cut.model_dump(mode="json")})
    covariance = np.mean([trial_covariance(x) for x in planted.train.data], axis=0)
    learnt = replace(
        planted.train,
        format=format,
        preprocessing_arrays={"trial_covariance": covariance.astype(np.float32)},
    )
    settings = TrainSettings(
        epochs=20, batch_size=64, dim=32, hidden=32, warmup_steps=0, lr=2e-3, device="cpu"
    )
    models = train(learnt, planted.features, settings)
    told = (models, learnt, planted.features, settings, "a test")
    bundle = make_bundle(folder / "bundle", *told)
    test = planted.test if signal else null.test
    # A rotation leaves white noise as it is: no covariance tells of it, labels alone do.
    skew = 0.4 * np.random.default_rng(3).standard_normal((6, 6))
    turned = expm(skew - skew.T)
    with write_trial_set(folder / "t", format) as writer:
        writer.append((turned @ test.data).astype(np.float32), test.stimuli)
    trials = load_trial_set(folder / "t")
    items = trials.items
    gallery = build_gallery(items, items, planted.features, bundle, "a test")
    parts = trials.select(items[:100]), trials.select(items[100:])
    return World(bundle, gallery, *parts), bool(signal)


def test_it_finds_what_the_person_sees_and_of_nobody_anything(
    world: tuple[World, bool], tmp_path: Path
) -> None:
    (bundle, gallery, minutes, later), has_signal = world
    made = personalise(tmp_path / "own", bundle, minutes, gallery, "a test")
    before, after = (
        evaluate(one, later, gallery, [4]).points[0].top5 for one in (bundle, made.bundle)
    )
    chance = 5 / len(gallery)
    assert made.before is not None
    assert made.after is not None
    if has_signal:
        assert after.low > before.high
        assert made.after.low > made.before.high
    else:
        assert after.low <= chance <= after.high
        assert made.after.low <= 1 / made.n_items <= made.after.high
    told = load_bundle(tmp_path / "own").manifest
    assert told.space == bundle.manifest.space
    assert told.training["personalised"]["trials_sha256"] == minutes.checksum
    with pytest.raises(Problem, match=f"was trained on {len(minutes)} of these"):
        evaluate(made.bundle, minutes, gallery, [1])
    few = minutes.select(minutes.items[:19])
    with pytest.raises(Problem, match="of 19 images, and labels tell something from 20 on"):
        personalise(tmp_path / "few", bundle, few, gallery, "a test")
    told_so = minutes.format.model_copy(update={"provenance": {ADAPTED: {}}})
    with pytest.raises(Problem, match="were prepared with `--adapt`, which has corrected"):
        personalise(tmp_path / "few", bundle, replace(minutes, format=told_so), None, "a test")
    assert not (tmp_path / "few").exists()
    unlabelled = personalise(tmp_path / "unlabelled", bundle, minutes, None, "a test")
    assert (unlabelled.before, unlabelled.after) == (None, None)
