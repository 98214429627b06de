"""How well the demo's model decodes its subject: 200-way, by window end and number of repeats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from decoder.bundle import Bundle, load_bundle
from demo.head import CHANNELS
from demo.recordings import SIMULATED, responses, simulate_sessions, with_gains
from demo.settings import DemoSettings
from demo.stimuli import Stimulus, gallery_stimuli
from demo.subject import SubjectSettings
from index.gallery import load_gallery
from offline_train.data.prepare import prepare_test
from offline_train.data.settings import PrepareTestSettings
from offline_train.data.study import Facts, Study, StudyPart
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.result import Evaluation
from offline_train.evaluate.retrieval import evaluate
from offline_train.evaluate.settings import EvaluateSettings
from stream.acquire.preprocess import Preprocessing
from stream.acquire.settings import AdaptationSettings

REPEATS = (1, 2, 4, 10, 20)
_FIRST_SESSION = 1000  # numbers, which are seeds, that no training or calibration session has


def evaluate_demo(
    bundle_path: Path,
    gallery_path: Path,
    directory: Path,
    settings: EvaluateSettings,
    **conditions: Any,
) -> Evaluation:
    """Records every test image as often as the settings ask for at most, and decodes the trials.

    `directory` and `conditions` are those of `simulated_tests`.
    """
    bundle = load_bundle(bundle_path)
    trial_set = simulated_tests(bundle, directory, max(settings.repeats), **conditions)
    return evaluate(
        bundle,
        trial_set,
        load_gallery(gallery_path),
        settings.repeats,
        seed=settings.seed,
        tmax_s=[*settings.tmax_s, bundle.manifest.tmax_s],
        evidence=settings.evidence,
        seen=settings.seen,
    )


def simulated_tests(
    bundle: Bundle,
    directory: Path,
    n_repeats: int,
    *,
    shown: Sequence[Stimulus] | None = None,
    amplitude: float = 1.0,
    soa_s: float = 1.0,
    gain_sd: float = 0.0,
    adaptation: AdaptationSettings | None = None,
) -> TrialSet:
    """Trials in which every test image comes once a session (simulated).

    Args:
        directory: where the trial set is written.
        n_repeats: sessions.
        shown: the images; each there is by default.
        amplitude: of the evoked response, as in the demo.
        soa_s: seconds between images.
        gain_sd: standard deviation of the logarithm of a gain that every channel has in these
            recordings and had not in training, as under another cap.
        adaptation: follows such changes without labels; None does not.
    """
    settings = SubjectSettings(seed=DemoSettings().subject_seed, amplitude=amplitude)
    tests = gallery_stimuli() if shown is None else shown
    evoked = responses(settings, tests)
    numbers = range(_FIRST_SESSION, _FIRST_SESSION + n_repeats)
    gains = np.exp(gain_sd * np.random.default_rng(settings.seed).normal(size=len(CHANNELS)))
    sessions = simulate_sessions(
        settings, tests, evoked, track(numbers, "recording (simulated)"), soa_s
    )
    parts = (StudyPart(with_gains(one, gains), Facts(session=one.name)) for one in sessions)
    with threadpool_limits(1, "blas"):
        return prepare_test(
            Study.of_parts(SIMULATED, parts),
            Preprocessing.of(bundle),
            directory,
            PrepareTestSettings(adaptation=adaptation),
            provenance={
                "subject": "simulated",
                "amplitude": amplitude,
                "soa_s": soa_s,
                "gain_sd": gain_sd,
            },
        )
