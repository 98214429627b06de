"""A study: a data set as training takes it, whatever its files are.

Every data set is one file in `studies/`, with a function that gives its `Study`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.images import image_files
from stream.sources.mne_files import files_beside
from stream.sources.recording import JOIN_PAUSE_S, RecordedMarker, Recording

_SAID = re.compile(r"(?<![^/_])(sub|ses|run)-([A-Za-z0-9]+)")
_SOME = 20  # trials, as of a recording some seconds are looked at


def told(value: object) -> str | None:
    """What a table says; None where it says, in one of its ways, that it is not known."""
    text = "" if value is None or value != value else str(value).strip()  # NaN is not itself
    return None if text.casefold() in ("", "n/a") else text


def split_of(value: object) -> str | None:
    """The split that a table says, whatever its capitals."""
    said = told(value)
    return said.casefold() if said is not None else None


@dataclass(frozen=True)
class Facts:
    """What is known of a part of a study; None where it is not."""

    subject: str | None = None
    session: str | None = None
    run: str | None = None
    split: str | None = None
    """`train`, `test` ...; preprocessing is fitted to what is `train`, or of no split."""

    @classmethod
    def of(cls, path: Path, split: str | None = None) -> "Facts":
        """What a file's folders and name say in the words of BIDS: `sub-01`, `ses-01`, `run-01`."""
        said = dict(_SAID.findall(path.as_posix()))
        return cls(said.get("sub"), said.get("ses"), said.get("run"), split)

    @property
    def name(self) -> str:
        """Subject, session and run as one word."""
        return "/".join(filter(None, (self.subject, self.session, self.run))) or "recording"

    @property
    def is_learnt(self) -> bool:
        """Whether preprocessing is fitted to it."""
        return self.split in ("train", None)

    @property
    def session_key(self) -> tuple[str | None, str | None]:
        """A session is known by its subject as well: every subject may have a session 1."""
        return self.subject, self.session


@dataclass(frozen=True, eq=False)
class CutTrials:
    """Trials that others have cut, in which they begin at one time after their onsets.

    Filters, and a window or a baseline that goes beyond them, cannot be had of them any more.
    """

    name: str
    stimuli: Sequence[str]
    """Id of each trial's stimulus."""
    read: Callable[[slice], np.ndarray]
    """Reads the trials at these positions: (n, channels, times), numbers of any kind."""
    channels: tuple[str, ...]
    rate_hz: float
    tmin_s: float
    n_times: int
    kind: str = "eeg"
    unit: str = "microvolts"
    """In which they are once they have been multiplied by `factor`; "" where it is not known."""
    factor: float = 1.0
    is_whitened: bool = False

    def __post_init__(self) -> None:
        if len(set(self.channels)) < len(self.channels):
            raise Problem(f"'{self.name}' has a channel twice: name its channels anew")

    @property
    def tmax_s(self) -> float:
        """When the last sample was taken, after the onset."""
        return self.tmin_s + (self.n_times - 1) / self.rate_hz

    def blocks(self, n: int) -> Iterator[np.ndarray]:
        """All trials in their order, `n` at a time, as float32 (n, channels, times)."""
        for start in range(0, len(self.stimuli), n):
            yield self.read(slice(start, start + n)).astype(np.float32) * np.float32(self.factor)

    def some(self) -> Recording:
        """A few of them, from first to last, one after the other: what they are like."""
        n = len(self.stimuli)
        at = np.unique(np.linspace(0, n - 1, min(n, _SOME), dtype=int)).tolist()
        trials = np.concatenate([self.read(slice(i, i + 1)) for i in at]) * self.factor
        return self._recording(trials.astype(np.float32), 0.0)

    def pieces(self, n: int) -> Iterator[Recording]:
        """All of them, `n` in a recording: each a piece of it, with its marker and then a pause."""
        stimuli = iter(self.stimuli)
        for trials in self.blocks(n):
            made = self._recording(trials, JOIN_PAUSE_S)
            onsets_s = (made.stamps_s[:: self.n_times] - self.tmin_s).tolist()
            markers = [RecordedMarker(onset_s, next(stimuli)) for onset_s in onsets_s]
            yield replace(made, markers=tuple(markers))

    def _recording(self, trials: np.ndarray, pause_s: float) -> Recording:
        starts_s = np.arange(len(trials)) * (self.n_times / self.rate_hz + pause_s)
        stamps_s = starts_s[:, None] + np.arange(self.n_times) / self.rate_hz
        return Recording(
            path=Path(self.name),
            name=self.name,
            channels=self.channels,
            units=(self.unit,) * len(self.channels),
            rate_hz=self.rate_hz,
            stamps_s=stamps_s.ravel(),
            samples=trials.transpose(0, 2, 1).reshape(-1, len(self.channels)),
            markers=(),
            kinds=(self.kind,) * len(self.channels),
        )


def whitened(name: str) -> Problem:
    """Why trials are not played to a session."""
    return Problem(
        f"'{name}' holds trials that others have whitened, as no amplifier's stream is, and no "
        "recording: decode them with `python -m offline_train evaluate`, or replay the data set in "
        "a form that has recordings"
    )


class StudyPart(NamedTuple):
    """A recording, whose markers carry the ids of stimuli, or trials that are cut already.

    Where the files have codes, or a log of what was shown, the study puts the ids there.
    """

    data: Recording | CutTrials
    facts: Facts

    @property
    def like(self) -> Recording:
        """What it is like: the recording, or a few of the trials."""
        return self.data if isinstance(self.data, Recording) else self.data.some()


class ShownImage(NamedTuple):
    """The image of a stimulus: its file in the study's folder of images, and its concept."""

    path: str
    category: str | None = None


def images_in(folder: Path) -> dict[str, ShownImage]:
    """The images of a folder, as `image_files` finds them, by their ids."""
    files = image_files(folder).items()
    return {id_: ShownImage(file.relative_to(folder).as_posix()) for id_, file in files}


def by_split(
    recording: Recording,
    shown: Iterable[tuple[str | None, RecordedMarker]],
    facts: Callable[[str | None], Facts],
) -> Iterator[StudyPart]:
    """A recording with the markers of each split, as they come in time, and the split's facts."""
    markers: dict[str | None, list[RecordedMarker]] = {}
    for split, marker in shown:
        markers.setdefault(split, []).append(marker)
    for split, own in markers.items():
        ordered = tuple(sorted(own, key=lambda marker: marker.stamp_s))
        yield StudyPart(replace(recording, markers=ordered), facts(split))
        recording = replace(recording, notices=())  # which are said once, and not of each split


@dataclass(frozen=True)
class Source:
    """A file of a study with what belongs to it: it is read apart from all others."""

    name: str
    files: tuple[Path, ...]
    """All that it is read from: what has changed in none of them is as it was. None: in memory."""
    read: Callable[[], Iterable[StudyPart]]
    """A function of a module, perhaps with arguments, as other processes are to call it too."""

    @classmethod
    def of(cls, path: Path, read: Callable[[], Iterable[StudyPart]], *beside: Path) -> "Source":
        """A recording with what lies beside it under its name or is named in it, and more files."""
        base = path.name.removesuffix(path.suffix)
        named = (f for f in path.parent.glob(f"{escape(base)}*") if f.is_file())
        own = sorted(f for f in named if f.name[len(base)] in ".-")
        files = dict.fromkeys((*(own or [path]), *files_beside(path), *beside))
        return cls(path.as_posix(), tuple(files), read)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.files if path.is_file())


@dataclass(frozen=True)
class Study:
    """A data set; its sources may be read in any order, by several processes."""

    name: str
    sources: Sequence[Source]
    images: Mapping[str, ShownImage] = field(default_factory=dict)
    """By stimulus id; empty where they are not known."""
    notices: tuple[str, ...] = ()
    """Sentences that a person should hear of all of it."""

    @classmethod
    def of_parts(cls, name: str, parts: Iterable[StudyPart], **more: Any) -> "Study":
        """A study that is in no file; its parts are asked for one after the other."""
        return cls(name, (Source(name, (), lambda: parts),), **more)

    @property
    def parts(self) -> Iterator[StudyPart]:
        """All that its sources hold, read as it is asked for."""
        return (part for source in self.sources for part in source.read())
