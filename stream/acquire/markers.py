"""What a marker means: which stimulus it names, and which presentation of it this is."""

import re
from collections import Counter
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, field_validator

from decoder.problem import Problem


@dataclass(frozen=True)
class Marker:
    """A marker as it arrived. Stamps are in seconds on the reader's clock."""

    stamp_s: float
    text: str
    readable_s: float


@dataclass(frozen=True)
class Event:
    """A marker that opens a trial. `repeat` counts the presentations of its group from 1 on."""

    onset_s: float
    stimulus: str
    group: str
    repeat: int
    readable_s: float


class MarkerRule(BaseModel):
    """Maps marker texts to stimuli.

    `stimulus` is a regular expression that is searched in the text; its group `id`, where it has
    one, else the whole match, is the stimulus id. Texts that do not match open no trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stimulus: str = r"(?s)^.+$"

    @field_validator("stimulus")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Problem(
                f"the marker pattern '{pattern}' is no regular expression ({error}); "
                "give one such as '^stim/(?P<id>.+)$'"
            ) from None
        return pattern

    def stimulus_id(self, text: str) -> str | None:
        """The stimulus that `text` names, or None where it names none."""
        match = re.search(self.stimulus, text)
        if match is None:
            return None
        return match["id"] if "id" in match.re.groupindex else match[0]


class MarkerReader:
    """Turns markers into events and counts the presentations of each stimulus."""

    def __init__(self, rule: MarkerRule):
        self._rule = rule
        self._presented: Counter[str] = Counter()

    def read(self, marker: Marker) -> Event | None:
        """The trial that this marker opens; None for a marker that names no stimulus."""
        stimulus = self._rule.stimulus_id(marker.text)
        if stimulus is None:
            return None
        self._presented[stimulus] += 1
        return Event(
            onset_s=marker.stamp_s,
            stimulus=stimulus,
            group=stimulus,
            repeat=self._presented[stimulus],
            readable_s=marker.readable_s,
        )
