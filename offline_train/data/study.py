"""A study: a data set as training takes it, whatever its files are.

Every data set is one file in `studies/`, with a function that gives its `Study`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from stream.acquire.units import EEG, Signal
from stream.sources.recording import Recording


@dataclass(frozen=True)
class StudyInfo:
    """What one asks of a data set before using it; "" and None where it is not known."""

    name: str
    licence: str = ""
    size_gb: float | None = None
    url: str = ""
    """Where it can be had."""
    citation: str = ""


@dataclass(frozen=True, eq=False)
class Epochs:
    """Trials that others have cut: filtered, baseline-corrected and resampled as the settings say.

    They are neither whitened nor scaled yet.
    """

    channels: tuple[str, ...]
    rate_hz: float
    tmin_s: float
    """First sample of a trial after its onset."""
    trials: np.ndarray
    """(n, channels, times); may be memory-mapped."""
    stimuli: tuple[str, ...]
    """Stimulus id of each trial."""
    recorded: Signal = EEG

    def signal(self, channels: Iterable[str]) -> Signal:
        """What any of these channels record; see `Recording.signal`."""
        return self.recorded


@dataclass(frozen=True)
class Facts:
    """What is known of a part of a study; None where it is not."""

    subject: str | None = None
    session: str | None = None
    run: str | None = None
    split: str | None = None
    """`train`, `test` ...; preprocessing is fitted to trials of `train` and of no split."""

    @property
    def name(self) -> str:
        """Subject, session and run as one word."""
        return "/".join(filter(None, (self.subject, self.session, self.run))) or "recording"

    @property
    def session_key(self) -> tuple[str | None, str | None]:
        """A session is known by its subject as well: every subject may have a session 1."""
        return self.subject, self.session

    @property
    def is_learnt(self) -> bool:
        """Whether preprocessing is fitted to it."""
        return self.split in ("train", None)


@dataclass(frozen=True)
class StudyPart:
    """One recording, or epochs, with what is known of it.

    The markers of a recording carry the ids of stimuli, as the marker rule reads them. Where the
    files have codes, or a log of what was shown, the study puts the ids there.
    """

    data: Recording | Epochs
    facts: Facts


@dataclass(frozen=True)
class ShownImage:
    """The image of a stimulus."""

    path: str
    """Of its file, from the folder of the study's images on."""
    category: str | None = None
    """Its concept or class."""


@dataclass(frozen=True)
class Study:
    """A data set; its parts may be read one after the other, as they are asked for."""

    info: StudyInfo
    parts: Iterable[StudyPart]
    images: Mapping[str, ShownImage] = field(default_factory=dict)
    """By stimulus id; empty where they are not known."""
