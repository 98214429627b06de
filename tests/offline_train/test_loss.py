"""The loss against two independent computations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from offline_train.brain.loss import infonce


def clip_loss(brain: torch.Tensor, images: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The standard symmetric InfoNCE: cross-entropy with the diagonal, both ways."""
    brain = brain / brain.norm(dim=1, keepdim=True)
    images = images / images.norm(dim=1, keepdim=True)
    logits = scale.exp() * brain @ images.T
    diagonal = torch.arange(len(brain))
    there = functional.cross_entropy(logits, diagonal)
    back = functional.cross_entropy(logits.T, diagonal)
    return (there + back) / 2


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_with_one_trial_per_image_it_is_the_standard_loss(n: int) -> None:
    torch.manual_seed(n)
    scale = torch.tensor(math.log(1 / 0.07), dtype=torch.double, requires_grad=True)
    brain, images = torch.randn(2, n, 5, dtype=torch.double).requires_grad_().unbind()
    ours = infonce(brain, images, torch.arange(n), scale)
    standard = clip_loss(brain, images, scale)
    torch.testing.assert_close(ours, standard)
    for a, b in zip(
        torch.autograd.grad(ours, [scale, brain, images], retain_graph=True),
        torch.autograd.grad(standard, [scale, brain, images]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_with_several_trials_per_image_it_follows_its_definition(
    counts: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    owner = owner[torch.randperm(len(owner))]
    brain = torch.randn(len(owner), 5, dtype=torch.double)
    images = torch.randn(len(counts), 5, dtype=torch.double)
    scale = torch.tensor(2.0, dtype=torch.double)

    logit = [
        [math.exp(2) * float(functional.cosine_similarity(trial, image, dim=0)) for image in images]
        for trial in brain
    ]
    rows = [
        logit[t][o] - math.log(sum(math.exp(x) for x in logit[t]))
        for t, o in enumerate(owner.tolist())
    ]
    columns = []
    for image in range(len(counts)):
        normaliser = math.log(sum(math.exp(trial[image]) for trial in logit))
        own = [logit[t][image] - normaliser for t in range(len(brain)) if owner[t] == image]
        columns.append(sum(own) / len(own))
    expected = -(sum(rows) / len(rows) + sum(columns) / len(columns)) / 2
    assert infonce(brain, images, owner, scale).item() == pytest.approx(expected)
