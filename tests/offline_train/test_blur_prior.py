"""UBP's blur prior: which blur an image is learnt with, against the paper's bookkeeping by rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hvf_core.problem import Problem
from index.encoders.spec import read_specs
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import TrainedModels, train
from offline_train.features.blur import BlurPrior, blurs_of
from tests.calling import call

FEW = TrainSettings(
    epochs=4, batch_size=32, lr=2e-3, dim=16, hidden=16, warmup_steps=0, device="cpu", encoder="ubp"
)
PRIOR = FEW.model_copy(update={"blur_prior": True})


@pytest.mark.parametrize("positives", ["row", "image"])
def test_levels_follow_the_running_similarity_of_every_image(positives: str) -> None:
    """Rows of an image count as one, their mean; else this is the loop of the authors' code."""
    rng = np.random.default_rng(0)
    n, scale = 40, 2.0
    prior = BlurPrior(n)
    similarity, level = np.ones(n), np.ones(n, int)
    for _ in range(6):
        rows = rng.choice(n, 30)
        brain, images = rng.standard_normal((30, 8)), rng.standard_normal((n, 8))
        brain += rng.choice([0, 0, 9], 30)[:, None] * images[rows]
        found = [
            np.exp(scale) * b @ i / np.linalg.norm(b) / np.linalg.norm(i)
            for b, i in zip(brain, images[rows], strict=True)
        ]
        batch = sorted(set(rows))
        now = np.array(
            [np.mean([s for s, r in zip(found, rows, strict=True) if r == item]) for item in batch]
        )
        running = 0.3 * now + 0.7 * similarity[batch]
        far = norm.ppf(0.975) * running.std(ddof=1)
        similarity[batch] = running
        level[batch] = np.select(
            [now > running.mean() + far, now < running.mean() - far], [0, 2], 1
        )

        if positives == "row":
            shown, owner = rows, np.arange(len(rows))
        else:
            shown, owner = np.unique(rows, return_inverse=True)
        tensors = (torch.from_numpy(x).float() for x in (brain, images[shown]))
        numbers = (torch.from_numpy(x) for x in (owner, shown))
        prior.learn(*tensors, *numbers, torch.tensor(scale))
        np.testing.assert_allclose(prior.similarity, similarity, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(prior.level, level)
    assert {*level} == {0, 1, 2}


def weights(models: TrainedModels) -> torch.Tensor:
    return torch.cat([x.flatten() for x in models.brain.state_dict().values()])


def test_a_training_goes_on_with_the_blurs_that_it_had_come_to(plant, tmp_path: Path) -> None:
    planted = plant(n_train=80, n_test=2)
    soft = replace(
        planted.features,
        embeddings={name: 0.9 * x for name, x in planted.features.embeddings.items()},
    )
    alike = replace(planted.features, blurs=(planted.features, planted.features))
    features = replace(planted.features, blurs=(planted.features, soft))

    plain = weights(train(planted.train, planted.features, FEW))
    assert torch.equal(weights(train(planted.train, alike, PRIOR)), plain)
    whole = weights(train(planted.train, features, PRIOR))
    assert not torch.equal(whole, plain)

    def end(progress) -> None:
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(planted.train, features, PRIOR, end, tmp_path)
    assert torch.equal(
        weights(train(planted.train, features, PRIOR, checkpoint_dir=tmp_path)), whole
    )
    with pytest.raises(Problem, match="of three blurs, and these are of one"):
        train(planted.train, planted.features, PRIOR)


def test_encoders_of_less_and_more_blur_keep_the_name_of_the_usual_ones() -> None:
    usual, less, more = blurs_of(read_specs("RN50:blur51,SDXL-VAE:blur31"), prior=True)
    assert [[one.blur_px for one in specs] for specs in (usual, less, more)] == [
        [51, 31],
        [45, 25],
        [57, 37],
    ]
    assert {tuple(one.name for one in specs) for specs in (usual, less, more)} == {
        ("RN50-blur51", "SDXL-VAE-blur31")
    }


def test_encoders_that_see_sharp_images_are_refused_before_any_is_read(
    plant, tmp_path: Path
) -> None:
    folder = Path(plant(n_train=4, n_test=2).train.data.filename).parent
    asked = ("mbp", folder, "--images", tmp_path / "none", "--encoders", "RN50", "--blur-prior")
    done = call(*asked, "--out", tmp_path / "bundle", module="offline_train")
    assert "'RN50' has a blur of 0 pixels: say one of 9 or more" in done.one_sentence()
