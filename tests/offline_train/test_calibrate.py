"""Calibration: planted worlds whose posterior is known, controls, and what is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from decoder.brain.mbp import MBP
from decoder.brain.registry import save_networks
from decoder.bundle import BrainEncoderRecord, Bundle, ImageEncoderRecord, load_bundle
from decoder.calibration import Calibration
from decoder.weights import arrays_of, filled
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from index.gallery import Gallery
from offline_train.brain.calibrate import (
    fit_calibration,
    fit_temperature,
    save_calibration,
)
from offline_train.brain.folds import tenth_to_hold_out
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set
from offline_train.evaluate.retrieval import evaluate
from tests.tiny_bundle import hvf_of

N_CHANNELS, N_TIMES = 4, 32
DIM = N_CHANNELS * N_TIMES
FORMAT = TrialFormat(
    channels=("O1", "Oz", "O2", "POz"), rate_hz=100, tmin_s=0, tmax_s=0.31, preprocessing={}
)
ENCODERS = (ImageEncoderRecord(name="semantic", dim=4, checksum="s"),)


@dataclass(frozen=True)
class World:
    """Trials are an image's embedding in white noise, and the brain encoder is the identity."""

    bundle: Bundle
    trials: TrialSet
    gallery: Gallery
    sigma: float
    scale: float

    def temperature(self, n_repeats: int) -> float:
        """At which exp(logit_scale) · cosine / T is the logarithm of the true posterior.

        That is x·g / σ² for a mean x, whose length hardly varies in so many dimensions.
        """
        variance = self.sigma**2 / n_repeats
        return self.scale * variance / math.sqrt(1 + (DIM - 1) * variance)


def identity_bundle(directory: Path, scale: float) -> Bundle:
    """LayerNorm is left, which only scales an input whose mean is zero."""
    network = MBP(N_CHANNELS, N_TIMES, DIM, hidden=2)
    brain = arrays_of(network)
    brain["project.weight"] = np.eye(DIM, dtype=np.float32)
    for name in ("project.bias", "head.expand.weight"):
        brain[name] = np.zeros_like(brain[name])
    return save_networks(
        directory,
        filled(lambda: network, brain, directory),
        hvf_of(ENCODERS, DIM, 2),
        {},
        **FORMAT.model_dump(exclude={"provenance"}),
        brain_encoder=BrainEncoderRecord(hidden=2),
        image_encoders=ENCODERS,
        logit_scale=math.log(scale),
        training={"note": "by hand"},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Makes a world; `shuffled` plays each trial under the name of another stimulus."""

    def make(
        n_items: int = 150,
        n_repeats: int = 4,
        sigma: float = 0.7,
        scale: float = 20,
        shuffled: bool = False,
    ) -> World:
        folder = tmp_path_factory.mktemp("world")
        rng = np.random.default_rng(11)
        embeddings = rng.standard_normal((n_items, DIM))
        embeddings -= embeddings.mean(axis=1, keepdims=True)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        ids = tuple(f"s{i:03d}" for i in range(n_items))
        with write_trial_set(folder / "trials", FORMAT) as writer:
            for repeat in range(n_repeats):
                noise = sigma * rng.standard_normal(embeddings.shape)
                shown = (embeddings + noise).reshape(n_items, N_CHANNELS, N_TIMES)
                names = [ids[i] for i in rng.permutation(n_items)] if shuffled else ids
                writer.append(shown.astype(np.float32), names, session=f"r{repeat}")
        bundle = identity_bundle(folder / "bundle", scale)
        gallery = Gallery(
            ids, ids, embeddings.astype(np.float32), bundle.manifest.space, ENCODERS, "a test"
        )
        return World(bundle, load_trial_set(folder / "trials"), gallery, sigma, scale)

    return make


def halves(world: World) -> tuple[TrialSet, TrialSet]:
    items = world.trials.items
    return world.trials.select(items[::2]), world.trials.select(items[1::2])


def test_a_known_posterior_is_recovered() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(50, size=4000)
    # Scores of the right image N(d, d), of the others N(0, d): their log-posterior up to a sum.
    scores = math.sqrt(3) * rng.standard_normal((4000, 50)) + 3 * np.eye(50)[right]
    assert fit_temperature(scores, right) == pytest.approx(1, rel=0.06)
    assert fit_temperature(7 * scores, right) == pytest.approx(7, rel=0.06)
    assert fit_temperature((7 * scores).astype(np.float32), right) == pytest.approx(
        fit_temperature(7 * scores, right), rel=1e-3
    )


def test_no_temperature_nearby_is_likelier() -> None:
    rng = np.random.default_rng(1)
    right = rng.integers(9, size=200)
    scores = rng.standard_normal((200, 9)) + 1.5 * np.eye(9)[right]
    best = fit_temperature(scores, right)

    def nll(temperature: float) -> float:
        total = 0.0
        for row, wanted in zip(scores, right, strict=True):
            odds = [math.exp(score / temperature) for score in row]
            total -= math.log(odds[wanted] / sum(odds))
        return total / len(right)

    assert all(nll(best) < nll(best * factor) for factor in (0.5, 0.9, 0.98, 1.02, 1.1, 2))


def test_temperatures_of_the_planted_world_are_the_true_ones(world) -> None:
    planted = world()
    found = fit_calibration(planted.bundle, planted.trials, planted.gallery)
    assert found.repeats == (1, 2, 4)
    assert found.tmax_s == (0.1, 0.2, 0.3, 0.31)
    assert found.n_items == 150
    for n, fitted in zip(found.repeats, found.mean[-1], strict=True):
        assert fitted == pytest.approx(planted.temperature(n), rel=0.12), n
    # Independent repeats: their log-likelihoods add up as they are.
    assert [row[0] for row in found.added] == [1.0] * 4
    assert found.added[-1][1:] == pytest.approx([1.0, 1.0], rel=0.15)


def test_logits_k_times_too_large_need_k_times_the_temperature(world) -> None:
    fits = []
    for scale in (20, 100):
        planted = world(n_items=50, scale=scale)
        fits.append(fit_calibration(planted.bundle, planted.trials, planted.gallery, [0.31]))
    assert np.array(fits[1].mean) == pytest.approx(5 * np.array(fits[0].mean), rel=1e-3)
    assert np.array(fits[1].added) == pytest.approx(np.array(fits[0].added), rel=1e-3)


def test_a_fit_is_repeatable_and_always_knows_one_repeat(world) -> None:
    planted = world(n_items=20)
    fit = [
        fit_calibration(planted.bundle, planted.trials, planted.gallery, [0.31, 0.1], [3], seed)
        for seed in (5, 5, 6)
    ]
    assert fit[0] == fit[1] != fit[2]
    assert (fit[0].repeats, fit[0].tmax_s) == ((1, 3), (0.1, 0.31))


@pytest.mark.slow
def test_the_ece_of_an_overconfident_model_falls_to_noise_on_other_stimuli(world) -> None:
    planted = world(n_items=240, scale=100)
    fitted_on, measured_on = halves(planted)
    ends = {"repeats": [1, 2, 4], "tmax_s": [0.1, 0.2, 0.31]}
    calibration = fit_calibration(planted.bundle, fitted_on, planted.gallery, **ends)
    calibrated = save_calibration(planted.bundle, calibration)
    before = evaluate(planted.bundle, measured_on, planted.gallery, **ends)
    assert not before.calibrated
    assert before.pooled.ece.value > 0.15
    assert before.pooled.ece.low > before.pooled.noise.shared
    for evidence in ("mean", "added"):
        after = evaluate(calibrated, measured_on, planted.gallery, **ends, evidence=evidence)
        assert after.calibrated
        assert after.pooled.ece.value < max(0.03, 1.5 * after.pooled.noise.shared)
        assert after.pooled.ece.value < before.pooled.ece.value / 4
        for old, new in zip(before.points, after.points, strict=True):
            assert new.nll < old.nll
            if evidence == "mean":  # a temperature leaves every order as it is
                assert (new.top1, new.top5) == (old.top1, old.top5)


def test_added_and_averaged_evidence_agree_on_independent_repeats(world) -> None:
    planted = world(n_items=150)
    calibration = fit_calibration(planted.bundle, planted.trials, planted.gallery, [0.31], [1, 4])
    bundle = save_calibration(planted.bundle, calibration)
    mean, added = (
        evaluate(bundle, planted.trials, planted.gallery, [1, 4], evidence=evidence)
        for evidence in ("mean", "added")
    )
    assert added.points[0].top5 == mean.points[0].top5  # one repeat: both are the same
    assert added.points[0].nll == pytest.approx(mean.points[0].nll)
    assert added.points[1].top1.value == pytest.approx(mean.points[1].top1.value, abs=0.05)
    assert added.points[1].nll == pytest.approx(mean.points[1].nll, abs=0.1)
    assert added.points[1].top1.low > added.points[0].top1.high


def test_shuffled_labels_end_at_chance_and_near_uniform(world) -> None:
    planted = world(n_items=200, shuffled=True)
    fitted_on, measured_on = halves(planted)
    calibration = fit_calibration(
        planted.bundle, fitted_on, planted.gallery, tmax_s=[0.1, 0.31], repeats=[1, 4]
    )
    bundle = save_calibration(planted.bundle, calibration)
    for evidence in ("mean", "added"):
        found = evaluate(
            bundle, measured_on, planted.gallery, [1, 4], tmax_s=[0.1, 0.31], evidence=evidence
        )
        for point in found.points:
            assert point.top1.low <= found.chance_top1 <= point.top1.high + 0.01
            assert point.nll == pytest.approx(math.log(200), abs=0.1)
        assert max(b.confidence for b in found.pooled.bins) < 0.1
        assert found.pooled.ece.value < 0.03


def test_saving_changes_the_calibration_and_not_a_byte_else(world) -> None:
    planted = world(n_items=20)
    folder = planted.bundle.directory
    before = {path.name: file_sha256(path) for path in folder.iterdir()}
    text = json.loads((folder / "bundle.json").read_text())
    calibration = fit_calibration(planted.bundle, planted.trials, planted.gallery)
    saved = save_calibration(planted.bundle, calibration)
    assert saved.manifest.calibration == calibration
    assert load_bundle(folder).manifest == saved.manifest
    after = {path.name: file_sha256(path) for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"bundle.json"}
    changed = json.loads((folder / "bundle.json").read_text())
    assert changed | {"calibration": None} == text
    assert list(folder.parent.glob(".*")) == []
    with pytest.raises(Problem, match="has changed since it was loaded"):
        save_calibration(planted.bundle, calibration)
    assert load_bundle(folder).manifest == saved.manifest


def test_a_damaged_calibration_is_refused(world) -> None:
    planted = world(n_items=20)
    calibration = Calibration(
        tmax_s=(0.31,), repeats=(1,), mean=((2.0,),), added=((1.0,),), n_items=20
    )
    path = save_calibration(planted.bundle, calibration).directory / "bundle.json"
    whole = json.loads(path.read_text())
    for change in ({"mean": [[-2.0]]}, {"mean": [[math.nan]]}, {"repeats": [2]}, {"tmax_s": []}):
        path.write_text(json.dumps(whole | {"calibration": whole["calibration"] | change}))
        with pytest.raises(Problem, match="not valid at calibration") as problem:
            load_bundle(path.parent)
        assert "\n" not in str(problem.value)


def test_what_cannot_be_calibrated_is_refused(world) -> None:
    planted = world(n_items=20)
    bundle, trials, gallery = planted.bundle, planted.trials, planted.gallery
    with pytest.raises(Problem, match="has 1: hold out at least two"):
        fit_calibration(bundle, trials.select(["s003"]), gallery)
    smaller = replace(
        gallery, ids=gallery.ids[1:], labels=gallery.ids[1:], embeddings=gallery.embeddings[1:]
    )
    with pytest.raises(Problem, match="'s000' is not among the gallery's 19 images"):
        fit_calibration(bundle, trials, smaller)
    with pytest.raises(Problem, match="embedding space"):
        fit_calibration(bundle, trials, replace(gallery, space="other"))
    other = trials.format.model_copy(update={"rate_hz": 200.0})
    with pytest.raises(Problem, match="rate_hz 200"):
        fit_calibration(bundle, replace(trials, format=other), gallery)
    with pytest.raises(Problem, match="has 4 repeats, 5 are"):
        fit_calibration(bundle, trials, gallery, repeats=[5])
    with pytest.raises(Problem, match=r"tmax 0\.4 s is not in"):
        fit_calibration(bundle, trials, gallery, tmax_s=[0.4])
    with pytest.raises(Problem, match="0 repeats"):
        fit_calibration(bundle, trials, gallery, repeats=[0])


@pytest.mark.parametrize(
    ("n_items", "expected"), [(2, 0), (19, 0), (20, 2), (999, 99), (16540, 200)]
)
def test_a_tenth_is_held_out_where_a_tenth_can_be_calibrated_on(n_items, expected) -> None:
    assert tenth_to_hold_out([1] * n_items) == expected
