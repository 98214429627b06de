"""Batches: the same from memory and from the disk, and no row mixes subjects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from offline_train.brain.rows import Batch, Rows
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import train
from offline_train.data.trial_set import TrialSet
from offline_train.data.trial_table import Column
from offline_train.together import Group

WAYS = [
    {},
    {"repeats_per_row": 1, "rows_per_item": None},
    {"repeats_per_row": 3, "prefix_share": 0.5},
    {"repeats_per_row": 2, "rows_per_item": None, "positives": "row", "half_means": True},
]


def batches(trial_set: TrialSet, how: TrainSettings, seed: int = 0) -> list[Batch]:
    return list(Rows(trial_set, how, Group.alone("cpu")).batches(np.random.default_rng(seed)))


def of_subjects(like: TrialSet, stimulus: list[int], subject: list[int]) -> TrialSet:
    """Trials whose first number says who saw, and whose second one what was seen."""
    data = np.zeros((len(stimulus), 6, 20), np.float32)
    data[:, 0, 0], data[:, 0, 1] = subject, stimulus
    names = tuple(map(str, range(10)))
    return replace(
        like,
        data=data,
        rows=np.arange(len(data)),
        table={
            "stimulus": Column(names, np.array(stimulus, np.int32)),
            "subject": Column(names, np.array(subject, np.int32)),
        },
    )


@pytest.mark.parametrize("way", WAYS)
def test_what_is_held_and_what_is_read_ahead_is_the_same(plant, way: dict[str, object]) -> None:
    trials = plant(n_train=30, n_test=2).train
    how = TrainSettings(batch_size=16, **way)
    held = batches(trials, how)
    read = batches(trials, how.model_copy(update={"held_gb": 0.0}))
    assert Rows(trials, how, Group.alone("cpu")).is_held
    assert len(held) == len(read) > 1
    for one, other in zip(held, read, strict=True):
        assert torch.equal(one.trials, other.trials)
        assert torch.equal(one.shown[one.owner], other.shown[other.owner])
    assert not torch.equal(held[0].trials, batches(trials, how, seed=1)[0].trials)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_both_give_the_same_weights(plant, way: dict[str, object]) -> None:
    planted = plant(n_train=30, n_test=2)
    small = {"epochs": 3, "batch_size": 16, "dim": 16, "hidden": 16, "device": "cpu"}
    how = TrainSettings(**small, **way)
    held, read = (
        train(planted.train, planted.features, how.model_copy(update={"held_gb": room}))
        for room in (1.0, 0.0)
    )
    for name, tensor in held.brain.state_dict().items():
        assert torch.equal(tensor, read.brain.state_dict()[name])
    assert held.history == read.history


def test_a_row_is_the_mean_of_repeats_and_a_prefix_of_it_ends_in_zeros(plant) -> None:
    trials = plant(n_train=20, n_test=2).train
    means = trials.mean(list(trials.repeats.values()))
    how = TrainSettings(batch_size=20, prefix_share=1.0, prefix_min_s=0.05)
    [batch] = batches(trials, how)
    for row, item in zip(batch.trials.numpy(), batch.shown[batch.owner].tolist(), strict=True):
        n_known = 20 - int(np.argmax((row != 0).any(axis=0)[::-1]))
        assert n_known >= 5
        np.testing.assert_array_equal(row[:, :n_known], means[item][:, :n_known])


def test_means_are_rounded_as_the_released_code_does(plant) -> None:
    trials = plant(n_train=8, n_test=2).train
    how = TrainSettings(batch_size=8, half_means=True)
    [batch] = batches(trials, how)
    assert torch.equal(batch.trials, batch.trials.half().float())
    [exact] = batches(trials, how.model_copy(update={"half_means": False}))
    assert not torch.equal(batch.trials, exact.trials)


@settings(max_examples=40, deadline=None)
@given(
    seen=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=24),
    k=st.sampled_from([None, 1]),
    held_gb=st.sampled_from([0.0, 1.0]),
)
def test_no_row_mixes_subjects_and_none_is_lost(
    plant, seen: list[tuple[int, int]], k: int | None, held_gb: float
) -> None:
    trials = of_subjects(plant(n_train=2, n_test=2).train, *map(list, zip(*seen, strict=True)))
    how = TrainSettings(
        batch_size=5, repeats_per_row=k, rows_per_item=None if k else 1, held_gb=held_gb
    )
    rows = Rows(trials, how, Group.alone("cpu"))
    found = []
    for batch in rows.batches(np.random.default_rng(0)):
        shown = [trials.items[item] for item in batch.shown[batch.owner].tolist()]
        assert shown == [str(int(n)) for n in batch.trials[:, 0, 1]]
        found += [(int(n), int(who)) for n, who in batch.trials[:, 0, [1, 0]].tolist()]
    assert sorted(found) == sorted(seen if k else set(seen))
    assert rows.n == len(found)


def test_too_few_repeats_are_told_wherever_trials_are(plant) -> None:
    trials = plant(n_train=4, n_test=2).train
    for room in (0.0, 1.0):
        with pytest.raises(Problem, match="has 4 repeats, 5 are"):
            batches(trials, TrainSettings(repeats_per_row=5, held_gb=room))


@pytest.mark.slow
def test_half_precision_learns_the_same(plant) -> None:
    planted = plant(n_train=60, n_test=2)
    small = {"epochs": 10, "batch_size": 64, "lr": 2e-3, "dim": 32, "hidden": 32, "device": "cpu"}
    full, half = (
        train(planted.train, planted.features, TrainSettings(**small, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert half.history != full.history
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)
    assert {p.dtype for p in half.brain.parameters()} == {torch.float32}
