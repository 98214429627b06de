"""How often a bundle finds the image that was seen, by the number of repeats averaged."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from decoder.brain_encoders import load_brain_encoder
from decoder.bundle import Bundle
from decoder.mbp import MBP
from decoder.problem import Problem
from index.gallery import Gallery, check_space
from index.search import Search
from offline_train.metrics import bootstrap_interval
from offline_train.trial_set import TrialSet

BATCH = 256
"""Trials embedded at a time."""


class Accuracy(BaseModel):
    """A share of hits with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class AccuracyAtRepeats(BaseModel):
    """Accuracy when this many repeats of a stimulus are averaged."""

    model_config = ConfigDict(frozen=True)

    repeats: int
    draws: int
    """How often the repeats were drawn."""
    top1: Accuracy
    top5: Accuracy


class Evaluation(BaseModel):
    """Accuracy by number of repeats, on stimuli that are held out from training."""

    model_config = ConfigDict(frozen=True)

    n_items: int
    """Stimuli decoded."""
    n_way: int
    """Images in the gallery."""
    chance_top1: float
    chance_top5: float
    points: tuple[AccuracyAtRepeats, ...]
    protocol: str = "inductive: each query is decoded on its own"
    interval: str = "95 %, bootstrap over stimuli"
    seed: int
    space: str
    trials_sha256: str

    def table(self) -> Table:
        """The evaluation as a table for a terminal."""
        table = Table(title=f"{self.n_way}-way retrieval of {self.n_items} held-out stimuli")
        for column in ("repeats", "top-1 %", "95 %", "top-5 %", "95 %"):
            table.add_column(column, justify="right")
        for point in self.points:
            cells = [str(point.repeats)]
            for accuracy in (point.top1, point.top5):
                cells += [
                    f"{100 * accuracy.value:.1f}",
                    f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
                ]
            table.add_row(*cells)
        table.add_section()
        chance = (f"{100 * self.chance_top1:.1f}", "", f"{100 * self.chance_top5:.1f}", "")
        table.add_row("chance", *chance)
        return table


def embed(brain: MBP, trials: np.ndarray) -> np.ndarray:
    """Embeds trials (n, channels, times) as float32 (n, dim), not normalised."""
    with torch.inference_mode():
        return np.concatenate(
            [
                brain(torch.from_numpy(trials[start : start + BATCH])).numpy()
                for start in range(0, len(trials), BATCH)
            ]
        )


def evaluate(
    bundle: Bundle,
    trial_set: TrialSet,
    gallery: Gallery,
    repeats: Sequence[int],
    draws: int = 10,
    seed: int = 0,
) -> Evaluation:
    """Measures top-1 and top-5 on held-out stimuli, by the number of repeats averaged.

    Args:
        bundle: what decodes.
        trial_set: trials of stimuli that it has not seen, preprocessed as the bundle says.
        gallery: among which they are looked up.
        repeats: numbers of repeats to average, drawn without replacement for each stimulus.
        draws: how often they are drawn; once where all repeats are taken.
        seed: of the draws and of the bootstrap.

    Raises:
        Problem: when gallery, trials and bundle do not belong together, a stimulus is not in the
            gallery, or one has too few repeats.
    """
    check_space(gallery, bundle.manifest.space)
    _check_trials(bundle, trial_set)
    brain = load_brain_encoder(bundle)
    search = Search(gallery.embeddings, k=5)
    wanted = np.array([_row_of(gallery, item) for item in trial_set.items])
    rng = np.random.default_rng(seed)
    points = []
    for n_repeats in repeats:
        takes_all = all(len(trials) == n_repeats for trials in trial_set.repeats.values())
        n_draws = 1 if takes_all else draws
        found = np.zeros((n_draws, len(wanted), search.k), bool)
        for draw in range(n_draws):
            _, trials = trial_set.averaged(n_repeats, rng)
            _, rows = search.search(embed(brain, trials))
            found[draw] = rows == wanted[:, None]
        points.append(
            AccuracyAtRepeats(
                repeats=n_repeats,
                draws=n_draws,
                top1=_accuracy(found[:, :, 0], rng),
                top5=_accuracy(found.any(axis=2), rng),
            )
        )
    return Evaluation(
        n_items=len(wanted),
        n_way=len(gallery),
        chance_top1=1 / len(gallery),
        chance_top5=search.k / len(gallery),
        points=tuple(points),
        seed=seed,
        space=gallery.space,
        trials_sha256=trial_set.checksum,
    )


def _accuracy(hits: np.ndarray, rng: np.random.Generator) -> Accuracy:
    """From hits (draws, stimuli): stimuli are what a new study would draw anew."""
    per_stimulus = hits.mean(axis=0)
    low, high = bootstrap_interval(per_stimulus, rng)
    return Accuracy(value=float(per_stimulus.mean()), low=low, high=high)


def _row_of(gallery: Gallery, item: str) -> int:
    row = gallery.row_of(item)
    if row is None:
        raise Problem(f"stimulus {item!r} is not among the gallery's {len(gallery)} images: add it")
    return row


def _check_trials(bundle: Bundle, trial_set: TrialSet) -> None:
    for name in ("channels", "rate_hz", "tmin_s", "tmax_s", "preprocessing"):
        has, needs = getattr(trial_set.format, name), getattr(bundle.manifest, name)
        if has != needs:
            raise Problem(
                f"the trial set has {name} {has}, the bundle needs {needs}: "
                "prepare the trials as the bundle's were prepared"
            )
