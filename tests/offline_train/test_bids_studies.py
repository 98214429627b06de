"""BIDS data sets with images: what is taken of them, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offline_train.data.trial_set import load_trial_set
from tests.calling import call
from tests.lookalikes import bids
from tests.lookalikes.way import prepared, refused


def plain(root: Path, name: str) -> tuple[np.ndarray, list[int]]:
    """The samples of a look-alike's first BDF, in microvolts, read without any library."""
    raw = next(root.rglob(f"{name}*_eeg.bdf")).read_bytes()
    n = int(raw[252:256])
    rate = int(raw[256 * (n + 1) - 40 * n :][:8])
    packed = np.frombuffer(raw[256 * (n + 1) :], np.uint8).reshape(-1, n, rate, 3).astype(int)
    values = packed[..., 0] + (packed[..., 1] << 8) + (packed[..., 2] << 16)
    values -= (values >> 23) << 24
    return values.transpose(1, 0, 2).reshape(n, -1) * 1000 / (2**23 - 1), [rate]


def test_trials_begin_at_the_onsets_that_the_events_give(tmp_path: Path) -> None:
    root = bids.nm000133(tmp_path / "set")
    usual = ("--rate", 0, "--whitening", "none", "--tmax", 0.2, "--images", root / "stimuli")
    trials = prepared(tmp_path / "trials", root / "sub-01" / "ses-01", *usual)
    samples, (rate,) = plain(root, "sub-01_ses-01")
    lines = next(root.rglob("sub-01_ses-01*_events.tsv")).read_text().splitlines()[1:-1]
    for line, stimulus, trial in zip(lines, trials.stimuli, trials.data, strict=True):
        onset_s, _, _, file = line.split("\t")
        assert file == f"nsd/{stimulus}.jpg"
        first = round(float(onset_s) * rate)
        level = samples[:, first - int(0.2 * rate) : first + 1].mean(axis=1, keepdims=True)
        expected = samples[:, first : first + trial.shape[1]] - level
        np.testing.assert_allclose(trial, expected, atol=1e-3)
    assert trials.column("image").values[0] == f"nsd/{trials.stimuli[0]}.jpg"
    assert trials.column("subject").present == {"01"}
    assert len(prepared(tmp_path / "both", root, *usual)) == 2 * len(bids.NUMBERED)


def test_what_this_program_exports_is_such_a_data_set(tmp_path: Path) -> None:
    from tests.finished import finished
    from tests.stream.test_exports import MARKERS, WHOLE, exported, gallery

    names = ("cat_00", "cat_01", "cat_02")
    shown = [(at_s, text) for at_s, text in MARKERS if text in names]
    session = finished(tmp_path / "s", WHOLE, shown, gallery=gallery(tmp_path, names))
    exported(session, tmp_path / "ds")
    usual = ("--whitening", "none", "--rate", 0, "--tmax", 0.2)
    trials = prepared(tmp_path / "trials", tmp_path / "ds", *usual)
    assert {*trials.items} == {f"stim-{name.replace('_', '')}_image" for name in names}
    (session.folder / "trials-epo.fif").touch()  # a session is one, whatever is kept in it
    again = prepared(tmp_path / "again", session.folder, *usual)
    np.testing.assert_allclose(trials.data, again.data, atol=0.05)


@pytest.mark.slow
def test_things_eeg2_has_the_same_ids_as_in_its_other_forms(tmp_path: Path) -> None:
    root = bids.nm000232(tmp_path / "set")
    trials = prepared(tmp_path / "trials", root / "sub-01", "--tmax", 0.196)
    assert {*trials.column("run").present} == {"01", "02"}
    shown = dict(zip(trials.stimuli, trials.column("image").values, strict=True))
    assert shown["abacus_04b"] == "training_images/00002_abacus/abacus_04b.jpg"
    (root / "stimuli" / "stimuli.tsv").unlink()
    assert prepared(tmp_path / "again", root, "--tmax", 0.196).stimuli == trials.stimuli


@pytest.mark.slow
def test_onsets_in_seconds_are_taken_as_such(tmp_path: Path) -> None:
    as_samples = prepared(tmp_path / "a", bids.ds003825(tmp_path / "x"), "--tmax", 0.09)
    as_seconds = prepared(tmp_path / "b", bids.ds003825(tmp_path / "y", False), "--tmax", 0.09)
    np.testing.assert_allclose(as_samples.data, as_seconds.data, atol=1e-5)
    assert as_samples.stimuli == as_seconds.stimuli


def test_images_of_one_onset_and_replaced_sessions_are_left_out(tmp_path: Path) -> None:
    data, out = bids.nm000134(tmp_path / "set"), tmp_path / "trials"
    done = call("prepare", data, "--tmax", 0.2, "--out", out, module="offline_train")
    assert done.out.count("share an onset with others") == 3  # once for each run
    trials = load_trial_set(out)
    assert len(trials) == 3 * (len(bids.NUMBERED) - 1)  # of each run one is unclear
    assert trials.column("session").present == {"01", "02"}


def first(root: Path, pattern: str) -> Path:
    return next(iter(sorted(root.rglob(pattern))))


def spoil(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda r: first(r, "*_eeg.bdf").unlink(), "lies beside no recording"),
        (
            lambda r: first(r, "*_eeg.bdf").write_bytes(first(r, "*_eeg.bdf").read_bytes()[:9000]),
            "s: one of them was cut short, or is of another run",
        ),
        (
            lambda r: first(r, "*_channels.tsv").write_text("name\ttype\nCz\tEEG\n"),
            "names channels that 'sub-01_ses-01_task-images_eeg.bdf' has not: cz",
        ),
        (lambda r: first(r, "00007.jpg").unlink(), "shows '00007', and there is no such image"),
        (lambda r: spoil(first(r, "*_events.tsv"), "1.0\t", "x\t"), "an onset that is no number"),
        (lambda r: spoil(first(r, "*_events.tsv"), "onset", "time"), "has no column onset"),
        (
            lambda r: [spoil(f, "stim_file", "picture") for f in r.rglob("*_events.tsv")],
            "do not say which image was shown: they have the columns duration, onset, picture",
        ),
    ],
)
def test_what_is_damaged_or_missing_is_told(
    how: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    root = bids.nm000133(tmp_path)
    how(root)
    assert told in refused(root, "--tmax", 0.2)


def test_times_and_samples_that_do_not_fit_are_told(tmp_path: Path) -> None:
    root = bids.nm000134(tmp_path)
    spoil(first(root, "*_events.tsv"), "\t256\t", "\t300\t")
    assert "says of one event 1 s and sample 300, which does not fit at 256 Hz" in refused(root)


@pytest.mark.parametrize(("subject", "named"), [(8, 19), (3, 3), (3, 4)])
def test_mislabelled_files_of_alljoined_are_known_or_refused(
    subject: int, named: int, tmp_path: Path
) -> None:
    place = tmp_path / "raw_eeg" / f"sub-{subject:02d}" / "session_01" / "block_02"
    place.mkdir(parents=True)
    bids.hub_recording(place / f"Subject {named}, Session 1, Block 2.edf")
    if (subject, named) == (3, 4):
        assert "is called subject 4, session 1, block 2 and lies with subject 3" in refused(
            tmp_path
        )
    else:
        trials = prepared(tmp_path / "trials", tmp_path, "--tmax", 0.2)
        assert trials.column("subject").present == {f"{subject:02d}"}
        assert {*trials.select(["test"], "split").items} == {*bids.NUMBERED[30:]}
