"""calibrate, personalise: what is fitted to a bundle that is there."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import onward
from hvf_core.provenance import command_line
from offline_train.commands.options import BundleFolder, Out, Trials, bar, beside, console


def calibrate(
    bundle: BundleFolder,
    gallery: Annotated[Path, typer.Option(help="Folder of a gallery with their images")],
    trials: Trials,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of repeats")] = 0,
) -> None:
    """Makes a bundle's probabilities mean what they say, on trials that it has not seen.

    `mbp` does this itself on the stimuli that it holds out; this is for another recording, and for
    bundles trained with --labels.

    Example: python -m offline_train calibrate --bundle b --gallery g --trials held_out
    """
    from decoder.bundle import load_bundle
    from index.gallery import load_gallery
    from offline_train.brain.calibrate import doubt, fit_calibration, save_calibration
    from offline_train.data.trial_set import load_trial_set
    from offline_train.evaluate.seen import check_seen, told

    opened, trial_set = load_bundle(bundle), load_trial_set(trials)
    seen = check_seen(opened, trial_set)
    with console.status("calibrating"):
        found = fit_calibration(opened, trial_set, load_gallery(gallery), seed=seed)
    save_calibration(opened, found)
    console.print(f"'{bundle}' is calibrated on {told(seen, found.n_items)}{doubt(found)}")
    more = () if gallery == beside(bundle) else ("--gallery", gallery)
    console.print(onward("adapt", *more, bundle=bundle), soft_wrap=True)


def personalise(
    bundle: BundleFolder,
    trials: Trials,
    out: Out,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Folder of a gallery with the images that were shown; none: no labels"),
    ] = None,
) -> None:
    """Makes a bundle for one person of a bundle of others, by some minutes of trials.

    A matrix over the channels is fitted to them, all else stays. With --gallery by what was shown,
    else by the covariance alone. The trials are those of `prepare-test` with the bundle.

    Example: python -m offline_train personalise --bundle b --trials t --gallery g --out mine
    """
    from decoder.bundle import load_bundle
    from hvf_core.artifact import refuse_unwritable
    from index.gallery import load_gallery
    from offline_train.brain.person.personal import personalise
    from offline_train.data.trial_set import load_trial_set
    from offline_train.evaluate.tables import percent

    refuse_unwritable(out)
    opened, trial_set = load_bundle(bundle), load_trial_set(trials)
    shown = None if gallery is None else load_gallery(gallery)
    with bar("fitting to the person") as tell:
        made = personalise(out, opened, trial_set, shown, command_line(), tell)
    console.print(f"bundle in '{out}', fitted to {made.n_trials} trials of {made.n_items} images")
    if made.before is not None and made.after is not None:
        console.print(
            f"single trials of images left out of the fit, among {made.n_items}: the right one is "
            f"first in {percent(made.before)} % with '{bundle}', {percent(made.after)} % with "
            f"such a fit, by chance in {100 / made.n_items:.1f} %",
            soft_wrap=True,
        )
    console.print(onward("live", bundle=out), soft_wrap=True)
