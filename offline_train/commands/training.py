"""The commands that make models: prepare, prepare-test, mbp, gallery."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.progress import Progress, track

from decoder.bundle import BrainEncoderName, Bundle, ImageEncoderRecord, load_bundle
from decoder.calibration import Calibration
from decoder.hvf import load_hvf
from hvf_core.problem import Problem
from index.gallery import save_gallery
from offline_train.brain.calibrate import fit_calibration, save_calibration
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import PRESETS
from offline_train.brain.train import make_bundle, train
from offline_train.commands.options import (
    COMMAND,
    Encoders,
    Images,
    Labels,
    Out,
    console,
    features_of,
    image_files,
    read_image,
)
from offline_train.data.features import Features
from offline_train.data.prepare import Prepared
from offline_train.data.prepare import prepare as prepare_trials
from offline_train.data.prepare import prepare_test as prepare_test_trials
from offline_train.data.studies.recordings import recordings
from offline_train.data.study import Study
from offline_train.data.trial_set import TrialSet, load_trial_set
from stream.acquire.adaptation import AdaptationSettings
from stream.acquire.filters import FilterSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.reject import RejectSettings

app = typer.Typer()


@app.command()
def prepare(
    files: Annotated[list[Path], typer.Argument(help="recordings of training sessions")],
    out: Out,
    channels: Annotated[
        str, typer.Option(help="comma-separated; whitening runs over them; all by default")
    ] = "",
    output_channels: Annotated[
        str, typer.Option(help="comma-separated; what the encoder sees; all by default")
    ] = "",
    rate: Annotated[float, typer.Option(help="of the encoder's input, Hz; 0: the file's")] = 250.0,
    tmin: float = 0.0,
    tmax: float = 0.996,
    baseline_start: float = -0.2,
    baseline_stop: float = 0.0,
    whitening: Annotated[str, typer.Option(help="mvnn or none")] = "mvnn",
    scaling: Annotated[str, typer.Option(help="robust or none")] = "none",
    stimuli: Annotated[str, typer.Option(help="which markers are stimuli")] = MarkerRule().stimulus,
    start: Annotated[float, typer.Option(help="seconds into each recording")] = 0.0,
    stop: Annotated[float, typer.Option(help="seconds into each recording")] = np.inf,
    stim_channel: str | None = None,
    reference: Annotated[str, typer.Option(help="none, average, or a channel")] = "none",
    highpass: Annotated[float | None, typer.Option(help="causal Butterworth, Hz")] = None,
    lowpass: Annotated[float | None, typer.Option(help="causal Butterworth, Hz")] = None,
    notch: Annotated[float | None, typer.Option(help="of the mains, Hz")] = None,
    reject: Annotated[float | None, typer.Option(help="limit peak to peak, uV")] = None,
    flat: Annotated[float | None, typer.Option(help="least peak to peak, uV")] = None,
) -> None:
    """Cuts and preprocesses the trials of recordings into a trial set.

    Example: python -m offline_train prepare s1.vhdr s2.vhdr --out trials
    """
    study = _read(files, stim_channel, start, stop)
    first = study.parts[0].data
    names = tuple(filter(None, channels.split(","))) or first.channels
    try:
        settings = PreprocessSettings(
            channels=names,
            output_channels=tuple(filter(None, output_channels.split(","))) or names,
            rate_hz=rate or first.rate_hz,
            tmin_s=tmin,
            tmax_s=tmax,
            baseline_s=(baseline_start, baseline_stop),
            whitening=whitening,
            scaling=scaling,
            reference=reference,
            filters=[
                FilterSettings(kind=kind, freq_hz=freq_hz)
                for kind, freq_hz in (
                    ("highpass", highpass),
                    ("lowpass", lowpass),
                    ("notch", notch),
                )
                if freq_hz is not None
            ],
        )
    except ValueError as error:
        raise Problem(f"these options do not fit together: {_first_line(error)}") from None
    trial_set = prepare_trials(
        study,
        settings,
        out,
        marker_rule=MarkerRule(stimulus=stimuli),
        reject=RejectSettings(peak_to_peak_uv=reject, flat_uv=flat),
        provenance={"files": [path.name for path in files], "command": COMMAND},
        on_recording=_tell,
    )
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    console.print(f"next: python -m offline_train mbp {out} --images FOLDER --encoders FILE ...")


@app.command()
def prepare_test(
    files: Annotated[list[Path], typer.Argument(help="recordings that were not trained on")],
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")],
    out: Out,
    stimuli: Annotated[str, typer.Option(help="which markers are stimuli")] = MarkerRule().stimulus,
    start: Annotated[float, typer.Option(help="seconds into each recording")] = 0.0,
    stop: Annotated[float, typer.Option(help="seconds into each recording")] = np.inf,
    stim_channel: str | None = None,
    reject: Annotated[float | None, typer.Option(help="limit peak to peak, uV")] = None,
    flat: Annotated[float | None, typer.Option(help="least peak to peak, uV")] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="to each recording's covariance, as live")
    ] = False,
) -> None:
    """Cuts recordings as a session with a bundle does: trials to evaluate or calibrate it on.

    Example: python -m offline_train prepare-test test.vhdr --bundle b --out held_out
    """
    opened = load_bundle(bundle)
    trial_set = prepare_test_trials(
        _read(files, stim_channel, start, stop),
        Preprocessing.of(opened),
        out,
        marker_rule=MarkerRule(stimulus=stimuli),
        reject=RejectSettings(peak_to_peak_uv=reject, flat_uv=flat),
        adaptation=AdaptationSettings() if adapt else None,
        provenance={"files": [path.name for path in files], "command": COMMAND},
        on_recording=_tell,
    )
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    console.print(
        f"next: python -m offline_train evaluate --bundle {bundle} --trials {out} --gallery ..."
    )


def _read(files: list[Path], stim_channel: str | None, start_s: float, stop_s: float) -> Study:
    """Part of each recording, read."""
    study = recordings(files, stim_channel=stim_channel, start_s=start_s, stop_s=stop_s)
    parts = list(track(study.parts, "reading", len(files), console=console))
    return replace(study, parts=parts)


def _tell(name: str, so_far: Prepared) -> None:
    """Says how far the cutting is."""
    dropped = ", ".join(f"{n} {reason}" for reason, n in so_far.dropped.items()) or "none"
    console.print(f"{name}: {so_far.n_trials} trials so far, dropped: {dropped}")


@app.command()
def mbp(
    trials: Annotated[Path, typer.Argument(help="folder of a trial set")],
    out: Out,
    images: Images = None,
    encoders: Encoders = None,
    labels: Labels = False,
    preset: Annotated[
        Literal["live", "paper", "released", "demo"],
        typer.Option(help="live: the paper's, with early answers"),
    ] = "live",
    encoder: Annotated[BrainEncoderName, typer.Option(help="the brain encoder")] = "mbp",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    every_trial: Annotated[
        bool, typer.Option("--every-trial", help="learn from single trials, not from their mean")
    ] = False,
    hold_out: Annotated[
        int | None,
        typer.Option(min=0, help="stimuli to calibrate on; a tenth, at most 200, by default"),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Fusion Prior whose HVF is taken as it is, so that answers can be painted"
        ),
    ] = None,
    seed: int | None = None,
    cache: Annotated[Path, typer.Option(help="where features are kept")] = Path("features"),
) -> None:
    """Trains a brain encoder and HVF together on a trial set, and writes a calibrated bundle.

    With --prior the HVF is that of a Fusion Prior, and stays as it is: what is then decoded can be
    painted.

    Example: python -m offline_train mbp trials --images train_images --encoders hvf.json --out b
    """
    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    settings = PRESETS[preset].model_copy(update={k: v for k, v in given.items() if v is not None})
    settings = settings.model_copy(update={"encoder": encoder})
    if every_trial:
        settings = settings.model_copy(update={"repeats_per_row": 1, "rows_per_item": None})
    frozen_hvf = None
    if prior is not None:
        from decoder.painting.prior import load_prior

        painted_with = load_prior(prior)
        frozen_hvf = painted_with.hvf
        settings = settings.model_copy(update={"dim": frozen_hvf.dim})
    learnt = load_trial_set(trials)
    features = features_of(learnt.items, images, encoders, labels, cache)
    if prior is not None:
        check_encoders(features, painted_with.manifest.image_encoders, f"the prior '{prior}'")
    held_out = None
    if hold_out is None:
        # Classes cannot be held out as images can: a model knows only those that it has learnt.
        hold_out = 0 if labels else tenth_to_hold_out(len(learnt.items))
    if hold_out:
        learnt, held_out = learnt.hold_out(hold_out, settings.seed)
    with Progress(console=console) as progress:
        task = progress.add_task(f"training {encoder} + HVF", total=None)
        models = train(
            learnt,
            features,
            settings,
            lambda step: progress.update(task, completed=step.step, total=step.n_steps),
            checkpoint_dir=out.with_name(f"{out.name}-checkpoint"),
            frozen_hvf=frozen_hvf,
        )
    bundle = make_bundle(out, models, learnt, features, settings, COMMAND)
    console.print(f"bundle in '{out}', last loss {models.history[-1]['loss']:.3f}")
    if held_out is None:
        console.print("not calibrated, as no stimuli were held out: see `calibrate --help`")
    else:
        with console.status("calibrating"):
            found = _calibrate_on(bundle, held_out, features)
        console.print(f"calibrated on {found.n_items} stimuli that were held out")
    console.print(f"next: python -m offline_train gallery --bundle {out} ...")


def tenth_to_hold_out(n_items: int) -> int:
    """Of the stimuli, at most 200; none where that is not two, which a calibration needs."""
    tenth = min(200, n_items // 10)
    return tenth if tenth >= 2 else 0


def _calibrate_on(bundle: Bundle, held_out: TrialSet, features: Features) -> Calibration:
    items = held_out.items
    space = bundle.manifest.space
    gallery = build_gallery(items, items, features, load_hvf(bundle), space, created_by=COMMAND)
    calibration = fit_calibration(bundle, held_out, gallery)
    save_calibration(bundle, calibration)
    return calibration


@app.command()
def gallery(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")],
    out: Out,
    images: Images = None,
    encoders: Encoders = None,
    labels: Annotated[
        str, typer.Option(help="comma-separated classes, for a bundle trained with --labels")
    ] = "",
    cache: Annotated[Path, typer.Option(help="where features are kept")] = Path("features"),
) -> None:
    """Embeds images with a bundle's HVF: the gallery that is searched.

    Example: python -m offline_train gallery --bundle b --images test_images --encoders hvf.json ...
    """
    opened = load_bundle(bundle)
    classes = [label for label in labels.split(",") if label]
    ids = classes or [path.stem for path in image_files(images)]
    features = features_of(ids, images, encoders, bool(classes), cache)
    check_encoders(features, opened.manifest.image_encoders, f"the bundle '{bundle}'")
    made = build_gallery(
        ids, ids, features, load_hvf(opened), opened.manifest.space, created_by=COMMAND
    )
    save_gallery(out, made, None if classes else [read_image(p) for p in image_files(images)])
    console.print(f"{len(made)} images in '{out}'")
    console.print(f"next: python run_realtime.py live --bundle {bundle} --gallery {out} ...")


def check_encoders(features: Features, wanted: tuple[ImageEncoderRecord, ...], whose: str) -> None:
    """Refuses features of other image encoders than a model was trained with."""
    if features.encoders != wanted:
        theirs = ", ".join(encoder.name for encoder in wanted)
        raise Problem(
            f"{whose} was trained with the image encoders {theirs}; give the same file with "
            "--encoders, or the same --labels in the same order"
        )


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[2] if len(lines) > 2 else lines[0]
