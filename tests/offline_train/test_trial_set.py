"""Trial sets: written in blocks, read by stimulus, refused when they are not whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from offline_train.data.trial_set import (
    TrialFormat,
    TrialSet,
    load_trial_set,
    write_trial_set,
)
from offline_train.data.trial_table import Column
from tests.memory import kept_memory

FORMAT = TrialFormat(
    channels=("O1", "O2"), rate_hz=50, tmin_s=-0.02, tmax_s=0.04, preprocessing={"filters": []}
)

STIMULI = ["cat", "dog", "cat", "eel", "dog", "cat", "cat"]
TRIALS = np.random.default_rng(0).standard_normal((7, 2, 4)).astype(np.float32)


def write(directory: Path) -> TrialSet:
    with write_trial_set(directory, FORMAT, {"whitener": np.eye(2)}) as writer:
        writer.append(TRIALS[:3], STIMULI[:3], session="s1")
        writer.append(TRIALS[3:], STIMULI[3:], session=["s2"] * 4)
    return load_trial_set(directory)


@pytest.fixture
def trial_set(tmp_path: Path) -> TrialSet:
    return write(tmp_path / "set")


def test_a_trial_set_comes_back_as_it_was(trial_set: TrialSet, tmp_path: Path) -> None:
    np.testing.assert_array_equal(trial_set.data, TRIALS)
    np.testing.assert_array_equal(np.load(tmp_path / "set" / "trials.npy"), TRIALS)
    assert isinstance(trial_set.data, np.memmap)
    assert trial_set.format == FORMAT
    assert trial_set.stimuli == tuple(STIMULI)
    assert trial_set.column("session").values == ("s1",) * 3 + ("s2",) * 4
    np.testing.assert_array_equal(trial_set.preprocessing_arrays["whitener"], np.eye(2))


def test_items_are_in_the_order_of_their_first_trials(trial_set: TrialSet) -> None:
    assert trial_set.items == ("cat", "dog", "eel")
    assert {name: list(rows) for name, rows in trial_set.repeats.items()} == {
        "cat": [0, 2, 5, 6],
        "dog": [1, 4],
        "eel": [3],
    }


def test_all_repeats_are_averaged(trial_set: TrialSet) -> None:
    owners, groups = trial_set.draw_repeats(None, np.random.default_rng(0))
    means = trial_set.mean(groups)
    assert [trial_set.items[owner] for owner in owners] == ["cat", "dog", "eel"]
    assert means.dtype == np.float32
    for mean, rows in zip(means, ([0, 2, 5, 6], [1, 4], [3]), strict=True):
        np.testing.assert_allclose(mean, TRIALS[rows].mean(axis=0), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    n_repeats=st.integers(1, 4),
    per_item=st.none() | st.integers(1, 5),
    counts=st.lists(st.integers(4, 9), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_groups_are_disjoint_repeats_of_one_stimulus(
    n_repeats: int, per_item: int | None, counts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stimuli = rng.permutation(np.repeat([f"s{i}" for i in range(len(counts))], counts))
    trials = TrialSet(
        format=FORMAT,
        data=np.zeros((len(stimuli), 2, 4), np.float32),
        rows=np.arange(len(stimuli)),
        table={"stimulus": Column.of(stimuli.tolist())},
        preprocessing_arrays={},
        session_arrays={},
        checksum="",
    )
    owners, groups = trials.draw_repeats(n_repeats, rng, per_item)
    used = np.concatenate(groups)
    assert len(set(used)) == len(used)
    for owner, group in zip(owners, groups, strict=True):
        assert len(group) == n_repeats
        assert {stimuli[i] for i in group} == {trials.items[owner]}
    for item, (_, rows) in enumerate(trials.repeats.items()):
        possible = len(rows) // n_repeats
        expected = possible if per_item is None else min(per_item, possible)
        assert np.count_nonzero(owners == item) == expected


def test_draws_differ_by_seed_and_repeat_with_it(trial_set: TrialSet) -> None:
    cats = trial_set.select(["cat"])
    drawn = [cats.draw_repeats(2, np.random.default_rng(seed))[1] for seed in (1, 1, 2, 3, 4)]
    draws = [cats.mean(groups) for groups in drawn]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert any((draw != draws[0]).any() for draw in draws[2:])


def test_a_selection_has_its_own_trials_only(trial_set: TrialSet) -> None:
    chosen = trial_set.select(["eel", "dog"]).subset([0, 1])
    assert chosen.stimuli == ("dog", "eel")
    assert chosen.column("session").values == ("s1", "s2")
    _, groups = chosen.draw_repeats(None, np.random.default_rng(0))
    np.testing.assert_array_equal(chosen.mean(groups), TRIALS[[1, 3]])


def write_table(directory: Path) -> TrialSet:
    """Seven trials of two subjects with a session 1 each, and what is known of only some."""
    arrays = {("a", "1"): {"whitener": np.eye(2)}, ("b", None): {"whitener": 2 * np.eye(2)}}
    with write_trial_set(directory, FORMAT, {"whitener": 3 * np.eye(2)}, arrays) as writer:
        writer.append(TRIALS[:3], STIMULI[:3], subject="a", session="1", split="train", run=None)
        categories = ["fish", "dog", "cat", None]
        writer.append(TRIALS[3:], STIMULI[3:], subject="b", split="test", category=categories)
    return load_trial_set(directory)


def test_what_is_known_of_a_trial_comes_back_and_nothing_else(tmp_path: Path) -> None:
    trials = write_table(tmp_path / "set")
    assert set(trials.table) == {"stimulus", "subject", "session", "split", "category"}
    assert trials.column("subject").values == ("a",) * 3 + ("b",) * 4
    assert trials.column("session").values == ("1",) * 3 + (None,) * 4
    assert trials.column("category").values == (None,) * 3 + ("fish", "dog", "cat", None)
    with pytest.raises(Problem, match="does not say the run of its trials, only stimulus, "):
        trials.column("run")
    np.testing.assert_array_equal(trials.preprocessing_arrays["whitener"], 3 * np.eye(2))
    assert set(trials.session_arrays) == {("a", "1"), ("b", None)}
    np.testing.assert_array_equal(trials.session_arrays["b", None]["whitener"], 2 * np.eye(2))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.none() | st.sampled_from("ab")), min_size=1, max_size=9
    ),
    st.data(),
)
def test_selections_by_any_column_are_those_of_a_plain_list(
    rows: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    stimuli, sessions = zip(*rows, strict=True)
    trials = TrialSet(
        format=FORMAT,
        data=np.zeros((len(rows), 2, 4), np.float32),
        rows=np.arange(len(rows)),
        table={"stimulus": Column.of(stimuli), "session": Column.of(sessions)},
        preprocessing_arrays={},
        session_arrays={},
        checksum="",
    )
    positions = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    some = trials.subset(positions)
    assert some.stimuli == tuple(stimuli[i] for i in positions)
    present = some.column("session").present
    assert present == {sessions[i] for i in positions} - {None}
    wanted = data.draw(st.sets(st.sampled_from(sorted(present)))) if present else set()
    chosen = some.select(wanted, "session")
    assert chosen.rows.tolist() == [i for i in positions if sessions[i] in wanted]
    with pytest.raises(Problem, match="no trial of session 'c'"):
        some.select({"c"}, "session")


def test_a_set_of_the_first_schema_is_read(trial_set: TrialSet, tmp_path: Path) -> None:
    path = tmp_path / "set" / "trial_set.json"
    manifest = json.loads(path.read_text())
    (tmp_path / "set" / "table.npz").unlink()
    del manifest["files"]["table.npz"], manifest["format"]["kind"], manifest["format"]["unit"]
    sessions = ["s1"] * 3 + ["s2"] * 4
    old = {"schema_version": 1, "stimuli": STIMULI, "sessions": sessions}
    path.write_text(json.dumps(manifest | old))
    read = load_trial_set(tmp_path / "set")
    assert read.format == trial_set.format
    assert (read.format.kind, read.format.unit) == ("eeg", "microvolts")
    for name, column in trial_set.table.items():
        assert read.column(name).values == column.values
    assert read.checksum == trial_set.checksum


@pytest.mark.slow
def test_a_large_table_is_arrays_not_objects(tmp_path: Path) -> None:
    """66,160 trials, as one subject of THINGS-EEG2 has, of a sample each."""
    n, tiny = 66_160, FORMAT.model_copy(update={"channels": ("Oz",), "tmin_s": 0, "tmax_s": 0})
    with write_trial_set(tmp_path / "set", tiny) as writer:
        stimuli = [f"{i % 16_540:05d}_concept_{i % 1654}.jpg" for i in range(n)]
        facts = {"subject": "sub-01", "split": "train", "image": [f"images/{s}" for s in stimuli]}
        writer.append(np.zeros((n, 1, 1), np.float32), stimuli, session="ses-01", **facts)
    with kept_memory() as kept:
        trials = load_trial_set(tmp_path / "set")
        held = kept()
    assert 0 < held < 100 * n  # five columns of Python strings would be 400 bytes a trial
    assert len(trials.items) == 16_540
    assert len(trials.select([stimuli[7]])) == 4


def test_what_is_not_there_is_refused(trial_set: TrialSet, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no trial of stimulus 'gnu'"):
        trial_set.select(["cat", "gnu"])
    with pytest.raises(Problem, match="'eel' has 1 repeats, 2 are"):
        trial_set.draw_repeats(2, np.random.default_rng(0))
    with pytest.raises(Problem, match="there is no"):
        load_trial_set(tmp_path / "nowhere")


def test_an_interrupted_set_is_discarded_and_the_old_one_stays(tmp_path: Path) -> None:
    def write_half() -> None:
        with write_trial_set(tmp_path / "set", FORMAT) as writer:
            writer.append(TRIALS[:1], ["fox"], session="s9")
            raise KeyboardInterrupt

    write(tmp_path / "set")
    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert load_trial_set(tmp_path / "set").stimuli == tuple(STIMULI)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_trials_that_are_wrong_are_not_taken(tmp_path: Path) -> None:
    broken = TRIALS.copy()
    broken[3, 0, 0] = np.nan
    with write_trial_set(tmp_path / "set", FORMAT) as writer:
        writer.append(TRIALS[:1], STIMULI[:1], session="s1")
        with pytest.raises(Problem, match="stimulus 'eel'"):
            writer.append(broken, STIMULI, session="s1")
        with pytest.raises(ValueError, match="'session' has 1 values for 7 trials"):
            writer.append(TRIALS, STIMULI, session=["s1"])
        with pytest.raises(ValueError, match="'seesion'"):
            writer.append(TRIALS, STIMULI, seesion="s1")
        with pytest.raises(ValueError, match="shape"):
            writer.append(TRIALS[:, :1], STIMULI, session="s1")
    np.testing.assert_array_equal(load_trial_set(tmp_path / "set").data, TRIALS[:1])


def test_a_set_without_trials_is_refused(tmp_path: Path) -> None:
    empty = write_trial_set(tmp_path / "set", FORMAT)
    with pytest.raises(Problem, match="no trial was left"), empty:
        pass


def test_a_damaged_set_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    path = tmp_path / "set" / "trials.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(Problem, match="damaged"):
        load_trial_set(tmp_path / "set")


class Dangerous:
    def __reduce__(self) -> tuple:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    "codes",
    [
        np.array([Dangerous()] * 2, object),
        np.array([0, 1], np.int32),
        np.array([0, -2], np.int32),
        np.array([0.0, 0.0]),
        np.zeros((2, 1), np.int32),
    ],
    ids=["a pickle", "beyond the names", "before them", "no numbers of names", "no column"],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, codes: np.ndarray) -> None:
    form = TrialFormat(channels=("Oz",), rate_hz=10, tmin_s=0, tmax_s=0.1)
    with write_trial_set(tmp_path / "set", form) as writer:
        writer.append(np.zeros((2, 1, 2), np.float32), ["a", "a"])
    table, manifest = tmp_path / "set" / "table.npz", tmp_path / "set" / "trial_set.json"
    before = file_sha256(table)
    np.savez(table, **{"stimulus": codes, "names of stimulus": np.array(["a"])})
    manifest.write_text(manifest.read_text().replace(before, file_sha256(table)))
    with pytest.raises(Problem, match="is no trial set"):
        load_trial_set(tmp_path / "set")
