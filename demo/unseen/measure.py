"""Trains on many people, and decodes others by minutes of calibration: cell by cell of the table.

Every step is one of `offline_train`: prepare, mbp, prepare-test, personalise, evaluate. What is
done is kept, and is not done again.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import JsonValue
from threadpoolctl import threadpool_limits

from decoder.bundle import MANIFEST, Bundle, load_bundle
from decoder.painting.prior import load_prior
from demo.settings import PREPROCESSING, PRIOR
from demo.stimuli import Stimulus
from demo.subject import SubjectSettings
from demo.unseen.settings import Cell, UnseenSettings, cells_of
from demo.unseen.world import World, study_of
from hvf_core.artifact import refuse_other_results, write_manifest
from hvf_core.lock import alone_in
from hvf_core.problem import Problem
from hvf_core.specs import read_spec
from index.gallery import Gallery
from offline_train.brain.folds import Fold, folds_of
from offline_train.brain.gallery import build_gallery
from offline_train.brain.joined import load_trial_sets
from offline_train.brain.making import Making
from offline_train.brain.person.personal import personalise
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.data.features import Features
from offline_train.data.prepare import prepare, prepare_test
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.trial_set import MANIFEST as TRIAL_SET
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.result import Evaluation
from offline_train.evaluate.retrieval import evaluate
from offline_train.together import Group
from stream.acquire.preprocess import Preprocessing
from stream.sources.recording import Recording

COMMAND, SETTINGS = "python -m demo unseen", "settings.json"
_BRAIN = 1
"""Seed of all brains: what sources answer to is alike in people, what reaches a scalp is not."""
_SIMULATED: dict[str, JsonValue] = {"subject": "simulated", "subject_seed": _BRAIN}


@contextmanager
def claimed(out: Path, settings: UnseenSettings) -> Iterator[None]:
    """Holds a folder for a measurement of these settings, which may have been begun there.

    Raises:
        Problem: it is of other settings or of something else, or another process is at it.
    """
    refuse_other_results(out, SETTINGS)
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(
        out, f"'{out}' is being measured by another process: wait, or name another --out"
    ):
        if (file := out / SETTINGS).is_file():
            if read_spec(file, UnseenSettings, "the settings") != settings:
                raise Problem(
                    f"'{out}' was begun with other settings, which are in '{file}': give those, "
                    "or name another --out"
                )
        else:
            write_manifest(file, settings)
        yield


def learnt_from(settings: UnseenSettings) -> TrainSettings:
    """How the model of many people is trained: as the demo's."""
    usual = {"dim": load_prior(PRIOR).hvf.dim, "epochs": settings.epochs}
    return PRESETS["demo"].model_copy(update=usual)


def from_scratch(settings: UnseenSettings) -> TrainSettings:
    """How one of some minutes alone is trained: as docs/first_session.md found best of few."""
    alone = {"repeats_per_row": 1, "rows_per_item": None, "batch_size": 64, "hold_out": 0}
    return learnt_from(settings).model_copy(update=alone)


@dataclass(frozen=True)
class Measuring:
    """The measurement of some settings, in a folder."""

    out: Path
    settings: UnseenSettings
    world: World
    """With its pictures."""
    features: Features
    tell: Callable[[int, int, str], object]
    """Hears how many steps of all are done, and what is done now."""

    def run(self) -> dict[Cell, Evaluation]:
        """Does what is missing; all that is then known."""
        cells = cells_of(self.settings)
        n_people, total = self.settings.people, self.settings.people + 1 + len(cells)
        for number in range(n_people):
            self.tell(number, total, f"recording person {number + 1} of {n_people}")
            self._record(number + 1)
        self.tell(n_people, total, f"training on {n_people} people")
        bundle = self._learn()
        for (person, answers), own in groupby(cells, key=lambda one: (one.person, one.answers)):
            todo = [one for one in own if not self.at(one).is_file()]
            done = n_people + 1 + sum(self.at(one).is_file() for one in cells)
            name = f"unseen person {person}" if answers else "nobody"
            self.tell(done, total, f"recording {name}")
            for before, cell in enumerate(self._decoded(bundle, todo) if todo else ()):
                self.tell(done + before + 1, total, f"{name}: {cell.method}, {cell.minutes} min")
        self.tell(total, total, "unseen people")
        return {one: read_spec(self.at(one), Evaluation, "the result") for one in cells}

    def at(self, cell: Cell) -> Path:
        """Where a cell is kept."""
        return self.out / "cells" / cell.file

    def _folder(self, number: int) -> Path:
        return self.out / "people" / f"{number:03d}"

    def _record(self, number: int) -> None:
        if not (self._folder(number) / TRIAL_SET).is_file():
            who = SubjectSettings(seed=_BRAIN, person=number)
            made = self.world.sessions(who, self.world.learnt, range(self.settings.sessions))
            _prepared(self._folder(number), [*made], number)

    def _learn(self) -> Bundle:
        folder, how = self.out / "bundle", learnt_from(self.settings)
        if not (folder / MANIFEST).is_file():
            people = [self._folder(number + 1) for number in range(self.settings.people)]
            [fold] = folds_of(load_trial_sets(people), how, classes=False)
            self._train(folder, fold, how)
        return load_bundle(folder)

    def _train(self, folder: Path, fold: Fold, how: TrainSettings) -> None:
        making = Making(
            self.features,
            how,
            COMMAND,
            classes=False,
            frozen_hvf=load_prior(PRIOR).hvf,
            checkpoints=folder.with_name("begun"),
            board=None,
            group=Group.alone(how.device),
        )
        making.bundle(folder, fold, lambda step: None, lambda what: None)

    def _decoded(self, bundle: Bundle, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Measures cells of one person, and yields each when it is kept."""
        number, repeats = cells[0].person, sorted({*self.settings.repeats})
        who = SubjectSettings(seed=_BRAIN, person=number, amplitude=float(cells[0].answers))
        minutes, tests = self.world.minutes(who), self.world.tests(who, max(repeats))
        with _emptied(self.out / "person") as folder:
            calibration = _as_live(folder / "minutes", minutes, number, bundle)
            asked = _as_live(folder / "asked", tests, number, bundle)
            for cell in cells:
                with _emptied(folder / "cell") as own:
                    trials, some = asked, minutes[: cell.minutes]
                    if cell.method == "from scratch":
                        learnt = _prepared(own / "learnt", some, number)
                        fold = Fold("", learnt, held_out=None, test=None)
                        self._train(own / "bundle", fold, from_scratch(self.settings))
                        made = load_bundle(own / "bundle")
                        trials = _as_live(own / "asked", tests, number, made)
                    elif cell.method == "none":
                        made = bundle
                    else:
                        labels = self._gallery(self.world.shown, bundle)
                        made = personalise(
                            own / "bundle",
                            bundle,
                            calibration.select([one.name for one in some], "session"),
                            labels if cell.method == "labels" else None,
                            COMMAND,
                        ).bundle
                    among = self._gallery(self.world.asked, made)
                    found = evaluate(made, trials, among, repeats, subject=f"{number}")
                self.at(cell).parent.mkdir(exist_ok=True)
                write_manifest(self.at(cell), found)
                yield cell

    def _gallery(self, shown: Sequence[Stimulus], bundle: Bundle) -> Gallery:
        ids, labels = [one.id for one in shown], [one.concept.name for one in shown]
        return build_gallery(ids, labels, self.features, bundle, COMMAND)


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder for a while; what a killed process has left in it is taken away."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepared(folder: Path, recordings: Sequence[Recording], number: int) -> TrialSet:
    how = PrepareSettings(preprocessing=PREPROCESSING)
    with threadpool_limits(1, "blas"):  # whose threads only get in each other's way here
        return prepare(study_of(recordings, number), how, folder, provenance=_SIMULATED)


def _as_live(
    folder: Path, recordings: Sequence[Recording], number: int, bundle: Bundle
) -> TrialSet:
    how, study = Preprocessing.of(bundle), study_of(recordings, number)
    with threadpool_limits(1, "blas"):
        return prepare_test(study, how, folder, PrepareTestSettings(), provenance=_SIMULATED)
