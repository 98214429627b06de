"""What a recording is read from and is not called like it: changed, its piece is cut again."""

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from offline_train.data.pieces import piece
from tests.calling import Done, call
from tests.lookalikes.epochs import saved_epochs
from tests.recording_files import make_raw, write_brainvision, write_set

RNG = np.random.default_rng(0)
PLAIN = ("--whitening", "none", "--tmin", 0, "--tmax", 0.196, "--rate", 0)


def brainvision(folder: Path, named: str) -> Path:
    """s.vhdr with other.eeg and marks.vmrk: the file that is `named` changes."""
    folder.mkdir()
    onsets = range(201, 4000, 400)
    marks = [f"Stimulus,S{1 + i % 2:3},{at},1,0" for i, at in enumerate(onsets)]
    header = write_brainvision(folder, 20 * RNG.standard_normal((4, 5000)), marks)
    for old, new in (("bv.eeg", "other.eeg"), ("bv.vmrk", "marks.vmrk")):
        (folder / old).rename(folder / new)
        header.write_text(header.read_text("utf-8").replace(old, new), "utf-8")
    return folder / named


def eeglab(folder: Path, named: str) -> Path:
    """s.set, whose samples are in a file of another name."""
    folder.mkdir()
    samples = 20 * RNG.standard_normal((4, 4000))
    events = [(str(1 + i % 2), 201 + 400 * i) for i in range(9)]
    (folder / named).write_bytes(samples.T.astype("<f4").tobytes())
    (folder / "not.fdt").write_bytes(b"of another recording")
    write_set(folder / "s.set", samples, events, data=named)
    return folder / named


def epochs(folder: Path, named: str) -> Path:
    """anna_epo.fif with anna-epo.tsv."""
    saved_epochs(folder, beside=True)
    (folder / "anna-epo.fif").rename(folder / "anna_epo.fif")
    return folder / named


def fif(folder: Path, named: str) -> Path:
    """A recording in two files, as BIDS calls them."""
    folder.mkdir()
    raw = make_raw(("eeg",) * 4, 90_000)
    onsets_s = np.arange(1.0, 440.0, 50.0)
    raw.set_annotations(mne.Annotations(onsets_s, 0, ["1", "2", "1"] * 3))
    raw.save(folder / "s_meg.fif", "all", split_size="2MB", split_naming="bids", fmt="double")
    return folder / named


WRITERS = [
    (fif, "s_split-02_meg.fif", "s_split-01_meg.fif"),
    (brainvision, "other.eeg", "bv.vhdr"),
    (brainvision, "marks.vmrk", "bv.vhdr"),
    (eeglab, "data.fdt", "s.set"),
    (epochs, "anna-epo.tsv", "anna_epo.fif"),
]


def stopped(patch: pytest.MonkeyPatch, of: int, *arguments: object) -> Done:
    """`prepare`, interrupted when it has cut all recordings but the last of so many."""
    n_whole = [0]

    def interrupted(file: int) -> None:
        n_whole[0] += 1
        if n_whole[0] == of:
            raise KeyboardInterrupt

    with patch.context() as inside:
        inside.setattr(piece.os, "fsync", interrupted)
        return call("prepare", *arguments, module="offline_train")


@pytest.mark.slow
@pytest.mark.parametrize(("write", "named", "read"), WRITERS)
def test_what_is_called_otherwise_is_looked_at_too(
    write: Callable[[Path, str], Path],
    named: str,
    read: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = write(tmp_path / "a", named)
    write(tmp_path / "b", named)
    arguments = (*(tmp_path / name / read for name in "ab"), *PLAIN, "--out", tmp_path / "t")
    assert stopped(monkeypatch, 2, *arguments).code == 130
    (tmp_path / "a" / "not.fdt").write_bytes(b"is not of it")
    text = changes.read_bytes()
    changes.write_bytes(text.replace(b"\n", b"\r\n") if named[-4:] in ("vmrk", ".tsv") else text)
    done = call("prepare", *arguments, module="offline_train")
    assert done.code == 0, done.err
    told = f"'{(tmp_path / 'a' / read).as_posix()}' has changed since it was cut"
    assert told in done.out
