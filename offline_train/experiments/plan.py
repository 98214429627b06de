"""Which runs an experiment has, what decides the numbers of each, and which of them are done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from decoder.painting.prior import PRIOR, read_prior
from hvf_core.artifact import file_sha256, read_manifest
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from index.encoders.spec import EncoderSpec, read_specs
from offline_train.brain.gallery import Featured
from offline_train.brain.settings import count_steps
from offline_train.checkpoint import identify
from offline_train.data.features import check_encoders
from offline_train.data.images import files_below
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import check_repeats
from offline_train.evaluate.result import Evaluation
from offline_train.experiments.latents import names_of
from offline_train.experiments.settings import Run, RunSettings
from offline_train.features.blur import blurs_of

VERSION: Literal[1] = 1
"""Of the numbers that a run gives: where the same settings come to give others, it is raised."""
RECORD, FAILED = "run.json", "failed.txt"
_NOT_DECISIVE: dict[str, Any] = {
    "encoders": True,
    "prior": True,
    "preset": True,
    "train": {"device", "held_gb", "hold_out", "subjects"},
}
"""Said by what they stand for, of no meaning here, or nothing that changes more than rounding."""


class RunRecord(Frozen):
    """What `run.json` says of a run that is done."""

    schema_version: Literal[1] = VERSION
    name: str
    """As it was called where it was run; another experiment may call the same run otherwise."""
    subject: str
    settings: RunSettings
    decided_by: str
    """Of all that decides the numbers, a SHA-256: its beginning is the folder's name."""
    n_steps: int
    """Of the optimiser."""
    seconds: float
    """That it took."""
    evaluations: tuple[Evaluation, ...]
    made: dict[str, JsonValue]
    """The command, and the versions that it ran with."""


@dataclass(frozen=True, eq=False)
class World:
    """What all runs of an experiment learn from and are asked about."""

    trials: TrialSet
    contents: Mapping[str, str]
    """SHA-256 of each stimulus's image."""
    features: Callable[[tuple[EncoderSpec, ...]], Featured]
    """Of all these images by image encoders."""

    @cached_property
    def subjects(self) -> list[str]:
        """Those of the test trials; one without a name where the set does not say."""
        asked = self.asked
        found = asked.column("subject").present if "subject" in asked.table else ()
        return sorted(found) or [""]

    @cached_property
    def asked(self) -> TrialSet:
        """The test trials.

        Raises:
            Problem: there are none.
        """
        return self.trials.select(["test"], "split")

    @cached_property
    def learnt(self) -> TrialSet:
        """The training trials of all subjects.

        Raises:
            Problem: another split shares stimuli or concepts with them.
        """
        return self.trials.training()

    def parts(self, run: Run) -> tuple[TrialSet, TrialSet]:
        """What a run learns from, and what it is asked about.

        Raises:
            Problem: another split shares stimuli with the training, or nobody is left to learn of.
        """
        learnt, asked = self.learnt, self.asked
        if not run.subject:
            return learnt, asked
        whose = run.settings.learn_from
        if whose == "own":
            learnt = learnt.select([run.subject], "subject")
        elif whose == "others":
            others = learnt.column("subject").present - {run.subject}
            if not others:
                raise Problem(
                    f"'{run.name}' is to learn from others than '{run.subject}', and the trial set "
                    "has nobody else: prepare several subjects together"
                )
            learnt = learnt.select(others, "subject")
        return learnt, asked.select([run.subject], "subject")


@dataclass(frozen=True)
class Planned:
    """A run and where it is, or will be."""

    run: Run
    decided_by: str
    out: Path
    n_steps: int

    @property
    def folder(self) -> Path:
        """There once the run is done, and whole."""
        return self.out / "runs" / self.decided_by[:16]

    @property
    def begun(self) -> Path:
        """Where its training goes on from, and why it failed."""
        return self.out / "begun" / self.decided_by[:16]

    @property
    def is_done(self) -> bool:
        return self.folder.is_dir()

    def record(self) -> RunRecord | None:
        """What it gave; None where it is not done.

        Raises:
            Problem: what is there is damaged.
        """
        return read_manifest(self.folder, RECORD, RunRecord, VERSION) if self.is_done else None

    @property
    def state(self) -> str:
        """In a few words, whether it is done."""
        failed = self.begun / FAILED
        if self.is_done:
            return "done"
        return f"failed: {failed.read_text(encoding='utf-8')}" if failed.is_file() else "to do"


def plan(runs: Sequence[Run], world: World, out: Path) -> list[Planned]:
    """What becomes of runs in a folder.

    Raises:
        Problem: trials, encoders or a prior that are needed cannot be read or do not fit each
            other, or there are fewer repeats than are asked for, or no window that is so long.
    """
    images = identify(dict(world.contents))
    planned = []
    for run in runs:
        settings, (learnt, asked) = run.settings, world.parts(run)
        check_repeats(asked, settings.evaluate.repeats)
        for end_s in settings.evaluate.tmax_s:
            world.trials.format.mark(end_s)
        decided_by = identify(
            {
                "version": VERSION,
                "settings": settings.model_dump(mode="json", exclude=_NOT_DECISIVE),
                "subject": run.subject,
                "trials": world.trials.checksum,
                "images": images,
                "encoders": _encoders(settings.encoders),
                "prior": None if settings.prior is None else _sha256(settings.prior / PRIOR),
            }
        )
        _refuse_unfit_encoders(settings)
        n_steps = count_steps(n_rows(learnt, settings), settings.train)
        planned.append(Planned(run, decided_by, out, n_steps))
    return planned


def n_rows(learnt: TrialSet, settings: RunSettings) -> int:
    """Rows of an epoch: none of them mixes subjects."""
    codes, subject = learnt.table["stimulus"].codes.astype(np.int64), learnt.table.get("subject")
    if subject is not None:
        codes = codes + subject.codes.astype(np.int64) * (codes.max() + 1)
    _, trials = np.unique(codes, return_counts=True)
    k, most = settings.train.repeats_per_row, settings.train.rows_per_item
    groups = np.ones_like(trials) if k is None else trials // k
    return int((groups if most is None else np.minimum(groups, most)).sum())


def _refuse_unfit_encoders(settings: RunSettings) -> None:
    """Refuses image encoders by what is known before they are loaded: their names and widths."""
    specs, prior = read_specs(settings.encoders), settings.prior
    names = names_of(specs, settings.latents)
    blurs_of(specs, settings.train.blur_prior)
    if prior is None:
        return
    wanted = read_prior(prior).image_encoders
    known = {one.name: one for one in wanted}
    found = []
    for spec in specs:
        alike = known.get(names[spec.name], wanted[0])  # where it is none of them, its name tells
        told = {"name": names[spec.name], "dim": spec.dim or alike.dim}
        found.append(alike.model_copy(update=told))
    check_encoders(found, wanted, f"the prior '{prior}'")


def _encoders(told: str) -> list[JsonValue]:
    """What decides what encoders give: files by what is in them, wherever they are."""
    found: list[JsonValue] = []
    for spec in read_specs(told):
        facts = spec.model_dump(mode="json")
        if spec.path is not None:
            files = [*files_below(spec.path)] if spec.path.is_dir() else [spec.path]
            facts["source"] = [_sha256(file) for file in files]
        found.append(facts)
    return found


def _sha256(file: Path) -> str:
    """Of a file, which is read once, and not again for every run."""
    try:
        return _content(file, (now := file.stat()).st_mtime_ns, now.st_size)
    except OSError as error:
        raise Problem(
            f"'{file}', which the experiment needs, cannot be read ({error.strerror}): run it "
            "where its paths begin, for those that are shipped the program's folder, or mend them"
        ) from None


@cache
def _content(file: Path, mtime_ns: int, n_bytes: int) -> str:
    return file_sha256(file)
