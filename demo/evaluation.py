"""How well the demo's model decodes its subject: 200-way, by the number of repeats averaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from decoder.bundle import load_bundle
from demo.stimuli import gallery_stimuli, render
from demo.subject import SimulatedSubject, SubjectSettings
from demo.training import DemoSettings, simulate_recording
from index.gallery import load_gallery
from offline_train.evaluate import Evaluation, evaluate
from offline_train.prepare import cut_trials
from offline_train.trial_set import TrialFormat, load_trial_set, write_trial_set
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.trials import Drop
from stream.sources.recording import Recording

REPEATS = (1, 2, 4, 10, 20)


def evaluate_demo(
    bundle_path: Path,
    gallery_path: Path,
    directory: Path,
    *,
    amplitude: float = 1.0,
    soa_s: float = 1.0,
    repeats: Sequence[int] = REPEATS,
) -> Evaluation:
    """Records every test image several times (simulated), decodes the trials and their means.

    Args:
        directory: where the trial set is written.
        amplitude: of the evoked response, as in the demo.
        soa_s: seconds between images.
        repeats: numbers of presentations to average; the largest is recorded.
    """
    bundle = load_bundle(bundle_path)
    settings = PreprocessSettings.model_validate(bundle.manifest.preprocessing)
    preprocessing = Preprocessing(settings, bundle.arrays("preprocessing"))
    trial_format = TrialFormat(
        channels=settings.output_channels,
        rate_hz=settings.rate_hz,
        tmin_s=settings.tmin_s,
        tmax_s=settings.tmax_s,
        preprocessing=bundle.manifest.preprocessing,
        provenance={"subject": "simulated", "amplitude": amplitude, "soa_s": soa_s},
    )
    with (
        threadpool_limits(1, "blas"),
        write_trial_set(directory, trial_format, preprocessing.arrays) as writer,
    ):
        for name, recording in _recordings(amplitude, soa_s, max(repeats)):
            for outcome in cut_trials(recording, preprocessing):
                if not isinstance(outcome, Drop):
                    writer.append(outcome.trial[None], [outcome.stimulus], [name])
    trial_set = load_trial_set(directory)
    return evaluate(bundle, trial_set, load_gallery(gallery_path), repeats)


def _recordings(amplitude: float, soa_s: float, n: int) -> Iterator[tuple[str, Recording]]:
    settings = SubjectSettings(seed=DemoSettings().subject_seed, amplitude=amplitude)
    tests = gallery_stimuli()
    brain = SimulatedSubject(settings, recording_seed=0)
    evoked = {s.id: brain.evoked(render(s), s.attributes) for s in tests}
    for repeat in track(range(n), "recording (simulated)"):
        name = f"test-{repeat + 1}"
        order = np.random.default_rng([settings.seed, 1000 + repeat]).permutation(len(tests))
        subject = SimulatedSubject(settings, recording_seed=1000 + repeat)
        yield name, simulate_recording(subject, [tests[i] for i in order], evoked, soa_s, name)
