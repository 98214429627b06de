"""A study: a data set as training takes it, whatever its files are.

Every data set is one file in `studies/`, with a function that gives its `Study`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.sources.recording import RecordedMarker, Recording


@dataclass(frozen=True)
class Facts:
    """What is known of a part of a study; None where it is not."""

    subject: str | None = None
    session: str | None = None
    run: str | None = None
    split: str | None = None
    """`train`, `test` ...; preprocessing is fitted to what is `train`, or of no split."""

    @property
    def name(self) -> str:
        """Subject, session and run as one word."""
        return "/".join(filter(None, (self.subject, self.session, self.run))) or "recording"

    @property
    def session_key(self) -> tuple[str | None, str | None]:
        """A session is known by its subject as well: every subject may have a session 1."""
        return self.subject, self.session


class StudyPart(NamedTuple):
    """A recording, whose markers carry the ids of stimuli, as the marker rule reads them.

    Where the files have codes, or a log of what was shown, the study puts the ids there.
    """

    data: Recording
    facts: Facts


class ShownImage(NamedTuple):
    """The image of a stimulus: its file in the study's folder of images, and its concept."""

    path: str
    category: str | None = None


@dataclass(frozen=True)
class Study:
    """A data set; its parts may be read one after the other, as they are asked for."""

    name: str
    parts: Iterable[StudyPart]
    images: Mapping[str, ShownImage] = field(default_factory=dict)
    """By stimulus id; empty where they are not known."""


def recording_of_epochs(
    name: str,
    trials: np.ndarray,
    stimuli: Sequence[str],
    channels: tuple[str, ...],
    rate_hz: float,
    tmin_s: float,
    kind: str = "eeg",
    unit: str = "microvolts",
) -> Recording:
    """Trials that others have cut, as a recording with pauses, of which they are cut again.

    Args:
        trials: (n, channels, times), from `tmin_s` after the onsets on. Filters and a baseline that
            lies outside of them are not to be asked for again.
        stimuli: id of each trial's stimulus.
    """
    n, _, n_times = trials.shape
    first_s = np.arange(n) * (n_times / rate_hz + 1.0)
    return Recording(
        path=Path(name),
        name=name,
        channels=channels,
        units=(unit,) * len(channels),
        rate_hz=rate_hz,
        stamps_s=(first_s[:, None] + np.arange(n_times) / rate_hz).ravel(),
        samples=trials.transpose(0, 2, 1).reshape(-1, len(channels)).astype(np.float32),
        markers=tuple(map(RecordedMarker, (first_s - tmin_s).tolist(), stimuli)),
        kinds=(kind,) * len(channels),
    )
