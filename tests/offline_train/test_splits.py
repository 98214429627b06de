"""Training and test share no stimulus and no concept, whoever prepares, trains or holds out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialSet, load_trial_set, write_trial_set
from tests.calling import call
from tests.lookalikes import bids, things, things_eeg2
from tests.lookalikes.bids import NUMBERED
from tests.lookalikes.epochs import saved_epochs
from tests.lookalikes.way import prepared, refused
from tests.offline_train.conftest import FORMAT


def trial_set(folder: Path, shown: list[tuple[str, str | None, str]]) -> TrialSet:
    """Trials of these stimuli, concepts and splits, as an earlier version may have written them."""
    with write_trial_set(folder, FORMAT) as writer:
        trials = np.random.default_rng(0).standard_normal((len(shown), 6, 20))
        stimulus, category, split = map(list, zip(*shown, strict=True))
        writer.append(trials, stimulus, category=category, split=split)
    return load_trial_set(folder)


APART = [("a1", "a", "train"), ("a2", "a", "train"), ("b1", "b", "test"), ("c", None, "test")]


def test_what_is_apart_is_learnt_from(tmp_path: Path) -> None:
    assert trial_set(tmp_path / "set", APART).training().items == ("a1", "a2")
    unsplit = trial_set(tmp_path / "one", [(name, None, "train") for name in "abc"])
    assert len(unsplit.training()) == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ("b2", "b", "train"),
            r"1 of the 2 images of the split 'test' are of 1 .*\(b: b1\): other",
        ),
        (
            ("b1", None, "train"),
            r"^1 of the 2 stimuli of the split 'test' are .* too \(b1\): a mod",
        ),
        (("a1", "a", "validation"), r"^1 of the 1 stimuli of the split 'validation' are in train"),
    ],
)
def test_what_is_not_apart_is_counted_named_and_refused(
    more: tuple[str, str | None, str], told: str, tmp_path: Path
) -> None:
    mixed = trial_set(tmp_path / "set", [*APART, more])
    with pytest.raises(Problem, match=told):
        mixed.training()
    assert len(mixed.training(classes=True)) == 2 + (more[2] == "train")
    done = call("mbp", tmp_path / "set", "--out", tmp_path / "b", module="offline_train")
    assert "give --classes" in done.one_sentence()


def test_prepare_refuses_a_stimulus_of_two_splits(tmp_path: Path) -> None:
    """Alljoined1 with a column `split`: the first session is of training, the second of test."""
    root = bids.nm000133(tmp_path / "set")
    for table in root.rglob("*_events.tsv"):
        head, *lines = table.read_text().splitlines()
        split = "train" if "ses-01" in table.name else "test"
        table.write_text("\n".join([f"{head}\tsplit", *(f"{line}\t{split}" for line in lines)]))
    told = (
        "40 of the 40 stimuli of the split 'test' are in training too (00001, 00002, 00003, 00004"
    )
    assert told in refused(root, "--tmax", 0.2)
    classes = prepared(tmp_path / "trials", root, "--tmax", 0.2, "--classes")
    assert len(classes) == 2 * len(NUMBERED)


@pytest.mark.parametrize(
    ("said", "expected"), [("n/a", None), ("", None), ("N/A", None), ("Train", "train")]
)
def test_a_table_says_splits_in_its_own_ways(
    said: str, expected: str | None, tmp_path: Path
) -> None:
    root = bids.nm000133(tmp_path / "set")
    for table in root.rglob("*_events.tsv"):
        head, *lines = table.read_text().splitlines()
        split = said if "ses-01" in table.name else "train"
        table.write_text("\n".join([f"{head}\tsplit", *(f"{line}\t{split}" for line in lines)]))
    trials = prepared(tmp_path / "trials", root, "--tmax", 0.2)
    assert {*trials.select(["01"], "session").column("split").values} == {expected}
    epochs_of = saved_epochs(tmp_path / "epochs", beside=True)
    table = epochs_of / "anna-epo.tsv"
    table.write_text(table.read_text().replace("\ttest\t", f"\t{said}\t"))
    found = prepared(tmp_path / "of_epochs", epochs_of, "--whitening", "none")
    assert {*found.column("split").values} == {"train", expected}


def test_prepare_refuses_a_test_image_of_a_training_concept(tmp_path: Path) -> None:
    table = np.load(things.write_metadata(tmp_path), allow_pickle=True).item()
    table["test_img_concepts"][0] = "00001_abacus"
    np.save(tmp_path / "image_metadata.npy", table)
    told = (
        "1 of the 4 images of the split 'test' are of 1 concepts that training shows too (abacus:"
    )
    assert told in refused(things_eeg2.gifford(tmp_path / "data"), "--pickles")


def test_whole_concepts_are_held_out_of_a_data_set(tmp_path: Path) -> None:
    things.write_metadata(tmp_path)
    found = prepared(tmp_path / "trials", things_eeg2.gifford(tmp_path / "data")).training()
    kept, held = found.hold_out(10, seed=0)
    assert len(held.items) == 10
    assert held.column("category").present.isdisjoint(kept.column("category").present)
    told = "9 of 30 stimuli cannot be held out by whole concepts, of which the smallest has 10"
    with pytest.raises(Problem, match=told):
        found.hold_out(9, seed=0)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=4, max_size=12), n=st.integers(4, 10))
def test_what_is_held_out_is_of_whole_concepts(
    sizes: list[int], n: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = [(f"{i}-{j}", f"c{i}", "train") for i, size in enumerate(sizes) for j in range(size)]
    whole = trial_set(tmp_path_factory.mktemp("set") / "set", shown)
    if sum(sizes) < n + 2:
        return
    kept, held = whole.hold_out(n, seed=n)
    assert 2 <= len(held.items) <= n
    assert {*kept.items} | {*held.items} == {*whole.items}
    assert held.column("category").present.isdisjoint(kept.column("category").present)
