"""calibrate: makes a bundle's probabilities mean what they say."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import onward
from offline_train.commands.options import BundleFolder, Trials, beside, console


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
