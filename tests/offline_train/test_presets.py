"""The paper's presets against its facts, computed here without any of the project's networks."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.bundle import ImageEncoderRecord, load_bundle
from decoder.hvf import load_hvf
from hvf_core.problem import Problem
from offline_train.brain.rows import Rows
from offline_train.brain.settings import (
    EEG,
    MEG,
    PAPER,
    PRESETS,
    RELEASED,
    TrainSettings,
    count_steps,
)
from offline_train.brain.train import BrainAndImages, make_bundle, train
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet
from offline_train.data.trial_table import Column
from offline_train.together import Group

RETRIEVAL = {"RN50": 1024, "ViT-B-32": 512, "SDXL-VAE": 1024}
OF_THE_PAPER = ["hvf-eeg", "hvf-eeg-cross", "hvf-meg", "hvf-meg-cross"]


def things(like: TrialSet, n_images: int, n_subjects: int, repeats: int) -> TrialSet:
    """A trial set of this size, of trials that hardly are there."""
    n = n_images * n_subjects * repeats
    image = np.tile(np.arange(n_images, dtype=np.int32), n_subjects * repeats)
    subject = np.repeat(np.arange(n_subjects, dtype=np.int32), n_images * repeats)
    return replace(
        like,
        data=np.broadcast_to(np.float32(0), (n, 1, 1)),
        rows=np.arange(n),
        table={
            "stimulus": Column(tuple(map(str, range(n_images))), image),
            "subject": Column(tuple(map(str, range(n_subjects))), subject),
        },
    )


@pytest.mark.parametrize(
    ("preset", "n_images", "n_subjects", "repeats", "steps"),
    [
        ("paper", 16_540, 1, 4, 425),
        ("released", 16_540, 1, 4, 425),
        ("hvf-eeg", 16_540, 1, 4, 425),
        ("hvf-eeg-cross", 16_540, 9, 4, 3650),
        ("hvf-meg", 19_848, 1, 1, 500),
    ],
)
def test_as_many_steps_as_the_paper(
    plant, preset: str, n_images: int, n_subjects: int, repeats: int, steps: int
) -> None:
    trials = things(plant(n_train=2, n_test=2).train, n_images, n_subjects, repeats)
    settings = PRESETS[preset]
    assert settings.hold_out == 0
    rows = Rows(trials, settings.model_copy(update={"held_gb": 0}), Group.alone("cpu"))
    assert count_steps(rows.n, settings) == steps


@pytest.mark.parametrize(
    ("shape", "brain"), [(EEG, 6_452_224), (MEG, 57_878_528)], ids=["EEG", "MEG"]
)
def test_as_many_parameters_as_the_paper(shape: tuple[int, int], brain: int) -> None:
    with torch.device("meta"):
        model = BrainAndImages(*shape, RETRIEVAL, PAPER)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.brain, model.hvf)]
    assert counts == [brain, 4_723_712]
    assert sum(p.numel() for p in model.parameters()) == sum(counts) + 1


def test_paper_and_code_differ_in_named_switches_alone() -> None:
    fields = TrainSettings.model_fields
    texts = {name: " ".join(field.description.split()) for name, field in fields.items()}
    told = {name for name, text in texts.items() if "Paper: " in text and "Code: " in text}
    differ = {name for name in fields if getattr(PAPER, name) != getattr(RELEASED, name)}
    assert differ == told == {"warmup_steps", "target_dropout", "half_means", "precision"}
    for name in OF_THE_PAPER:
        own = {"shape", "subjects"}
        assert PRESETS[name].model_dump(exclude=own) == PAPER.model_dump(exclude=own)
    within = {"hold_out": None, "positives": "image"}
    assert PAPER.model_copy(update=within) == TrainSettings()


def test_presets_for_live_use_hold_out() -> None:
    assert (PRESETS["live"].hold_out, PRESETS["demo"].hold_out) == (None, None)
    assert {PRESETS[name].hold_out for name in ("paper", "released", "arena", *OF_THE_PAPER)} == {0}


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * scale + shift


def test_logits_and_loss_follow_the_facts() -> None:
    """In float64, from the formulas: flattened channel by channel, three maps summed, CLIP's loss.

    A batch in which an image comes twice: for the paper's loss each row has itself alone.
    """
    rng = np.random.default_rng(0)
    n, shape = 9, (3, 7)
    settings = PAPER.model_copy(update={"dim": 16, "hidden": 12})
    torch.manual_seed(0)
    model = BrainAndImages(*shape, {"a": 5, "b": 4, "c": 6}, settings).double().eval()
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    trials = rng.standard_normal((n, *shape))
    images = {k: rng.standard_normal((n, d)) for k, d in (("a", 5), ("b", 4), ("c", 6))}
    for array in images.values():
        array[1] = array[0]

    def block(x: np.ndarray, of: str) -> np.ndarray:
        inside = gelu(x @ weights[f"{of}.head.expand.weight"].T)
        y = x + inside @ weights[f"{of}.head.contract.weight"].T
        return layer_norm(y, weights[f"{of}.head.norm.weight"], weights[f"{of}.head.norm.bias"])

    flat = trials.reshape(n, -1)
    z_b = block(flat @ weights["brain.project.weight"].T + weights["brain.project.bias"], "brain")
    mapped = [
        x @ weights[f"hvf.maps.{k}.weight"].T + weights[f"hvf.maps.{k}.bias"]
        for k, x in images.items()
    ]
    z_f = block(np.sum(mapped, axis=0), "hvf")
    unit_b, unit_f = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_b, z_f))
    logits = unit_b @ unit_f.T / 0.07

    def cross_entropy(rows: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(rows).sum(axis=1)) - np.diag(rows)))

    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    there = {k: torch.from_numpy(x) for k, x in images.items()}
    brain, fused = model.brain(torch.from_numpy(trials)), model.hvf(there)
    cosines = torch.nn.functional.cosine_similarity(brain[:, None], fused[None], dim=2)
    found = model.logit_scale.exp() * cosines
    np.testing.assert_allclose(found.detach().numpy(), logits, rtol=1e-6)
    loss = model(torch.from_numpy(trials), fused, torch.arange(n))
    assert loss.item() == pytest.approx(expected, rel=1e-7)
    one_way = BrainAndImages(*shape, {"a": 5}, settings.model_copy(update={"loss": "one-way"}))
    one_way.load_state_dict({k: v for k, v in model.state_dict().items() if "brain" in k}, False)
    one_way.double().eval()
    loss = one_way(torch.from_numpy(trials), fused, torch.arange(n))
    assert loss.item() == pytest.approx(cross_entropy(logits), rel=1e-7)


def test_a_preset_of_a_data_set_refuses_trials_of_another_shape(plant) -> None:
    planted = plant(n_train=2, n_test=2)
    with pytest.raises(Problem, match="have 6 channels and 20 times, the settings ask for 17 and"):
        train(planted.train, planted.features, PRESETS["hvf-eeg"])


@pytest.mark.slow
def test_targets_as_they_are_given_are_what_the_brain_is_held_against(plant) -> None:
    planted = plant(n_train=40, n_test=2)
    [encoder, _] = planted.features.encoders
    array = planted.features.embeddings[encoder.name]
    alone = Features(planted.features.items, (encoder,), {encoder.name: array})
    given = PRESETS["arena"].model_copy(
        update={"dim": encoder.dim, "hidden": 8, "epochs": 2, "batch_size": 32, "device": "cpu"}
    )
    models = train(planted.train, alone, given)
    with torch.no_grad():
        target = models.hvf({encoder.name: torch.from_numpy(array)}).numpy()
    np.testing.assert_allclose(target, layer_norm(array, 1, 0), atol=1e-5)
    with pytest.raises(Problem, match="these are of 2 encoders: give one"):
        train(planted.train, planted.features, given)
    with pytest.raises(Problem, match="the fusion is to be 'given': leave one of both out"):
        train(planted.train, alone, given, frozen_hvf=models.hvf)
    wide = ImageEncoderRecord(name="wide", dim=12, checksum="wide")
    other = Features(alone.items, (wide,), {"wide": np.ones((42, 12), np.float32)})
    with pytest.raises(Problem, match="'wide' gives 12 numbers, the settings ask for 10"):
        train(planted.train, other, given)


@pytest.mark.slow
def test_weights_of_encoders_are_learnt_kept_and_tell_which_is_of_use(
    plant, tmp_path: Path
) -> None:
    """One of two encoders sees what the brain does, the other one noise."""
    planted = plant(n_train=400, n_test=20)
    features = planted.features
    noise = np.random.default_rng(0).standard_normal((420, 16)).astype(np.float32)
    told = replace(features, embeddings={**features.embeddings, "pixels": noise})
    small = {"epochs": 20, "batch_size": 128, "lr": 2e-3, "dim": 32, "hidden": 32, "device": "cpu"}
    settings = TrainSettings(**small, fusion="gated")
    models = train(planted.train, told, settings)
    bundle = make_bundle(tmp_path / "bundle", models, planted.train, told, settings, "a test")
    assert load_bundle(tmp_path / "bundle").manifest.hvf.gated
    shares = load_hvf(bundle).shares
    assert shares["semantic"] > 0.6
    assert bundle.manifest.training["encoder_weights"] == pytest.approx(shares)
    images = {name: torch.from_numpy(x[:5]) for name, x in told.embeddings.items()}
    assert torch.equal(load_hvf(bundle)(images), models.hvf(images))
