"""The command line of the demo world: its commands."""

import os
import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from demo.unseen.settings import UnseenSettings
from hvf_core.options import LIVE, TRAIN, Asked, Flag, app_of, with_settings
from hvf_core.screen import Screen
from offline_train.evaluate.settings import EvaluateSettings
from offline_train.paintings.settings import PaintingsSettings

app = app_of("The demo world: its shipped weights, its images, its recordings, its accuracy.")
console = Screen()


@app.command()
def assets(
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("demo/assets"),
    part: Annotated[
        Literal["encoders", "diffusion", "prior", "all"],
        typer.Option(help="What to make; each needs what is named before it"),
    ] = "all",
) -> None:
    """Trains the models that the demo ships: image encoders, diffusion model, Fusion Prior.

    The encoders take an hour and a half on two cores, the diffusion model and the prior one hour.

    Example: python -m demo assets --part diffusion --out demo/assets
    """
    if part in ("encoders", "all"):
        from demo.shipped.image_models import make_image_models

        for name, value in make_image_models(out).items():
            console.print(f"{name}: {value:.4g}", highlight=False)
    if part in ("diffusion", "all"):
        from demo.shipped.diffusion_models import make_diffusion_models

        make_diffusion_models(out)
    if part in ("prior", "all"):
        from demo.prior import make_prior_of_demo
        from demo.shipped.diffusion_models import PaintRecipe

        recipe = PaintRecipe()
        make_prior_of_demo(out, recipe.concepts, recipe.exemplars)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("demo/assets/model"),
) -> None:
    """Makes the brain model that the demo ships, and records what it answers.

    Two minutes on two cores. To be done again when a change of what a trial is, or of how it is
    embedded, is intended; docs/numbers.md has the figures of `evaluate`.

    Example: python -m demo train --out demo/assets/model
    """
    # Before torch is loaded: on shared cores, threads that spin while they wait slow training down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from demo.settings import DemoSettings
    from demo.training import make_shipped_model

    make_shipped_model(out, DemoSettings(), console)
    console.print(f"model in '{out}'; its accuracy: python -m demo evaluate", highlight=False)


@app.command()
def images(
    out: Annotated[Path, typer.Option(help="Folder to write")],
    concepts: Annotated[int, typer.Option(min=1, max=1800, help="Training concepts")] = 200,
    exemplars: Annotated[int, typer.Option(min=1, max=100, help="Images of each of them")] = 1,
) -> None:
    """Draws images of training concepts in OUT/train and the gallery's 200 in OUT/test.

    Example: python -m demo images --out world
    """
    from PIL import Image

    from demo.stimuli import gallery_stimuli, render, stimuli, training_concepts

    shown = {"train": stimuli(training_concepts()[:concepts], exemplars), "test": gallery_stimuli()}
    for part, some in shown.items():
        (out / part).mkdir(parents=True, exist_ok=True)
        for stimulus in some:
            Image.fromarray(render(stimulus)).save(out / part / f"{stimulus.id}.png")
    console.print(f"{len(shown['train'])} training and {len(shown['test'])} test images in '{out}'")
    shows = f"python examples/psychopy_rsvp.py --images {shlex.quote(str(out / 'train'))}"
    console.print(f"next: {shows} --wait 0 --check", soft_wrap=True)


@app.command()
def recordings(
    out: Annotated[Path, typer.Option(help="Folder to write")],
    sessions: Annotated[int, typer.Option(min=1)] = 4,
    concepts: Annotated[int, typer.Option(min=2, max=1800, help="Images in a session")] = 200,
) -> None:
    """Writes the simulated subject's training sessions as .fif, to practise `offline_train` on.

    Example: python -m demo recordings --out practice
    """
    import mne

    from demo.recordings import responses, simulate_sessions
    from demo.settings import DemoSettings
    from demo.stimuli import stimuli, training_concepts
    from demo.subject import SubjectSettings

    settings = DemoSettings()
    subject = SubjectSettings(seed=settings.subject_seed)
    shown = stimuli(training_concepts()[:concepts], 1)
    evoked = responses(subject, shown)
    out.mkdir(parents=True, exist_ok=True)
    made = simulate_sessions(subject, shown, evoked, range(sessions), settings.soa_s)
    for recording in made:
        info = mne.create_info(list(recording.channels), recording.rate_hz, "eeg")
        raw = mne.io.RawArray(recording.samples.T * 1e-6, info, verbose="ERROR")
        onsets_s = [marker.stamp_s for marker in recording.markers]
        texts = [marker.text for marker in recording.markers]
        raw.set_annotations(mne.Annotations(onsets_s, np.zeros(len(texts)), texts))
        raw.save(out / f"{recording.name}_raw.fif", overwrite=True, verbose="ERROR")
    console.print(f"{sessions} simulated sessions in '{out}'")
    console.print(
        f"next: {TRAIN} prepare {shlex.quote(str(out))}/*.fif --out trials", soft_wrap=True
    )


@app.command()
def trials(
    out: Annotated[Path, typer.Option(help="Folder to write")],
    subjects: Annotated[int, typer.Option(min=1, max=20)] = 2,
    concepts: Annotated[int, typer.Option(min=2, max=1800, help="Training images")] = 800,
    sessions: Annotated[int, typer.Option(min=1, help="Which show each of them once")] = 4,
    test_sessions: Annotated[int, typer.Option(min=1, help="Same, of the 200 test images")] = 20,
) -> None:
    """Writes a trial set with training and test of simulated subjects, for `experiments demo-...`.

    In OUT/trials, and the images in OUT/images. Two minutes on two cores by default.

    Example: python -m demo trials --out world
    """
    from PIL import Image
    from rich.progress import track

    from demo.evaluation import shown_images, simulated_trial_set
    from demo.stimuli import render

    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    shown = track(shown_images(concepts), "drawing images", console=console)
    pictures = {stimulus: render(stimulus) for stimulus in shown}
    for stimulus, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{stimulus.id}.png")
    with console.status("recording (simulated)") as status:
        made = simulated_trial_set(
            out / "trials",
            pictures,
            subjects,
            sessions,
            test_sessions,
            lambda name: status.update(f"recording (simulated): {name}"),
        )
    console.print(f"{len(made)} simulated trials in '{out / 'trials'}', images in '{folder}'")
    console.print(f"next: {TRAIN} experiments demo-encoders")


@app.command()
def subject(
    markers: Annotated[str, typer.Option(help="Stream that says what is shown, by image ids")],
    name: Annotated[str, typer.Option(help="Of the EEG stream")] = "simulated-subject",
    amplitude: Annotated[float, typer.Option(min=0.0, help="Of the evoked response")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise")] = 0,
) -> None:
    """Plays the EEG of the simulated subject, which sees what a program's markers say.

    Until Ctrl-C. The images are those of `images` in OUT/test.

    Example: python -m demo subject --markers closed-loop
    """
    from demo.live_subject import LAG_S, watch
    from demo.model import ready_model

    live = f"{LIVE} live --eeg {name} --markers {markers}"
    console.print(f"to decode it: {live} --bundle {ready_model().bundle}", soft_wrap=True)
    console.print(f"its samples leave {LAG_S:g} s late, so that it sees what is shown meanwhile")
    watch(markers, name, amplitude, seed)


@app.command()
@with_settings(EvaluateSettings)
def evaluate(
    asked: Asked[EvaluateSettings],
    amplitude: Annotated[float, typer.Option(min=0.0, help="Of the evoked response")] = 1.0,
    soa: Annotated[float, typer.Option(min=0.1, help="Seconds between images")] = 1.0,
    gains: Annotated[
        float, typer.Option(min=0.0, help="Sd of the log gain that each channel has changed by")
    ] = 0.0,
    adapt: Annotated[bool, Flag("--adapt", help="Follow it, without labels")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON and the pictures")] = None,
) -> None:
    """200-way accuracy and calibration on the simulated subject, by window end and repeats.

    From 1, 2, 4, 10 and 20 repeats, unless --repeats says otherwise.

    Example: python -m demo evaluate --tmax 0.2,0.3,0.5 --out evaluation
    """
    from demo.evaluation import REPEATS, evaluate_demo
    from demo.model import ready_model
    from hvf_core.artifact import refuse_other_results
    from offline_train.commands.evaluate import RESULTS, show_results
    from stream.acquire.settings import AdaptationSettings

    if out is not None:
        refuse_other_results(out, RESULTS)
    settings = asked.settings({"repeats": REPEATS})
    model = ready_model()
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate_demo(
            model.bundle,
            model.gallery,
            Path(folder) / "trials",
            settings,
            amplitude=amplitude,
            soa_s=soa,
            gain_sd=gains,
            adaptation=AdaptationSettings() if adapt else None,
        )
    show_results(found, out)


@app.command()
@with_settings(UnseenSettings)
def unseen(
    asked: Asked[UnseenSettings],
    out: Annotated[Path, typer.Option(help="Folder to write; begun there, it goes on")] = Path(
        "unseen"
    ),
) -> None:
    """How well people are decoded whom the model has not seen, by minutes of calibration.

    A model learns from many simulated people with heads, caps and gains of their own. Others are
    decoded by it as it is, made theirs by some minutes of trials, and from these minutes alone.

    Example: python -m demo unseen --out unseen
    """
    # Before torch is loaded: on shared cores, threads that spin while they wait slow training down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from demo.unseen.measure import Measuring, claimed
    from demo.unseen.report import PICTURE, RESULT, tables_of, unseen_of, write
    from demo.unseen.world import World
    from offline_train.commands.options import bar

    settings = asked.settings()
    world = World.of(settings)
    with claimed(out, settings):
        with bar("drawing and encoding pictures (simulated)") as tell:
            features = world.features(out / "features", tell)
        with bar("recording") as tell:
            found = Measuring(out, settings, world, features, tell).run()
        measured = unseen_of(settings, found)
        write(measured, out)
    for table in tables_of(measured):
        console.print(table)
    console.print(f"'{RESULT}' and '{PICTURE}' are in '{out}'")


@app.command()
@with_settings(PaintingsSettings)
def evaluate_paintings(
    asked: Asked[PaintingsSettings],
    images: Annotated[int, typer.Option(min=3, max=200, help="Test images to paint")] = 200,
    amplitude: Annotated[float, typer.Option(min=0.0, help="Of the evoked response")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON and the picture")] = None,
) -> None:
    """Paints test images from themselves, from the simulated brain, and from other trials.

    Example: python -m demo evaluate-paintings --images 60 --out paintings
    """
    from demo.model import ready_model
    from demo.prior import evaluate_demo_paintings
    from hvf_core.artifact import refuse_other_results
    from offline_train.commands.evaluate_prior import PAINTINGS, show_paintings

    if out is not None:
        refuse_other_results(out, PAINTINGS)
    settings = asked.settings()
    model = ready_model()
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate_demo_paintings(
            model,
            Path(folder) / "trials",
            settings,
            n_images=images,
            amplitude=amplitude,
        )
    show_paintings(*found, out, title="simulated subject, test concepts: ")
