"""How often a bundle finds the image that was seen, and how well it knows when it did.

By the end of the window and the number of repeats, on stimuli that are held out from training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.calibration import Evidence, log_softmax
from decoder.evidence import Weights
from hvf_core.problem import Problem
from index.gallery import Gallery, check_space
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import (
    Answerer,
    WindowEnd,
    check_trials,
    draw_in_order,
    rows_of,
    window_ends,
)
from offline_train.evaluate.metrics import (
    Estimate,
    ece_interval,
    ece_of_noise,
    estimated_mean,
    expected_calibration_error,
    reliability_bins,
)
from offline_train.evaluate.result import (
    THRESHOLDS,
    Evaluation,
    EvaluationPoint,
    Noise,
    Reliability,
    Selective,
)
from offline_train.evaluate.seen import GIVE_OTHERS, check_seen


class _Answers(NamedTuple):
    """The answers of a point, each (draws, stimuli)."""

    rank: np.ndarray
    """Of the right image, from 0."""
    confidence: np.ndarray
    log_p: np.ndarray
    """Of the right image."""

    @property
    def hit(self) -> np.ndarray:
        return self.rank == 0


def evaluate(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    repeats: Sequence[int],
    draws: int = 10,
    seed: int = 0,
    *,
    tmax_s: Sequence[float] | None = None,
    evidence: Evidence = "mean",
    seen: bool = False,
) -> Evaluation:
    """Measures accuracy and calibration, by the end of the window and the number of repeats.

    At an end of the window the last repeat is known up to there and all earlier ones are known
    whole, as in a live session. Confidence is the probability of the first answer; ECE is that of
    Guo et al., ICML 2017, with 15 bins of equal width.

    Args:
        trial_set: trials that it has not seen, preprocessed as the bundle says.
        repeats: numbers of repeats, drawn without replacement and in random order for each
            stimulus.
        draws: how often they are drawn; once where every draw gives the same answer.
        seed: of the draws, the bootstrap and the simulated noise.
        tmax_s: ends of the window; None is that of the bundle only, the final answer.
        evidence: `mean` averages the EEG of repeats, `added` adds their log-probabilities.
        seen: take trials that the bundle was trained on; the result says so wherever it is shown.

    Raises:
        Problem: when gallery, trials and bundle do not belong together, a stimulus is not in the
            gallery or has too few repeats, a tmax lies outside the window, evidence is to be added
            and the bundle is not calibrated, or it was trained on some of the trials.
    """
    check_space(gallery, bundle.manifest)
    check_trials(bundle, trial_set)
    of_training = check_seen(bundle, trial_set, seen, GIVE_OTHERS)
    if not repeats:
        raise Problem("no number of repeats is given: name at least one, such as 1")
    manifest = bundle.manifest
    weights = Weights(evidence, manifest.logit_scale, manifest.calibration)
    weights.temperature(manifest.tmax_s, 1)
    ends = window_ends(manifest, tmax_s)
    right = gallery.rows.searchsorted(rows_of(gallery, trial_set.items))
    brain = load_brain_encoder(bundle)
    answerer = Answerer(brain, gallery.counted, weights, manifest.tmax_s)
    rng = np.random.default_rng(seed)
    answers: dict[tuple[WindowEnd, int], _Answers] = {}
    for n_repeats in repeats:
        found = _answer(answerer, trial_set, right, n_repeats, ends, draws, rng)
        answers |= {(end, n_repeats): found[end] for end in ends}
    points = [(end, n, answers[end, n]) for end in ends for n in repeats]
    final = [a for end, _, a in points if end.n_times == manifest.n_times]
    return Evaluation(
        n_items=len(right),
        n_way=len(gallery),
        chance_top1=1 / len(gallery),
        chance_top5=min(5, len(gallery)) / len(gallery),
        points=tuple(_point(end, n, a, rng) for end, n, a in points),
        pooled=_reliability([a for _, _, a in points], rng),
        final=_reliability(final, rng) if final else None,
        evidence=evidence,
        calibrated=manifest.calibration is not None,
        simulated=trial_set.format.provenance.get("subject") == "simulated",
        tmax_s=manifest.tmax_s,
        seed=seed,
        space=gallery.space,
        trials_sha256=trial_set.checksum,
        seen=of_training,
    )


def _answer(
    answerer: Answerer,
    trial_set: TrialSet,
    right: np.ndarray,
    n_repeats: int,
    ends: Sequence[WindowEnd],
    draws: int,
    rng: np.random.Generator,
) -> dict[WindowEnd, _Answers]:
    takes_all = all(len(trials) == n_repeats for trials in trial_set.repeats.values())
    n_times = trial_set.format.n_times
    # With all repeats taken, draws differ only in which of them is the last, unfinished one.
    once = {end for end in ends if takes_all and (n_repeats == 1 or end.n_times == n_times)}
    blocks: dict[WindowEnd, list[_Answers]] = {end: [] for end in ends}
    for draw in range(draws):
        wanted = [end for end in ends if draw == 0 or end not in once]
        if not wanted:
            break
        groups = draw_in_order(trial_set, n_repeats, rng)
        for end, rows, found in answerer.log_likelihoods(trial_set, groups, wanted):
            temperature = answerer.weights.temperature(end.tmax_s, n_repeats)
            blocks[end].append(_look_up(log_softmax(found, 1 / temperature), right[rows]))
    return {end: _join(of_end, len(right)) for end, of_end in blocks.items()}


def _look_up(log_p: np.ndarray, right: np.ndarray) -> _Answers:
    """Ranks as `Search` does: of equally probable images the one in the higher row comes first."""
    of_right = log_p[np.arange(len(right)), right][:, None]
    later = np.arange(log_p.shape[1]) > right[:, None]
    ahead = (log_p > of_right) | ((log_p == of_right) & later)
    return _Answers(ahead.sum(axis=1), np.exp(log_p.max(axis=1)), of_right[:, 0])


def _join(blocks: Sequence[_Answers], n_stimuli: int) -> _Answers:
    parts = zip(*blocks, strict=True)
    return _Answers(*(np.concatenate(part).reshape(-1, n_stimuli) for part in parts))


def _point(
    end: WindowEnd, n_repeats: int, answers: _Answers, rng: np.random.Generator
) -> EvaluationPoint:
    reliability = _reliability([answers], rng)
    return EvaluationPoint(
        tmax_s=end.tmax_s,
        repeats=n_repeats,
        draws=len(answers.rank),
        top1=estimated_mean(answers.hit.mean(axis=0), rng),
        top5=estimated_mean((answers.rank < 5).mean(axis=0), rng),
        nll=-float(answers.log_p.mean()),
        ece=reliability.ece,
        noise=reliability.noise,
        selective=tuple(_withhold(answers, threshold) for threshold in THRESHOLDS),
        hit_rates=tuple(answers.hit.mean(axis=0).tolist()),
    )


def _reliability(points: Sequence[_Answers], rng: np.random.Generator) -> Reliability:
    confidence = np.concatenate([answers.confidence for answers in points])
    hit = np.concatenate([answers.hit for answers in points])
    low, high = ece_interval(confidence, hit, rng)
    independent, shared = ece_of_noise(confidence, rng)
    return Reliability(
        n=confidence.size,
        ece=Estimate(value=expected_calibration_error(confidence, hit), low=low, high=high),
        noise=Noise(independent=independent, shared=shared),
        bins=reliability_bins(confidence, hit),
    )


def _withhold(answers: _Answers, threshold: float) -> Selective:
    given = answers.confidence >= threshold
    accuracy = float(answers.hit[given].mean()) if given.any() else None
    return Selective(threshold=threshold, coverage=float(given.mean()), accuracy=accuracy)
