"""prior-gap: how brain embeddings differ from those that a Fusion Prior was trained on."""

from pathlib import Path

from rich.table import Table

from offline_train.commands.options import (
    BundleFolder,
    Cache,
    Encoders,
    Images,
    PriorFolder,
    Trials,
    console,
    features_of,
)


def prior_gap(
    bundle: BundleFolder,
    prior: PriorFolder,
    trials: Trials,
    images: Images = None,
    encoders: Encoders = None,
    cache: Cache = Path("features"),
) -> None:
    """How brain embeddings differ from those of images, and what painting does about it.

    Example: python -m offline_train prior-gap --bundle b --prior p --trials held_out --images test
    """
    from decoder.bundle import load_bundle
    from decoder.painting.prior import check_bundle, load_prior
    from offline_train.data.trial_set import load_trial_set
    from offline_train.prior.gap import cells, measure_gap

    opened, painted_with = load_bundle(bundle), load_prior(prior)
    check_bundle(painted_with, opened.manifest)
    trial_set = load_trial_set(trials)
    features = features_of(trial_set.items, images, encoders, cache)
    table = Table(title="embeddings, and tokens made of them, against those of the image seen")
    table.add_column("", no_wrap=True)
    for heading in ("length", "cosine", "tokens: as it is", "length 1", "by the rule"):
        table.add_column(heading, justify="right")
    for row in measure_gap(opened, painted_with, trial_set, features):
        table.add_row(*cells(row))
    console.print(table)
    console.print(
        "the rule: painting brings every embedding to the mean length of the prior's training "
        f"images, {painted_with.manifest.z_norm:.3g}"
    )
