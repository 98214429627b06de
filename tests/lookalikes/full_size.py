"""A made-up THINGS-EEG2 subject of full size, raw: `python -m tests.lookalikes.full_size FOLDER`.

66,160 training and 16,000 test trials of 63 channels at 1 kHz in four sessions, as decoder_field.md
tells in sections 3.1 and 3.2: 9 GB, noise with what the look-alikes' made-up brain answers.
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import typer
from numpy.lib import format as npy

from tests.lookalikes.brain import HIDDEN, seen_in
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


if __name__ == "__main__":
    typer.run(lambda folder: write(Path(folder)))
