"""What `prepare` has cut is kept: killed and started again, it goes on and comes to the same."""

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvf_core.artifact import lock_folder
from hvf_core.problem import Problem
from offline_train.data.pieces import piece
from offline_train.data.pieces.piece import HowCut
from offline_train.data.pieces.workers import Job, cut_side_by_side
from offline_train.data.prepare import prepare as prepare_study
from offline_train.data.settings import CutSettings, PrepareSettings
from offline_train.data.studies.things_eeg2_epochs import whitened_trials
from offline_train.data.study import Facts, Source, Study, StudyPart
from offline_train.data.trial_set import TrialSet, load_trial_set
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from tests.calling import ROOT, Done, call
from tests.lookalikes import things, things_eeg2
from tests.lookalikes.way import prepared

HOW = ("--per-session", "--tmax", 0.196, "--rate", 100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrialSet]:
    """A raw look-alike of four recordings, and what is prepared of it at one go."""
    folder = tmp_path_factory.mktemp("raw")
    things.write_metadata(things_eeg2.raw(folder / "data", rate_hz=200))
    return folder / "data", prepared(folder / "trials", folder / "data", *HOW)


def prepare(data: Path, out: Path, *more: object) -> Done:
    arguments = ("prepare", data, "--pickles", *HOW, *more, "--out", out)
    return call(*arguments, module="offline_train")


@pytest.fixture
def stopped(
    whole: tuple[Path, TrialSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A copy of the data, and where `prepare` was interrupted while it cut the third recording."""
    data = shutil.copytree(whole[0], tmp_path / "data")
    out = data / "trials"  # which is passed over where the data are looked for
    n_whole = [0]

    def interrupted(file: int) -> None:
        n_whole[0] += 1
        if n_whole[0] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(piece.os, "fsync", interrupted)
        done = prepare(data, out)
    assert (done.code, done.one_sentence()) == (130, "interrupted")
    assert "what is cut already is kept in" in done.out
    assert not out.exists()
    return data, out


def check_same(out: Path, expected: TrialSet) -> None:
    found = load_trial_set(out)
    np.testing.assert_array_equal(found.data, expected.data)
    for name, column in expected.table.items():
        assert found.table[name].values == column.values
    for key, arrays in expected.session_arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.session_arrays[key][name], array)
    assert [path.name for path in out.parent.glob(f".{out.name}*")] == []


@pytest.mark.slow
def test_what_was_interrupted_goes_on(
    stopped: tuple[Path, Path], whole: tuple[Path, TrialSet]
) -> None:
    data, out = stopped
    done = prepare(data, out)
    assert "2 of 4 recordings were cut before, and are not cut again" in done.out
    check_same(out, whole[1])
    assert (
        f"'{out}' is a trial set already: name another --out" in prepare(data, out).one_sentence()
    )
    check_same(out, whole[1])


@pytest.mark.slow
def test_what_was_killed_while_it_wrote_goes_on(
    whole: tuple[Path, TrialSet], tmp_path: Path
) -> None:
    out = tmp_path / "trials"
    program = (
        "import os, sys; n = []\n"
        "os.fsync = lambda file: n.append(file) or (len(n) == 2 and os.kill(os.getpid(), 9))\n"
        "from offline_train.__main__ import main; main()"
    )
    options = ["prepare", whole[0], "--pickles", *HOW, "--out", out]
    command = [sys.executable, "-c", program, *map(str, options)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert killed.returncode == -9
    assert any(out.parent.glob(f".{out.name}.pieces/.*draft*"))
    assert "1 of 4 recordings were cut before" in prepare(whole[0], out).out
    check_same(out, whole[1])


@pytest.mark.slow
def test_what_has_changed_since_is_cut_again_and_said(
    stopped: tuple[Path, Path], whole: tuple[Path, TrialSet]
) -> None:
    data, out = stopped
    first, second = sorted(data.rglob("raw_eeg_*.npy"))[:2]
    table = np.load(first, allow_pickle=True).item()
    table["raw_eeg_data"][:4] *= 1.5
    stamp = first.stat()
    np.save(first, table)
    os.utime(first, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as of rsync, which keeps times
    done = prepare(data, out)
    assert f"'{first.as_posix()}' has changed since it was cut: it is cut again" in done.out
    assert "1 of 4 recordings were cut before" in done.out
    assert second.name not in done.out
    here, there = (one.select(["test"], "split") for one in (load_trial_set(out), whole[1]))
    here, there = (one.select(["01"], "session") for one in (here, there))
    np.testing.assert_allclose(here.data[here.rows], 1.5 * there.data[there.rows], rtol=1e-3)


@pytest.mark.slow
def test_other_settings_are_said_and_nothing_is_taken_over(stopped: tuple[Path, Path]) -> None:
    data, out = stopped
    done = prepare(data, out, "--tmin", 0.02)
    assert "2 of the recordings were cut otherwise (preprocessing.tmin_s was 0.0, is 0.02)" in (
        done.out
    )
    assert "were cut before" not in done.out
    assert load_trial_set(out).format.tmin_s == 0.02


@pytest.mark.slow
def test_a_piece_that_is_not_whole_is_none(
    stopped: tuple[Path, Path], whole: tuple[Path, TrialSet]
) -> None:
    data, out = stopped
    first, second = sorted(out.parent.glob(f".{out.name}.pieces/*.trials"))
    first.write_bytes(first.read_bytes()[:-4])
    said = second.with_suffix(".json")
    said.write_text(said.read_text()[:-9])
    assert "were cut before" not in prepare(data, out).out
    check_same(out, whole[1])


@pytest.mark.parametrize("make", [Path.touch, lambda path: (path / "mine").mkdir(parents=True)])
def test_what_is_no_piece_is_left_alone_and_told(
    make: Callable[[Path], None], whole: tuple[Path, TrialSet], tmp_path: Path
) -> None:
    place = tmp_path / ".trials.pieces"
    make(place)
    before = sorted(tmp_path.rglob("*"))
    sentence = prepare(whole[0], tmp_path / "trials").one_sentence()
    assert f"'{before[-1]}' is none of the files in which '{place}' keeps" in sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_two_do_not_prepare_one_set_at_a_time(stopped: tuple[Path, Path]) -> None:
    data, out = stopped
    lock = lock_folder(out.with_name(f".{out.name}.pieces"))
    assert lock is not None
    assert "is being prepared by another process" in prepare(data, out).one_sentence()
    os.close(lock)


@pytest.mark.slow
def test_several_processes_come_to_the_same_in_the_same_order(
    whole: tuple[Path, TrialSet], tmp_path: Path
) -> None:
    done = prepare(whole[0], tmp_path / "trials", "--workers", 2)
    assert [line.split(" trials")[0] for line in done.out.splitlines() if "so far" in line] == [
        *("01/01: 8", "01/01: 68", "01/02: 76", "01/02: 136")
    ]
    check_same(tmp_path / "trials", whole[1])


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    settings = PreprocessSettings(
        channels=("a",), output_channels=("a",), rate_hz=1, tmin_s=0, tmax_s=1
    )
    how = HowCut(Preprocessing(settings), CutSettings())
    jobs = [Job(Source("loud", (), partial(os._exit, 9)), tmp_path / "loud")]
    with pytest.raises(Problem, match="cut 'loud' has ended with exit code 9, as where memory"):
        list(cut_side_by_side(jobs, how, {}, 2, lambda source, share: None))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_trials(tmp_path: Path) -> None:
    """A trial of 63 channels has 63 kB, of which a part of a thousandth may be kept: its names.

    A block of 256 is made while the one before is still there: fewer than two would be less.
    """
    peaks = [_peak_of(tmp_path / str(n), n) for n in (512, 768)]
    assert (peaks[1] - peaks[0]) / 256 < 2_000  # bytes


def _peak_of(folder: Path, n_trials: int) -> int:
    """Bytes that were held at most while so many trials were prepared of a file, and averaged."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    eeg = np.lib.format.open_memmap(
        folder / "eeg.npy", "w+", np.float16, shape=(n_trials, 1, 63, 250)
    )
    for trial in eeg:
        trial[:] = rng.standard_normal((1, 63, 250))
    names = [f"{number}" for number in range(n_trials)]
    times = np.arange(250) / 250
    cut = whitened_trials(folder / "eeg.npy", eeg, things_eeg2.CHANNELS_63, times, names)
    study = Study.of_parts("made", [StudyPart(cut, Facts(session="1", split="train"))])
    channels = tuple(things_eeg2.CHANNELS_63)
    settings = PreprocessSettings(
        channels=channels,
        output_channels=channels,
        rate_hz=250,
        tmin_s=0,
        tmax_s=0.996,
        baseline_s=None,
    )
    whole = PrepareSettings(preprocessing=settings, per_session=True)
    tracemalloc.start()
    made = prepare_study(study, whole, folder / "trials")
    for start in range(0, n_trials, 16):
        made.mean([np.array([row]) for row in range(start, start + 16)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak
