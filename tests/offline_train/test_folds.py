"""Subjects: one bundle of all, one each, or one for each that is left out; several sets as one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import load_bundle
from hvf_core.problem import Problem
from offline_train.brain import train as training
from offline_train.brain.folds import folds_of
from offline_train.brain.joined import load_trial_sets
from offline_train.brain.settings import TrainSettings
from offline_train.data.features import label_features
from offline_train.data.trial_set import load_trial_set, write_trial_set
from offline_train.evaluate.result import Results
from tests.calling import call
from tests.offline_train.conftest import FORMAT

SUBJECTS = ("ann", "bob", "cid")
HOW = (
    "--epochs",
    12,
    "--batch-size",
    32,
    "--set",
    "dim=16",
    "--set",
    "hidden=16",
    "--set",
    "lr=2e-3",
)


def stimuli(split: str, n: int = 12) -> list[str]:
    return [f"{split}{i:02d}" for i in range(n)]


def write(
    folder: Path, subjects: Sequence[str], splits: Sequence[str] = ("train", "test"), **known: str
) -> Path:
    """What each subject sees is in its trials, a little of it, and a column of who saw it."""
    arrays = {"whitener": np.full((6, 6), float(len(subjects[0])))}
    with write_trial_set(folder, FORMAT, arrays) as writer:
        for subject in subjects:
            rng = np.random.default_rng(sum(map(ord, subject)))
            for split in splits:
                shown = stimuli(split) * 3
                evoked = [
                    np.random.default_rng(sum(map(ord, one))).standard_normal((6, 20))
                    for one in shown
                ]
                trials = evoked + rng.standard_normal((len(shown), 6, 20))
                told = {"subject": subject, "split": split} | known
                writer.append(trials, shown, **{k: v for k, v in told.items() if v})
    return folder


def test_whose_trials_a_bundle_learns_from(tmp_path: Path) -> None:
    whole = load_trial_set(write(tmp_path / "set", SUBJECTS))
    [alone] = folds_of(whole, TrainSettings(hold_out=0), classes=False)
    assert (alone.subject, len(alone.learnt), alone.test) == ("", 3 * 36, None)
    for how, n_learnt in (("each", 36), ("leave-one-out", 72)):
        folds = folds_of(whole, TrainSettings(subjects=how, hold_out=0), classes=False)
        assert tuple(fold.subject for fold in folds) == SUBJECTS
        for fold in folds:
            learnt, test = (
                fold.learnt.column("subject").present,
                fold.test.column("subject").present,
            )
            assert test == {fold.subject}
            assert (fold.subject in learnt) == (how == "each")
            assert len(fold.learnt) == n_learnt
            assert set(fold.learnt.items) == set(stimuli("train"))
            assert set(fold.test.items) == set(stimuli("test"))


def test_nobody_to_leave_out_and_stimuli_of_both_are_refused(tmp_path: Path) -> None:
    one = load_trial_set(write(tmp_path / "one", ["ann"]))
    with pytest.raises(Problem, match=r"of 1 subjects .* give the trial sets of all"):
        folds_of(one, TrainSettings(subjects="leave-one-out"), classes=False)
    [each] = folds_of(one, TrainSettings(subjects="each", hold_out=0), classes=False)
    assert each.subject == ""
    write(tmp_path / "two", ["bob"], ["test"], split="train")
    leaking = load_trial_sets([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(Problem, match="12 of the 12 stimuli of the split 'test' are in training"):
        folds_of(leaking, TrainSettings(subjects="leave-one-out"), classes=False)


def test_several_sets_are_as_one(tmp_path: Path) -> None:
    whole = load_trial_set(write(tmp_path / "whole", ["ann", "bobby"]))
    folders = [write(tmp_path / "a", ["ann"]), write(tmp_path / "bobby", ["bobby"], subject="")]
    joined = load_trial_sets(folders)
    assert joined.table["subject"].names == ("ann", "bobby"), "of its folder"
    for name, column in whole.table.items():
        assert joined.table[name].values == column.values
    groups = list(whole.repeats.values())
    np.testing.assert_array_equal(joined.mean(groups), whole.mean(groups))
    picked = joined.select(["bobby"], "subject").select(["test"], "split")
    np.testing.assert_array_equal(picked.data[picked.rows], whole.data[-36:])
    assert joined.checksum not in {whole.checksum, *(load_trial_set(f).checksum for f in folders)}
    np.testing.assert_array_equal(joined.preprocessing_arrays["whitener"], np.full((6, 6), 4.0))
    other = FORMAT.model_copy(update={"rate_hz": 200.0, "tmax_s": 0.095})
    with write_trial_set(tmp_path / "other", other) as writer:
        writer.append(np.zeros((1, 6, 20)), ["x"])
    with pytest.raises(Problem, match=r"other' has the rate_hz 200.0, .* has 100.0: prepare both"):
        load_trial_sets([folders[0], tmp_path / "other"])


def test_sets_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    ann = write(tmp_path / "ann", ["ann"])
    with pytest.raises(Problem, match=r"ann' and '.*ann' hold the same trials: leave one"):
        load_trial_sets([ann, Path(str(ann))])
    nobodies = []
    for n, place in enumerate(("one/trials", "two/trials")):
        with write_trial_set(tmp_path / place, FORMAT) as writer:
            writer.append(np.full((1, 6, 20), n), ["x"])
        nobodies.append(tmp_path / place)
    with pytest.raises(Problem, match=r"one/trials' and '.*two/trials' do not say whose trials"):
        load_trial_sets(nobodies)


def test_what_is_simulated_in_part_is_simulated(tmp_path: Path) -> None:
    folders = []
    for name, told in (("a", {"subject": "simulated"}), ("b", {"subject": "simulated", "n": 1})):
        about = FORMAT.model_copy(update={"provenance": {"study": "demo", **told}})
        with write_trial_set(tmp_path / name, about) as writer:
            writer.append(np.full((1, 6, 20), len(folders)), ["x"])
        folders.append(tmp_path / name)
    found = load_trial_sets(folders).format.provenance
    assert {"subject": "simulated", "study": "demo"}.items() <= found.items()
    assert "n" not in found


def test_a_finished_training_is_not_taken_for_one_of_other_subjects(tmp_path: Path) -> None:
    rng, trials = np.random.default_rng(0), []
    for name, whose in (("apart", ["a"] * 8 + ["b"] * 8), ("mixed", ["a", "b"] * 8)):
        rng = np.random.default_rng(0)
        with write_trial_set(tmp_path / name, FORMAT) as writer:
            writer.append(rng.standard_normal((16, 6, 20)), [*"stuv"] * 4, subject=whose)
        trials.append(load_trial_set(tmp_path / name))
    shared = {"checksum": "same", "data": trials[0].data}
    features = label_features([*"stuv"])
    how = TrainSettings(epochs=1, dim=8, hidden=8, batch_size=8, warmup_steps=0, device="cpu")
    losses = [
        training.train(replace(one, **shared), features, how, checkpoint_dir=tmp_path / "kept")
        for one in trials
    ]
    assert losses[0].history != losses[1].history


@pytest.mark.slow
def test_every_subject_is_left_out_by_one_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [write(tmp_path / name, [name]) for name in SUBJECTS]
    asked = ("mbp", *sets, "--labels", "--leave-one-out", *HOW, "--hold-out", 0)
    asked += ("--cache", tmp_path / "cache", "--out", tmp_path / "out", "--tensorboard")

    stopped = training.save_checkpoint
    calls = iter(range(100))

    def until(*given: object) -> None:
        if next(calls) == 15:  # in the second subject
            raise KeyboardInterrupt
        stopped(*given)

    monkeypatch.setattr(training, "save_checkpoint", until)
    assert call(*asked, module="offline_train").code != 0
    assert (tmp_path / "out/ann/evaluation.json").is_file()
    assert not (tmp_path / "out/bob/bundle").exists()
    monkeypatch.undo()
    saved = []

    def count(*given: object) -> None:
        saved.append(len(given[4]))
        stopped(*given)

    monkeypatch.setattr(training, "save_checkpoint", count)
    done = call(*asked, module="offline_train")
    assert done.code == 0, done.err
    assert saved == [*range(4, 13), *range(1, 13)], "what was done is not done again"
    for subject in SUBJECTS:
        bundle = load_bundle(tmp_path / "out" / subject / "bundle")
        assert bundle.manifest.training["n_trials"] == 72
        text = (tmp_path / "out" / subject / "evaluation.json").read_text()
        (found,) = Results.model_validate_json(text).evaluations  # as --compare takes it
        assert [point.repeats for point in found.points] == [1, 3]
        assert (found.subject, found.n_way) == (subject, 12)
        assert found.seen is None or not found.seen.n_trials
        assert list((tmp_path / "out-tensorboard" / subject).glob("events*"))
    told = " ".join(done.out.split())
    assert "12-way retrieval, by the subject decoded" in told
    assert "ann 1 " in told
    assert "mean 3 " in told
    for_others = (
        f"personalise --bundle {tmp_path / 'out' / SUBJECTS[-1] / 'bundle'} --trials TRIALS"
    )
    assert for_others in told.partition("for somebody else")[2]
    assert "not calibrated, as no stimuli were held out: train with `mbp --hold-out 200`" in told
    weights = (tmp_path / "out/ann/bundle/brain.safetensors").read_bytes()
    refused = call(*asked, "--seed", 1, module="offline_train")
    assert "ann/bundle' is a bundle of another training" in refused.one_sentence()
    assert (tmp_path / "out/ann/bundle/brain.safetensors").read_bytes() == weights
