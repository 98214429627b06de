"""The commands that produce what the live part loads: `python -m offline_train --help`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress, track

from decoder.bundle import load_bundle
from decoder.hvf import load_hvf
from decoder.problem import Problem, one_sentence
from index.gallery import load_gallery, save_gallery
from index.image_encoders import load_encoder, read_specs
from offline_train.build_gallery import build_gallery
from offline_train.evaluate import evaluate as evaluate_trials
from offline_train.evaluate_session import evaluate_session
from offline_train.features import Features, extract_features, label_features
from offline_train.prepare import Prepared
from offline_train.prepare import prepare as prepare_trials
from offline_train.train import PRESETS, make_bundle, train
from offline_train.trial_set import load_trial_set
from stream.acquire.filters import FilterSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import PreprocessSettings
from stream.acquire.reject import RejectSettings
from stream.sources.recording import read_recording

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Produces the models of the live system: prepare, mbp, gallery, then evaluate.",
)
console = Console()
_COMMAND = shlex.join(["python", "-m", "offline_train", *sys.argv[1:]])

Out = Annotated[Path, typer.Option(help="folder to write")]
Images = Annotated[
    Path | None, typer.Option(help="folder of images; a file's name is its stimulus id")
]
Encoders = Annotated[
    Path | None, typer.Option(help="JSON file of image encoders; `labels` need none")
]
Labels = Annotated[
    bool, typer.Option("--labels", help="the stimulus ids are classes: no images, no encoders")
]


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
    recordings = [
        (path.stem, read_recording(path, stim_channel=stim_channel).slice(start, stop))
        for path in track(files, "reading", console=console)
    ]
    first = recordings[0][1]
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
    so_far = Prepared()

    def on_recording(name: str, prepared: Prepared) -> None:
        nonlocal so_far
        so_far = prepared
        console.print(f"{name}: {prepared.n_trials} trials so far")

    trial_set = prepare_trials(
        recordings,
        settings,
        out,
        marker_rule=MarkerRule(stimulus=stimuli),
        reject=RejectSettings(peak_to_peak_uv=reject, flat_uv=flat),
        provenance={"files": [path.name for path in files], "command": _COMMAND},
        on_recording=on_recording,
    )
    dropped = ", ".join(f"{n} {reason}" for reason, n in so_far.dropped.items()) or "none"
    console.print(
        f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}', dropped: {dropped}"
    )
    console.print(f"next: python -m offline_train mbp {out} --images FOLDER --encoders FILE ...")


@app.command()
def mbp(
    trials: Annotated[Path, typer.Argument(help="folder of a trial set")],
    out: Out,
    images: Images = None,
    encoders: Encoders = None,
    labels: Labels = False,
    preset: Annotated[Literal["paper", "demo"], typer.Option()] = "paper",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    every_trial: Annotated[
        bool, typer.Option("--every-trial", help="learn from single trials, not from their mean")
    ] = False,
    seed: int | None = None,
    cache: Annotated[Path, typer.Option(help="where features are kept")] = Path("features"),
) -> None:
    """Trains MBP and HVF together on a trial set and writes a bundle.

    Example: python -m offline_train mbp trials --images train_images --encoders hvf.json --out b
    """
    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    settings = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    if every_trial:
        settings = replace(settings, repeats_per_row=1, rows_per_item=None)
    trial_set = load_trial_set(trials)
    features = _features(trial_set.items, images, encoders, labels, cache)
    with Progress(console=console) as progress:
        task = progress.add_task("training MBP + HVF", total=None)
        models = train(
            trial_set,
            features,
            settings,
            lambda step: progress.update(task, completed=step.step, total=step.n_steps),
            checkpoint_dir=out.with_name(f"{out.name}-checkpoint"),
        )
    make_bundle(out, models, trial_set, features, settings, _COMMAND)
    console.print(f"bundle in '{out}', last loss {models.history[-1]['loss']:.3f}")
    console.print(f"next: python -m offline_train gallery --bundle {out} ...")


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
    ids = classes or [path.stem for path in _image_files(images)]
    features = _features(ids, images, encoders, bool(classes), cache)
    if features.encoders != opened.manifest.image_encoders:
        theirs = ", ".join(encoder.name for encoder in opened.manifest.image_encoders)
        raise Problem(
            f"the bundle '{bundle}' was trained with the image encoders {theirs}; give the same "
            "file with --encoders, or the same --labels in the same order"
        )
    made = build_gallery(
        ids, ids, features, load_hvf(opened), opened.manifest.space, created_by=_COMMAND
    )
    save_gallery(out, made, None if classes else [_read_image(p) for p in _image_files(images)])
    console.print(f"{len(made)} images in '{out}'")
    console.print(f"next: python run_realtime.py live --bundle {bundle} --gallery {out} ...")


@app.command()
def evaluate(
    bundle: Annotated[Path | None, typer.Option(help="folder of the bundle")] = None,
    gallery: Annotated[Path | None, typer.Option(help="folder of the gallery")] = None,
    trials: Annotated[Path | None, typer.Option(help="trial set of held-out stimuli")] = None,
    session: Annotated[Path | None, typer.Option(help="folder of a session instead")] = None,
    repeats: Annotated[str, typer.Option(help="numbers of repeats to average")] = "1",
    out: Annotated[Path | None, typer.Option(help="JSON file of the result")] = None,
    seed: int = 0,
) -> None:
    """Top-1 and top-5 on held-out trials; or a live session, decoded again from its recording.

    Example: python -m offline_train evaluate --session sessions/20261122-101500-ab12
    """
    if session is not None:
        _evaluate_session(session)
        return
    if bundle is None or gallery is None or trials is None:
        raise typer.BadParameter("give --session, or --bundle, --gallery and --trials")
    numbers = [int(n) for n in repeats.split(",")]
    evaluation = evaluate_trials(
        load_bundle(bundle), load_trial_set(trials), load_gallery(gallery), numbers, seed=seed
    )
    console.print(evaluation.table())
    if out is not None:
        out.write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _evaluate_session(folder: Path) -> None:
    replayed = evaluate_session(folder)
    console.print(
        f"{replayed.n_live} trials decoded live, {replayed.n_offline} offline from the recording, "
        f"{replayed.n_equal} with the same list of answers"
    )
    if not replayed.agrees:
        raise Problem(
            f"live and offline answers of '{folder}' differ; keep the folder and report it"
        )


def _features(
    items: tuple[str, ...] | list[str],
    images: Path | None,
    encoders: Path | None,
    labels: bool,
    cache: Path,
) -> Features:
    if labels:
        return label_features(sorted(items))
    if images is None or encoders is None:
        raise typer.BadParameter("give --images and --encoders, or --labels")
    files = {path.stem: path for path in _image_files(images)}
    absent = next((item for item in items if item not in files), None)
    if absent is not None:
        raise Problem(f"the folder '{images}' has no image of stimulus '{absent}'; add it")
    loaded = [load_encoder(spec) for spec in read_specs(encoders)]
    with Progress(console=console) as progress:
        task = progress.add_task("encoding images", total=None)
        return extract_features(
            items,
            lambda item: _read_image(files[item]),
            loaded,
            cache,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _image_files(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        raise Problem(f"there is no folder of images '{folder}'; give one with --images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise Problem(f"the folder '{folder}' holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def _read_image(path: Path) -> np.ndarray:
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except OSError as error:
        raise Problem(f"the image '{path}' cannot be read ({error}); replace it") from None


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[2] if len(lines) > 2 else lines[0]


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    with one_sentence():
        app(prog_name="python -m offline_train")


if __name__ == "__main__":
    main()
