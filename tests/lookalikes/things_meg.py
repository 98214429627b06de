"""THINGS-MEG as published: 271 channels at 200 Hz, but few images.

Its authors' preprocessed_P1-epo.fif, and UBP's {train,test}.pt of it.
"""

from pathlib import Path

import mne
import numpy as np
import torch

from tests.lookalikes.brain import evoked
from tests.lookalikes.things_eeg2 import trials

CONCEPTS = ("aardvark", "abacus", "accordion", "acorn", "airbag")
FILES = tuple(
    f"images/{concept}/{concept}_{number:02d}{letter}.jpg"
    for concept in CONCEPTS
    for number, letter in zip(range(1, 9), "bsnbsnbs", strict=True)
)
"""Rows of image_paths.csv: an event is the number of its row, from 1 on."""
IDS = tuple(Path(path).stem for path in FILES)
TRAIN = IDS[:32]
TEST = (IDS[32], IDS[35], IDS[37], IDS[38])
"""Images that are shown twelve times; the others of their concept are shown once, and left out."""
N_CHANNELS = 271
CATCH = 999999


def write_paths(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image_paths.csv").write_text("".join(f"{path}\n" for path in FILES))
    return folder


def epochs_fif(folder: Path) -> Path:
    """derivatives/preprocessed/preprocessed_P1-epo.fif: -0.1 to 1.3 s; values are no teslas."""
    write_paths(folder)
    codes = [*range(1, len(FILES) + 1), *[IDS.index(one) + 1 for one in TEST] * 11, CATCH, CATCH]
    rng = np.random.default_rng(0)
    codes = [int(code) for code in rng.permutation(codes)]
    times = np.arange(-20, 261) / 200
    data = 0.3 * rng.standard_normal((len(codes), N_CHANNELS, len(times)))
    for trial, code in zip(data, codes, strict=True):
        if code != CATCH:
            trial[:, 20:221] += evoked(IDS[code - 1], N_CHANNELS, 201)
    names = [f"MLC{number:03d}-1609" for number in range(1, N_CHANNELS + 1)]
    info = mne.create_info(names, 200.0, "mag")
    events = np.column_stack([300 * np.arange(len(codes)), 0 * np.arange(len(codes)), codes])
    epochs = mne.EpochsArray(data, info, events, tmin=-0.1, verbose="ERROR")
    place = folder / "derivatives" / "preprocessed"
    place.mkdir(parents=True)
    epochs.save(place / "preprocessed_P1-epo.fif", verbose="ERROR")
    return folder


def ubp(folder: Path) -> Path:
    """UBP's: keys `eeg` and `img` alone, and a path for each image, not for each trial."""
    place = folder / "sub-01"
    place.mkdir(parents=True)
    for part, images, n_repeats in (("train", TRAIN, 1), ("test", TEST, 12)):
        eeg = trials(images, n_repeats, N_CHANNELS, 201).astype(np.float16)
        paths = [FILES[IDS.index(image)] for image in images]
        torch.save({"eeg": eeg, "img": paths}, place / f"{part}.pt", pickle_protocol=5)
    return folder
