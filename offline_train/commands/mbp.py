"""mbp: trains a brain encoder and writes a calibrated bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hvf_core.options import Asked, Flag, with_settings
from hvf_core.provenance import command_line
from hvf_core.settings import Given
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.commands.options import (
    CHECKPOINTS,
    TRAIN,
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

    from decoder.bundle import Bundle
    from offline_train.data.features import Features
    from offline_train.data.trial_set import TrialSet


@with_settings(TrainSettings)
def mbp(
    trials: Annotated[Path, typer.Argument(help="Folder of a trial set")],
    out: Out,
    asked: Asked[TrainSettings],
    images: Images = None,
    encoders: Encoders = None,
    labels: Labels = False,
    preset: Annotated[
        Literal["live", "paper", "released", "demo"],
        typer.Option(help="Live: the paper's, with early answers"),
    ] = "live",
    every_trial: Annotated[
        bool, Flag("--every-trial", help="Learn from single trials, not from their mean")
    ] = False,
    hold_out: Annotated[
        int | None,
        typer.Option(min=0, help="Stimuli to calibrate on; a tenth, at most 200, by default"),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Fusion Prior whose HVF is taken as it is, so that answers can be painted"
        ),
    ] = None,
    cache: Cache = Path("features"),
) -> None:
    """Trains a brain encoder and HVF together on a trial set, and writes a calibrated bundle.

    With --prior the HVF is that of a Fusion Prior, and stays as it is: what is then decoded can be
    painted.

    Example: python -m offline_train mbp trials --images train --encoders paper-retrieval --out b
    """
    from decoder.bundle import MANIFEST
    from hvf_core.artifact import refuse_foreign, sealed_directory
    from offline_train.brain.train import make_bundle, train
    from offline_train.data.features import check_encoders, label_features
    from offline_train.data.trial_set import load_trial_set

    refuse_foreign(out, MANIFEST)
    usual = dict(PRESETS[preset])
    if every_trial:
        rows = {"repeats_per_row": 1, "rows_per_item": None}
        asked = asked.also({path: Given(n, "--every-trial") for path, n in rows.items()})
    painted_with = None
    if prior is not None:
        from decoder.painting.prior import load_prior

        painted_with = load_prior(prior)
        usual["dim"] = painted_with.hvf.dim
    settings = asked.settings(usual)
    learnt, held_out = load_trial_set(trials).training(classes=labels), None
    if labels:
        features = label_features(sorted(learnt.items))
    else:
        _, features = features_of(learnt.items, images, encoders, cache)
    if painted_with is not None:
        wanted = painted_with.manifest.image_encoders
        check_encoders(features.encoders, wanted, f"the prior '{prior}'")
    if hold_out is None:
        # Classes cannot be held out as images can: a model knows only those that it has learnt.
        hold_out = 0 if labels else tenth_to_hold_out([*map(len, learnt.concepts.values())])
    if hold_out:
        learnt, held_out = learnt.hold_out(hold_out, settings.seed)
    with bar(f"training {settings.encoder} + HVF") as tell:
        models = train(
            learnt,
            features,
            settings,
            lambda step: tell(step.step, step.n_steps),
            checkpoint_dir=cache / CHECKPOINTS,
            frozen_hvf=None if painted_with is None else painted_with.hvf,
        )
    told = f"bundle in '{out}', last loss {models.history[-1]['loss']:.3f}"
    with sealed_directory(out, MANIFEST) as draft:
        bundle = make_bundle(draft, models, learnt, features, settings, command_line())
        if held_out is None:
            told += "\nnot calibrated, as no stimuli were held out: see `calibrate --help`"
            if not labels and len(learnt.items) >= 20:
                smallest = min(map(len, learnt.concepts.values()))
                told += f"; of concepts, which are held out whole, the smallest has {smallest}"
        else:
            told += "\n" + _calibrate(bundle, held_out, features)
    console.print(told)
    console.print(f"next: {TRAIN} gallery --bundle {out} ...", soft_wrap=True)


def _calibrate(bundle: "Bundle", held_out: "TrialSet", features: "Features") -> str:
    """Calibrates on what was held out, and says how often that is found, and what chance is."""
    from offline_train.brain.calibrate import doubt, fit_calibration, save_calibration
    from offline_train.brain.gallery import build_gallery
    from offline_train.evaluate.retrieval import evaluate

    items = held_out.items
    among = build_gallery(items, items, features, bundle, command_line())
    with console.status("calibrating"):
        found = fit_calibration(bundle, held_out, among)
        save_calibration(bundle, found)
        judged = evaluate(bundle, held_out, among, sorted({1, found.repeats[-1]}), seen=True)
    right = " and ".join(
        f"{100 * point.top1.value:.1f} % ({100 * point.top1.low:.1f} to "
        f"{100 * point.top1.high:.1f}) from {point.repeats} repeat{'s' * (point.repeats > 1)}"
        for point in judged.points
    )
    return (
        f"calibrated on {found.n_items} stimuli{doubt(found)}; of {judged.items} the right one "
        f"comes first in {right}, by chance in {100 * judged.chance_top1:.1f} %"
    )


def tenth_to_hold_out(sizes: "Sequence[int]") -> int:
    """Of the stimuli, at most 200, by the sizes of their concepts, which are held out whole.

    None where that is not two, which a calibration needs, or where no concept is so small.
    """
    tenth = min(200, sum(sizes) // 10)
    return tenth if tenth >= 2 and sum(size for size in sizes if size <= tenth) >= 2 else 0
