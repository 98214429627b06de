"""What an experiment is: settings, a grid of what differs, and what others have published of it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Given, Layer, Settings, find, merge, setting, spread
from hvf_core.toml import read_toml
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.evaluate.settings import Averaging, EvaluateSettings

SHIPPED = {file.stem: file for file in sorted((Path(__file__).parent / "shipped").glob("*.toml"))}
"""The files that come with the program, by name."""
Latents = Literal["flat", "pooled", "shuffled"]
Metric = Literal[
    "top1",
    "top5",
    "PixCorr",
    "SSIM",
    "AlexNet(2)",
    "AlexNet(5)",
    "Inception",
    "CLIP",
    "EffNet-B",
    "SwAV",
]
"""What is published: of retrieval, and of paintings."""
NAME, SEED = "name", "train.seed"
_SAID_OTHERWISE = {
    SEED: "by the list `seeds`, over which is averaged",
    "train.subjects": "by `learn_from`",
    "train.hold_out": "not at all: nothing is calibrated, so that nothing is held out",
}
"""Settings of `mbp` that an experiment has no use for, and how what they mean is said."""
SUBJECT = "subject"
"""The axis of a table that has a line for each subject."""


class RunSettings(Settings):
    """All that decides one training and what it is judged by, but for data, subject and seed."""

    learn_from: Literal["own", "others", "all"] = "own"
    """Whose trials a model learns from: the decoded subject's, those of all others, or of all."""
    preset: str = "paper"
    """Of `mbp`: the settings of a training where `train` says nothing else."""
    encoders: str = "paper-retrieval"
    """What images are seen by, as `mbp --encoders` takes it."""
    latents: Latents = "flat"
    """How those of a VAE enter the fusion: all numbers of their places, in order; their mean over
    all places; or all numbers, but with the places of each image in an order of its own."""
    prior: Path | None = None
    """Fusion Prior whose HVF is taken as it is."""
    train: TrainSettings = TrainSettings()
    """As of `mbp`."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """As of `evaluate`."""


class Published(Settings):
    """What somebody has published of one line of the table."""

    row: str
    """Name of the row; one that is not run here has a line of its own."""
    at: dict[str, Any] = setting({})
    """The values of the axes of `product`, or the `subject`, of which it is."""
    repeats: int | None = None
    """Repeats of a test image; the most that there are by default."""
    evidence: Averaging = "mean"
    """How repeats were put together, as of `evaluate`; no line that is TRANSDUCTIVE has it."""
    values: dict[Metric, float] = setting(min_length=1)
    """As printed: `top1` and `top5` in percent."""
    source: str
    """Key of `sources`."""


class Experiment(Settings):
    """A file: what is run is each of the rows at each of the product's values, subject and seed."""

    title: str
    """Of the table."""
    about: str = ""
    """What it asks."""
    trials: Path
    """Folder of the trial set, which has the splits train and test."""
    images: Path
    """Folder of the images of both, or a table of them."""
    made_by: str = ""
    """How to get both."""
    subjects: tuple[str, ...] = ()
    """Whose test trials are decoded; of all that the trial set has by default."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = setting((2025,), min_length=1)
    """Of the training."""
    run: dict[str, Any] = setting({})
    """Settings of all runs, as of `RunSettings`."""
    rows: tuple[dict[str, Any], ...] = setting(min_length=1)
    """Settings that go together, with a `name`."""
    product: dict[str, Any] = setting({})
    """Lists of values by setting, all of which are combined with each other and with the rows."""
    reference: str | None = None
    """Row from which the others' differences are told."""
    by_subject: bool = False
    """Whether each subject has a line as well."""
    published: tuple[Published, ...] = ()
    """What others have measured."""
    sources: dict[str, str] = setting({})
    """Citations."""


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    row: str
    axes: Mapping[str, str]
    """The values of the product's axes, as texts, by setting."""
    subject: str
    """Empty where the trial set does not say."""
    seed: int
    settings: RunSettings

    @property
    def name(self) -> str:
        """As it is told, and as `--only` finds it."""
        return ", ".join(
            filter(None, [self.row, *self.axes.values(), self.subject, f"seed {self.seed}"])
        )


def read_experiment(told: str) -> Experiment:
    """Reads the experiment of a name or a file, and all of its settings.

    Raises:
        WrongUsage: there is no such file, or something in it is no setting, or not allowed.
    """
    file = SHIPPED.get(told, Path(told))
    if not file.is_file():
        raise WrongUsage(
            f"there is no experiment '{told}': give a TOML file, or one of {', '.join(SHIPPED)}"
        )
    experiment = merge(Experiment, read_toml(Experiment, file), where=f" in '{file}'")
    if len({*experiment.seeds}) < len(experiment.seeds):
        raise WrongUsage(f"'{file}': seeds {list(experiment.seeds)} has one twice: name each once")
    runs = list(expand(experiment, [""], f"'{file}'"))
    axes = {axis for run in runs for axis in run.axes} | {SUBJECT}
    for one in experiment.published:
        if one.source not in experiment.sources:
            raise WrongUsage(
                f"'{file}': what is published of '{one.row}' has the source '{one.source}', of "
                "which [sources] has no citation: add it"
            )
        if unknown := flat(one.at).keys() - axes:
            raise WrongUsage(
                f"'{file}': what is published of '{one.row}' is at '{min(unknown)}', which is no "
                f"axis; there are {', '.join(sorted(axes))}"
            )
    if experiment.reference not in (None, *(run.row for run in runs)):
        raise WrongUsage(
            f"'{file}': reference '{experiment.reference}' is none of the rows "
            f"{', '.join(dict.fromkeys(run.row for run in runs))}"
        )
    return experiment


def refuse_absent(experiment: Experiment) -> None:
    """Refuses an experiment whose data are not there, before what reads them is loaded.

    Raises:
        Problem: its trial set or its images are missing.
    """
    wanted = {"trials": experiment.trials, "images": experiment.images}
    for what, path in wanted.items():
        if not os.path.exists(path):  # False also of a name that no file can have
            made_by = f"{experiment.made_by}; " if experiment.made_by else ""
            raise Problem(
                f"there is no '{path}', the {what} of the experiment: {made_by}"
                f"if they lie elsewhere, say where with --{what}"
            )


def expand(
    experiment: Experiment, subjects: list[str], where: str = "the experiment"
) -> Iterator[Run]:
    """All runs of an experiment, row by row.

    Raises:
        WrongUsage: a setting of them is none, or has a value that is not allowed.
    """
    names = [row.get(NAME) for row in experiment.rows]
    if not all(isinstance(name, str) and name for name in names) or len({*names}) < len(names):
        raise WrongUsage(f"{where}: each of the rows must have a {NAME} of its own, a text")
    common = _layer(experiment.run, f"{where}, run")
    axes = _layer(experiment.product, f"{where}, product")
    for given in axes.values():
        if not isinstance(given.value, list) or not given.value:
            raise WrongUsage(f"{given.named} is {given.value!r}, and must be a list of values")
    for row in experiment.rows:
        told = {key: value for key, value in row.items() if key != NAME}
        own = _layer(told, f"{where}, row '{row[NAME]}'")
        if twice := own.keys() & axes.keys():
            raise WrongUsage(f"{where}: '{min(twice)}' is in the row '{row[NAME]}' and in product")
        for path in {**common, **own, **axes}.keys() & _SAID_OTHERWISE.keys():
            raise WrongUsage(f"{where}: say '{path}' {_SAID_OTHERWISE[path]}")
        there: list[RunSettings] = []
        for values in product(*(given.value for given in axes.values())):
            chosen = dict(zip(axes, values, strict=True))
            moved = {path: Given(value, axes[path].named) for path, value in chosen.items()}
            shown = {path: text_of(value) for path, value in chosen.items()}
            by_seed = {
                seed: _resolved({**common, **own, **moved, SEED: Given(seed, f"{where}: seeds")})
                for seed in experiment.seeds
            }
            settings = by_seed[experiment.seeds[0]]
            if "added" in settings.evaluate.evidence:
                raise WrongUsage(
                    f"{where}: evaluate.evidence 'added' adds what is calibrated, and here "
                    "nothing is: say mean or predictions"
                )
            if settings in there:  # 1 and 1.0 are one learning rate
                at = ", ".join(f"{path} {value}" for path, value in shown.items())
                raise WrongUsage(f"{where}: product has {at} twice: name each value once")
            there.append(settings)
            for subject, seed in product(subjects, experiment.seeds):
                yield Run(row[NAME], shown, subject, seed, by_seed[seed])


def text_of(value: Any) -> str:
    """A value of an axis, as tables and published figures know it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of tables in tables, by dotted path."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _layer(table: Mapping[str, Any], where: str) -> Layer:
    """Settings by path; tables in tables and dotted names come to the same."""
    layer: dict[str, Given] = {}
    for key, value in table.items():
        for path, part in spread(RunSettings, key, value, f" in {where}"):
            if find(RunSettings, path).section is None:
                layer[path] = Given(part, f"{where}: {path}")
    return layer


def _resolved(layer: Layer) -> RunSettings:
    """The settings of a run: those of its preset, and what is said besides."""
    preset = merge(RunSettings, layer).preset
    if preset not in PRESETS:
        raise WrongUsage(
            f"{layer['preset'].named} {preset!r} is none; there are {', '.join(PRESETS)}"
        )
    usual = {f"train.{name}": Given(value, preset) for name, value in PRESETS[preset]}
    return merge(RunSettings, usual, layer)
