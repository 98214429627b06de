"""A trial set: preprocessed trials on disk, each with its stimulus and session.

`trials.npy` is memory-mapped, so a set may be larger than memory.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from safetensors.numpy import load_file

from hvf_core.artifact import (
    check_files,
    file_sha256,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem

SCHEMA_VERSION = 1
MANIFEST = "trial_set.json"
TRIALS = "trials.npy"
PREPROCESSING = "preprocessing.safetensors"


class TrialFormat(BaseModel):
    """What all trials of a set have in common; a bundle trained on the set takes it over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...] = Field(min_length=1)
    rate_hz: float = Field(gt=0)
    tmin_s: float
    tmax_s: float
    """Last sample, inclusive as in MNE."""
    preprocessing: dict[str, JsonValue] = {}
    """Settings of the preprocessing that made the trials."""
    provenance: dict[str, JsonValue] = {}
    """Where the trials come from: subject, seeds, command."""

    @property
    def n_times(self) -> int:
        """Samples of a trial."""
        return round(self.tmax_s * self.rate_hz) - round(self.tmin_s * self.rate_hz) + 1


class TrialSetManifest(BaseModel):
    """What `trial_set.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    format: TrialFormat
    stimuli: tuple[str, ...]
    """Stimulus id of each trial."""
    sessions: tuple[str, ...]
    """Session of each trial."""
    files: dict[str, str] = {}
    """SHA-256 of each file, by its name."""


class TrialSetWriter:
    """Takes the trials of a set, block by block; `write_trial_set` hands it out."""

    def __init__(self, file: BinaryIO, format: TrialFormat) -> None:
        self.stimuli: list[str] = []
        self.sessions: list[str] = []
        self._file = file
        self._format = format

    def append(self, trials: np.ndarray, stimuli: Sequence[str], sessions: Sequence[str]) -> None:
        """Adds trials (n, channels, times), with the stimulus id and the session of each.

        Raises:
            Problem: when a value is not finite.
            ValueError: when shapes or lengths do not fit.
        """
        expected = (len(stimuli), len(self._format.channels), self._format.n_times)
        if trials.shape != expected or len(sessions) != len(stimuli):
            raise ValueError(
                f"trials have shape {trials.shape} with {len(sessions)} sessions, expected "
                f"(trials, channels, times) {expected} and one session for each trial"
            )
        finite = np.isfinite(trials).all(axis=(1, 2))
        if not finite.all():
            stimulus = stimuli[int(np.argmin(finite))]
            raise Problem(
                f"a trial of stimulus {stimulus!r} has values that are not finite: "
                "mark such stretches of the recording as bad and prepare the set again"
            )
        self._file.write(np.ascontiguousarray(trials, dtype="<f4").data)
        self.stimuli += stimuli
        self.sessions += sessions


@contextmanager
def write_trial_set(
    directory: Path,
    format: TrialFormat,
    preprocessing_arrays: Mapping[str, np.ndarray] | None = None,
) -> Iterator[TrialSetWriter]:
    """Writes a trial set, which is sealed when the block ends well and discarded when it fails.

    Args:
        directory: where to; a trial set that was there is replaced.
        format: what all trials have in common.
        preprocessing_arrays: fitted state of the preprocessing, by name.

    Raises:
        Problem: when no trial was appended, or `directory` holds something else.
    """
    with sealed_directory(directory, MANIFEST) as draft:
        with (draft / TRIALS).open("wb") as file:
            writer = TrialSetWriter(file, format)
            _write_header(file, 0, format)
            yield writer
            if not writer.stimuli:
                raise Problem(f"no trial was left to write to {directory}: look at what dropped it")
            file.seek(0)
            _write_header(file, len(writer.stimuli), format)
        files = {
            TRIALS: file_sha256(draft / TRIALS),
            PREPROCESSING: write_tensors(draft / PREPROCESSING, preprocessing_arrays or {}),
        }
        manifest = TrialSetManifest(
            format=format,
            stimuli=tuple(writer.stimuli),
            sessions=tuple(writer.sessions),
            files=files,
        )
        write_manifest(draft / MANIFEST, manifest)


def _write_header(file: BinaryIO, n_trials: int, format: TrialFormat) -> None:
    """NumPy pads the header so that one with a longer first axis fits in its place."""
    shape = (n_trials, len(format.channels), format.n_times)
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


@dataclass(frozen=True, eq=False)
class TrialSet:
    """Trials of a set on disk, or a selection of them."""

    format: TrialFormat
    data: np.ndarray
    """float32 (trials on disk, channels, times), memory-mapped."""
    rows: np.ndarray
    """Where in `data` each trial of this selection is."""
    stimuli: tuple[str, ...]
    """Stimulus id of each trial."""
    sessions: tuple[str, ...]
    """Session of each trial."""
    preprocessing_arrays: Mapping[str, np.ndarray]
    checksum: str
    """SHA-256 of the trials on disk."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def repeats(self) -> dict[str, np.ndarray]:
        """The trials of each stimulus, in the order of its first one, as positions in this set."""
        stimuli = np.asarray(self.stimuli)
        names, first, inverse = np.unique(stimuli, return_index=True, return_inverse=True)
        by_stimulus = np.split(
            np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1]
        )
        return {str(names[i]): by_stimulus[i] for i in np.argsort(first)}

    @property
    def items(self) -> tuple[str, ...]:
        """The stimuli, each once, in the order of their first trials."""
        return tuple(self.repeats)

    def select(self, stimuli: Collection[str]) -> "TrialSet":
        """Only the trials of these stimuli.

        Raises:
            Problem: when there is no trial of one of them.
        """
        wanted = set(stimuli)
        absent = wanted - self.repeats.keys()
        if absent:
            raise Problem(f"the trial set has no trial of stimulus {min(absent)!r}: leave it out")
        return self.subset([i for i, stimulus in enumerate(self.stimuli) if stimulus in wanted])

    def hold_out(self, n_items: int, seed: int) -> tuple["TrialSet", "TrialSet"]:
        """Splits off the trials of `n_items` stimuli, drawn at random.

        Returns:
            The trials of the other stimuli, and those that are held out.

        Raises:
            Problem: when fewer than two stimuli are left, or would be held out.
        """
        items = self.items
        if not 2 <= n_items <= len(items) - 2:
            raise Problem(
                f"{n_items} of {len(items)} stimuli cannot be held out: at least two must be, and "
                "two must be left to learn from"
            )
        held = {items[i] for i in np.random.default_rng(seed).permutation(len(items))[:n_items]}
        return self.select([item for item in items if item not in held]), self.select(held)

    def subset(self, positions: Sequence[int]) -> "TrialSet":
        """Only the trials at these positions, in this order."""
        return replace(
            self,
            rows=self.rows[np.asarray(positions, dtype=np.intp)],
            stimuli=tuple(self.stimuli[i] for i in positions),
            sessions=tuple(self.sessions[i] for i in positions),
        )

    def draw_repeats(
        self, n_repeats: int | None, rng: np.random.Generator, per_item: int | None = 1
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draws disjoint groups of repeats of every stimulus, without replacement.

        Args:
            n_repeats: trials in a group; None means one group of all of them.
            rng: draws the groups.
            per_item: groups per stimulus; None, or more than there are, means all there are.

        Returns:
            For each group the position of its stimulus in `items`, and its trials' positions.

        Raises:
            Problem: when a stimulus has fewer than `n_repeats` trials.
        """
        owners, groups = [], []
        for item, (stimulus, trials) in enumerate(self.repeats.items()):
            if n_repeats is None:
                drawn = [trials]
            elif len(trials) < n_repeats:
                raise Problem(
                    f"stimulus {stimulus!r} has {len(trials)} repeats, {n_repeats} are to be "
                    "averaged: ask for fewer, or leave it out"
                )
            else:
                n_groups = len(trials) // n_repeats
                n_groups = n_groups if per_item is None else min(per_item, n_groups)
                drawn = rng.permutation(trials)[: n_groups * n_repeats].reshape(-1, n_repeats)
            owners += [item] * len(drawn)
            groups += [np.sort(group) for group in drawn]
        return np.asarray(owners), groups

    def mean(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """The mean trial of each group of positions, float32 (groups, channels, times)."""
        means = np.empty((len(groups), *self.data.shape[1:]), np.float32)
        for mean, group in zip(means, groups, strict=True):
            np.mean(self.data[self.rows[group]], axis=0, out=mean)
        return means

    def averaged(
        self, n_repeats: int | None, rng: np.random.Generator
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """The stimuli, and the mean over all, or `n_repeats` randomly drawn, repeats of each.

        Returns:
            `items`, and float32 (items, channels, times).

        Raises:
            Problem: when a stimulus has fewer than `n_repeats` trials.
        """
        _, groups = self.draw_repeats(n_repeats, rng)
        return self.items, self.mean(groups)


def load_trial_set(directory: Path) -> TrialSet:
    """Opens a trial set and verifies it; its trials are read when they are used.

    Raises:
        Problem: when it is missing, damaged, made by a newer program, or not consistent.
    """
    manifest = read_manifest(directory, MANIFEST, TrialSetManifest, SCHEMA_VERSION)
    files = {name: manifest.files.get(name, "") for name in (TRIALS, PREPROCESSING)}
    check_files(directory, files)
    format, n_trials = manifest.format, len(manifest.stimuli)
    data = np.load(directory / TRIALS, mmap_mode="r", allow_pickle=False)
    expected = (n_trials, len(format.channels), format.n_times)
    if data.shape != expected or len(manifest.sessions) != n_trials:
        raise Problem(
            f"{directory / TRIALS} has the shape {data.shape} and {len(manifest.sessions)} "
            f"sessions, {MANIFEST} says {expected}: prepare the set again"
        )
    return TrialSet(
        format=format,
        data=data,
        rows=np.arange(n_trials),
        stimuli=manifest.stimuli,
        sessions=manifest.sessions,
        preprocessing_arrays=load_file(directory / PREPROCESSING),
        checksum=files[TRIALS],
    )
