"""A piece: all trials that were cut of one source, on disk, whole or absent."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import JsonValue

from hvf_core.artifact import whole_file, write_manifest
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from hvf_core.text import some_of
from offline_train.data.cut import outcomes
from offline_train.data.settings import CutSettings
from offline_train.data.study import Facts, Source, StudyPart
from stream.acquire.adaptation import Adaptation
from stream.acquire.channels import column_of
from stream.acquire.preprocess import Preprocessing
from stream.acquire.settings import AdaptationSettings
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.units import Signal
from stream.acquire.whitening import shrunk_covariance
from stream.sources.recording import Recording


@dataclass(frozen=True)
class HowCut:
    """How trials are cut of whatever source; other processes are handed it."""

    preprocessing: Preprocessing
    settings: CutSettings
    adaptation: AdaptationSettings | None = None
    sums_noise: bool = False
    """Whether noise covariances are added up of what may be learnt from."""


class CutPart(Frozen):
    """What became of the markers of a part, and what it is like."""

    facts: Facts
    stimuli: tuple[str, ...]
    dropped: dict[str, int]
    notices: tuple[str, ...]
    """Sentences that a person should hear."""
    signal: Signal
    size: float
    """By how much its channels move, as `Recording.size` says."""
    odd: dict[str, str]
    """Its channels that are dead or wildly scaled, as `Recording.odd_channels` says."""


class Piece(Frozen):
    """What is said of a piece, beside its trials."""

    source: str
    asked: dict[str, JsonValue]
    """With which settings, images and versions it was made."""
    files: dict[str, tuple[int, ...]]
    """Of what files: size, and when each was written and changed, in nanoseconds."""
    parts: tuple[CutPart, ...]


@dataclass(frozen=True)
class Cut:
    """A part with its trials, which are on disk."""

    part: CutPart
    file: Path
    first: int
    """Which trial of the file is its first."""
    shape: tuple[int, int]
    """Channels and times."""
    noise: np.ndarray | None = field(default=None, compare=False)
    """The sum of its trials' noise covariances, (channels, channels)."""

    def __len__(self) -> int:
        return len(self.part.stimuli)

    def blocks(self, n: int) -> Iterator[np.ndarray]:
        """Its trials, `n` at a time, float32 (n, channels, times), of which one block is mapped."""
        size = 4 * self.shape[0] * self.shape[1]
        for start in range(0, len(self), n):
            shape = (min(n, len(self) - start), *self.shape)
            at = size * (self.first + start)
            yield np.memmap(self.file, np.float32, "r", offset=at, shape=shape)


def cut_source(
    source: Source,
    how: HowCut,
    at: Path,
    asked: Mapping[str, JsonValue],
    tell: Callable[[float], object] = lambda share: None,
    on_part: Callable[[CutPart], object] = lambda part: None,
) -> None:
    """Cuts a source into a piece: `at` with `.trials` and, when it is whole, `.json`.

    Behind the trials are the sums of the noise covariances of each part, if they are asked for.

    Args:
        tell: hears which share of it is cut.
        on_part: hears what became of each part, as soon as it is cut.
    """
    files = stamps_of(source)
    read = source.read()
    parts = list(read) if source.files else read
    n_all = sum(map(_n_markers, parts)) if isinstance(parts, list) else 0
    n_before, told, noise = 0, [], []
    with _synced(at.with_suffix(".trials")) as file:
        for part in parts:
            one, summed = _cut(part, how, file, partial(_tell_share, tell, n_before, n_all))
            n_before += _n_markers(part)
            told.append(one)
            noise.append(summed)
            on_part(one)
        if how.sums_noise:
            file.write(np.array(noise).tobytes())
    if files != stamps_of(source):
        raise Problem(f"'{source.name}' was changed while it was read: start again")
    piece = Piece(source=source.name, asked=dict(asked), files=files, parts=tuple(told))
    write_manifest(at.with_suffix(".json"), piece)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A file that is on the disk before what says that its piece is whole."""
    with whole_file(path) as draft, draft.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def cuts_of(at: Path, how: HowCut) -> list[Cut]:
    """The parts of a piece, whose place is `at`; none where it is not whole."""
    piece = Piece.model_validate_json(at.with_suffix(".json").read_bytes())
    settings = how.preprocessing.settings
    n, shape = len(settings.channels), (len(settings.output_channels), settings.n_times)
    firsts = np.cumsum([0, *(len(part.stimuli) for part in piece.parts)]).tolist()
    file, length = at.with_suffix(".trials"), 4 * firsts[-1] * shape[0] * shape[1]
    n_sums = len(piece.parts) if how.sums_noise else 0
    if not file.is_file() or file.stat().st_size != length + 8 * n_sums * n * n:
        return []
    noise = np.fromfile(file, np.float64, offset=length).reshape(n_sums, n, n)
    return [
        Cut(part, file, first, shape, one)
        for part, first, one in zip_longest(piece.parts, firsts[:-1], noise)
    ]


def stamps_of(source: Source) -> dict[str, tuple[int, ...]]:
    """Of each file of a source its size, and when it was written and changed."""
    stats = {path.as_posix(): path.stat() for path in source.files if path.is_file()}
    return {name: (s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in stats.items()}


def told_odd(odd: Mapping[str, str]) -> str:
    """A sentence on channels that are odd."""
    listed = ", ".join(f"{name} ({text})" for name, text in odd.items())
    return f"channels that move far less or more than the others (SD over a second): {listed}"


def _tell_share(tell: Callable[[float], object], n_before: int, n_all: int, number: int) -> None:
    if n_all:
        tell((n_before + number) / n_all)


def _n_markers(part: StudyPart) -> int:
    data = part.data
    return len(data.markers if isinstance(data, Recording) else data.stimuli)


def _cut(
    part: StudyPart, how: HowCut, file: BinaryIO, tell: Callable[[int], object]
) -> tuple[CutPart, np.ndarray]:
    """Writes the trials of a part; with what became of it, the sum of their noise covariances."""
    data, facts = part
    wanted = how.preprocessing.settings.channels
    recording = part.like.corrected(how.settings.channel_map, how.settings.true_rate_hz)
    check_channels(wanted, recording.channels, facts.name)
    odd = recording.odd_channels(wanted)
    notices = list(data.notices) if isinstance(data, Recording) else []
    notices += [told_odd(odd)] if odd else []
    markers, reject = how.settings.markers, how.settings.reject
    plan = TrialPlan(how.preprocessing, marker_rule=markers, reject=reject)
    adapted = Adaptation(how.preprocessing, how.adaptation) if how.adaptation is not None else None
    named = replace(data, channels=recording.channels, rate_hz=recording.rate_hz)
    stimuli, dropped = [], Counter[str]()
    noise = np.zeros((len(wanted), len(wanted)))
    is_learnt = how.sums_noise and facts.is_learnt
    for number, outcome in enumerate(outcomes(named, plan, adapted, notices.append), 1):
        tell(number)
        if isinstance(outcome, str):
            dropped[outcome] += 1
            continue
        stimulus, trial = outcome
        file.write(trial.tobytes())
        stimuli.append(stimulus)
        if is_learnt:
            noise = noise + shrunk_covariance(trial.astype(np.float64))
    made = CutPart(
        facts=facts,
        stimuli=tuple(stimuli),
        dropped=dict(dropped),
        notices=tuple(notices),
        signal=recording.signal(wanted),
        size=recording.size(wanted),
        odd=odd,
    )
    return made, noise


def check_channels(wanted: Sequence[str], there: Sequence[str], whose: str) -> None:
    """Refuses a list of channels of which a recording lacks some."""
    absent = [name for name in wanted if column_of(name, there) is None]
    if absent:
        raise Problem(
            f"'{whose}' lacks {len(absent)} of the {len(wanted)} channels that are asked for: "
            f"missing {some_of(absent, 8)}; it has {some_of(there, 8)}: choose others with "
            "--channels, or say with --rename what it calls them"
        )
