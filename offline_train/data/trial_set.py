"""A trial set: preprocessed trials on disk, and a table of what is known of each.

`trials.npy` is memory-mapped, so a set may be larger than memory.
"""

import json
import mmap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import numpy as np
from numpy.lib import format as npy
from pydantic import Field, JsonValue
from safetensors import SafetensorError
from safetensors.numpy import load_file

from decoder.bundle import TrialInfo
from hvf_core.artifact import (
    check_files,
    file_sha256,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from offline_train.data.trial_table import (
    Column,
    ColumnName,
    Table,
    check_splits,
    read_table,
    shown_by_split,
    write_table,
)

SCHEMA_VERSION: Literal[2] = 2
MANIFEST = "trial_set.json"
TRIALS = "trials.npy"
TABLE = "table.npz"
PREPROCESSING = "preprocessing.safetensors"
ADAPTED = "adaptation"
"""In the provenance of a set of which each trial was adapted: with which settings."""


class TrialFormat(TrialInfo):
    """What all trials of a set have in common; a bundle trained on the set takes it over."""

    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    """Where the trials come from: subject, seeds, command."""


class TrialSetManifest(Frozen):
    """What `trial_set.json` says."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    format: TrialFormat
    stimuli: tuple[str, ...] = Field(default=(), exclude=True)
    sessions: tuple[str, ...] = Field(default=(), exclude=True)
    """Of schema 1, which had no table: stimulus id and session of each trial."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file, by its name."""


SessionArrays = Mapping[tuple[str | None, str | None], Mapping[str, np.ndarray]]
"""Fitted arrays by subject and session, as every subject may have a session 1."""


class TrialSetWriter:
    """Takes the trials of a set, block by block; `write_trial_set` hands it out."""

    def __init__(self, file: BinaryIO, format: TrialFormat) -> None:
        self.n_trials = 0
        self._known: list[dict[ColumnName, Sequence[str | None]]] = []  # block by block
        self._file = file
        self._format = format

    def table(self) -> Table:
        """What is known of the trials so far."""
        names = dict.fromkeys(name for block in self._known for name in block)
        return {
            name: Column.of(
                value
                for block in self._known
                for value in block.get(name, [None] * len(block["stimulus"]))
            )
            for name in names
        }

    def append(
        self,
        trials: np.ndarray,
        stimulus: Sequence[str],
        **known: Sequence[str | None] | str | None,
    ) -> None:
        """Adds trials (n, channels, times), with what is known of them.

        Args:
            known: further columns, with a value for each trial or one for all of them; what is not
                known is None, or left out.

        Raises:
            Problem: when a value is not finite.
            ValueError: when shapes or lengths do not fit, or there is no such column.
        """
        n = len(stimulus)
        expected = (n, len(self._format.channels), self._format.n_times)
        if trials.shape != expected:
            raise ValueError(
                f"trials have shape {trials.shape}, expected (trials, channels, times) {expected}"
            )
        columns: dict[Any, Sequence[str | None]] = {"stimulus": stimulus} | {
            name: [values] * n if isinstance(values, str) else values
            for name, values in known.items()
            if values is not None
        }
        for name, values in columns.items():
            if name not in get_args(ColumnName) or len(values) != n:
                raise ValueError(f"column {name!r} has {len(values)} values for {n} trials")
        finite = np.isfinite(trials).all(axis=(1, 2))
        if not finite.all():
            raise Problem(
                f"a trial of stimulus {stimulus[int(np.argmin(finite))]!r} has values that are not "
                "finite: mark such stretches of the recording as bad and prepare the set again"
            )
        self._file.write(np.ascontiguousarray(trials, dtype="<f4").data)
        self._known.append(columns)
        self.n_trials += n


@contextmanager
def write_trial_set(
    directory: Path,
    format: TrialFormat,
    preprocessing_arrays: Mapping[str, np.ndarray] | None = None,
    session_arrays: SessionArrays | None = None,
) -> Iterator[TrialSetWriter]:
    """Writes a trial set, which is sealed when the block ends well and discarded when it fails.

    Args:
        directory: where to; a trial set that was there is replaced.
        preprocessing_arrays: fitted state of the preprocessing, by name: what a bundle takes over.
        session_arrays: where every session has a state of its own, with which its trials are made.

    Raises:
        Problem: when no trial was appended, or `directory` holds something else.
    """
    with sealed_directory(directory, MANIFEST) as draft:
        with (draft / TRIALS).open("wb") as file:
            writer = TrialSetWriter(file, format)
            _write_header(file, 0, format)
            yield writer
            if not writer.n_trials:
                raise Problem(f"no trial was left to write to {directory}: look at what dropped it")
            file.seek(0)
            _write_header(file, writer.n_trials, format)
        write_table(draft / TABLE, writer.table())
        arrays = dict(preprocessing_arrays or {})
        for key, fitted in (session_arrays or {}).items():
            arrays |= {json.dumps([*key, name]): array for name, array in fitted.items()}
        files = {
            TRIALS: file_sha256(draft / TRIALS),
            TABLE: file_sha256(draft / TABLE),
            PREPROCESSING: write_tensors(draft / PREPROCESSING, arrays),
        }
        write_manifest(draft / MANIFEST, TrialSetManifest(format=format, files=files))


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
    table: Table
    """What is known of each trial of this selection."""
    preprocessing_arrays: Mapping[str, np.ndarray]
    """Fitted state of the preprocessing, by name: what a bundle takes over."""
    session_arrays: SessionArrays
    """The state with which each session's trials were made; empty where it is one for all."""
    checksum: str
    """SHA-256 of the trials on disk."""

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: ColumnName) -> Column:
        """What one column of the table says.

        Raises:
            Problem: when the set has no such column.
        """
        if name not in self.table:
            raise Problem(
                f"the trial set does not say the {name} of its trials, only {', '.join(self.table)}"
                ": prepare it again from a study that does"
            )
        return self.table[name]

    @property
    def stimuli(self) -> tuple[str, ...]:
        """Stimulus id of each trial."""
        return cast(tuple[str, ...], self.table["stimulus"].values)  # every trial has one

    @cached_property
    def repeats(self) -> dict[str, np.ndarray]:
        """The trials of each stimulus, in the order of its first one, as positions in this set."""
        stimulus, positions = self.table["stimulus"], defaultdict(list)
        for position, code in enumerate(stimulus.codes.tolist()):
            positions[code].append(position)
        return {stimulus.names[code]: np.array(own) for code, own in positions.items()}

    @property
    def items(self) -> tuple[str, ...]:
        """The stimuli, each once, in the order of their first trials."""
        return tuple(self.repeats)

    def select(self, values: Collection[str], column: ColumnName = "stimulus") -> "TrialSet":
        """Only the trials of these stimuli, or sessions, or whatever the column says.

        Raises:
            Problem: when there is no trial of one of them, or the set has no such column.
        """
        known, wanted = self.column(column), set(values)
        absent = wanted - known.present
        if absent:
            raise Problem(f"the trial set has no trial of {column} {min(absent)!r}: leave it out")
        codes = [code for code, name in enumerate(known.names) if name in wanted]
        return self.subset(np.flatnonzero(np.isin(known.codes, codes)))

    def training(self, classes: bool = False) -> "TrialSet":
        """The trials to learn from, where every training takes them: of `train`, or of no split.

        Args:
            classes: whether stimuli are classes, which training and test may share.

        Raises:
            Problem: another split shares stimuli or concepts with these.
        """
        if "split" not in self.table:
            return self
        if not classes:
            check_splits(shown_by_split(self.table))
        split = self.table["split"]
        learnt = [code for code, name in enumerate(split.names) if name == "train"]
        return self.subset(np.flatnonzero(np.isin(split.codes, [-1, *learnt])))

    def hold_out(self, n_items: int, seed: int) -> tuple["TrialSet", "TrialSet"]:
        """Splits off the trials of at most `n_items` stimuli, drawn at random by whole concepts.

        Returns:
            The trials of the other stimuli, and those that are held out.

        Raises:
            Problem: when fewer than two stimuli are left, or would be held out.
        """
        items, held = self.items, set[str]()
        concepts = [*self.concepts.values()]
        for number in np.random.default_rng(seed).permutation(len(concepts)):
            if len(held) + len(concepts[number]) <= n_items:
                held.update(concepts[number])
        if not 2 <= len(held) <= len(items) - 2:
            smallest = min(map(len, concepts))
            raise Problem(
                f"{n_items} of {len(items)} stimuli cannot be held out by whole concepts, of which "
                f"the smallest has {smallest}: at least two stimuli must be, and two must be left "
                "to learn from"
            )
        return self.select([item for item in items if item not in held]), self.select(held)

    @cached_property
    def concepts(self) -> dict[str, list[str]]:
        """The stimuli of each concept: of each category or, where it is not known, each its own."""
        category, found = self.table.get("category"), dict[str, list[str]]()
        for item, trials in self.repeats.items():
            said = category and category.at(int(trials[0]))
            found.setdefault(f"category {said}" if said else f"stimulus {item}", []).append(item)
        return found

    def subset(self, positions: Sequence[int] | np.ndarray) -> "TrialSet":
        """Only the trials at these positions, in this order."""
        positions = np.asarray(positions, dtype=np.intp)
        table = {
            name: Column(column.names, column.codes[positions])
            for name, column in self.table.items()
        }
        return replace(self, rows=self.rows[positions], table=table)

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
            drawn: Sequence[np.ndarray] | np.ndarray
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

    def let_go(self) -> None:
        """Takes what was read of the files out of this process's memory: the system has it still.

        Mapped files else count as memory of whoever has read them, until it is short.
        """
        for part in getattr(self.data, "parts", (self.data,)):
            mapped = getattr(part, "_mmap", None)  # there is no public name for it
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def load_trial_set(directory: Path) -> TrialSet:
    """Opens a trial set and verifies it; its trials are read when they are used.

    Raises:
        Problem: when it is missing, damaged, made by a newer program, or not consistent.
    """
    manifest = read_manifest(directory, MANIFEST, TrialSetManifest, SCHEMA_VERSION)
    is_old = manifest.schema_version == 1
    names = (TRIALS, PREPROCESSING) if is_old else (TRIALS, TABLE, PREPROCESSING)
    check_files(directory, {name: manifest.files.get(name, "") for name in names})
    if is_old:
        sessions = Column.of(manifest.sessions)
        table: Table = {"stimulus": Column.of(manifest.stimuli), "session": sessions}
    try:
        if not is_old:
            table = read_table(directory / TABLE)
        data = np.load(directory / TRIALS, mmap_mode="r", allow_pickle=False)
        fitted = load_file(directory / PREPROCESSING)
    except (OSError, EOFError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Problem(f"{directory} is no trial set ({error}): prepare it again") from None
    format, lengths = manifest.format, {len(column.codes) for column in table.values()}
    if lengths != {len(data)} or data.shape[1:] != (len(format.channels), format.n_times):
        raise Problem(
            f"{directory / TRIALS} has the shape {data.shape}, expected {sorted(lengths)} trials "
            f"of {len(format.channels)} channels and {format.n_times} times: prepare the set again"
        )
    arrays: dict[str, np.ndarray] = {}
    by_session: dict[tuple[str | None, str | None], dict[str, np.ndarray]] = {}
    for name, array in fitted.items():
        if name.startswith("["):
            subject, session, of_session = json.loads(name)
            by_session.setdefault((subject, session), {})[of_session] = array
        else:
            arrays[name] = array
    return TrialSet(
        format=format,
        data=data,
        rows=np.arange(len(data)),
        table=table,
        preprocessing_arrays=arrays,
        session_arrays=by_session,
        checksum=manifest.files[TRIALS],
    )
