"""The result of an evaluation: accuracy and calibration, as they are written as JSON."""

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from offline_train.evaluate.corrections import Correction
from offline_train.evaluate.metrics import Estimate, ReliabilityBin
from offline_train.evaluate.seen import Seen, told
from offline_train.evaluate.settings import Averaging

Rate = Annotated[float, Field(ge=0, le=1)]
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Confidences below which a selective decoder gives no answer."""
INDUCTIVE = "inductive: each query is decoded on its own"
EVIDENCE: dict[Averaging, str] = {
    "mean": "averaged EEG",
    "added": "added log-likelihoods",
    "predictions": "averaged predictions",
}


def method_of(evidence: Averaging, corrections: Sequence[Correction] = ()) -> str:
    """A way of decoding, such as `averaged EEG, inductive`."""
    protocol = f"TRANSDUCTIVE ({' + '.join(corrections)})" if corrections else "inductive"
    return f"{EVIDENCE[evidence]}, {protocol}"


class Selective(Frozen):
    """What is left when answers below a confidence are withheld."""

    threshold: float
    coverage: float
    """Share of answers that are given."""
    accuracy: float | None
    """Top-1 of those; None where none is given."""


class Noise(Frozen):
    """The ECE that perfectly calibrated answers would show by chance, between two extremes."""

    independent: float
    """When all answers are independent."""
    shared: float
    """When all answers for a stimulus share their luck."""


class Reliability(Frozen):
    """How far confidence and accuracy agree."""

    n: int
    """Answers."""
    ece: Estimate
    noise: Noise
    bins: tuple[ReliabilityBin, ...]
    """Those that are not empty, of 15 of equal width (Guo et al., ICML 2017)."""


class Among(Frozen):
    """What is expected among k images, the right one and k - 1 drawn others: exact, not drawn."""

    k: int
    top1: Estimate
    top5: Estimate
    mrr: Estimate


class EvaluationPoint(Frozen):
    """The answers at one end of the window, with this many repeats of a stimulus."""

    tmax_s: float
    repeats: int
    draws: int
    """How often the repeats were drawn."""
    top1: Estimate
    top5: Estimate
    mrr: Estimate
    """Mean reciprocal rank among the whole gallery."""
    among: tuple[Among, ...]
    """Of smaller galleries, as papers report."""
    nll: float
    """Mean negative natural logarithm of the right image's probability."""
    ece: Estimate
    noise: Noise
    selective: tuple[Selective, ...]
    hit_rates: tuple[Rate, ...]
    """Share of draws in which each stimulus came first; differences of two models are paired."""
    top5_rates: tuple[Rate, ...]
    """Share of draws in which each stimulus was among the first five."""
    reciprocal_ranks: tuple[Rate, ...]
    """Of each stimulus, the mean over draws."""


class Origin(Frozen):
    """What was evaluated, and on what."""

    bundle_sha256: str
    """Of bundle.json, which has the checksums of all else."""
    gallery_sha256: str
    """Of gallery.json; empty for one in memory."""
    images_sha256: str
    """Of the sorted ids of the gallery's images."""
    space: str
    trials_sha256: str
    selection_sha256: str
    """Of the numbers of the trials in the set that were taken."""
    study: str
    """The data set; empty where the trial set does not say."""
    brain_encoder: str
    image_encoders: tuple[str, ...]
    checkpoint_rule: str
    """Which state of its training the bundle is; `not said` by bundles of before."""
    training_seed: int | None


class Evaluation(Frozen):
    """Of one subject, by right on stimuli that are held out from training."""

    subject: str = ""
    """Empty where it is not known."""
    n_items: int
    """Stimuli decoded."""
    n_way: int
    """Images in the gallery."""
    chance_top1: float
    chance_top5: float
    points: tuple[EvaluationPoint, ...]
    pooled: Reliability
    """Over the answers of all points; its ECE is the headline."""
    final: Reliability | None
    """Over those at the end of the whole window, if there are such points."""
    evidence: Averaging
    corrections: tuple[Correction, ...] = ()
    """Of a transductive result."""
    calibrated: bool
    """Whether its probabilities are; without a calibration the temperature is 1."""
    calibration: str
    """What is to be said of that."""
    simulated: bool
    """Whether the trials are of a simulated subject."""
    tmax_s: float
    """End of the whole window."""
    protocol: str
    interval: str = "95 %, bootstrap over stimuli; Wilson's where all are alike"
    seed: int
    """Of the draws of repeats, and of the bootstrap."""
    stimuli: tuple[str, ...]
    """In the order of each point's `hit_rates`."""
    origin: Origin
    seen: Seen | None = None
    """How much of this the bundle was trained on; None where it does not say."""

    @model_validator(mode="after")
    def _knows_each_stimulus(self) -> Self:
        for point in self.points:
            for rates in (point.hit_rates, point.top5_rates, point.reciprocal_ranks):
                if len(rates) != len(self.stimuli):
                    raise ValueError(f"{len(self.stimuli)} stimuli have {len(rates)} rates")
        return self

    @property
    def items(self) -> str:
        """What titles say of what was decoded, such as `200 held-out stimuli (simulated)`."""
        subject = f" of {self.subject}" * bool(self.subject)
        return told(self.seen, self.n_items) + subject + " (simulated)" * self.simulated

    @property
    def method(self) -> str:
        """How it was decoded."""
        return method_of(self.evidence, self.corrections)

    @property
    def last(self) -> tuple[EvaluationPoint, ...]:
        """The points at the last end of the window."""
        return tuple(p for p in self.points if p.tmax_s == self.points[-1].tmax_s)


class Spread(Frozen):
    """The mean over subjects, and the standard deviation of one (n - 1)."""

    mean: float
    sd: float


class SubjectsPoint(Frozen):
    """What papers report: over subjects, at one end of the window, with this many repeats."""

    tmax_s: float
    repeats: int
    top1: Spread
    top5: Spread
    mrr: Spread


class OverSubjects(Frozen):
    """Of several subjects, decoded in one way."""

    method: str
    subjects: tuple[str, ...]
    points: tuple[SubjectsPoint, ...]


class Difference(Frozen):
    """How much better this result is than another one, on the same images."""

    tmax_s: float
    repeats: int
    metric: str
    ours: float
    theirs: float
    difference: Estimate
    """Paired: the bootstrap draws images, each with both results of all subjects."""
    better: int
    """Images on which ours is better."""
    worse: int
    p: float
    """Exact two-sided sign test over these: McNemar's where each image is answered once."""


class Comparison(Frozen):
    """With another result, paired by image and subject."""

    other: str
    ours: str
    """How it was decoded."""
    theirs: str
    n_images: int
    n_subjects: int
    same_bundles: bool = False
    """Whether what is compared was decoded by the same models."""
    differences: tuple[Difference, ...]


class Results(Frozen):
    """All that one command evaluated: `evaluation.json`."""

    evaluations: tuple[Evaluation, ...] = Field(min_length=1)
    over_subjects: tuple[OverSubjects, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    made: dict[str, JsonValue] = Field(default_factory=dict)
    """The command, and the versions that it ran with."""

    @property
    def by_method(self) -> dict[str, list[Evaluation]]:
        """The subjects of each way of decoding."""
        found: dict[str, list[Evaluation]] = {}
        for one in self.evaluations:
            found.setdefault(one.method, []).append(one)
        return found


def refuse_twice(subjects: Sequence[str]) -> None:
    """Refuses a subject whose trials come twice, as it would count as two."""
    if len({*subjects}) < len(subjects):
        raise Problem(
            f"trials of one subject come twice ({', '.join(subjects)}): put the recordings of a "
            "subject into one trial set"
        )


def over_subjects(method: str, evaluations: Sequence[Evaluation]) -> OverSubjects:
    """Sums up at least two subjects, who were decoded in one way.

    Raises:
        Problem: one was decoded at other window ends, or from other numbers of repeats.
    """
    asked = [[(p.tmax_s, p.repeats) for p in one.points] for one in evaluations]
    for one, points_of_one in zip(evaluations, asked, strict=True):
        if points_of_one != asked[0]:
            raise Problem(
                f"subject {one.subject!r} is not decoded at the window ends and from the repeats "
                f"of {evaluations[0].subject!r}, and cannot be summed up with it: evaluate it alone"
            )
    subjects = tuple(one.subject for one in evaluations)
    refuse_twice(subjects)
    points = []
    for of_all in zip(*(one.points for one in evaluations), strict=True):
        spreads = {}
        for name in ("top1", "top5", "mrr"):
            values = [getattr(point, name).value for point in of_all]
            spreads[name] = Spread(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)))
        first = of_all[0]
        points.append(SubjectsPoint(tmax_s=first.tmax_s, repeats=first.repeats, **spreads))
    return OverSubjects(method=method, subjects=subjects, points=tuple(points))
