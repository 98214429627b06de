"""experiments: runs what is missing of a grid of trainings, and writes its table."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import TRAIN, Flag
from offline_train.commands.options import Cache, console


def experiments(
    file: Annotated[
        str | None, typer.Argument(help="TOML file, or a shipped one by its name; none lists these")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs and table; experiments/NAME by default")
    ] = None,
    trials: Annotated[Path | None, typer.Option(help="Trial set, if not the file's")] = None,
    images: Annotated[Path | None, typer.Option(help="Images, if not the file's")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Runs whose names hold it, or match it with *"),
    ] = None,
    listed: Annotated[bool, Flag("--list", help="Only say which runs are done")] = False,
    cache: Cache = Path("features"),
) -> None:
    """Runs what is missing of an experiment, and writes its table beside published numbers.

    An experiment is a TOML file of settings and a grid (docs/reproduction.md). Given again, the
    command goes on with what is not done. Several may share a folder.

    Example: python -m offline_train experiments demo-encoders
    """
    from offline_train.experiments.settings import read_experiment, refuse_absent

    if file is None:
        _list_shipped()
        return
    experiment = read_experiment(file)
    given = {"trials": trials, "images": images}
    changed = {name: path for name, path in given.items() if path is not None}
    experiment = experiment.model_copy(update=changed)
    refuse_absent(experiment)
    out = out or Path("experiments") / Path(file).stem
    if not listed:
        from hvf_core.artifact import refuse_other_results, refuse_unwritable

        refuse_other_results(out, "table.json", "runs", "begun")
        refuse_unwritable(cache)
    from offline_train.commands.experiments import steps  # loads torch

    world = steps.world_of(experiment, cache)
    planned, wanted = steps.planned_in(out, experiment, world, only)
    if listed:
        steps.list_runs(wanted)
        return
    with steps.told_how_far(wanted):
        failure = steps.run(wanted, world)
    steps.write(experiment, planned, out)
    if failure is not None:
        raise failure


def _list_shipped() -> None:
    """Shows the experiments that come with the program."""
    from rich.table import Table

    from offline_train.experiments.settings import SHIPPED, read_experiment

    table = Table("name", "title", box=None, padding=(0, 2, 0, 0))
    for name in SHIPPED:
        table.add_row(name, read_experiment(name).title)
    console.print(table)
    console.print(f"next: {TRAIN} experiments {next(iter(SHIPPED))}", soft_wrap=True)
