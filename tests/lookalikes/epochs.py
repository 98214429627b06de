"""Epochs of a lab's own that MNE has saved, with a table: in the file, or beside it."""

from pathlib import Path

import mne
import numpy as np

from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.things_eeg2 import trials

CHANNELS = ["Oz", "Pz", "O1", "O2"]


def saved_epochs(folder: Path, *, beside: bool) -> Path:
    """anna-epo.fif: 4 channels, 100 Hz, 0 to 0.49 s, volts; the table says stimulus and split."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    data = [trials(images, n, 4, 50).reshape(-1, 4, 50) for images, n in ((TRAIN, 2), (TEST, 3))]
    table = pd.DataFrame(
        {
            "stimulus": [*np.repeat(TRAIN, 2), *np.repeat(TEST, 3)],
            "split": ["train"] * 60 + ["test"] * 12,
            "session": ["1", "2"] * 36,
        }
    )
    order = np.random.default_rng(0).permutation(len(table))
    table = table.iloc[order].reset_index(drop=True)
    events = np.column_stack([100 * np.arange(72) + 7, np.zeros(72, int), np.ones(72, int)])
    info = mne.create_info(CHANNELS, 100.0, "eeg")
    values = 5e-6 * np.concatenate(data)[order]
    metadata = None if beside else table
    epochs = mne.EpochsArray(values, info, events, metadata=metadata, verbose="ERROR")
    epochs.save(folder / "anna-epo.fif", verbose="ERROR")
    if beside:  # in another order: what joins them is the sample at which an epoch began
        table["sample"] = events[:, 0]
        table.iloc[::-1].to_csv(folder / "anna-epo.tsv", sep="\t", index=False)
    return folder
