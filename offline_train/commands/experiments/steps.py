"""What `experiments` does, step by step, with what it shows of it."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from rich.table import Table

from hvf_core.problem import Problem, WrongUsage
from hvf_core.provenance import command_line, provenance
from hvf_core.text import some_of
from index.encoders.spec import read_specs
from offline_train.commands.options import bar, console, encoded
from offline_train.data.image_table import pictures_of_table
from offline_train.data.images import pictures_of
from offline_train.data.trial_set import load_trial_set
from offline_train.experiments.numbers import results_of
from offline_train.experiments.plan import Planned, World, plan
from offline_train.experiments.report import TABLE, markdown, write_report
from offline_train.experiments.run import run_missing, seconds_needed
from offline_train.experiments.settings import Experiment, expand
from offline_train.features.blur import blurs_of


def world_of(experiment: Experiment, cache: Path) -> World:
    """Trials and images; what the file says of how to get them is told where they are missing."""
    folder = experiment.images
    try:
        trial_set = load_trial_set(experiment.trials)
        shown = trial_set.select(["train", "test"], "split")
        with bar("reading images") as tell:
            of = pictures_of_table if folder.is_file() else pictures_of
            pictures = of(folder, shown.items, tell)
    except Problem as problem:
        raise Problem(
            f"{problem}; {experiment.made_by}" if experiment.made_by else str(problem)
        ) from None
    features = functools.cache(lambda specs: encoded(pictures, specs, cache))
    return World(trial_set, pictures.contents, features)


def planned_in(
    out: Path, experiment: Experiment, world: World, only: str | None
) -> tuple[list[Planned], list[Planned]]:
    """All runs, and those that are wanted now."""
    subjects = list(experiment.subjects) or world.subjects
    if unknown := sorted({*subjects} - {*world.subjects}):
        raise Problem(
            f"the trial set has no test trials of {some_of(unknown)}, only of "
            f"{some_of(world.subjects, 20)}: name those, or leave `subjects` out"
        )
    planned = plan(list(expand(experiment, subjects)), world, out)
    pattern = only if only is None or set(only) & {*"*?["} else f"*{only}*"
    wanted = [one for one in planned if pattern is None or fnmatchcase(one.run.name, pattern)]
    if not wanted:
        raise WrongUsage(f"--only '{only}' is in no name of a run; see --list")
    return planned, wanted


def list_runs(wanted: Sequence[Planned]) -> None:
    """Shows which are done."""
    table = Table("run", "folder", "state", box=None, padding=(0, 2, 0, 0))
    for one in wanted:
        table.add_row(one.run.name, one.folder.name, one.state)
    console.print(table)


def run(wanted: Sequence[Planned], world: World) -> Problem | None:
    """Runs what is missing; gives back what is to be told when the table is written."""
    todo = {one.decided_by: one for one in wanted if not one.is_done}
    told = f"{len(wanted)} runs, {len(todo)} to do"
    if todo:
        for how in (one.run.settings for one in todo.values()):
            with suppress(Problem):  # which its runs will tell
                for specs in blurs_of(read_specs(how.encoders), how.train.blur_prior):
                    world.features(specs)
        about = timedelta(seconds=round(seconds_needed([*todo.values()], world)))
        told += f", about {about} of training (h:mm:ss)"
    console.print(told)
    if not todo:
        return None
    try:
        with bar("running") as tell:
            run_missing([*todo.values()], world, tell, console.print)
    except Problem as problem:
        return problem
    return None


@contextmanager
def told_how_far(wanted: Sequence[Planned]) -> Iterator[None]:
    """Says what is done where somebody ends what goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or another signal that asks to end
        n_done = sum(one.is_done for one in wanted)
        console.print(f"{n_done} of {len(wanted)} runs are done; the same command goes on")
        raise


def write(experiment: Experiment, planned: Sequence[Planned], out: Path) -> None:
    """Writes what is known by now, and shows it."""
    results = results_of(experiment, planned, provenance(command_line(), "torch", "numpy"))
    if results is None:
        return
    write_report(results, out)
    console.print(markdown(results), soft_wrap=True, highlight=False)
    console.print(f"in '{out}': table.md, table.csv, {TABLE}, figure.png, runs")
