"""A made-up THINGS-EEG2 subject of full size, raw, and how much memory it takes.

66,160 training and 16,000 test trials of 63 channels at 1 kHz in four sessions: 9 GB, noise with
what the look-alikes' made-up brain answers.

`python -m tests.lookalikes.full_size write FOLDER` writes it, and then `measure FOLDER` goes its
way by the commands, on Linux, with 11 GB more of disk.
"""

import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import typer
from numpy.lib import format as npy

from tests.lookalikes.brain import HIDDEN, seen_in
from tests.lookalikes.eye import EYE, write_seen
from tests.lookalikes.things_eeg2 import CHANNELS_63

_RATE_HZ, _STEP = 1000, 200
_LETTERS = "bsnpdhmrcv"


def image_lists(n_concepts: int, n_tests: int) -> dict[str, list[str]]:
    """What image_metadata.npy holds, for ten images of each training concept, one of each other."""
    train = [(f"{i:05d}_concept{i}", j) for i in range(1, n_concepts + 1) for j in range(1, 11)]
    test = [(f"{i:05d}_other{i}", 1) for i in range(1, n_tests + 1)]
    found = {}
    for split, shown in (("train", train), ("test", test)):
        found[f"{split}_img_concepts"] = [folder for folder, _ in shown]
        found[f"{split}_img_files"] = [f"{f[6:]}_{j:02d}{_LETTERS[j - 1]}.jpg" for f, j in shown]
    return found


def write(folder: Path, n_concepts: int = 1654, n_tests: int = 200, n_test_shown: int = 20) -> None:
    """Four sessions; in each half of the training concepts twice, and all test images so often."""
    folder.mkdir(parents=True, exist_ok=True)
    lists: Any = image_lists(n_concepts, n_tests)
    np.save(folder / "image_metadata.npy", lists)
    ids = {one: [n[:-4] for n in lists[f"{one}_img_files"]] for one in ("train", "test")}
    for session in range(1, 5):
        place = folder / "raw_data" / "sub-01" / f"ses-{session:02d}"
        place.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(session)
        half = np.arange(1, 10 * n_concepts + 1).reshape(-1, 10)[session % 2 :: 2].ravel()
        codes = {
            "training": np.tile(half, 2),
            "test": np.tile(np.arange(n_tests) + 1, n_test_shown),
        }
        for part, shown in codes.items():
            names = ids["test" if part == "test" else "train"]
            with (place / f"raw_eeg_{part}.npy").open("wb") as file:
                _save(file, _recorded(rng.permutation(shown), names, rng))


def _recorded(codes: np.ndarray, names: list[str], rng: np.random.Generator) -> np.ndarray:
    """Volts of 63 channels and the codes, float64 (64, n)."""
    onsets = _RATE_HZ + _STEP * np.arange(len(codes))
    data = np.zeros((64, int(onsets[-1]) + 2 * _RATE_HZ))
    for row in data[:63]:
        row += 1e-6 * rng.standard_normal(data.shape[1], dtype=np.float32)
    fixed = np.random.default_rng(0)
    space, course = fixed.standard_normal((63, HIDDEN)), fixed.standard_normal((HIDDEN, _STEP))
    for code, onset in zip(codes.tolist(), onsets.tolist(), strict=True):
        data[:63, onset : onset + _STEP] += 2e-6 * (space * seen_in(names[code - 1])) @ course
    data[63, onsets] = codes
    return data


def _save(file: BinaryIO, data: np.ndarray) -> None:
    """As `np.save` of a dict: a header, then a pickle of an array of objects, here in one copy."""
    table = {
        "raw_eeg_data": data,
        "ch_names": [*CHANNELS_63, "stim"],
        "ch_types": ["eeg"] * 63 + ["stim"],
        "sfreq": _RATE_HZ,
        "highpass": 0.01,
        "lowpass": 100,
    }
    whole = np.empty((), object)
    whole[()] = table
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(whole))
    pickle.dump(whole, file, protocol=4)


def measure(folder: Path) -> None:
    """Prepares, trains on every trial for an epoch, evaluates; each with the most memory it had.

    Trials are read from the disk. The model is a narrow one, so that the epoch takes a minute: one
    of the paper's width has weights, gradients and moments of 0.3 GB more. What is prepared stays.
    """
    trials, bundle, gallery = (folder / "made" / name for name in ("trials", "bundle", "gallery"))
    made, seen = folder / "made", ("--encoders", EYE, "--cache", folder / "made" / "features")
    if not trials.is_dir():
        made.mkdir()
        lists: Any = np.load(folder / "image_metadata.npy", allow_pickle=True).item()
        for split in ("train", "test"):
            write_seen(made / split, {name[:-4]: name[:-4] for name in lists[f"{split}_img_files"]})
        _measured("prepare", folder / "raw_data", "--pickles", "--per-session", "--out", trials)
    narrow = [part for one in ("held_gb=0", "dim=64", "hidden=64") for part in ("--set", one)]
    how = ("--every-trial", "--epochs", 1, *narrow, "--out", bundle)
    _measured("mbp", trials, "--images", made / "train", *seen, *how)
    among = ("--bundle", bundle, "--images", made / "test", *seen, "--out", gallery)
    _measured("gallery", *among)
    asked = ("--trials", trials, "--repeats", "1,80", "--out", made / "report")
    _measured("evaluate", "--bundle", bundle, "--gallery", gallery, *asked)


def _measured(*command: object) -> None:
    """Runs a command, and prints the most memory that all its processes held together."""
    began_s, most, own = time.monotonic(), 0.0, 0.0
    with subprocess.Popen([sys.executable, "-m", "offline_train", *map(str, command)]) as process:
        while process.poll() is None:
            held = _held_gb(psutil.Process(process.pid))
            most, own = max(most, held["Pss"]), max(own, held["Pss_Anon"])
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.returncode)
    print(
        f"{command[0]}: {time.monotonic() - began_s:.0f} s; at most {most:.2f} GB with the pages "
        f"of files that are mapped (PSS), {own:.2f} GB without"
    )


def _held_gb(process: psutil.Process) -> dict[str, float]:
    """What a process and all that it has started hold, each page once."""
    held = {"Pss": 0.0, "Pss_Anon": 0.0}
    try:
        for one in (process, *process.children(recursive=True)):
            for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, _, size = line.partition(":")
                if name in held:
                    held[name] += int(size.split()[0]) * 1024e-9
    except (psutil.NoSuchProcess, OSError):
        pass  # it has just ended
    return held


if __name__ == "__main__":
    app = typer.Typer()
    app.command()(write)
    app.command()(measure)
    app()
