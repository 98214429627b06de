"""mbp: trains brain encoders and writes a bundle, or one for each subject."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hvf_core.options import Asked, Flag, onward, with_settings
from hvf_core.provenance import command_line
from hvf_core.settings import Given
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.commands.options import (
    CHECKPOINTS,
    Cache,
    Encoders,
    Images,
    Labels,
    Out,
    bar,
    console,
    features_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from decoder.bundle import ImageEncoderRecord
    from offline_train.brain.folds import Fold
    from offline_train.brain.making import Making
    from offline_train.brain.train import Progress


@with_settings(TrainSettings)
def mbp(
    trials: Annotated[list[Path], typer.Argument(help="Folder of a trial set, or of several")],
    out: Out,
    asked: Asked[TrainSettings],
    images: Images = None,
    encoders: Encoders = None,
    labels: Labels = False,
    preset: Annotated[
        Literal[
            "live",
            "paper",
            "released",
            "hvf-eeg",
            "hvf-eeg-cross",
            "hvf-meg",
            "hvf-meg-cross",
            "arena",
            "demo",
        ],
        typer.Option(help="Live: the paper's, with early answers, and calibrated"),
    ] = "live",
    every_trial: Annotated[
        bool, Flag("--every-trial", help="Learn from single trials, not from their mean")
    ] = False,
    leave_one_out: Annotated[
        bool, Flag("--leave-one-out", help="A bundle for each subject, learnt from all others")
    ] = False,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Fusion Prior whose HVF is taken as it is, so that answers can be painted"
        ),
    ] = None,
    tensorboard: Annotated[
        bool, Flag("--tensorboard", help="Write the loss for TensorBoard, to OUT-tensorboard")
    ] = False,
    cache: Cache = Path("features"),
) -> None:
    """Trains a brain encoder and HVF together on a trial set, and writes a bundle.

    It is calibrated on stimuli that are held out; the paper's presets hold none out. With --prior
    the HVF is that of a Fusion Prior, and stays as it is: what is then decoded can be painted.

    A bundle for each subject is tried on the test trials of this subject; what was done is not done
    again when the command is given again. On several GPUs: accelerate launch -m offline_train ...

    Example: python -m offline_train mbp trials --images train --encoders paper-retrieval --out b
    """
    from decoder.bundle import MANIFEST
    from decoder.painting.prior import load_prior
    from hvf_core.artifact import refuse_taken, refuse_unwritable
    from offline_train.brain.checks import check_widths
    from offline_train.brain.folds import folds_of
    from offline_train.brain.joined import load_trial_sets
    from offline_train.brain.making import Making
    from offline_train.data.features import check_encoders, label_features
    from offline_train.evaluate.retrieval import subjects_of
    from offline_train.together import Group, told_of_others

    painted_with = None if prior is None else load_prior(prior)
    frozen_hvf = None if painted_with is None else painted_with.hvf
    usual = dict(PRESETS[preset])
    if frozen_hvf is not None:
        usual["dim"] = frozen_hvf.dim
    settings = _also(asked, every_trial, leave_one_out).settings(usual)
    if settings.subjects == "together":
        refuse_taken(out, MANIFEST, "a bundle")
    refuse_unwritable(out)
    refuse_unwritable(cache)  # which has the states of trainings
    group = Group.launched(settings.device)
    console.quiet = not group.is_first
    folds = folds_of(load_trial_sets(trials), settings, labels)
    if not folds[0].subject:  # of trials that are of one subject, too
        refuse_taken(out, MANIFEST, "a bundle")
    _check(folds, settings, None if labels else encoders, prior is not None, group.n)
    items = list(dict.fromkeys(item for fold in folds for item in fold.items))

    def check(seen_by: "Sequence[ImageEncoderRecord]") -> None:
        check_widths(seen_by, settings, None if frozen_hvf is None else frozen_hvf.dim)
        if painted_with is not None:
            wanted = painted_with.manifest.image_encoders
            check_encoders(seen_by, wanted, f"the prior '{prior}'")

    with told_of_others(group.n, cache / CHECKPOINTS):
        if labels:
            features = label_features(sorted(items))
            check(features.encoders)
        else:
            with group.first_one_first():
                blurred = settings.blur_prior
                _, features = features_of(items, images, encoders, cache, blurred, check)
        making = Making(
            features,
            settings,
            command_line(),
            classes=labels,
            frozen_hvf=frozen_hvf,
            checkpoints=cache / CHECKPOINTS,
            board=out.with_name(f"{out.name}-tensorboard") if tensorboard else None,
            group=group,
        )
        told, found = _made(making, folds, out)
    if not group.is_first:
        return
    if not folds[0].subject:
        console.print(told)
        stimuli = sorted(items) if labels else None
        console.print(_next(out, stimuli, encoders), soft_wrap=True)
        if len(subjects_of(folds[0].learnt)) > 1:
            _for_somebody_else(out, settings)
        return
    console.print(found or "none is tried: no subject has trials of the split 'test'")
    console.print(f"{len(folds)} bundles, in SUBJECT/bundle of '{out}'; of the last: {told}")
    if settings.subjects == "leave-one-out":
        _for_somebody_else(making.folder(out, folds[-1]), settings)


def _next(out: Path, labels: "Sequence[str] | None", encoders: str | None) -> str:
    """The command that makes the gallery of a bundle, of labels or of images."""
    of_images = ("--images", "IMAGES", "--encoders", encoders)
    of = of_images if labels is None else ("--labels", ",".join(labels))
    return onward("gallery", *of, bundle=out, gallery=out.parent / "gallery")


def _also(
    asked: Asked[TrainSettings], every_trial: bool, leave_one_out: bool
) -> Asked[TrainSettings]:
    """What was asked for, with the settings that two options stand for."""
    if every_trial:
        rows = {"repeats_per_row": 1, "rows_per_item": None}
        asked = asked.also({path: Given(n, "--every-trial") for path, n in rows.items()})
    if leave_one_out:
        asked = asked.also({"subjects": Given("leave-one-out", "--leave-one-out")})
    return asked


def _check(
    folds: "Sequence[Fold]",
    settings: TrainSettings,
    encoders: str | None,
    has_prior: bool,
    n_processes: int,
) -> None:
    """Refuses what cannot be trained, and says what will be badly, before images are read."""
    from index.encoders.spec import read_specs
    from offline_train.brain.checks import check_trainable, climb, whole_batch
    from offline_train.brain.pretrained import refuse_unfit

    if said := refuse_unfit(settings, folds[0].learnt.format):
        console.print(said)
    n_encoders = 1 if encoders is None else len(read_specs(encoders))
    n_steps = [
        check_trainable(fold.learnt, settings, n_encoders, has_prior, n_processes) for fold in folds
    ]
    for look in (climb, whole_batch):
        if said := look(min(n_steps), settings):
            console.print(said, soft_wrap=True)


def _made(making: "Making", folds: "Sequence[Fold]", out: Path) -> "tuple[str, Table | None]":
    """Makes each fold's bundle; what was said of the last one, and how all did on their tests."""
    from offline_train.brain.folds import table_of

    found = []
    training = f"training {making.settings.encoder} + HVF"
    with bar(training) as tell:
        for n, fold in enumerate(folds):
            text = training
            if fold.subject:
                text += f" for subject {fold.subject}, {n + 1} of {len(folds)}"

            def follow(step: "Progress", n: int = n, text: str = text) -> None:
                tell(n * step.n_steps + step.step, len(folds) * step.n_steps, text)

            def say(what: str) -> None:
                tell(None, None, what)

            folder = making.folder(out, fold)
            told = making.bundle(folder, fold, follow, say)
            if fold.test is not None and making.group.is_first:
                say("looking test trials up")
                found.append((fold.subject, making.tried(folder, fold.test, fold.subject)))
    return told, table_of(found) if found else None


def _for_somebody_else(bundle: Path, settings: TrainSettings) -> None:
    """What comes next for a person of whom nothing was learnt."""
    if settings.encoder in ("mbp", "ubp"):  # a person's matrix is folded into their first map
        told = onward("personalise", bundle=bundle)
        console.print(f"for somebody else, with some minutes of trials, {told}", soft_wrap=True)
