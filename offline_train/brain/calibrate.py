"""Fits the temperatures that make a bundle's probabilities mean what they say."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import MANIFEST, Bundle, BundleManifest, load_bundle
from decoder.calibration import Calibration
from decoder.evidence import Weights
from hvf_core.artifact import write_manifest
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

STEP_S = 0.1
"""Between the ends of the window that are fitted by default."""
DRAWS = 4
"""Of the repeats of each stimulus."""
FEW = 50
"""Stimuli on which a calibration is hardly one; a hundred are better."""
MAX_ITEMS = 500
"""Stimuli that are fitted on; of more, these many are drawn, so that all scores fit in memory."""
LOG_TEMPERATURES = (math.log(1e-2), math.log(1e4))
"""Bounds of the search; at the upper one probabilities are as good as equal."""


def fit_calibration(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    tmax_s: Sequence[float] | None = None,
    repeats: Sequence[int] | None = None,
    seed: int = 0,
) -> Calibration:
    """Fits temperatures on held-out stimuli by their likelihood (Guo et al., ICML 2017).

    Each stimulus is looked up among all of them, at every end of the window and number of repeats,
    with the repeats drawn and ordered at random several times.

    Args:
        trial_set: trials of stimuli that it was not trained on; `check_seen` says so.
        gallery: has the embeddings of these stimuli; its other images are not used.
        tmax_s: ends of the window; by default every 0.1 s, and the bundle's.
        repeats: by default 1, 2, 4, 8, ... as far as every stimulus has them; 1 is always there.

    Raises:
        Problem: when there are fewer than 2 stimuli, one has no embedding or too few repeats, or
            trials, gallery and bundle do not belong together.
    """
    check_trials(bundle, trial_set)
    check_space(gallery, bundle.manifest)
    if len(trial_set.items) < 2:
        raise Problem(
            f"a calibration tells stimuli apart, the trial set has {len(trial_set.items)}: "
            "hold out at least two, better a hundred"
        )
    rng = np.random.default_rng(seed)
    if len(trial_set.items) > MAX_ITEMS:
        trial_set = trial_set.select(rng.permutation(trial_set.items)[:MAX_ITEMS].tolist())
    embeddings = gallery.embeddings[rows_of(gallery, trial_set.items)]
    ends = window_ends(bundle.manifest, tmax_s or _default_tmax_s(bundle.manifest))
    numbers = _default_repeats(trial_set) if repeats is None else sorted({1, *repeats})

    brain = load_brain_encoder(bundle)
    scale, end_s = bundle.manifest.logit_scale, bundle.manifest.tmax_s
    answerer = Answerer(brain, embeddings, Weights("mean", scale, None), end_s)
    mean = [_fit_ends(answerer, trial_set, n, ends, rng) for n in numbers]
    calibration = Calibration(
        tmax_s=tuple(end.tmax_s for end in ends),
        repeats=tuple(numbers),
        mean=tuple(zip(*mean, strict=True)),
        added=((1.0,) * len(numbers),) * len(ends),
        n_items=len(trial_set.items),
    )
    # Repeats that are added are weighed by what was fitted for one of them.
    answerer = Answerer(brain, embeddings, Weights("added", scale, calibration), end_s)
    added = [
        (1.0,) * len(ends) if n == 1 else _fit_ends(answerer, trial_set, n, ends, rng)
        for n in numbers
    ]
    return calibration.model_copy(update={"added": tuple(zip(*added, strict=True))})


def fit_temperature(scores: np.ndarray, right: np.ndarray) -> float:
    """The temperature T at which softmax(scores / T) is likeliest to give the right answers.

    Args:
        scores: float32 or float64 (n, n_gallery).
        right: which one is right, (n,).
    """
    # As differences from the highest one, no exponential can overflow at any temperature.
    below = scores - scores.max(axis=1, keepdims=True)
    below_right = below[np.arange(len(right)), right].mean(dtype=np.float64)

    def negative_log_likelihood(log_temperature: float) -> float:
        factor = math.exp(-log_temperature)
        totals = np.exp(below * below.dtype.type(factor)).sum(axis=1, dtype=np.float64)
        return float(np.log(totals).mean() - factor * below_right)

    # The likelihood is log-concave in 1/T, hence it has a single peak.
    found = minimize_scalar(
        negative_log_likelihood,
        bounds=LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-4},
    )
    return math.exp(found.x)


def save_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """Writes a calibration into the manifest of a bundle, whose other files are not touched.

    Returns:
        The bundle as loaded again from its directory.

    Raises:
        Problem: when the bundle on disk is damaged, or no longer the one that was loaded.
    """
    path = bundle.directory / MANIFEST
    if load_bundle(bundle.directory).manifest != bundle.manifest:
        raise Problem(
            f"{path} has changed since it was loaded: calibrate the bundle that is there now"
        )
    write_manifest(path, bundle.manifest.model_copy(update={"calibration": calibration}))
    return load_bundle(bundle.directory)


def doubt(calibration: Calibration) -> str:
    """What is to be said beside the number of its stimuli, where they are few."""
    few = " (too few: probabilities that rest on them are a guess)"
    return few if calibration.n_items < FEW else ""


def _fit_ends(
    answerer: Answerer,
    trial_set: TrialSet,
    n_repeats: int,
    ends: Sequence[WindowEnd],
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """One temperature for each end."""
    n_items = len(trial_set.items)
    scores = {end: np.empty((DRAWS, n_items, n_items), np.float32) for end in ends}
    for draw in range(DRAWS):
        groups = draw_in_order(trial_set, n_repeats, rng)
        for end, rows, found in answerer.log_likelihoods(trial_set, groups, ends):
            scores[end][draw, rows] = found - found.max(axis=1, keepdims=True)
    right = np.tile(np.arange(n_items), DRAWS)
    return tuple(fit_temperature(scores[end].reshape(-1, n_items), right) for end in ends)


def _default_tmax_s(manifest: BundleManifest) -> list[float]:
    n_steps = math.ceil((manifest.tmax_s - manifest.tmin_s) / STEP_S - 1e-6)
    steps = [round(manifest.tmin_s + STEP_S * step, 6) for step in range(1, n_steps)]
    return [*steps, manifest.tmax_s]


def _default_repeats(trial_set: TrialSet) -> list[int]:
    most = min(len(trials) for trials in trial_set.repeats.values())
    return [2**power for power in range(most.bit_length())]
