"""What is behind the demo: `python -m demo --help`."""

import tempfile
from pathlib import Path
from typing import Annotated

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

    from demo.stimuli import render, stimuli, training_concepts
    from demo.subject import SimulatedSubject, SubjectSettings
    from demo.training import DemoSettings, simulate_recording

    settings = DemoSettings()
    subject_settings = SubjectSettings(seed=settings.subject_seed)
    shown = stimuli(training_concepts()[:concepts], 1)
    brain = SimulatedSubject(subject_settings, recording_seed=0)
    evoked = {s.id: brain.evoked(render(s), s.attributes) for s in shown}
    out.mkdir(parents=True, exist_ok=True)
    for number in range(sessions):
        order = np.random.default_rng([settings.subject_seed, number]).permutation(len(shown))
        subject = SimulatedSubject(subject_settings, recording_seed=number)
        name = f"session-{number + 1}"
        in_order = [shown[i] for i in order]
        recording = simulate_recording(subject, in_order, evoked, settings.soa_s, name)
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
    out: Annotated[Path | None, typer.Option(help="JSON file of the result")] = None,
) -> None:
    """200-way accuracy of the demo's model on its simulated subject, by number of repeats.

    Example: python -m demo evaluate --amplitude 0
    """
    from demo.evaluation import evaluate_demo
    from demo.model import ready_model

    model = ready_model(console)
    with tempfile.TemporaryDirectory() as folder:
        trials = Path(folder) / "trials"
        found = evaluate_demo(model.bundle, model.gallery, trials, amplitude=amplitude, soa_s=soa)
    console.print(found.table())
    console.print("The subject is simulated.")
    if out is not None:
        out.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    with one_sentence():
        app(prog_name="python -m demo")


if __name__ == "__main__":
    main()
