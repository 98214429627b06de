"""The commands for a bundle that is there: calibrate, evaluate, export, share, fetch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.engines.choice import Precision
from decoder.engines.export import export_onnx
from decoder.engines.graph import UnitLength
from hvf_core.numbers import numbers
from hvf_core.problem import Problem
from index.gallery import load_gallery
from offline_train.brain.calibrate import check_held_out, fit_calibration, save_calibration
from offline_train.commands.options import Out, console, repeat_numbers, report
from offline_train.data.trial_set import load_trial_set
from offline_train.evaluate.retrieval import evaluate as evaluate_trials
from offline_train.evaluate.session import evaluate_session

app = typer.Typer()


BundleFolder = Annotated[Path, typer.Option("--bundle", help="folder of the bundle")]


@app.command()
def calibrate(
    bundle: BundleFolder,
    gallery: Annotated[Path, typer.Option(help="folder of a gallery with their images")],
    trials: Annotated[Path, typer.Option(help="trial set that the bundle was not trained on")],
    seed: int = 0,
) -> None:
    """Makes a bundle's probabilities mean what they say, on trials that it has not seen.

    `mbp` does this itself on the stimuli that it holds out; this is for another recording, and for
    bundles trained with --labels.

    Example: python -m offline_train calibrate --bundle b --gallery g --trials held_out
    """
    opened, trial_set = load_bundle(bundle), load_trial_set(trials)
    check_held_out(opened, trial_set)
    with console.status("calibrating"):
        found = fit_calibration(opened, trial_set, load_gallery(gallery), seed=seed)
    save_calibration(opened, found)
    console.print(f"'{bundle}' is calibrated on {found.n_items} stimuli")


@app.command()
def evaluate(
    bundle: Annotated[Path | None, typer.Option(help="folder of the bundle")] = None,
    gallery: Annotated[Path | None, typer.Option(help="folder of the gallery")] = None,
    trials: Annotated[Path | None, typer.Option(help="trial set of held-out stimuli")] = None,
    session: Annotated[Path | None, typer.Option(help="folder of a session instead")] = None,
    repeats: Annotated[str, typer.Option(help="numbers of repeats, as 1,4,20")] = "1",
    tmax: Annotated[str, typer.Option(help="also at these times after onset, s")] = "",
    evidence: Annotated[Literal["mean", "added"], typer.Option(help="of repeats")] = "mean",
    out: Annotated[Path | None, typer.Option(help="folder for the JSON and the pictures")] = None,
    seed: int = 0,
) -> None:
    """Accuracy and calibration on held-out trials; or a live session, decoded again.

    Example: python -m offline_train evaluate --session sessions/20261122-101500-ab12
    """
    if session is not None:
        _evaluate_session(session)
        return
    if bundle is None or gallery is None or trials is None:
        raise typer.BadParameter("give --session, or --bundle, --gallery and --trials")
    opened = load_bundle(bundle)
    found = evaluate_trials(
        opened,
        load_trial_set(trials),
        load_gallery(gallery),
        repeat_numbers(repeats),
        seed=seed,
        tmax_s=[*numbers(tmax, "--tmax"), opened.manifest.tmax_s],
        evidence=evidence,
    )
    report(found, out)


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


@app.command()
def export(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="file to write, NAME.onnx")],
    precision: Annotated[Precision, typer.Option(help="of the weights")] = "fp32",
    gallery: Annotated[Path | None, typer.Option(help="compare top-5 lists on it")] = None,
) -> None:
    """Writes the brain encoder as ONNX, one trial to one unit vector, and checks it against torch.

    Example: python -m offline_train export --bundle b --out encoder.onnx
    """
    opened = load_bundle(bundle)
    manifest = opened.manifest
    network = UnitLength(load_brain_encoder(opened))
    shape = (len(manifest.channels), manifest.n_times)
    embeddings = load_gallery(gallery).embeddings if gallery is not None else None
    try:
        check = export_onnx(network, shape, out, precision, embeddings)
    except OSError as error:
        raise Problem(
            f"'{out}' cannot be written ({error.strerror}); name another file with --out"
        ) from None
    console.print(
        f"'{out}' takes {shape[0]} channels x {shape[1]} times in {precision}; beside torch, on "
        f"{check.n_inputs} random trials: lowest cosine {check.lowest_cosine:.7f}, same top-5 in "
        f"{check.same_top5:.0%}",
        highlight=False,
    )


@app.command()
def share(
    bundle: Annotated[Path, typer.Argument(help="folder of the bundle")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on huggingface.co")],
    public: Annotated[bool, typer.Option("--public", help="for everybody to see")] = False,
    message: str = "A bundle of hvf-live",
) -> None:
    """Uploads a bundle to the Hugging Face hub; log in first with `hf auth login`.

    Example: python -m offline_train share bundle my-lab/sub-01
    """
    from offline_train.brain.hub import push_bundle  # here, as it takes a second to import

    console.print("bundle.json names the command and the files that it was trained with")
    console.print(push_bundle(bundle, repo, private=not public, message=message))
    console.print(f"next: python -m offline_train fetch {repo} --out FOLDER")


@app.command()
def fetch(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on huggingface.co")],
    out: Out,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit")] = None,
) -> None:
    """Downloads a bundle from the Hugging Face hub and verifies it; never a pickle.

    Example: python -m offline_train fetch my-lab/sub-01 --out bundle
    """
    from offline_train.brain.hub import fetch_bundle

    fetched = fetch_bundle(repo, revision, out)
    console.print(f"bundle in '{out}': {len(fetched.manifest.channels)} channels")
    console.print(f"next: python -m offline_train gallery --bundle {out} ...")
