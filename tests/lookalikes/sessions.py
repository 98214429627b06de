"""A lab's own sessions: folders with a recording.xdf, in which other images are shown in each."""

from pathlib import Path

import numpy as np

from stream.acquire.lsl import pylsl
from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.things_eeg2 import continuous
from tests.recording_files import MARKER_HEADER, write_xdf

CHANNELS = ["Oz", "Pz", "O1", "O2"]
RATE_HZ = 250


def two_sessions(folder: Path) -> Path:
    """`first` shows the training images twice, `second` the test images three times."""
    header = pylsl.StreamInfo("EEG", "EEG", len(CHANNELS), RATE_HZ, "float32", "cap")
    header.set_channel_labels(CHANNELS)
    header.set_channel_types(["EEG"] * len(CHANNELS))
    header.set_channel_units(["microvolts"] * len(CHANNELS))
    for name, images, n_shown in (("first", TRAIN, 2), ("second", TEST, 3)):
        rng = np.random.default_rng(n_shown)
        codes = [int(code) + 1 for _ in range(n_shown) for code in rng.permutation(len(images))]
        volts, onsets = continuous(CHANNELS, images, codes, RATE_HZ, 0.2, rng)
        stamps_s = 50 + np.arange(volts.shape[1]) / RATE_HZ
        eeg = (header, stamps_s, (1e6 * volts.T).astype(np.float32))
        shown = (MARKER_HEADER, stamps_s[onsets], [[images[code - 1]] for code in codes])
        (folder / name).mkdir(parents=True)
        write_xdf(folder / name / "recording.xdf", [eeg, shown])
    return folder
