"""`python -m demo train`: the shipped brain model of the simulated subject, made as a person's is.

Record training sessions, extract what frozen encoders see in the images, train MBP against the
HVF of the Fusion Prior that the demo ships, calibrate on held-out concepts, and build the gallery
of the 200 test images. Every step is the one of `offline_train`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from decoder.bundle import Bundle
from decoder.painting.prior import load_prior
from demo.answers import ANSWERS, answers_of
from demo.model import COMMAND, DemoModel, pack, unpack
from demo.recordings import SIMULATED, responses, simulate_sessions
from demo.settings import ASSETS, PREPROCESSING, PRIOR, DemoSettings
from demo.shipped.image_models import recipe_of, write_json
from demo.stimuli import Stimulus, gallery_stimuli, render, stimuli, training_concepts
from demo.subject import SubjectSettings
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from index.gallery import Gallery, save_gallery
from offline_train.brain.calibrate import fit_calibration, save_calibration
from offline_train.brain.gallery import build_gallery
from offline_train.brain.train import make_bundle, train
from offline_train.data.features import Features, extract_features
from offline_train.data.images import content_of
from offline_train.data.prepare import prepare, prepare_test
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.study import Facts, Study, StudyPart
from offline_train.data.trial_set import TrialSet
from stream.acquire.preprocess import Preprocessing


def make_shipped_model(shipped: Path, settings: DemoSettings, console: Console) -> None:
    """Makes what the demo ships of its model: weights, recipe, and answers to hold it against.

    Takes about two minutes on two cores.
    """
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        pack(make_model(Path(folder), settings, console), shipped)
    recipe = recipe_of(COMMAND, settings, shipped, sorted(shipped.glob("*.safetensors")))
    minutes = round((time.perf_counter() - began) / 60, 1)
    write_json(shipped / "recipe.json", recipe | {"minutes": minutes})
    with TemporaryDirectory() as folder:
        answers = answers_of(unpack(shipped, Path(folder)), Path(folder) / "trials")
    write_json(shipped / ANSWERS, answers)


def make_model(folder: Path, settings: DemoSettings, console: Console) -> DemoModel:
    """Records, trains, calibrates, and writes `bundle` and `gallery` into a folder."""
    concepts = training_concepts()
    shown = stimuli(concepts[: settings.n_concepts], 1)
    held_out = stimuli(concepts[settings.n_concepts :][: settings.n_held_out], 1)
    tests = gallery_stimuli()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        drawn = progress.track([*shown, *held_out, *tests], description="drawing images")
        pictures = {stimulus.id: render(stimulus) for stimulus in drawn}
        seen = progress.track([*shown, *held_out], description="responding (simulated)")
        subject = SubjectSettings(seed=settings.subject_seed)
        evoked = responses(subject, seen, lambda stimulus: pictures[stimulus.id])
        making = _Making(folder, settings, subject, evoked, progress)
        trial_set = making.trial_set(shown)
        features = making.features(pictures)
        bundle = making.calibrated(making.bundle(trial_set, features), held_out, features)
    save_gallery(
        folder / "gallery",
        _gallery(tests, features, bundle),
        [pictures[stimulus.id] for stimulus in tests],
    )
    return DemoModel(bundle.directory, folder / "gallery")


@dataclass(frozen=True)
class _Making:
    """The steps of a model, and what all of them need."""

    folder: Path
    settings: DemoSettings
    subject: SubjectSettings
    evoked: Mapping[str, np.ndarray]
    progress: Progress

    def trial_set(self, shown: Sequence[Stimulus]) -> TrialSet:
        settings = PrepareSettings(preprocessing=PREPROCESSING)
        told = self._told("recording (simulated)", self.settings.sessions)
        # NumPy's threads only get in each other's way with arrays of this size.
        with threadpool_limits(1, "blas"):
            study = self._study(shown, range(self.settings.sessions))
            return prepare(study, settings, self.folder / "trials", **told)

    def features(self, pictures: Mapping[str, np.ndarray]) -> Features:
        task = self.progress.add_task("encoding images", total=len(pictures))
        return extract_features(
            {id: content_of(picture) for id, picture in pictures.items()},
            pictures.__getitem__,
            [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")],
            self.folder / "features",
            lambda done, total: self.progress.update(task, completed=done, total=total),
        )

    def bundle(self, trial_set: TrialSet, features: Features) -> Bundle:
        task, how = self.progress.add_task("training MBP", total=None), self.settings.training
        models = train(
            trial_set,
            features,
            how,
            lambda step: self.progress.update(task, completed=step.step, total=step.n_steps),
            checkpoint_dir=self.folder / "checkpoint",
            frozen_hvf=load_prior(PRIOR).hvf,
        )
        models.brain.half().float()  # as it is shipped, before anything is fitted to what it says
        return make_bundle(self.folder / "bundle", models, trial_set, features, how, COMMAND)

    def calibrated(
        self, bundle: Bundle, held_out: Sequence[Stimulus], features: Features
    ) -> Bundle:
        """On concepts that were not trained on, in sessions that come after those of training."""
        repeats, first = self.settings.calibration_repeats, self.settings.sessions
        told = self._told("calibrating (simulated)", max(repeats))
        with threadpool_limits(1, "blas"):
            study = self._study(held_out, range(first, first + max(repeats)))
            directory, preprocessing = self.folder / "calibration", Preprocessing.of(bundle)
            trials = prepare_test(study, preprocessing, directory, PrepareTestSettings(), **told)
        gallery = _gallery(held_out, features, bundle)
        return save_calibration(bundle, fit_calibration(bundle, trials, gallery, None, repeats))

    def _study(self, shown: Sequence[Stimulus], numbers: range) -> Study:
        soa_s = self.settings.soa_s
        sessions = simulate_sessions(self.subject, shown, self.evoked, numbers, soa_s)
        parts = (StudyPart(session, Facts(session=session.name)) for session in sessions)
        return Study.of_parts(SIMULATED, parts)

    def _told(self, what: str, n_sessions: int) -> dict[str, Any]:
        """What a trial set says of itself, and whom it tells how far it is."""
        task = self.progress.add_task(what, total=n_sessions)
        return {
            "provenance": {"subject": "simulated", "subject_seed": self.subject.seed},
            "on_recording": lambda name, so_far: self.progress.advance(task),
        }


def _gallery(shown: Sequence[Stimulus], features: Features, bundle: Bundle) -> Gallery:
    return build_gallery(
        [stimulus.id for stimulus in shown],
        [stimulus.concept.name for stimulus in shown],
        features,
        bundle,
        created_by=COMMAND,
    )
