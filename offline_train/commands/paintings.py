"""The command that scores what is painted: evaluate-prior."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from rich.progress import Progress

from decoder.bundle import load_bundle
from decoder.painting.base import load_base
from decoder.painting.prior import check_bundle, check_fits, load_prior
from decoder.painting.sampler import Sampler, SamplerSettings
from decoder.painting.spec import read_base_spec
from index.encoders.parts import square_picture
from offline_train.commands.options import (
    Encoders,
    Images,
    console,
    features_of,
    image_files,
    read_image,
    repeat_numbers,
)
from offline_train.data.trial_set import load_trial_set
from offline_train.paintings.nets import PAPER, load_feature_net, read_feature_nets
from offline_train.paintings.report import differences_table, scores_table, write_grid
from offline_train.paintings.scores import (
    Paintings,
    ReconstructionScores,
    conditions_of,
    paint_conditions,
    score,
)

app = typer.Typer()


@app.command()
def evaluate_prior(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")],
    prior: Annotated[Path, typer.Option(help="folder of the Fusion Prior")],
    base: Annotated[str, typer.Option(help="folder of a diffusion model, or a preset's name")],
    trials: Annotated[Path, typer.Option(help="folder of a trial set, not trained on")],
    images: Images = None,
    encoders: Encoders = None,
    nets: Annotated[
        Path | None, typer.Option(help="JSON list of feature networks; the paper's by default")
    ] = None,
    repeats: Annotated[str, typer.Option(help="numbers of trials to average")] = "1,4,20",
    samples: Annotated[
        int, typer.Option(min=1, help="paintings of each image; the paper's are 10")
    ] = 1,
    n_steps: Annotated[int | None, typer.Option("--steps", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(min=0.0)] = None,
    seed: int = 0,
    device: Annotated[Literal["auto", "cpu"], typer.Option(help="auto: a GPU if any")] = "auto",
    skip_projector: Annotated[
        bool, typer.Option("--skip-projector", help="as the paper's released code does")
    ] = False,
    keep_length: Annotated[
        bool, typer.Option("--keep-length", help="leave embeddings as long as they are")
    ] = False,
    cache: Annotated[Path, typer.Option(help="where features are kept")] = Path("features"),
    out: Annotated[Path | None, typer.Option(help="folder for the JSON and the picture")] = None,
) -> None:
    """Scores paintings from the images themselves, from the brain, and from other trials.

    Example: python -m offline_train evaluate-prior --bundle b --prior p --base sdxl-turbo ...
    """
    specs = PAPER if nets is None else read_feature_nets(nets)
    opened, painted_with = load_bundle(bundle), load_prior(prior)
    check_bundle(painted_with, opened.manifest)
    trial_set = load_trial_set(trials)
    features = features_of(trial_set.items, images, encoders, False, cache)
    wanted = repeat_numbers(repeats)
    conditions = conditions_of(opened, painted_with, trial_set, features, wanted, seed)
    place = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    precision = torch.float16 if place == "cuda" else torch.float32
    loaded = load_base(read_base_spec(base), place, precision)
    check_fits(painted_with, loaded)
    loaded_nets = [load_feature_net(spec, place) for spec in specs]
    sampler = Sampler(
        loaded,
        painted_with.adapter,
        SamplerSettings(steps=n_steps, guidance=guidance, preview="none"),
    )
    files = {path.stem: path for path in image_files(images)}
    shown = (read_image(files[item]) for item in trial_set.items)
    seen = np.stack([square_picture(image, sampler.size_px) for image in shown])
    with Progress(console=console) as progress:
        task = progress.add_task("painting", total=samples * len(seen) * len(conditions))
        painted = paint_conditions(
            conditions,
            painted_with,
            sampler,
            seed=seed,
            n_samples=samples,
            rescale=not keep_length,
            skip_projector=skip_projector,
            progress=lambda n: progress.advance(task, n),
        )
    paintings = Paintings(seen, painted)
    facts = {"base": loaded.spec.name, "steps": sampler.steps, "size_px": sampler.size_px}
    facts |= {"guidance": loaded.spec.guidance if guidance is None else guidance}
    facts |= {"seed": seed, "skip_projector": skip_projector, "keep_length": keep_length}
    facts |= {"samples": samples, "space": painted_with.manifest.space, "device": place}
    with console.status("scoring"):
        scores = score(paintings, loaded_nets, facts)
    report_paintings(paintings, scores, out)


def report_paintings(
    paintings: Paintings, scores: ReconstructionScores, out: Path | None, title: str = ""
) -> None:
    """Prints scores and, into a folder, writes them as JSON and the paintings as a picture."""
    console.print(scores_table(scores))
    console.print(differences_table(scores))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = scores.model_dump_json(indent=2) + "\n"
        (out / "paintings.json").write_text(text, encoding="utf-8")
        write_grid(paintings, out / "paintings.png", title=title)
        console.print(f"in '{out}': paintings.json, paintings.png")
