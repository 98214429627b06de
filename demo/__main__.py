"""What is behind the demo: `python -m demo --help`."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console

from decoder.problem import one_sentence

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="The demo world: its shipped weights, its images, its recordings, its accuracy.",
)
console = Console()


@app.command()
def assets(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("demo/assets"),
) -> None:
    """Trains the two image encoders that the demo ships (about half an hour on two cores).

    Example: python -m demo assets --out demo/assets
    """
    from demo.image_models import make_image_models

    for name, value in make_image_models(out).items():
        console.print(f"{name}: {value:.4g}", highlight=False)


@app.command()
def images(
    out: Annotated[Path, typer.Option(help="folder to write")],
    concepts: Annotated[int, typer.Option(min=1, max=1800, help="training concepts")] = 200,
) -> None:
    """Draws images of training concepts in OUT/train and the gallery's 200 in OUT/test.

    Example: python -m demo images --out world
    """
    from PIL import Image

    from demo.stimuli import gallery_stimuli, render, stimuli, training_concepts

    shown = {"train": stimuli(training_concepts()[:concepts], 1), "test": gallery_stimuli()}
    for part, some in shown.items():
        (out / part).mkdir(parents=True, exist_ok=True)
        for stimulus in some:
            Image.fromarray(render(stimulus)).save(out / part / f"{stimulus.id}.png")
    console.print(f"{concepts} training and {len(shown['test'])} test images in '{out}'")


@app.command()
def recordings(
    out: Annotated[Path, typer.Option(help="folder to write")],
    sessions: Annotated[int, typer.Option(min=1)] = 4,
    concepts: Annotated[int, typer.Option(min=2, max=1800, help="images in a session")] = 200,
) -> None:
    """Writes the simulated subject's training sessions as .fif, to practise `offline_train` on.

    Example: python -m demo recordings --out practice
    """
    import mne

    from demo.recordings import simulate_sessions
    from demo.stimuli import render, stimuli, training_concepts
    from demo.subject import SimulatedSubject, SubjectSettings
    from demo.training import DemoSettings

    settings = DemoSettings()
    subject_settings = SubjectSettings(seed=settings.subject_seed)
    shown = stimuli(training_concepts()[:concepts], 1)
    brain = SimulatedSubject(subject_settings, recording_seed=0)
    evoked = {s.id: brain.evoked(render(s), s.attributes) for s in shown}
    out.mkdir(parents=True, exist_ok=True)
    made = simulate_sessions(subject_settings, shown, evoked, range(sessions), settings.soa_s)
    for name, recording in made:
        info = mne.create_info(list(recording.channels), recording.rate_hz, "eeg")
        raw = mne.io.RawArray(recording.samples.T * 1e-6, info, verbose="ERROR")
        onsets_s = [marker.stamp_s for marker in recording.markers]
        texts = [marker.text for marker in recording.markers]
        raw.set_annotations(mne.Annotations(onsets_s, np.zeros(len(texts)), texts))
        raw.save(out / f"{name}_raw.fif", overwrite=True, verbose="ERROR")
    console.print(f"{sessions} simulated sessions in '{out}'")


@app.command()
def evaluate(
    amplitude: Annotated[float, typer.Option(min=0.0, help="of the evoked response")] = 1.0,
    soa: Annotated[float, typer.Option(min=0.1, help="seconds between images")] = 1.0,
    tmax: Annotated[str, typer.Option(help="times after onset, s; the whole window too")] = "",
    evidence: Annotated[Literal["mean", "added"], typer.Option(help="of repeats")] = "mean",
    gains: Annotated[
        float, typer.Option(min=0.0, help="sd of the log gain that each channel has changed by")
    ] = 0.0,
    adapt: Annotated[bool, typer.Option("--adapt", help="follow it, without labels")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for the JSON and the pictures")] = None,
) -> None:
    """200-way accuracy and calibration on the simulated subject, by window end and repeats.

    Example: python -m demo evaluate --tmax 0.2,0.3,0.5 --out evaluation
    """
    from demo.evaluation import evaluate_demo
    from demo.model import ready_model
    from demo.training import PREPROCESSING
    from offline_train.command_options import report
    from stream.acquire.adaptation import AdaptationSettings
    from stream.pipeline.command_options import numbers

    ends_s = numbers(tmax, "--tmax")
    model = ready_model(console)
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate_demo(
            model.bundle,
            model.gallery,
            Path(folder) / "trials",
            amplitude=amplitude,
            soa_s=soa,
            tmax_s=[*ends_s, PREPROCESSING.tmax_s],
            evidence=evidence,
            gain_sd=gains,
            adaptation=AdaptationSettings() if adapt else None,
        )
    report(found, out)


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    with one_sentence():
        app(prog_name="python -m demo")


if __name__ == "__main__":
    main()
