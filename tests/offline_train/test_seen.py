"""What a bundle was trained on is known again, however it was copied, and judged by nowhere."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.bundle import Bundle, load_bundle, save_bundle
from hvf_core.problem import Problem
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.commands.evaluate import show_results
from offline_train.data.trial_set import TrialSet, load_trial_set, write_trial_set
from offline_train.evaluate.retrieval import evaluate
from offline_train.evaluate.seen import Seen, check_seen, fingerprints, memory_of, told
from offline_train.evaluate.tables import accuracy_table, among_table, selective_table

pytestmark = pytest.mark.slow

SETTINGS = TrainSettings(epochs=1, batch_size=64, dim=8, hidden=8, device="cpu")


@pytest.fixture(scope="module")
def planted(plant):
    return plant(n_train=40, n_test=10)


@pytest.fixture(scope="module")
def learnt(planted) -> TrialSet:
    return planted.train.select(planted.train.items[:30])


@pytest.fixture(scope="module")
def bundle(planted, learnt, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models = train(learnt, planted.features, SETTINGS)
    folder = tmp_path_factory.mktemp("seen") / "bundle"
    return make_bundle(folder, models, learnt, planted.features, SETTINGS, "a test")


def copied(trials: TrialSet, folder: Path, data: np.ndarray, stimuli: Sequence[str]) -> TrialSet:
    """Another set on disk, of these trials."""
    with write_trial_set(folder, trials.format, trials.preprocessing_arrays) as writer:
        writer.append(data.astype(np.float32), stimuli)
    return load_trial_set(folder)


@pytest.mark.parametrize(
    "change", ["nothing", "renamed", "reordered", "subset", "rounded", "mixed"]
)
def test_trials_of_the_training_are_known_again_however_they_were_copied(
    bundle: Bundle, learnt: TrialSet, tmp_path: Path, change: str
) -> None:
    rng = np.random.default_rng(5)
    data, stimuli = learnt.data[learnt.rows], list(learnt.stimuli)
    if change == "renamed":
        stimuli = [f"another {name}" for name in stimuli]
    order = np.arange(len(data))
    if change == "reordered":
        order = rng.permutation(order)
    elif change == "subset":
        order = order[-3:]
    elif change == "rounded":
        data = data * (1 + 1e-6 * rng.standard_normal(data.shape))
    elif change == "mixed":  # as by the whitening of a session, or by adaptation
        data = (np.eye(6) + 0.3 * rng.standard_normal((6, 6))) @ data
    again = copied(learnt, tmp_path / "set", data[order], [stimuli[i] for i in order])
    if change == "reordered":
        again = again.subset(rng.permutation(len(again)))
    with pytest.raises(Problem, match=f"trained on {len(order)} of these {len(order)} trials"):
        check_seen(bundle, again)
    n_items = 0 if change == "renamed" else len(again.items)
    assert check_seen(bundle, again, allowed=True) == Seen(n_trials=len(order), n_items=n_items)


def test_one_trial_of_the_training_among_others_is_found(
    bundle: Bundle, planted, learnt: TrialSet, tmp_path: Path
) -> None:
    data = np.concatenate([planted.test.data, learnt.data[learnt.rows[:1]]])
    mixed = copied(learnt, tmp_path / "set", data, [*planted.test.stimuli, "new"])
    with pytest.raises(Problem, match="trained on 1 of these 41 trials"):
        check_seen(bundle, mixed)


def test_what_was_not_trained_on_passes_and_new_trials_of_old_stimuli_are_told(
    bundle: Bundle, planted, learnt: TrialSet, tmp_path: Path
) -> None:
    held_out = planted.train.select(planted.train.items[30:])  # of the very same set
    assert check_seen(bundle, held_out) == check_seen(bundle, planted.test)
    assert check_seen(bundle, held_out) == Seen(n_trials=0, n_items=0)
    noise = np.random.default_rng(0).standard_normal(planted.test.data.shape)
    renamed = [learnt.items[0]] * 20 + ["new"] * 20
    repeats = copied(learnt, tmp_path / "set", noise, renamed)
    assert check_seen(bundle, repeats) == Seen(n_trials=0, n_items=1)
    assert told(check_seen(bundle, repeats), 2) == "2 stimuli, 1 of them trained on, in new trials"


def test_a_name_is_the_same_in_every_form_of_unicode(planted, tmp_path: Path) -> None:
    trials = copied(planted.test, tmp_path / "a", planted.test.data, ["caf\u00e9"] * 40)
    again = copied(planted.test, tmp_path / "b", -planted.test.data, ["cafe\u0301"] * 40)
    models = train(planted.train, planted.features, SETTINGS)
    made = make_bundle(tmp_path / "c", models, planted.train, planted.features, SETTINGS, "a test")
    parts = {part: made.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    made = save_bundle(tmp_path / "c", made.manifest, parts | {"seen": memory_of(trials)})
    assert check_seen(made, again, allowed=True).n_items == 1


@given(st.integers(2, 12), st.integers(4, 40), st.integers(0, 99))
def test_different_trials_have_different_fingerprints(n_channels, n_times, seed) -> None:
    """Also where channels are so many that their span is everything."""
    data = np.random.default_rng(seed).standard_normal((30, n_channels, n_times))
    trials = TrialSet(None, data.astype(np.float32), np.arange(30), {}, {}, {}, "")
    found = fingerprints(trials)
    scaled = fingerprints(replace(trials, data=(3e4 * data).astype(np.float32)))
    np.testing.assert_allclose(found, scaled, atol=1e-4)
    away = np.abs(found[:, None] - found[None]).max(axis=2)
    assert away[~np.eye(30, dtype=bool)].min() > 1e-3


def test_flat_trials_are_no_acquaintances(bundle: Bundle, planted, tmp_path: Path) -> None:
    flat = copied(planted.test, tmp_path / "flat", 0 * planted.test.data, planted.test.stimuli)
    assert not fingerprints(flat).any()
    assert check_seen(bundle, flat).n_trials == 0


def test_an_evaluation_of_what_was_seen_is_refused_or_marked_everywhere(
    bundle: Bundle, planted, learnt: TrialSet, tmp_path: Path, capsys
) -> None:
    gallery = build_gallery(learnt.items, learnt.items, planted.features, bundle, "a test")
    with pytest.raises(Problem, match="or say --seen"):
        evaluate(bundle, learnt, gallery, [1])
    found = evaluate(bundle, learnt, gallery, [1], seen=True)
    show_results([found], tmp_path / "out")
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["evaluations"][0]["seen"] == {"n_trials": 120, "n_items": 30}
    marked = "30 stimuli, SEEN: 120 trials were trained on"
    assert marked == found.items
    of_terminal = (accuracy_table, among_table, selective_table)
    assert all(marked in table(found).title for table in of_terminal)
    assert marked in (tmp_path / "out/report.html").read_text()
    assert "held-out" not in capsys.readouterr().out


def test_bundles_of_before_know_the_set_that_they_were_trained_on(
    bundle: Bundle, planted, learnt: TrialSet, tmp_path: Path
) -> None:
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    old = save_bundle(tmp_path / "old", bundle.manifest, parts)
    held_out = planted.train.select(planted.train.items[30:])
    assert check_seen(old, held_out) is None
    assert check_seen(old, planted.test) is None
    assert told(None, 10) == "10 stimuli"
    for overlapping in (learnt, planted.train, planted.train.select(planted.train.items[29:])):
        with pytest.raises(Problem, match="was trained on"):
            check_seen(old, overlapping)
    assert check_seen(old, learnt, allowed=True).n_trials == len(learnt)


def test_a_memory_that_is_none_is_refused(bundle: Bundle, planted, tmp_path: Path) -> None:
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    for memory in ({}, {"trials": np.zeros((3, 7), np.float32), "stimuli": np.zeros(2, "<u8")}):
        odd = save_bundle(tmp_path / "odd", bundle.manifest, parts | {"seen": memory})
        with pytest.raises(Problem, match="does not say what was seen"):
            check_seen(load_bundle(odd.directory), planted.test)


def test_trials_that_were_whitened_by_another_fit_are_refused(bundle: Bundle, planted) -> None:
    gallery = build_gallery(
        planted.test.items, planted.test.items, planted.features, bundle, "a test"
    )
    other = replace(planted.test, preprocessing_arrays={"whitener": 2 * np.eye(6)})
    with pytest.raises(Problem, match="whitener of the trial set was fitted to other trials"):
        evaluate(bundle, other, gallery, [1])
