"""Trains variants of the demo's model on the same recordings and compares them, trial by trial.

`python -m demo.variants`: MBP with and without prefix training, and every other brain
encoder. All learn from the demo's training sessions (simulated subject) with the demo's settings,
and all decode the same simulated test presentations, so that differences to the first variant are
paired, with bootstrap intervals over the test images. Nothing is chosen by these numbers.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from decoder.bundle import BrainEncoderName, load_bundle
from decoder.hvf import load_hvf
from demo.evaluation import held_out_recordings
from demo.model import ready_model
from demo.settings import ASSETS, DemoSettings
from demo.stimuli import gallery_stimuli
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.data.features import Features, extract_features
from offline_train.data.prepare import prepare_test
from offline_train.data.trial_set import TrialSet, load_trial_set
from offline_train.evaluate.metrics import bootstrap_interval
from offline_train.evaluate.result import Evaluation
from offline_train.evaluate.retrieval import evaluate
from stream.acquire.preprocess import Preprocessing

REPEATS = (1, 4, 20)
console = Console(width=110)


@dataclass(frozen=True)
class Recorded:
    """What all variants have in common."""

    learnt: TrialSet
    tested: TrialSet
    features: Features


def main(
    variants: Annotated[
        str, typer.Option(help="comma-separated; the first is compared with; all by default")
    ] = "",
    draws: int = 20,
) -> None:
    """Trains, evaluates and prints one table."""
    all_variants = _variants()
    names = [name for name in variants.split(",") if name] or list(all_variants)
    with tempfile.TemporaryDirectory() as folder:
        recorded = _recorded(Path(folder))
        found = {}
        for name in names:
            began_s = time.perf_counter()
            found[name] = _try(all_variants[name], recorded, Path(folder) / name, draws)
            console.print(f"{name}: trained and evaluated in {time.perf_counter() - began_s:.0f} s")
    console.print(_table(found))


def _variants() -> dict[str, TrainSettings]:
    ours = DemoSettings().training
    variants = {"mbp": ours, "mbp without prefixes": ours.model_copy(update={"prefix_share": 0.0})}
    others = [name for name in get_args(BrainEncoderName) if name != "mbp"]
    return variants | {name: ours.model_copy(update={"encoder": name}) for name in others}


def _recorded(folder: Path) -> Recorded:
    """The demo's own training trials and features, and one set of test presentations."""
    model = ready_model(console)
    bundle = load_bundle(model.bundle)
    learnt = load_trial_set(model.bundle.parent / "trials")
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    items = [*learnt.items, *(stimulus.id for stimulus in gallery_stimuli())]
    cache = model.bundle.parent / "features"
    features = extract_features(items, _no_image, encoders, cache)
    recorded = held_out_recordings(1.0, 1.0, max(REPEATS), gain_sd=0.0)
    with threadpool_limits(1, "blas"):
        facts = {"subject": "simulated"}
        tested = prepare_test(
            recorded, Preprocessing.of(bundle), folder / "tested", provenance=facts
        )
    return Recorded(learnt, tested, features)


def _no_image(item: str) -> np.ndarray:
    raise ValueError(f"image {item} is not in the demo's cache of features")


def _try(settings: TrainSettings, recorded: Recorded, folder: Path, draws: int) -> Evaluation:
    features = recorded.features
    models = train(recorded.learnt, features, settings)
    command = "python -m demo.variants"
    bundle = make_bundle(folder, models, recorded.learnt, features, settings, command)
    items, space = recorded.tested.items, bundle.manifest.space
    gallery = build_gallery(items, items, features, load_hvf(bundle), space, command)
    ends_s = [0.2, 0.3, 0.5, bundle.manifest.tmax_s]
    return evaluate(bundle, recorded.tested, gallery, REPEATS, draws, tmax_s=ends_s)


def _table(found: dict[str, Evaluation]) -> Table:
    first = next(iter(found.values()))
    table = Table(
        title=f"{first.n_way}-way top-1 %, {first.n_items} test images (simulated subject)",
        caption=f"in brackets: difference to {next(iter(found))}, 95 % over images, paired",
    )
    table.add_column("variant")
    table.add_column("tmax s", justify="right")
    for n in REPEATS:
        table.add_column(f"{n} repeat" + "s" * (n > 1), justify="right")
    rng = np.random.default_rng(0)
    for name, evaluation in found.items():
        for tmax_s in dict.fromkeys(point.tmax_s for point in evaluation.points):
            cells = [_cell(evaluation, first, tmax_s, n, rng) for n in REPEATS]
            table.add_row(name, f"{tmax_s:g}", *cells)
        table.add_section()
    return table


def _cell(
    evaluation: Evaluation,
    first: Evaluation,
    tmax_s: float,
    repeats: int,
    rng: np.random.Generator,
) -> str:
    rates, compared = (
        next(
            np.array(point.hit_rates)
            for point in one.points
            if (point.tmax_s, point.repeats) == (tmax_s, repeats)
        )
        for one in (evaluation, first)
    )
    text = f"{100 * rates.mean():.1f}"
    if evaluation is not first:
        low, high = bootstrap_interval(rates - compared, rng)
        difference = 100 * (rates - compared).mean()
        text += f" ({difference:+.1f}: {100 * low:+.1f} to {100 * high:+.1f})"
    return text


if __name__ == "__main__":
    typer.run(main)
