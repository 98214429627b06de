"""Several trial sets as one, such as those of the subjects of a study, each prepared by itself."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import JsonValue

from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set
from offline_train.data.trial_table import Column

_BLOCK = 256
"""Trials that are looked at together."""


def load_trial_sets(folders: Sequence[Path]) -> TrialSet:
    """Opens trial sets as one; those that do not name their subject are named by their folders.

    A bundle takes over the mean of what their preprocessing was fitted to.

    Raises:
        Problem: when one cannot be opened or has a value that is not finite, none has trials to
            learn from, or they are not of one format.
    """
    sets = [load_trial_set(folder) for folder in folders]
    if all("split" in one.table and "train" not in one.table["split"].present for one in sets):
        named = ", ".join(f"'{folder}'" for folder in folders)
        splits = sorted({name for one in sets for name in one.table["split"].present})
        raise Problem(
            f"{named}: no trial is of the split 'train', only of {' and '.join(map(repr, splits))};"
            " give a trial set with trials to learn from"
        )
    for folder, one in zip(folders, sets, strict=True):
        _check_finite(folder, one)
    if len(sets) == 1:
        return sets[0]
    for folder, one in zip(folders, sets, strict=True):
        _check_format(folder, one.format, folders[0], sets[0].format)
    _check_whose(folders, sets)
    starts = np.cumsum([0, *(len(one.data) for one in sets)])
    tables = [
        {"subject": Column((folder.name,), np.zeros(len(one), np.int32)), **one.table}
        for folder, one in zip(folders, sets, strict=True)
    ]
    return TrialSet(
        format=sets[0].format.model_copy(
            update={"provenance": _provenance([one.format.provenance for one in sets])}
        ),
        data=cast(np.ndarray, _Stacked([one.data for one in sets])),
        rows=np.concatenate([one.rows + n for one, n in zip(sets, starts, strict=False)]),
        table={
            name: Column.of(
                value
                for table, one in zip(tables, sets, strict=True)
                for value in (table[name].values if name in table else [None] * len(one))
            )
            for name in dict.fromkeys(name for table in tables for name in table)
        },
        preprocessing_arrays=_mean([one.preprocessing_arrays for one in sets]),
        session_arrays={key: arrays for one in sets for key, arrays in one.session_arrays.items()},
        checksum=hashlib.sha256("".join(one.checksum for one in sets).encode()).hexdigest(),
    )


class _Stacked:
    """Memory-mapped trials of several sets, indexed by arrays of rows as one array would be."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts, self._starts = parts, np.cumsum([0, *map(len, parts)])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows)
        found = np.empty((*wanted.shape, *self.shape[1:]), self.dtype)
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(part_of):
            here = part_of == number
            found[here] = self.parts[number][wanted[here] - self._starts[number]]
        return found


def _check_finite(folder: Path, one: TrialSet) -> None:
    """Names the value that would else be a loss that is not finite, hours later."""
    for start in range(0, len(one.data), _BLOCK):
        block = one.data[start : start + _BLOCK]
        if not np.isfinite(block).all():
            trial, channel, time = np.argwhere(~np.isfinite(block))[0]
            raise Problem(
                f"trial {start + trial} of '{folder}' (of stimulus "
                f"{one.stimuli[start + trial]!r}) is {block[trial, channel, time]} in channel "
                f"{one.format.channels[channel]}: mark such stretches of the recording as bad and "
                "prepare the set again"
            )
        one.let_go()


def _check_format(folder: Path, found: TrialFormat, first: Path, wanted: TrialFormat) -> None:
    ours, theirs = (one.model_dump(exclude={"provenance"}) for one in (found, wanted))
    for name, value in ours.items():
        if value != theirs[name]:
            raise Problem(
                f"'{folder}' has the {name} {value}, '{first}' has {theirs[name]}: prepare both "
                "with the same options"
            )


def _check_whose(folders: Sequence[Path], sets: Sequence[TrialSet]) -> None:
    known: dict[str, Path] = {}
    for folder, one in zip(folders, sets, strict=True):
        if (other := known.setdefault(one.checksum, folder)) is not folder:
            raise Problem(f"'{other}' and '{folder}' hold the same trials: leave one of them out")
        if "subject" in one.table:
            continue
        if (other := known.setdefault(folder.name, folder)) is not folder:
            raise Problem(
                f"'{other}' and '{folder}' do not say whose trials they are, and folders of one "
                "name do not tell subjects apart: rename one of them"
            )


def _provenance(of_all: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    """What is said of all of them, and of each; what is simulated in part is simulated."""
    first = of_all[0].items()
    shared = {name: value for name, value in first if all(p.get(name) == value for p in of_all)}
    if any(one.get("subject") == "simulated" for one in of_all):
        shared["subject"] = "simulated"
    return {**shared, "joined": [dict(one) for one in of_all]}


def _mean(arrays: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        name: np.mean([one[name] for one in arrays], axis=0).astype(first.dtype)
        for name, first in arrays[0].items()
    }
