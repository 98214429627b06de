"""THINGS-EEG2 as published: raw and preprocessed, but short.

Written with numpy, pickle and torch alone.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.lookalikes.brain import evoked
from tests.lookalikes.things import TEST, TEST_FILES, TRAIN, TRAIN_FILES

CHANNELS_63 = re.findall(
    r"\S+",
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 "
    "FT10 T7 C5 C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz "
    "P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2",
)
CHANNELS_17 = [name for name in CHANNELS_63 if name[0] in "OP"]  # `^O *|^P *`
TEST_REPEATS = 6  # in place of 80
N_SESSIONS = 4


def trials(images: tuple[str, ...], n_repeats: int, n_channels: int, n_times: int) -> np.ndarray:
    """(images, repeats, channels, times): what they evoke, with some noise of each repeat."""
    rng = np.random.default_rng(len(images))
    noise = 0.3 * rng.standard_normal((len(images), n_repeats, n_channels, n_times))
    return noise + np.array([evoked(image, n_channels, n_times) for image in images])[:, None]


def gifford(folder: Path, *, keeps_stim: bool = False) -> Path:
    """17 channels, 100 Hz, -0.2 to 0.8 s; np.save of a dict, so `.item()`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, images, n_repeats in (("training", TRAIN, 4), ("test", TEST, TEST_REPEATS)):
        table: Any = {
            "preprocessed_eeg_data": trials(images, n_repeats, 17, 100),
            "ch_names": [*CHANNELS_17, "stim"] if keeps_stim else list(CHANNELS_17),
            "times": np.round(np.arange(-0.2, 0.8, 0.01), 2),
        }
        np.save(folder / f"preprocessed_eeg_{part}.npy", table)
    return folder


def nice(folder: Path) -> Path:
    """63 channels, 250 Hz, 0 to 1 s; a raw pickle of protocol 4, called .npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, images, n_repeats in (("training", TRAIN, 4), ("test", TEST, TEST_REPEATS)):
        table = {
            "preprocessed_eeg_data": trials(images, n_repeats, 63, 250),
            "ch_names": list(CHANNELS_63),
            "times": np.arange(-50, 250) / 250,
        }
        with (folder / f"preprocessed_eeg_{part}.npy").open("wb") as file:
            pickle.dump(table, file, protocol=4)
    return folder


def ubp_table(part: str) -> dict[str, Any]:
    """What is in UBP's train.pt or test.pt."""
    images, files, n_repeats = TRAIN, TRAIN_FILES, 4
    if part == "test":
        images, files, n_repeats = TEST, TEST_FILES, TEST_REPEATS
    n, paths = len(images), [f"{part}_images/{folder}/{name}" for folder, name in files]
    concepts = sorted({folder for folder, _ in files})
    sessions = np.arange(n_repeats) * N_SESSIONS // n_repeats
    if part == "train":  # two sessions of the four have each image, twice
        sessions = np.where(np.arange(n)[:, None] % 2, [0, 0, 2, 2], [1, 1, 3, 3])
    return {
        "eeg": trials(images, n_repeats, 63, 250).astype(np.float16),
        "label": np.repeat([[concepts.index(folder)] for folder, _ in files], n_repeats, axis=1),
        "img": np.repeat(np.array(paths)[:, None], n_repeats, axis=1),
        "text": np.repeat(np.array([folder[6:] for folder, _ in files])[:, None], n_repeats, 1),
        "session": np.broadcast_to(sessions, (n, n_repeats)).astype(np.float64).copy(),
        "ch_names": list(CHANNELS_63),
        "times": np.arange(-50, 250) / 250,  # 300 of them, and 250 samples: a trap of its own
    }


def ubp(folder: Path) -> Path:
    """{train,test}.pt, torch.save with pickle protocol 5; the values are numpy's."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        torch.save(ubp_table(part), folder / f"{part}.pt", pickle_protocol=5)
    return folder


def raw(folder: Path, rate_hz: int = 1000, soa_s: float = 0.2) -> Path:
    """raw_data/sub-XX/ses-0S/raw_eeg_{training,test}.npy, in volts, `stim` last.

    np.save of a dict; the code of an image is there for one sample, that of a target is 99999. Here
    4 channels are recorded at `rate_hz`, in two sessions; every session shows all images twice.
    """
    channels = ["Oz", "Pz", "O1", "O2"]
    for session in (1, 2):
        place = folder / "raw_data" / "sub-01" / f"ses-{session:02d}"
        place.mkdir(parents=True, exist_ok=True)
        for part, images in (("training", TRAIN), ("test", TEST)):
            rng = np.random.default_rng(session)
            codes = [int(code) for _ in range(2) for code in rng.permutation(len(images)) + 1]
            codes.insert(3, 99999)
            eeg, onsets = continuous(channels, images, codes, rate_hz, soa_s, rng)
            stim = np.zeros((1, eeg.shape[1]))
            stim[0, onsets] = codes
            table: Any = {
                "raw_eeg_data": np.concatenate([eeg, stim]),
                "ch_names": [*channels, "stim"],
                "ch_types": ["eeg"] * len(channels) + ["stim"],
                "sfreq": rate_hz,
                "highpass": 0.01,
                "lowpass": 100,
            }
            np.save(place / f"raw_eeg_{part}.npy", table)
    return folder


def epochs_of(recording: Path, tmax_s: float) -> tuple[np.ndarray, np.ndarray]:
    """What MNE cuts of a raw one: volts (n, channels, times) from onset on; and their codes."""
    import mne  # here: whoever only writes does without it

    table = np.load(recording, allow_pickle=True).item()
    info = mne.create_info(table["ch_names"], table["sfreq"], table["ch_types"])
    raw = mne.io.RawArray(table["raw_eeg_data"], info, verbose="ERROR")
    events = mne.find_events(raw, "stim", shortest_event=1, verbose="ERROR")
    events = events[events[:, 2] != 99999]
    epochs = mne.Epochs(raw, events, None, -0.2, tmax_s, (None, 0), picks="eeg", verbose="ERROR")
    return epochs.get_data(tmin=0), events[:, 2]


def continuous(
    channels: list[str],
    images: tuple[str, ...],
    codes: list[int],
    rate_hz: int,
    soa_s: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A recording in volts (channels, n), and the onset samples of what was shown.

    The answer to an image lasts as long as the SOA, so that none overlaps with the next one's.
    """
    step = round(soa_s * rate_hz)
    onsets = rate_hz + step * np.arange(len(codes))
    eeg = 1e-6 * rng.standard_normal((len(channels), onsets[-1] + 2 * rate_hz))
    for code, onset in zip(codes, onsets, strict=True):
        if code <= len(images):
            eeg[:, onset : onset + step] += 5e-6 * evoked(images[code - 1], len(channels), step)
    return eeg, onsets
