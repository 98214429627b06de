"""The live decoder: slices of trials in, ranked answers out.

It knows neither where slices come from nor where answers go; a session, its offline re-decoding and
a benchmark drive this same class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from decoder.answer import Answer, Ranker
from decoder.anytime import Anytime, Shares
from decoder.bundle import BundleManifest
from decoder.calibration import Evidence
from decoder.evidence import MAX_BYTES, Repeats, evidence_of
from hvf_core.problem import Problem

_WARM_UPS = 20

Engine = Callable[[np.ndarray], tuple[np.ndarray, ...]]
"""From `Shares.rest_shape` to a unit-length embedding and, perhaps, its cosines with all images."""


@dataclass(frozen=True)
class Slice:
    """A slice of a trial's preprocessed EEG; those of a trial come in order."""

    trial: int
    group: str
    """Whose repeat the trial is."""
    shown: str | None
    """The image's id, where it is known; it changes no answer."""
    first: int
    """Place of the first new sample in the window."""
    final: bool
    """The trial's last one."""
    array: np.ndarray = field(repr=False)
    """float32 (channels, times)."""
    corrects: int = 0
    """Samples before `first` that the array begins with, as what is to be added to them."""


class LiveDecoder:
    """What is known of the trials that are going on, and the evidence that repeats have left.

    Args:
        manifest: of the bundle.
        shares: how the bundle's encoder adds trials up; answers are given at its marks.
        ranker: of the gallery.
        engine: runs what is left of the encoder.
        evidence: how repeats are put together.
        top_k: how many images an answer names.
        min_confidence: the probability below which an answer abstains.
        clock: what stamps answers, in seconds.
        say: hears what a person should know.
        max_bytes: for what is kept of repeats.

    Raises:
        Problem: evidence is to be added, and the bundle has no calibration.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        shares: Shares,
        ranker: Ranker,
        engine: Engine,
        *,
        evidence: Evidence = "mean",
        top_k: int = 5,
        min_confidence: float = 0.0,
        clock: Callable[[], float],
        say: Callable[[str], None],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.ranker, self.engine = ranker, engine
        self.top_k, self.min_confidence = top_k, min_confidence
        """All four may be set anew, and hold from the next answer on."""
        self.manifest, self.shares, self._clock = manifest, shares, clock
        self._n_times = shares.marks[-1]
        self._anytime = Anytime(shares)
        self._evidence = evidence_of(manifest, evidence, shares.shape, say, max_bytes)

    @property
    def repeats(self) -> Repeats:
        """What the finished repeats have left."""
        return self._evidence.repeats

    def warm_up(self) -> None:
        """Answers some times for nobody, as the first answers would else be late."""
        whole = np.ones((self.shares.n_channels, self._n_times), np.float32)
        for _ in range(_WARM_UPS):
            self._anytime.add(0, 0, whole)
            self._answer(Slice(0, "", None, 0, True, whole), self._n_times)
        self.forget(0)

    def rehearse(self, part: Slice) -> Answer:
        """Answers a trial's last slice for nobody, and leaves all as it was.

        On a core that has slept everything takes 5 to 20 times as long, and the first answer after
        a rest waits for that; after a rehearsal one or two milliseconds before it, less.

        Args:
            part: as the last slice will be, of a trial that is not going on.
        """
        self._anytime.begin(part.trial, part.first)
        try:
            self._anytime.add(part.trial, part.first, part.array, part.final, part.corrects)
            return self._answer(part, self._n_times)
        finally:
            self.forget(part.trial)

    def take(self, part: Slice) -> list[Answer]:
        """Adds a slice, and answers at every time that it reaches and that was asked for.

        A slice that follows nothing is passed over: whoever sends trials sends them whole again as
        soon as he knows this decoder.

        Raises:
            Problem: the slice does not fit the bundle, or holds values that are not finite. The
                trial is forgotten.
        """
        if not self._anytime.follows(part.trial, part.first):
            return []
        try:
            return self._taken(part)
        except Problem:
            self.forget(part.trial)
            raise

    def forget(self, trial: int) -> None:
        """Takes back a trial that will not become whole, where it is going on."""
        self._anytime.forget(trial)

    def reset_group(self, group: str) -> None:
        """Begins a group anew: its next repeat is the first one."""
        self.repeats.forget(group)

    def _taken(self, part: Slice) -> list[Answer]:
        marks = self._anytime.add(part.trial, part.first, part.array, part.final, part.corrects)
        answers = [self._answer(part, mark) for mark in marks]
        n_left = self._n_times - part.first - part.array.shape[1] + part.corrects
        if n_left == 0:
            shown = self._anytime.shown(part.trial)
            self._evidence.finish(part.trial, part.group, shown, answers[-1].embedding)
            self.forget(part.trial)
        return answers

    def _answer(self, part: Slice, mark: int) -> Answer:
        tmax_s = self.manifest.tmin_s + (mark - 1) / self.manifest.rate_hz
        shown, n_parts = self._anytime.shown(part.trial), self.shares.n_parts(mark)
        known = self._evidence.known(part.trial, part.group, shown, n_parts)
        z, *cosines = self.engine(self.shares.rest_input(known))
        embedded_s = self._clock()
        query = self._evidence.query(part.trial, part.group, z, tmax_s)
        ranked = self.ranker.rank(query, self.top_k, part.shown, *cosines)
        return Answer(
            tmax_s=tmax_s,
            provisional=mark != self._n_times,
            ranked=ranked,
            abstain=math.exp(ranked.log_p[0]) < self.min_confidence,
            embedding=np.array(z),  # the engine may write its next answer where this one is
            embedded_s=embedded_s,
            searched_s=self._clock(),
        )
