"""The options that several commands of `run_realtime.py` share, and lists of numbers as options."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from decoder.engine_choice import EngineChoice, Precision
from stream.acquire.markers import MarkerRule

BundleFolder = Annotated[Path | None, typer.Option(help="folder of a trained bundle")]
GalleryFolder = Annotated[
    Path | None, typer.Option(help="folder of a gallery; `gallery` beside the bundle by default")
]
TMin = Annotated[
    float | None, typer.Option("--tmin", help="start of a trial, s; the bundle's, else -0.2")
]
TMax = Annotated[
    str,
    typer.Option(
        "--tmax", help="times after onset, s, at which to answer, as 0.3,0.5; also the end without"
    ),
]
EvidenceOption = Annotated[
    Literal["mean", "added"],
    typer.Option("--evidence", help="of repeats: average their EEG, or add log-likelihoods"),
]
MinConfidence = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="answers that are less sure abstain")
]
EngineOption = Annotated[
    EngineChoice, typer.Option("--engine", help="what runs the network; auto: the fastest here")
]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="of the network")]
Adapt = Annotated[
    bool, typer.Option("--adapt", help="follow the session's covariance, without labels")
]
Rest = Annotated[
    Path | None, typer.Option(help="resting recording from which the adaptation starts")
]
Duration = Annotated[float | None, typer.Option(help="end after this many seconds")]
Out = Annotated[Path | None, typer.Option(help="session folder; sessions/ID by default")]
Headless = Annotated[bool, typer.Option("--headless", help="a line per answer, no live table")]
SaveTrials = Annotated[
    Path | None, typer.Option(help="write the trials as cut: NAME.npz or NAME-epo.fif")
]
Stimuli = Annotated[
    str, typer.Option(help="regular expression: which markers are stimuli (group `id`: their id)")
]
Ignore = Annotated[str | None, typer.Option(help="markers in which this is found open no trial")]
StartOn = Annotated[str | None, typer.Option(help="open trials only after such a marker ...")]
StopOn = Annotated[str | None, typer.Option(help="... and until such a marker")]
Channels = Annotated[
    str, typer.Option(help="names that differ from the bundle's: MINE=ITS,MINE=ITS")
]
Reject = Annotated[
    float | None, typer.Option(min=0, help="reject trials above this peak to peak, uV")
]
Flat = Annotated[
    float | None, typer.Option(min=0, help="reject trials below this peak to peak, uV")
]
Trigger = Annotated[
    str | None, typer.Option(help="channel of codes in the EEG; beside markers: a cross-check")
]
ANY_MARKER = MarkerRule().stimulus


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
