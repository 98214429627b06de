"""What the people of the demo see, and what is recorded of them meanwhile (simulated)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from demo.recordings import SIMULATED, responses, simulate_sessions
from demo.settings import ASSETS, DemoSettings
from demo.stimuli import Stimulus, gallery_stimuli, render, stimuli, training_concepts
from demo.subject import SubjectSettings
from demo.unseen.settings import PER_MINUTE, UnseenSettings
from hvf_core.problem import Problem
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.data.features import Features, extract_features
from offline_train.data.images import content_of
from offline_train.data.study import Facts, Study, StudyPart
from stream.sources.recording import Recording

_MINUTES, _TESTS = 1000, 2000
"""First numbers, which are seeds, of an unseen person's recordings."""


@dataclass(frozen=True)
class World:
    """Pictures and who sees them: none of them is in two of these lists."""

    learnt: Sequence[Stimulus]
    shown: Sequence[Stimulus]
    """In the minutes of calibration, in this order."""
    asked: Sequence[Stimulus]
    pictures: dict[Stimulus, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: UnseenSettings) -> "World":
        """The world of these settings, in which nothing is drawn yet.

        Raises:
            Problem: there are not so many pictures.
        """
        concepts, n_shown = training_concepts(), PER_MINUTE * max(settings.minutes)
        if (n := settings.pictures + n_shown) > len(concepts):
            raise Problem(
                f"{settings.pictures} pictures to learn from and {n_shown} others for "
                f"{max(settings.minutes)} minutes are {n}, the demo has {len(concepts)}: give "
                "fewer --pictures or --minutes"
            )
        return cls(
            stimuli(concepts[: settings.pictures], 1),
            stimuli(concepts[settings.pictures : n], 1),
            gallery_stimuli()[: settings.asked],
        )

    @property
    def all(self) -> list[Stimulus]:
        return [*self.learnt, *self.shown, *self.asked]

    def features(self, cache: Path, tell: Callable[[int, int], None]) -> Features:
        """Draws all pictures; what the demo's image encoders see in them."""
        self.pictures.update({stimulus: render(stimulus) for stimulus in self.all})
        by_id = {stimulus.id: picture for stimulus, picture in self.pictures.items()}
        encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
        contents = {id: content_of(picture) for id, picture in by_id.items()}
        return extract_features(contents, by_id.__getitem__, encoders, cache, tell)

    def sessions(
        self, who: SubjectSettings, shown: Sequence[Stimulus], numbers: Iterable[int]
    ) -> Iterator[Recording]:
        """Recordings in which somebody sees each of these pictures once."""
        evoked = responses(who, shown, self.pictures.__getitem__)
        return simulate_sessions(who, shown, evoked, numbers, DemoSettings().soa_s)

    def minutes(self, who: SubjectSettings) -> list[Recording]:
        """A recording of each minute of calibration."""
        starts = range(0, len(self.shown), PER_MINUTE)
        return [
            minute
            for n, start in enumerate(starts)
            for minute in self.sessions(who, self.shown[start : start + PER_MINUTE], [_MINUTES + n])
        ]

    def tests(self, who: SubjectSettings, repeats: int) -> list[Recording]:
        """Recordings of the test pictures, each of them in every one."""
        return [*self.sessions(who, self.asked, range(_TESTS, _TESTS + repeats))]


def study_of(recordings: Iterable[Recording], person: int) -> Study:
    """Recordings of one person, as training takes them."""
    parts = (StudyPart(one, Facts(f"{person:03d}", one.name)) for one in recordings)
    return Study.of_parts(SIMULATED, parts)
