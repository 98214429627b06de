"""The trials as the live path cut them, saved as they come, and made the file that was asked for.

Until then they are in the session folder: `trials.f32` has the samples, one trial (channels, times)
after the other as little-endian float32, and `trials.jsonl` says in its first line what they are,
and of each trial what it is in one line more. Both survive a crash.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from hvf_core.text import counted
from stream.acquire.trials import Trial
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.books.trial_formats import COLUMNS, Head, Row, write_epochs, write_npz

SUFFIXES = (".npz", "-epo.fif", "_epo.fif")
_SAMPLES, _ROWS = "trials.f32", "trials.jsonl"
_FLOAT = np.dtype("<f4")


class TrialFile:
    """Takes trials as they are cut; where a reader of the session was lost, it goes on.

    The samples are those of the stream, in microvolts, before any preprocessing.

    Args:
        folder: of the session.

    Raises:
        Problem: the session's trials so far are of another kind.
    """

    def __init__(self, folder: Path, head: Head):
        before, rows, n_bytes = _read(folder)
        if before is not None and before != head:
            raise Problem(
                f"the trials in '{folder / _SAMPLES}' have {_told(before)}, and those of the "
                f"stream have {_told(head)} now, which one file cannot hold: begin a new session"
            )
        # Without buffers: what is written is the system's, whatever becomes of this process.
        self._samples = (folder / _SAMPLES).open("ab", buffering=0)
        self._rows = (folder / _ROWS).open("ab", buffering=0)
        os.truncate(folder / _SAMPLES, len(rows) * _size(head))
        os.truncate(folder / _ROWS, n_bytes)
        if before is None:
            self._enter(vars(head))

    def add(self, trial: Trial) -> None:
        """Writes a trial: its samples, and then the line that counts it."""
        _write_all(self._samples, np.ascontiguousarray(trial.samples.T, _FLOAT).tobytes())
        event = trial.event
        of_marker = (event.stimulus, event.group, event.repeat, event.onset_s)
        values = (trial.number, *of_marker, trial.residual_s, trial.first_stamp_s)
        self._enter(dict(zip(COLUMNS, values, strict=True)))

    def _enter(self, line: Mapping[str, Any]) -> None:
        _write_all(self._rows, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Ends the files."""
        self._samples.close()
        self._rows.close()


@dataclass(frozen=True)
class SavedTrials:
    """What became of a session's trials.

    Attributes:
        n: trials in the file; without any there is none, as MNE has no empty epochs.
        n_lost: trials that were cut, says the ledger, and are not in the file.
        dropped: those that were not cut, by reason.
        notes: what else is to be said of the file.
    """

    path: Path
    n: int
    n_lost: int
    dropped: Mapping[str, int]
    notes: Sequence[str]

    def __str__(self) -> str:
        trials = counted(self.n, "trial")
        text = f"{trials} saved: {self.path}" if self.n else "no trials saved"
        missing = [f"{n} dropped ({reason})" for reason, n in sorted(self.dropped.items())]
        missing += [f"{self.n_lost} that were cut, and could not be written"] * bool(self.n_lost)
        text += f"; not among them: {', '.join(missing)}" if missing else ""
        return "; ".join([text, *self.notes])


def complete(folder: Path, path: Path, session: str) -> SavedTrials | None:
    """Makes the file `path` of what a session has written to its folder.

    To be called until that is done, when the session is over, however that came. Where there is a
    file `path` by now, which is another's, the session is put into the name of this one. None where
    nothing was to be saved.

    Raises:
        Problem: the file cannot be written; what it is made of is kept.
    """
    head, rows, _ = _read(folder)
    # A reader that took up what another one left may have cut a trial again.
    first = {
        (row["trial"], row["onset_s"], row["stimulus"]): i
        for i, row in reversed(list(enumerate(rows)))
    }
    chosen = sorted(first.values(), key=lambda i: (rows[i]["onset_s"], i))
    notes: list[str] = []
    if path.exists() and chosen:
        notes.append(f"'{path}' was there already, and is as it was")
        path = _beside(path, session)
    n_lost, dropped = _missing(folder / "ledger.jsonl", {row["trial"] for row in rows})
    if head is None and not n_lost:
        return None
    # The last trial of a process that was killed may have got no line.
    n_bytes_told = 0 if head is None else (len(rows) + 1) * _size(head)
    try:
        if head is not None and chosen:
            trials = _samples(folder, head, chosen)
            notes += write_whole(path, head, [rows[i] for i in chosen], trials)
            del trials  # Windows removes no file that is mapped
        if n_lost and _n_bytes(folder) > n_bytes_told:
            notes.append(f"samples of them are kept in '{folder / _SAMPLES}'")
        else:
            (folder / _SAMPLES).unlink(missing_ok=True)
            (folder / _ROWS).unlink(missing_ok=True)
    except (OSError, MemoryError) as error:
        raise Problem(
            f"the trials cannot be saved as '{path}' ({error or 'no memory'}); they are kept in "
            f"'{folder}': make room, and run `python run_realtime.py finish {folder}`"
        ) from None
    return SavedTrials(path, len(chosen), n_lost, dropped, notes)


def numbers_of(folder: Path) -> list[int]:
    """Of the trials that a session has written to its folder, and made no file of yet."""
    return [row["trial"] for row in _read(folder)[1]]


def check_trial_file(path: Path) -> None:
    """Refuses a path that no trials can be written to, before a session is spent on them.

    Raises:
        Problem: another ending than `SUFFIXES`, no folder that may be written to, or a file that
            is there.
    """
    if not path.name.endswith(SUFFIXES):
        raise Problem(
            f"trials cannot be saved as '{path}': the name must end in {', '.join(SUFFIXES)}"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise Problem(f"trials cannot be saved as '{path}': make the folder '{folder}' first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise Problem(f"trials cannot be saved as '{path}': name a file that you may write")
    if path.exists():
        raise Problem(f"trials cannot be saved as '{path}', which is there already: name another")


def _beside(path: Path, session: str) -> Path:
    """The same place, under a name that is this session's."""
    suffix = next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
    return path.with_name(f"{path.name.removesuffix(suffix)}-{session}{suffix}")


def _n_bytes(folder: Path) -> int:
    """Of the samples."""
    samples = folder / _SAMPLES
    return samples.stat().st_size if samples.exists() else 0


def _missing(ledger: Path, saved: set[int]) -> tuple[int, Counter[str]]:
    """How many trials are not saved though they were cut, and how many were dropped, by reason."""
    records = read_ledger(ledger) if ledger.exists() else []
    ends = [r for r in records if r["event"] in ("cut", "decoded", "dropped")]
    missing = [r.get("reason") for r in ends if r["trial"] not in saved]
    dropped = Counter(reason for reason in missing if reason is not None)
    return len(missing) - dropped.total(), dropped


def _size(head: Head) -> int:
    """Bytes of a trial."""
    return head.shape[0] * head.shape[1] * _FLOAT.itemsize


def _told(head: Head) -> str:
    n_channels, n_times = head.shape
    names = ", ".join(head.channels)[:60]
    return f"{n_channels} channels ({names}), {n_times} samples at {head.rate_hz:g} Hz"


def _write_all(file: Any, data: bytes) -> None:
    """Writes to a file without buffer, which may take less than it is given."""
    while data:
        data = data[file.write(data) :]


def _read(folder: Path) -> tuple[Head | None, list[Row], int]:
    """What was written so far, and how long its lines are; what a crash cut short is left out."""
    try:
        lines = (folder / _ROWS).read_bytes().splitlines(keepends=True)
        n_bytes = (folder / _SAMPLES).stat().st_size
    except FileNotFoundError:
        return None, [], 0
    told: list[Row] = []
    with suppress(ValueError):  # where the power was cut, the end may be anything
        told.extend(json.loads(line) for line in lines if line.endswith(b"\n"))
    if not told:
        return None, [], 0
    head = Head(**{**told[0], "window": tuple(told[0]["window"])})
    del told[1 + n_bytes // _size(head) :]
    return head, told[1:], sum(map(len, lines[: len(told)]))


def _samples(folder: Path, head: Head, chosen: Sequence[int]) -> np.ndarray:
    """Trials (n, channels, times), in memory only where they are not as they lie in the file."""
    n = max(chosen) + 1
    trials = np.memmap(folder / _SAMPLES, _FLOAT, "r", shape=(n, *head.shape))
    return trials if list(chosen) == list(range(n)) else trials[list(chosen)]


def write_whole(path: Path, head: Head, rows: Sequence[Row], trials: np.ndarray) -> list[str]:
    """Writes trials (n, channels, times) aside, and puts the file into its place when it is whole.

    Returns:
        What is to be said of it.
    """
    draft = Path(tempfile.mkdtemp(prefix=".trials-", dir=path.parent))
    try:
        write = write_npz if path.suffix == ".npz" else write_epochs
        notes = write(draft / path.name, head, rows, trials)
        # MNE splits epochs of more than 2 GB: the file that names the others comes last.
        for part in sorted(draft.iterdir(), key=lambda part: part.name == path.name):
            part.replace(path.parent / part.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return notes
