"""Messages between the nodes; `frames` has how they are written, and refuses what is none.

A message that was received has fields of the types that stand here; what its fields have to have
in common is checked whenever one is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from stream.acquire.chunk import StreamKind
from stream.acquire.trials import Reason
from stream.pipeline.wire.fields import (
    Facts,
    Fate,
    Finite,
    Float32,
    Number,
    Outcome,
    ReaderFacts,
    Stamps,
)


@dataclass(frozen=True, kw_only=True)
class TrialRef:
    """Which trial a message is about, and what was shown in it.

    The `repeat`-th presentation of `group` in its `block`, counted from 1, began at `onset_s`,
    seconds on the reader's clock; `block` counts the markers that began a new one.
    """

    session: str
    trial: Number
    stimulus: str
    group: str
    repeat: int
    onset_s: float
    block: Number = 0


@dataclass(frozen=True, kw_only=True)
class AnswerRef:
    """How much EEG an answer, or what is painted from it, is made of.

    `n_repeats` presentations of the group are in it, the last one up to `tmax_s` after its onset; a
    `provisional` one is followed by the final one.
    """

    n_repeats: int
    tmax_s: float
    provisional: bool


class Message:
    """One of those below. Their order numbers the kinds on the wire: a new one comes last."""


@dataclass(frozen=True, kw_only=True)
class MarkerSeen(Message):
    """The reader announces a marker that opens a trial; it could be read at `readable_s`.

    It was sent as `text`, with the stamp `sent_s` in the sender's clock. `mark` is the same
    wherever the same marker was read; see `stream.acquire.markers.Marker`.
    """

    about: TrialRef
    readable_s: Finite
    text: str
    sent_s: float
    mark: str


@dataclass(frozen=True, kw_only=True)
class TrialSlice(Message):
    """A slice of a trial's preprocessed EEG, (channels, times) from time `first` on.

    Slices of a trial come in order; `final` marks the last one. Before `first`, the array has
    `corrects` times that came before, with what is to be added to them. `stamps` holds the moments
    that its last sample has passed, by stage, on the reader's clock.
    """

    about: TrialRef
    first: Number
    corrects: Number
    final: bool
    residual_s: float
    stamps: Mapping[str, float]
    array: Float32 = field(repr=False)

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or not self.corrects <= min(self.first, self.array.shape[1]):
            raise ValueError(f"{self.array.shape} samples at {self.first} correct {self.corrects}")


@dataclass(frozen=True, kw_only=True)
class TrialDropped(Message):
    """A node could not bring a trial to its end."""

    trial: Number
    reason: Reason
    detail: str


@dataclass(frozen=True, kw_only=True)
class TrialCut(Message):
    """A trial ends here, cut: the session has no decoder."""

    trial: Number
    residual_s: float
    stamps: Mapping[str, Finite]


@dataclass(frozen=True, kw_only=True)
class Retrieval(Message):
    """The answer to a trial: the top-k of the gallery, best first.

    `probabilities` go with `scores` (cosines, or added log-likelihoods), over the whole gallery;
    `calibrated` says whether they may be believed.
    `confidence` is the first of them; below the session's threshold the answer is to `abstain`.
    `rank` is the place of the stimulus that was shown, counted from 1, or 0 where the gallery does
    not hold it.
    """

    about: TrialRef
    answer: AnswerRef
    ids: Annotated[list[str], Field(min_length=1)]
    labels: list[str]
    scores: list[Finite]
    probabilities: Annotated[list[Finite], Field(min_length=1)]
    confidence: Finite
    calibrated: bool
    abstain: bool
    rank: Number
    stamps: Stamps

    def __post_init__(self) -> None:
        n = len(self.ids)
        if not len(self.labels) == len(self.scores) == len(self.probabilities) == n:
            raise ValueError("an answer has as many labels, scores and probabilities as images")


@dataclass(frozen=True, kw_only=True)
class Embedded(Message):
    """The decoder hands the painter what it knows of a trial; a newer one takes its place.

    `array` is the unit-length embedding, float32 (dim,), that the answer is made of, and `top_id`
    the first image of that answer.
    """

    about: TrialRef
    answer: AnswerRef
    top_id: str
    stamps: Stamps
    array: Float32 = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PaintingState(Message):
    """The painter says what becomes of a trial, except that it is painted."""

    trial: Number
    state: Fate
    detail: str


@dataclass(frozen=True, kw_only=True)
class Preview(Message):
    """What an image will look like, after `step` of `n_steps`: an encoded image.

    To the stamps of the answer, `taken` is added, when the painter began with the embedding, and
    `previewed`, when this preview was made.
    """

    about: TrialRef
    answer: AnswerRef
    step: int
    n_steps: int
    image_format: Literal["jpeg", "webp"]
    image: bytes = field(repr=False)
    stamps: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Painted(Message):
    """The image that was painted for a trial, encoded, as it is on its way into `file`.

    `file` is a PNG below the session folder. `strength` is how much of what the image was begun
    from was replaced (1: it was begun from noise). To the stamps of the answer, `taken`,
    `first_preview` (where there was one) and `painted` are added.
    """

    about: TrialRef
    answer: AnswerRef
    seed: int
    ip_scale: float
    steps: int
    size_px: int
    strength: float
    file: Annotated[str, Field(pattern=r"^images/[\w.-]+\.png$")]
    image_format: Literal["jpeg", "webp"]
    image: bytes = field(repr=False)
    stamps: Stamps


@dataclass(frozen=True, kw_only=True)
class Settled(Message):
    """The results node entered a trial's outcome into the ledger, with the sums so far."""

    trial: Number
    outcome: Outcome
    reason: str
    markers: int
    pending: int


@dataclass(frozen=True, kw_only=True)
class NodeState(Message):
    """A node says that it is alive, and which process of its name it is.

    The reader has announced all markers that came between `since_s` and `until_s`, on its clock, to
    the process `to`; its trials are numbered from `first` on.
    """

    node: str
    incarnation: str
    since_s: float = 0.0
    until_s: float = 0.0
    to: str = ""
    first: Number = 1


@dataclass(frozen=True, kw_only=True)
class Noted(Message):
    """A node says something that a person should know, and facts for the summary."""

    node: str
    text: str
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class StreamHealth(Message):
    """How a stream is; see `Health` and `Flow` in `acquire.watch`. Markers have no rate."""

    stream: str
    kind: StreamKind = "eeg"
    state: str
    rate_hz: float | None
    drift_ppm: float | None
    gaps: int
    age_s: float
    flat: list[str]
    clipped: list[str]
    offset_s: float
    offset_uncertainty_s: float


@dataclass(frozen=True, kw_only=True)
class Recorded(Message):
    """What the reader took from a stream, for the recorder, as it was sent.

    `raw_s` holds the raw stamps (float64, n), `array` the samples (n, channels); those of a text
    stream travel as `texts`, with an empty array. `offset_s` is the clock offset in force from
    these samples on. `first` is the number of the first one of those that its reader has taken.
    Every message has the XML in which each stream describes itself, so that a recorder can begin
    with any.
    """

    headers: dict[StreamKind, str] = field(repr=False)
    stream: StreamKind
    raw_s: bytes
    texts: list[list[str]]
    offset_s: float
    first: Number
    array: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        if self.stream not in self.headers:
            raise ValueError(f"no header of '{self.stream}'")
        _check_samples(self)


@dataclass(frozen=True, kw_only=True)
class End(Message):
    """The reader announces no more markers and has no more outcomes to report.

    `facts` go into the summary: what only the reader knows.
    """

    reason: str
    facts: ReaderFacts


@dataclass(frozen=True, kw_only=True)
class SessionClosed(Message):
    """The ledger is closed and the summary written."""

    summary: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Eeg(Message):
    """The EEG at 100 Hz or less, for those who watch: samples (n, channels) and their stamps.

    A low pass was there before samples were left out. `markers` came meanwhile, at `markers_s`, and
    are as they were sent.
    """

    channels: list[str]
    rate_hz: float
    stamps_s: list[float]
    markers: list[str]
    markers_s: list[float]
    array: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ChannelQuality(Message):
    """How each channel was in the second until `until_s`; see `acquire.watch.signals.Quality`."""

    channels: list[str]
    until_s: float
    rms_uv: list[float]
    peak_to_peak_uv: list[float]
    line_uv: list[float]
    line_hz: float
    flat: list[bool]
    clipped: list[bool]


@dataclass(frozen=True, kw_only=True)
class SessionState(Message):
    """Where the session is on its way; see `stream.pipeline.states.State`."""

    state: str


@dataclass(frozen=True, kw_only=True)
class Controlled(Message):
    """Somebody asked the session for something at `stamp_s`, and this came of it."""

    verb: str
    argument: str
    by: str
    outcome: Literal["done", "refused"]
    text: str
    stamp_s: float
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Snapshot(Message):
    """How the session stands at this place among the messages; those that follow go on from here.

    `outcomes` and `reasons` count, `trials` are the last outcomes in the ledger, and `last` holds
    the frames of the last message of each kind, of each node, stream or late trial, in order.
    """

    config: Mapping[str, Any]
    markers: int
    pending: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    trials: list[Mapping[str, Any]]
    last: list[bytes] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Overheard(Message):
    """Markers that the results node has heard itself, for a reader that may not have heard them.

    They could be read at `readable_s`; the other fields are those of `Recorded`.
    """

    raw_s: bytes
    texts: list[list[str]]
    offset_s: Finite
    readable_s: Finite
    array: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        _check_samples(self)


def _check_samples(told: Recorded | Overheard) -> None:
    n = len(told.raw_s) // 8
    if not n or n * 8 != len(told.raw_s):
        raise ValueError(f"{len(told.raw_s)} bytes of stamps")
    if len(told.texts or told.array) != n or (told.texts and told.array.size):
        raise ValueError(f"{len(told.texts)} texts and {len(told.array)} samples, expected {n}")


NESTED: Mapping[str, type] = {"about": TrialRef, "answer": AnswerRef}
