"""The demo's first run: a brain model of the simulated subject, made as one is made for a person.

Record training sessions, extract what frozen encoders see in the images, train MBP and HVF, and
build the gallery of the 200 test images. Every step is the one of `offline_train`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from decoder.hvf import load_hvf
from demo.head import CHANNELS
from demo.stimuli import (
    Stimulus,
    gallery_stimuli,
    render,
    stimuli,
    training_concepts,
)
from demo.subject import SimulatedSubject, SubjectSettings
from index.gallery import save_gallery
from index.image_encoders import load_encoder, read_specs
from offline_train.build_gallery import build_gallery
from offline_train.features import Features, extract_features
from offline_train.prepare import prepare
from offline_train.train import TrainSettings, make_bundle, train
from offline_train.trial_set import TrialSet
from stream.acquire.preprocess import PreprocessSettings
from stream.sources.recording import RecordedMarker, Recording

ASSETS = Path(__file__).parent / "assets"
VISUAL_CHANNELS = CHANNELS[-17:]  # the paper's, in its order: P7 ... P8, PO7 ... PO8, O1 Oz O2
COMMAND = "python run_realtime.py demo"


@dataclass(frozen=True)
class DemoSettings:
    """All that decides the demo's brain model."""

    subject_seed: int = 1
    n_concepts: int = 1600
    sessions: int = 8
    soa_s: float = 0.6
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(batch_size=256, warmup_steps=10, seed=2025)
    )


PREPROCESSING = PreprocessSettings(
    channels=CHANNELS,
    output_channels=VISUAL_CHANNELS,
    rate_hz=250.0,
    tmin_s=0.0,
    tmax_s=0.996,
    baseline_s=(-0.2, 0.0),
    whitening="mvnn",
)


def make_model(folder: Path, settings: DemoSettings, console: Console) -> None:
    """Records, trains and writes `bundle` and `gallery` into a folder."""
    shown = stimuli(training_concepts()[: settings.n_concepts], 1)
    tests = gallery_stimuli()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        pictures = _draw([*shown, *tests], progress)
        trial_set = _record(shown, pictures, settings, folder / "trials", progress)
        features = _extract([*shown, *tests], pictures, folder / "features", progress)
        bundle = _train(trial_set, features, settings, folder, progress)
    gallery = build_gallery(
        [stimulus.id for stimulus in tests],
        [stimulus.concept.name for stimulus in tests],
        features,
        load_hvf(bundle),
        bundle.manifest.space,
        created_by=COMMAND,
    )
    save_gallery(folder / "gallery", gallery, [pictures[stimulus.id] for stimulus in tests])


def simulate_recording(
    subject: SimulatedSubject,
    order: Sequence[Stimulus],
    evoked: Mapping[str, np.ndarray],
    soa_s: float,
    name: str,
) -> Recording:
    """One recording of a subject while it sees stimuli at a fixed pace, from 1 s on.

    `evoked` holds its response to each stimulus, by id (`SimulatedSubject.evoked`).
    """
    rate_hz = subject.settings.rate_hz
    onsets = [round((1.0 + i * soa_s) * rate_hz) for i in range(len(order))]
    for stimulus, onset in zip(order, onsets, strict=True):
        subject.present(onset, evoked[stimulus.id])
    n_samples = onsets[-1] + round(1.5 * rate_hz)
    return Recording(
        path=Path(name),
        name=name,
        channels=CHANNELS,
        units=("microvolts",) * len(CHANNELS),
        rate_hz=rate_hz,
        stamps_s=np.arange(n_samples) / rate_hz,
        samples=subject.read(n_samples),
        markers=tuple(
            RecordedMarker(onset / rate_hz, stimulus.id)
            for onset, stimulus in zip(onsets, order, strict=True)
        ),
    )


def _draw(wanted: Sequence[Stimulus], progress: Progress) -> dict[str, np.ndarray]:
    task = progress.add_task("drawing images", total=len(wanted))
    pictures = {}
    for stimulus in wanted:
        pictures[stimulus.id] = render(stimulus)
        progress.advance(task)
    return pictures


def _record(
    shown: Sequence[Stimulus],
    pictures: Mapping[str, np.ndarray],
    settings: DemoSettings,
    directory: Path,
    progress: Progress,
) -> TrialSet:
    n_seen = len(shown) * settings.sessions
    task = progress.add_task("recording (simulated)", total=len(shown) + n_seen)
    subject_settings = SubjectSettings(seed=settings.subject_seed)
    brain = SimulatedSubject(subject_settings, recording_seed=0)
    evoked = {}
    for stimulus in shown:
        evoked[stimulus.id] = brain.evoked(pictures[stimulus.id], stimulus.attributes)
        progress.advance(task)

    def sessions() -> Iterator[tuple[str, Recording]]:
        for number in range(settings.sessions):
            name = f"session-{number + 1}"
            order = np.random.default_rng([settings.subject_seed, number]).permutation(len(shown))
            subject = SimulatedSubject(subject_settings, recording_seed=number)
            in_order = [shown[i] for i in order]
            yield name, simulate_recording(subject, in_order, evoked, settings.soa_s, name)
            progress.advance(task, len(shown))

    # NumPy's threads only get in each other's way with arrays of this size.
    with threadpool_limits(1, "blas"):
        return prepare(
            sessions(),
            PREPROCESSING,
            directory,
            provenance={"subject": "simulated", "subject_seed": settings.subject_seed},
        )


def _extract(
    wanted: Sequence[Stimulus],
    pictures: dict[str, np.ndarray],
    cache_dir: Path,
    progress: Progress,
) -> Features:
    task = progress.add_task("encoding images", total=len(wanted))
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    return extract_features(
        [stimulus.id for stimulus in wanted],
        pictures.__getitem__,
        encoders,
        cache_dir,
        lambda done, total: progress.update(task, completed=done, total=total),
    )


def _train(
    trial_set: TrialSet,
    features: Features,
    settings: DemoSettings,
    folder: Path,
    progress: Progress,
):
    task = progress.add_task("training MBP + HVF", total=None)
    models = train(
        trial_set,
        features,
        settings.training,
        lambda step: progress.update(task, completed=step.step, total=step.n_steps),
        checkpoint_dir=folder / "checkpoint",
    )
    return make_bundle(folder / "bundle", models, trial_set, features, settings.training, COMMAND)
