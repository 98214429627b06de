"""Trials that are saved as they come, and what is made of them, whatever happened meanwhile."""

import os
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.markers import Event
from stream.acquire.trials import Trial
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.trial_file import TrialFile, check_trial_file, complete
from stream.pipeline.books.trial_formats import COLUMNS, Head, channel_types
from tests.metadata import rows_of

HEAD = Head(["Cz", "Pz"], 100.0, (-2, 7), ["eeg", "eeg"])
TEXTS = (
    "a/b",
    "a\0",
    "a\\0",
    "",
    "Gemüse",
    "日本",
    "a;b",
    "a,b",
    "x:1",
    "&#128512;",
    "🙂",
    "\ud800",
)


def trial(number: int, stimulus: str = "face", onset_s: float | None = None) -> Trial:
    onset_s = float(number) if onset_s is None else onset_s
    event = Event(onset_s, stimulus, f"of {stimulus}", 3, onset_s)
    samples = np.random.default_rng(number).normal(0, 20, (10, 2)).astype(np.float32)
    return Trial(number, event, 0.001, onset_s, onset_s, onset_s, samples, True)


def save(folder: Path, *trials: Trial, head: Head = HEAD) -> None:
    """What a reader writes before it dies."""
    folder.mkdir(exist_ok=True)
    file = TrialFile(folder, head)
    for one in trials:
        file.add(one)


def saved_epochs(tmp_path: Path, *trials: Trial, head: Head = HEAD) -> tuple[mne.Epochs, str]:
    save(tmp_path / "s", *trials, head=head)
    said = str(complete(tmp_path / "s", tmp_path / "t-epo.fif", "id"))
    return mne.read_epochs(tmp_path / "t-epo.fif", verbose="ERROR"), said


def test_a_reader_that_is_restarted_goes_on_in_the_same_file(tmp_path: Path) -> None:
    save(tmp_path / "s", trial(1), trial(2))
    save(tmp_path / "s", trial(2), trial(7, "house"))  # the second of them is cut again
    done = complete(tmp_path / "s", tmp_path / "t.npz", "id")
    assert done is not None
    assert (done.n, done.n_lost) == (3, 0)
    saved = np.load(tmp_path / "t.npz", allow_pickle=False)
    expected = np.stack([trial(number).samples.T for number in (1, 2, 7)])
    np.testing.assert_array_equal(saved["trials"], expected)
    assert saved["trial"].tolist() == [1, 2, 7]
    assert saved["stimulus"].tolist() == ["face", "face", "house"]
    np.testing.assert_allclose(saved["times_s"], np.arange(-2, 8) / 100)
    assert saved["channels"].tolist() == HEAD.channels
    assert set(COLUMNS) < set(saved.files)
    assert list((tmp_path / "s").iterdir()) == []
    assert complete(tmp_path / "s", tmp_path / "t.npz", "id") is None  # and once is enough


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.integers(0, 700), st.integers(0, 200), st.binary(max_size=30))
def test_what_a_crash_cut_short_costs_the_trials_that_it_cut(
    tmp_path_factory: pytest.TempPathFactory, n: int, lost: int, lost_rows: int, rubbish: bytes
) -> None:
    folder = tmp_path_factory.mktemp("crash")
    save(folder, *map(trial, range(1, n + 1)))
    sizes = []
    for name, cut in (("trials.f32", lost), ("trials.jsonl", lost_rows)):
        sizes.append(max(0, os.path.getsize(folder / name) - cut))
        os.truncate(folder / name, sizes[-1])
    whole = (folder / "trials.jsonl").read_bytes().count(b"\n")
    left = max(0, min(sizes[0] // (2 * 10 * 4), whole - 1))
    with (folder / "trials.jsonl").open("ab") as file:
        file.write(rubbish.replace(b"\n", b""))
    save(folder, trial(8), trial(9))
    complete(folder, folder / "t.npz", "id")
    saved = np.load(folder / "t.npz")
    numbers = [*range(1, left + 1), 8, 9]
    assert saved["trial"].tolist() == numbers
    for number, samples in zip(numbers, saved["trials"], strict=True):
        np.testing.assert_array_equal(samples, trial(number).samples.T)


def test_another_stream_does_not_go_on_in_the_same_file(tmp_path: Path) -> None:
    save(tmp_path, trial(1))
    with pytest.raises(Problem, match=r"\(Cz, Pz\).*\(Cz, Oz\), .* now.*new session"):
        save(tmp_path, head=Head(["Cz", "Oz"], 100.0, (-2, 7), ["eeg", "eeg"]))
    assert str(complete(tmp_path, tmp_path / "t.npz", "id")).startswith("1 trial saved: ")


def test_what_is_not_saved_is_said_in_numbers(tmp_path: Path) -> None:
    save(tmp_path, trial(1), trial(5))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(1, 7):
        ledger.announce(number)
    for number in (2, 3):
        ledger.settle(number, "dropped", reason="gap", detail="")
    ledger.settle(4, "cut", residual_s=0.0, stamps={})
    ledger.settle(5, "dropped", reason="node_lost", detail="")  # not answered, and saved
    ledger.close()
    done = complete(tmp_path, tmp_path / "t.npz", "id")
    assert done is not None
    assert (done.n, done.n_lost, done.dropped) == (2, 1, {"gap": 2})
    expected = "2 dropped (gap), 1 that were cut, and could not be written"
    assert str(done) == f"2 trials saved: {tmp_path / 't.npz'}; not among them: {expected}"


@pytest.mark.parametrize(("name", "own"), [("t.npz", "t-id.npz"), ("t-epo.fif", "t-id-epo.fif")])
def test_a_file_that_has_come_meanwhile_is_not_written_over(
    tmp_path: Path, name: str, own: str
) -> None:
    save(tmp_path / "s", trial(1))
    (tmp_path / name).write_text("another's")
    done = complete(tmp_path / "s", tmp_path / name, "id")
    assert done is not None
    assert (done.n, done.path) == (1, tmp_path / own)
    assert f"'{tmp_path / name}' was there already" in str(done)
    assert (tmp_path / name).read_text() == "another's"
    assert done.path.is_file()


def test_without_trials_there_is_no_file(tmp_path: Path) -> None:
    save(tmp_path)
    assert str(complete(tmp_path, tmp_path / "t-epo.fif", "id")) == "no trials saved"
    assert list(tmp_path.iterdir()) == []


def test_trials_that_cannot_be_made_a_file_are_kept(tmp_path: Path) -> None:
    save(tmp_path, trial(1))
    with pytest.raises(Problem, match=r"kept in .*finish"):
        complete(tmp_path, tmp_path / "gone" / "t.npz", "id")
    done = complete(tmp_path, tmp_path / "t.npz", "id")
    assert done is not None
    assert done.n == 1


@pytest.mark.parametrize("has_pandas", [True, False])
def test_epochs_have_the_table_and_volts(tmp_path: Path, monkeypatch, has_pandas: bool) -> None:
    if not has_pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    head = Head([*HEAD.channels, "STI"], 100.0, (-2, 7), ["eeg", "eog", "stim"])
    wide = [trial(1, "a/b"), trial(2, "a/c")]
    for one in wide:
        codes = np.full((10, 1), 5, np.float32)
        object.__setattr__(one, "samples", np.hstack([one.samples, codes]))
    epochs, _ = saved_epochs(tmp_path, *wide, head=head)
    assert epochs.get_channel_types() == ["eeg", "eog", "stim"]
    expected = np.stack([one.samples.T for one in wide])
    np.testing.assert_allclose(epochs.get_data()[:, :2], expected[:, :2] * 1e-6, rtol=1e-6)
    assert (epochs.get_data()[:, 2] == 5).all()
    assert (epochs.tmin, epochs.tmax) == (-0.02, 0.07)
    assert len(epochs["a"]) == 2
    table = rows_of(epochs)
    values = [2, "a/c", "of a/c", 3, 2.0, 0.001, 2.0]
    assert table[1] == dict(zip(COLUMNS, values, strict=True))


@pytest.mark.parametrize(
    ("kinds", "unit", "types"),
    [
        ([], "microvolts", ["eeg", "eog", "misc", "stim"]),
        (["EEG", "EOG", "EEG", "EEG"], "", ["eeg", "eog", "misc", "stim"]),
        (["EEG", "", "gaze", ""], "microvolts", ["eeg", "eog", "misc", "stim"]),
        (["mag", "", "grad", ""], "femtoteslas", ["mag", "eog", "misc", "stim"]),
        (["MEG", "MEG", "MEG", "MEG"], "femtoteslas/cm", ["grad", "eog", "misc", "stim"]),
    ],
)
def test_channels_have_the_types_of_mne(kinds: list[str], unit: str, types: list[str]) -> None:
    assert channel_types(["Cz", "HEOG", "AUX 1", "codes"], kinds, unit, "codes") == types


def test_trials_with_one_stamp_are_saved_as_epochs(tmp_path: Path) -> None:
    onsets_s = [2.0, 3.0, 3.0, 3.001, 3.01]
    trials = [trial(n, f"s{n}", onset_s) for n, onset_s in enumerate(onsets_s, 1)]
    epochs, _ = saved_epochs(tmp_path, *trials)
    assert epochs.events[:, 0].tolist() == [0, 100, 101, 102, 103]
    assert [row["onset_s"] for row in rows_of(epochs)] == onsets_s
    assert [row["trial"] for row in rows_of(epochs)] == [1, 2, 3, 4, 5]


def test_any_text_may_be_the_name_of_a_stimulus(tmp_path: Path) -> None:
    texts = [*TEXTS, "x" * 1_000_000, "x" * 1_000_001]
    trials = [trial(n, text) for n, text in enumerate(texts, 1)]
    epochs, _ = saved_epochs(tmp_path, *trials)
    there = [text.replace("&#", "& #").replace("\ud800", r"\ud800") for text in texts]
    assert [row["stimulus"] for row in rows_of(epochs)] == there
    assert len(epochs.event_id) == len(texts)
    names = {code: name for name, code in epochs.event_id.items()}
    shown = [names[code] for code in epochs.events[:, 2]]
    assert shown[:5] == ["a/b", "a\\0", "a\\0'", "(empty)", "Gemüse"]
    assert shown[5] == "\\u65e5\\u672c"
    assert max(map(len, shown)) <= 102
    for n, name in enumerate(shown, 1):
        assert [row["trial"] for row in rows_of(epochs[name])] == [n]

    save(tmp_path / "s", *trials)
    said = complete(tmp_path / "s", tmp_path / "t.npz", "id")
    assert "2 stimuli with a text cut to 1000 characters" in str(said)
    saved = np.load(tmp_path / "t.npz", allow_pickle=False)["stimulus"].tolist()
    assert saved[2:12] == list(TEXTS[2:])
    assert os.path.getsize(tmp_path / "t.npz") < 1e6


@pytest.mark.parametrize(
    ("names", "n_placed", "said"),
    [
        (["Cz", "PO7", "fp1"], 3, None),
        (["Cz", "PO7", "left"], 2, "no place in the 10-05 system for left"),
        (["A1", "B1", "B2"], 0, "no places of electrodes"),
        (["Cz", "CZ", "Pz"], 0, "no places of electrodes"),
        (["Cz", "Cz", ""], 0, "no places of electrodes"),
        (["Cz", "Pz", "Gerät 日"], 2, r"no place in the 10-05 system for Ger\xe4t \u65e5"),
    ],
)
def test_electrodes_with_standard_names_have_their_places(
    tmp_path: Path, names: list[str], n_placed: int, said: str | None
) -> None:
    head = Head(names, 100.0, (0, 0), ["eeg"] * 3)
    one = trial(1)
    object.__setattr__(one, "samples", np.zeros((1, 3), np.float32))
    epochs, sentence = saved_epochs(tmp_path, one, head=head)
    assert sum(not np.isnan(channel["loc"][:3]).any() for channel in epochs.info["chs"]) == n_placed
    assert said is None or said in sentence


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "t.csv", tmp_path / "none" / "t.npz"):
        with pytest.raises(Problem):
            check_trial_file(path)
    (tmp_path / "there-epo.fif").touch()
    with pytest.raises(Problem, match="is there already: name another"):
        check_trial_file(tmp_path / "there-epo.fif")
    (tmp_path / "t.npz").mkdir()
    with pytest.raises(Problem, match="that you may write"):
        check_trial_file(tmp_path / "t.npz")
