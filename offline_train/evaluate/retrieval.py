"""How often a bundle finds the image that was seen, and how well it knows when it did.

By the end of the window and the number of repeats, on stimuli that are held out from training.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import MANIFEST, Bundle
from decoder.calibration import CALIBRATE, Evidence, log_softmax
from decoder.evidence import Weights
from hvf_core.artifact import file_sha256
from index.gallery import MANIFEST as GALLERY_MANIFEST
from index.gallery import Gallery, check_space
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import (
    Answerer,
    WindowEnd,
    check_repeats,
    check_trials,
    draw_in_order,
    rows_of,
    window_ends,
)
from offline_train.evaluate.compare import Question
from offline_train.evaluate.corrections import SAID, Correction, corrected
from offline_train.evaluate.metrics import (
    Estimate,
    among,
    ece_interval,
    ece_of_noise,
    estimated_rate,
    estimated_rates,
    expected_calibration_error,
    reliability_bins,
)
from offline_train.evaluate.result import (
    INDUCTIVE,
    THRESHOLDS,
    Among,
    Evaluation,
    EvaluationPoint,
    Noise,
    Origin,
    Reliability,
    Selective,
    method_of,
)
from offline_train.evaluate.seen import GIVE_OTHERS, check_seen
from offline_train.evaluate.settings import Averaging, EvaluateSettings


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


def subjects_of(trial_set: TrialSet, otherwise: str = "") -> dict[str, TrialSet]:
    """The trials of each subject by its name; `otherwise` where the set does not say whose."""
    subjects = trial_set.table.get("subject")
    present = sorted(subjects.present) if subjects is not None else []
    if len(present) < 2:
        return {present[0] if present else otherwise: trial_set}
    return {name: trial_set.select([name], "subject") for name in present}


def evaluate(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    repeats: Sequence[int],
    draws: int = 10,
    seed: int = 0,
    *,
    tmax_s: Sequence[float] | None = None,
    evidence: Averaging = "mean",
    ways: Sequence[int] = (),
    corrections: Sequence[Correction] = (),
    seen: bool = False,
    subject: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
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
        evidence: `mean` averages the EEG of repeats, `added` adds their log-probabilities,
            `predictions` averages their embeddings, as they are.
        ways: sizes of smaller galleries; those that are not smaller are passed over.
        corrections: makes the result transductive, and not one that a live session could have.
        seen: take trials that the bundle was trained on; the result says so wherever it is shown.
        subject: whose trials they are, where that is known.
        progress: told how many of the numbers of repeats are done.

    Raises:
        Problem: when gallery, trials and bundle do not belong together, a stimulus is not in the
            gallery or has too few repeats, a tmax lies outside the window, evidence is to be added
            and the bundle is not calibrated, or it was trained on some of the trials.
    """
    corrections = [one for one in SAID if one in corrections]  # in one order, each once
    check_space(gallery, bundle.manifest)
    check_trials(bundle, trial_set)
    repeats = tuple(dict.fromkeys(repeats))
    check_repeats(trial_set, repeats)
    manifest = bundle.manifest
    averages = evidence == "predictions"
    live: Evidence = "mean" if evidence == "predictions" else evidence
    weights = Weights(live, manifest.logit_scale, None if averages else manifest.calibration)
    weights.temperature(manifest.tmax_s, 1)
    ends = window_ends(manifest, tmax_s)
    of_training = check_seen(bundle, trial_set, seen, GIVE_OTHERS)
    right = gallery.rows.searchsorted(rows_of(gallery, trial_set.items))
    brain = load_brain_encoder(bundle)
    answerer = Answerer(brain, gallery.counted, weights, manifest.tmax_s, averages)
    rng = np.random.default_rng(seed)
    answers: dict[tuple[WindowEnd, int], _Answers] = {}
    for done, n_repeats in enumerate(repeats, 1):
        found = _answer(answerer, trial_set, right, n_repeats, ends, draws, rng, corrections)
        answers |= {(end, n_repeats): found[end] for end in ends}
        progress(done, len(repeats))
    points = [(end, n, answers[end, n]) for end in ends for n in repeats]
    final = [a for end, _, a in points if end.n_times == manifest.n_times]
    sizes = [k for k in sorted({*ways}) if k < len(gallery)]
    calibration = _calibration(bundle, averages, corrections)
    return Evaluation(
        subject=subject,
        n_items=len(right),
        n_way=len(gallery),
        chance_top1=1 / len(gallery),
        chance_top5=min(5, len(gallery)) / len(gallery),
        points=tuple(_point(end, n, a, rng, len(gallery), sizes, seed) for end, n, a in points),
        pooled=_reliability([a for _, _, a in points], rng),
        final=_reliability(final, rng) if final else None,
        evidence=evidence,
        corrections=tuple(corrections),
        calibrated=calibration == "calibrated",
        calibration=calibration,
        simulated=trial_set.format.provenance.get("subject") == "simulated",
        tmax_s=manifest.tmax_s,
        protocol=_protocol(corrections),
        seed=seed,
        stimuli=trial_set.items,
        origin=_origin(bundle, trial_set, gallery),
        seen=of_training,
    )


def evaluate_ways(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    settings: EvaluateSettings,
    subject: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Evaluation]:
    """`evaluate`, once for each way that settings ask for, and to the whole window's end.

    All ways see the same draws of repeats.
    """
    ways, found = _ways(settings), list[Evaluation]()

    def tell(done: int, total: int) -> None:
        progress(len(found) * total + done, len(ways) * total)

    for evidence, corrections in ways:
        found.append(
            evaluate(
                bundle,
                trial_set,
                gallery,
                settings.repeats,
                seed=settings.seed,
                tmax_s=[*settings.tmax_s, bundle.manifest.tmax_s],
                evidence=evidence,
                ways=settings.ways,
                corrections=corrections,
                seen=settings.seen,
                subject=subject,
                progress=tell,
            )
        )
    return found


def questions_of(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    settings: EvaluateSettings,
    subject: str = "",
) -> list[Question]:
    """What `evaluate_ways` is to answer, before it does."""
    manifest, stimuli = bundle.manifest, frozenset(trial_set.items)
    ends = window_ends(manifest, [*settings.tmax_s, manifest.tmax_s])
    points = frozenset((end.tmax_s, n) for end in ends for n in settings.repeats)
    images = _images_sha256(gallery)
    return [Question(method_of(*way), subject, stimuli, images, points) for way in _ways(settings)]


def _ways(settings: EvaluateSettings) -> list[tuple[Averaging, tuple[Correction, ...]]]:
    """Evidence and corrections of each way of decoding."""
    protocols: list[tuple[Correction, ...]] = [()]
    if settings.transductive:
        protocols.append(tuple(one for one in SAID if one in settings.transductive))
    return [(one, some) for one in dict.fromkeys(settings.evidence) for some in protocols]


def _protocol(corrections: Sequence[Correction]) -> str:
    if not corrections:
        return INDUCTIVE
    said = ", ".join(SAID[one] for one in corrections)
    return f"TRANSDUCTIVE: all queries of a subject help each; {said}"


def _calibration(bundle: Bundle, averages: bool, corrections: Sequence[Correction]) -> str:
    if bundle.manifest.calibration is None:
        return f"NOT calibrated (temperature 1): {CALIBRATE}"
    if corrections:
        return "NOT calibrated: the bundle's temperatures are those of inductive answers"
    if averages:
        return "NOT calibrated (temperature 1): the bundle's temperatures are of averaged EEG"
    return "calibrated"


def _origin(bundle: Bundle, trial_set: TrialSet, gallery: Gallery) -> Origin:
    manifest, folder = bundle.manifest, gallery.folder
    training = manifest.training
    settings = training.get("settings")
    seed = settings.get("seed") if isinstance(settings, dict) else None
    return Origin(
        bundle_sha256=file_sha256(bundle.directory / MANIFEST),
        gallery_sha256="" if folder is None else file_sha256(folder / GALLERY_MANIFEST),
        images_sha256=_images_sha256(gallery),
        space=gallery.space,
        trials_sha256=trial_set.checksum,
        selection_sha256=hashlib.sha256(trial_set.rows.tobytes()).hexdigest(),
        study=str(trial_set.format.provenance.get("study", "")),
        brain_encoder=manifest.brain_encoder.name,
        image_encoders=tuple(one.name for one in manifest.image_encoders),
        checkpoint_rule=str(training.get("checkpoint_rule", "not said")),
        training_seed=seed if isinstance(seed, int) else None,
    )


def _images_sha256(gallery: Gallery) -> str:
    ids = sorted(gallery.ids[row] for row in gallery.rows.tolist())
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _answer(
    answerer: Answerer,
    trial_set: TrialSet,
    right: np.ndarray,
    n_repeats: int,
    ends: Sequence[WindowEnd],
    draws: int,
    rng: np.random.Generator,
    corrections: Sequence[Correction],
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
        scored = answerer.log_likelihoods(trial_set, groups, wanted)
        if corrections:
            scored = _together(answerer, trial_set, groups, wanted, corrections)
        for end, rows, found in scored:
            temperature = answerer.weights.temperature(end.tmax_s, n_repeats)
            blocks[end].append(_look_up(log_softmax(found, 1 / temperature), right[rows]))
    return {end: _join(of_end, len(right)) for end, of_end in blocks.items()}


def _together(
    answerer: Answerer,
    trial_set: TrialSet,
    groups: Sequence[np.ndarray],
    ends: Sequence[WindowEnd],
    corrections: Sequence[Correction],
) -> Iterator[tuple[WindowEnd, slice, np.ndarray]]:
    """As `Answerer.log_likelihoods`, of all groups at once, which correct each other's scores."""
    queries: dict[WindowEnd, list[np.ndarray]] = {end: [] for end in ends}
    for end, _, z in answerer.queries(trial_set, groups, ends):
        queries[end].append(z)
    for end, parts in queries.items():
        scores = corrected(np.concatenate(parts), answerer.gallery, corrections)
        yield end, slice(0, len(groups)), scores


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
    end: WindowEnd,
    n_repeats: int,
    answers: _Answers,
    rng: np.random.Generator,
    n_way: int,
    sizes: Sequence[int],
    seed: int,
) -> EvaluationPoint:
    reliability = _reliability([answers], rng)
    rank = answers.rank
    hits, fives, reciprocal = (
        found.mean(axis=0) for found in (answers.hit, rank < 5, 1 / (1.0 + rank))
    )
    expected = [among(rank, n_way, k).mean(axis=0) for k in sizes]
    columns = np.concatenate([reciprocal[:, None], *expected], axis=1)
    mrr, *of_sizes = estimated_rates(columns, np.random.default_rng(seed))
    return EvaluationPoint(
        tmax_s=end.tmax_s,
        repeats=n_repeats,
        draws=len(rank),
        top1=estimated_rate(hits, rng),
        top5=estimated_rate(fives, rng),
        mrr=mrr,
        among=tuple(
            Among(k=k, top1=of_sizes[3 * i], top5=of_sizes[3 * i + 1], mrr=of_sizes[3 * i + 2])
            for i, k in enumerate(sizes)
        ),
        nll=-float(answers.log_p.mean()),
        ece=reliability.ece,
        noise=reliability.noise,
        selective=tuple(_withhold(answers, threshold) for threshold in THRESHOLDS),
        hit_rates=tuple(hits.tolist()),
        top5_rates=tuple(fives.tolist()),
        reciprocal_ranks=tuple(reciprocal.tolist()),
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
