"""The options that several commands of `run_realtime.py` share, and lists of numbers as options."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from decoder.engines.choice import EngineChoice, Precision
from stream.acquire.markers import MarkerRule
from stream.pipeline.wire.config import PreviewGrade

ANY_MARKER = MarkerRule().stimulus


@dataclass(frozen=True)
class ModelOptions:
    """The models of a person, and the window where there is none."""

    bundle: Annotated[Path | None, typer.Option(help="folder of a trained bundle")] = None
    gallery: Annotated[
        Path | None,
        typer.Option(help="folder of a gallery; `gallery` beside the bundle by default"),
    ] = None
    tmin: Annotated[
        float | None, typer.Option(help="start of a trial, s; the bundle's, else -0.2")
    ] = None
    rest: Annotated[
        Path | None, typer.Option(help="resting recording from which the adaptation starts")
    ] = None
    paint: Annotated[
        Path | None, typer.Option(help="folder of a Fusion Prior: paint what was seen with it")
    ] = None
    base: Annotated[
        str | None,
        typer.Option(help="diffusion model: a folder or a preset; the prior's own by default"),
    ] = None


@dataclass(frozen=True)
class DecodingOptions:
    """How trials are answered."""

    tmax: Annotated[
        str,
        typer.Option(
            help="times after onset, s, at which to answer, as 0.3,0.5; also the end without bundle"
        ),
    ] = ""
    evidence: Annotated[
        Literal["mean", "added"],
        typer.Option(help="of repeats: average their EEG, or add log-likelihoods"),
    ] = "mean"
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="answers that are less sure abstain")
    ] = 0.0
    engine: Annotated[
        EngineChoice, typer.Option(help="what runs the network; auto: the fastest here")
    ] = "auto"
    precision: Annotated[Precision, typer.Option(help="of the network")] = "fp32"
    adapt: Annotated[
        bool, typer.Option("--adapt", help="follow the session's covariance, without labels")
    ] = False


@dataclass(frozen=True)
class PaintingOptions:
    """How what was seen is painted; what is not given is as the diffusion model asks for."""

    paint_steps: Annotated[int | None, typer.Option(min=1, help="denoising steps")] = None
    paint_size: Annotated[
        int | None, typer.Option(min=8, help="of the image, pixels; a multiple of 8")
    ] = None
    preview: Annotated[
        PreviewGrade | None, typer.Option(help="what shows the image while it comes")
    ] = None
    refine: Annotated[
        bool, typer.Option("--refine", help="begin with a provisional answer of --tmax")
    ] = False
    ip_scale: Annotated[
        float, typer.Option(min=0.0, help="influence of the brain on the image; 0: none")
    ] = 1.0
    skip_projector: Annotated[
        bool, typer.Option("--skip-projector", help="as the paper's released code paints a brain")
    ] = False
    from_top: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1.0, help="begin with the first image of the answer; 1 keeps none of it"
        ),
    ] = None


@dataclass(frozen=True)
class TrialOptions:
    """Which markers open trials, and what becomes of what is cut."""

    stimuli: Annotated[
        str,
        typer.Option(help="regular expression: which markers are stimuli (group `id`: their id)"),
    ] = ANY_MARKER
    ignore: Annotated[
        str | None, typer.Option(help="markers in which this is found open no trial")
    ] = None
    start_on: Annotated[
        str | None, typer.Option(help="open trials only after such a marker ...")
    ] = None
    stop_on: Annotated[str | None, typer.Option(help="... and until such a marker")] = None
    channels: Annotated[
        str, typer.Option(help="names that differ from the bundle's: MINE=ITS,MINE=ITS")
    ] = ""
    reject: Annotated[
        float | None, typer.Option(min=0, help="reject trials above this peak to peak, uV")
    ] = None
    flat: Annotated[
        float | None, typer.Option(min=0, help="reject trials below this peak to peak, uV")
    ] = None
    save_trials: Annotated[
        Path | None, typer.Option(help="write the trials as cut: NAME.npz or NAME-epo.fif")
    ] = None


@dataclass(frozen=True)
class SessionOptions:
    """Where a session goes, and what is seen of it."""

    out: Annotated[Path | None, typer.Option(help="session folder; sessions/ID by default")] = None
    headless: Annotated[
        bool, typer.Option("--headless", help="a line per answer, no live table")
    ] = False


def numbers(text: str, option: str) -> tuple[float, ...]:
    """The finite numbers of a comma-separated list.

    Raises:
        typer.BadParameter: one of them is none.
    """
    try:
        found = tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise typer.BadParameter(f"{option} '{text}' is no list of numbers such as 0.3,0.5")
    return found
