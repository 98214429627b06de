"""evaluate-prior: scores paintings from images, from the brain, and from other trials."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hvf_core.options import Asked, with_settings
from offline_train.commands.options import (
    Base,
    BundleFolder,
    Cache,
    Encoders,
    Images,
    PriorFolder,
    Trials,
    bar,
    console,
    features_of,
)
from offline_train.paintings.settings import PaintingsSettings

PAINTINGS = "paintings.json"

if TYPE_CHECKING:
    from offline_train.paintings.scores import Paintings, PaintingScores


@with_settings(PaintingsSettings)
def evaluate_prior(
    bundle: BundleFolder,
    prior: PriorFolder,
    base: Base,
    trials: Trials,
    asked: Asked[PaintingsSettings],
    images: Images = None,
    encoders: Encoders = None,
    nets: Annotated[
        Path | None, typer.Option(help="JSON list of feature networks; the paper's by default")
    ] = None,
    device: Annotated[Literal["auto", "cpu"], typer.Option(help="Auto: a GPU if any")] = "auto",
    cache: Cache = Path("features"),
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON and the picture")] = None,
) -> None:
    """Scores paintings from the images themselves, from the brain, and from other trials.

    Example: python -m offline_train evaluate-prior --bundle b --prior p --base sdxl-turbo ...
    """
    import torch

    from decoder.bundle import load_bundle
    from decoder.painting.base import load_base
    from decoder.painting.prior import check_bundle, check_fits, load_prior
    from decoder.painting.spec import read_base_spec
    from hvf_core.artifact import refuse_other_results
    from offline_train.data.trial_set import load_trial_set
    from offline_train.evaluate.seen import GIVE_OTHERS, check_seen
    from offline_train.paintings.nets import load_feature_net
    from offline_train.paintings.paint import paint_trials
    from offline_train.paintings.scores import conditions_of, score
    from offline_train.paintings.spec import PAPER, read_feature_nets

    settings = asked.settings()
    if out is not None:
        refuse_other_results(out, PAINTINGS)
    specs = PAPER if nets is None else read_feature_nets(nets)
    opened, painted_with = load_bundle(bundle), load_prior(prior)
    check_bundle(painted_with, opened.manifest)
    trial_set = load_trial_set(trials)
    seen = check_seen(opened, trial_set, settings.seen, GIVE_OTHERS)
    pictures, features = features_of(trial_set.items, images, encoders, cache)
    conditions = conditions_of(
        opened, painted_with, trial_set, features, settings.repeats, settings.seed
    )
    place = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    precision = torch.float16 if place == "cuda" else torch.float32
    loaded = load_base(read_base_spec(base), place, precision)
    check_fits(painted_with, loaded)
    loaded_nets = [load_feature_net(spec, place) for spec in specs]
    with bar("painting") as tell:
        paintings, facts = paint_trials(
            conditions,
            painted_with,
            loaded,
            trial_set.items,
            pictures.read,
            settings,
            tell,
        )
    with console.status("scoring"):
        scores = score(paintings, loaded_nets, facts | {"device": place}, of_training=seen)
    show_paintings(paintings, scores, out)


def show_paintings(
    paintings: "Paintings", scores: "PaintingScores", out: Path | None, title: str = ""
) -> None:
    """Prints scores and, into a folder, writes them as JSON and the paintings as a picture."""
    from hvf_core.artifact import whole_files, write_manifest
    from offline_train.paintings.report import differences_table, scores_table, write_grid

    console.print(scores_table(scores))
    console.print(differences_table(scores))
    if out is not None:
        with whole_files(out) as draft:
            write_manifest(draft / PAINTINGS, scores)
            write_grid(paintings, draft / "paintings.png", title=f"{title}{scores.items}")
        console.print(f"in '{out}': paintings.json, paintings.png")
