"""How well the demo's model decodes its subject, and trial sets of other simulated subjects."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from decoder.bundle import Bundle, load_bundle
from demo.head import CHANNELS
from demo.recordings import SIMULATED, responses, simulate_sessions, with_gains
from demo.settings import PREPROCESSING, DemoSettings
from demo.stimuli import Stimulus, gallery_stimuli, stimuli, training_concepts
from demo.subject import SubjectSettings
from index.gallery import load_gallery
from offline_train.data.prepare import prepare, prepare_test
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.study import Facts, ShownImage, Study, StudyPart
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import window_ends
from offline_train.evaluate.result import Evaluation
from offline_train.evaluate.retrieval import evaluate_ways
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
) -> list[Evaluation]:
    """Records every test image as often as the settings ask for at most, and decodes the trials.

    In each way that they ask for.

    `directory` and `conditions` are those of `simulated_tests`.
    """
    bundle = load_bundle(bundle_path)
    window_ends(bundle.manifest, settings.tmax_s or None)  # before anything is recorded
    trial_set = simulated_tests(bundle, directory, max(settings.repeats), **conditions)
    return evaluate_ways(bundle, trial_set, load_gallery(gallery_path), settings)


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
    told = Console(stderr=True)  # as what is written may be read by programs
    recorded = track(numbers, "recording (simulated)", console=told)
    sessions = simulate_sessions(settings, tests, evoked, recorded, soa_s)
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


def simulated_trial_set(
    directory: Path,
    pictures: dict[Stimulus, np.ndarray],
    n_subjects: int,
    sessions: int,
    test_sessions: int,
    on_recording: Callable[[str], object] = lambda name: None,
) -> TrialSet:
    """Writes trials in which each session shows every image of training, or of test, once.

    Args:
        directory: where the trial set is written.
        pictures: all that is shown, drawn.
        n_subjects: each has a brain of its own, all see the same images.
        sessions: of training, which show the training concepts' images.
        test_sessions: which show the 200 test images.
    """
    tests = set(gallery_stimuli())
    shown = {
        "train": [stimulus for stimulus in pictures if stimulus not in tests],
        "test": [stimulus for stimulus in pictures if stimulus in tests],
    }
    numbers = {
        "train": range(sessions),
        "test": range(_FIRST_SESSION, _FIRST_SESSION + test_sessions),
    }

    def parts() -> Iterator[StudyPart]:
        for seed in range(1, n_subjects + 1):
            subject = SubjectSettings(seed=seed)
            for split, some in shown.items():
                evoked = responses(subject, some, pictures.__getitem__)
                soa_s = DemoSettings().soa_s
                for session in simulate_sessions(subject, some, evoked, numbers[split], soa_s):
                    facts = Facts(subject=f"{seed:02d}", session=session.name, split=split)
                    yield StudyPart(session, facts)

    images = {one.id: ShownImage(f"{one.id}.png", one.concept.name) for one in pictures}
    with threadpool_limits(1, "blas"):
        return prepare(
            Study.of_parts(SIMULATED, parts(), images=images),
            PrepareSettings(preprocessing=PREPROCESSING),
            directory,
            provenance={"subject": "simulated", "soa_s": DemoSettings().soa_s},
            on_recording=lambda name, so_far: on_recording(name),
        )


def shown_images(n_concepts: int) -> Sequence[Stimulus]:
    """An image of each of so many training concepts, and the test images."""
    return [*stimuli(training_concepts()[:n_concepts], 1), *gallery_stimuli()]
