"""THINGS-EEG2 as UBP has preprocessed it, and HVF learns from it: {train,test}.pt of torch.

63 channels at 250 Hz, whitened by session, float16. Every trial has the path of its image, and its
session; the list of times is longer than the trials, as it begins at -0.2 s and they do at onset.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.saved import read_saved
from offline_train.data.studies.things_eeg2_epochs import whitened_trials
from offline_train.data.studies.things_images import concept_of, stem
from offline_train.data.study import Facts, ShownImage, Source, Study, StudyPart

KEYS = ("eeg", "label", "img", "text", "session", "ch_names", "times")


def things_eeg2_pt(files: Mapping[Path, Mapping[str, Any]], pickles: bool) -> Study:
    """The study of what these files hold, training before test, session after session.

    Raises:
        Problem: arrays do not fit each other, or a file holds images of training and of test.
    """
    shown: dict[str, ShownImage] = {}
    opened = []
    for path, held in files.items():
        eeg, paths = held["eeg"], held["img"]
        shapes = {name: np.shape(held[name])[:2] for name in ("img", "session", "label")}
        if np.ndim(eeg) != 4 or any(shape != eeg.shape[:2] for shape in shapes.values()):
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise Problem(
                f"'{path}' has trials of shape {np.shape(eeg)} beside {told}, expected images, "
                "repetitions, channels and times, and a value for each trial: download it again"
            )
        found = np.unique(paths).tolist()
        splits = {one.partition("/")[0] for one in found}
        if splits not in ({"train_images"}, {"test_images"}):
            raise Problem(
                f"'{path}' is about images in {', '.join(sorted(splits))}, expected train_images "
                "or test_images alone: it is mislabelled or mixed, download it again"
            )
        for one in found:
            shown[stem(one)] = ShownImage(one, concept_of(one.split("/")[-2]))
        opened.append((splits.pop().removesuffix("_images"), path))

    sources = (
        Source.of(path, partial(_parts, path, split, pickles))
        for split, path in sorted(opened, key=lambda one: one[0], reverse=True)
    )
    return Study("things-eeg2-ubp", tuple(sources), shown)


def _parts(path: Path, split: str, pickles: bool) -> Iterator[StudyPart]:
    held = read_saved(path, pickles)
    ids = np.array([stem(one) for one in np.ravel(held["img"]).tolist()])
    sessions = np.ravel(held["session"])
    for session in np.unique(sessions).tolist():
        rows = np.flatnonzero(sessions == session)
        cut = whitened_trials(
            path, held["eeg"], held["ch_names"], held["times"], ids[rows].tolist(), rows
        )
        facts = Facts(Facts.of(path).subject, f"{int(session) + 1:02d}", split=split)
        yield StudyPart(cut, facts)
