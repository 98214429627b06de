"""Runs what is missing of an experiment, one training after the other, and goes on if one fails."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from decoder.hvf import HVF
from decoder.painting.prior import load_prior
from hvf_core.artifact import HAS_LOCKS, lock_folder, sealed_directory, write_manifest
from hvf_core.problem import Problem
from hvf_core.provenance import command_line, provenance
from hvf_core.text import some_of
from index.encoders.spec import read_specs
from offline_train.brain.gallery import build_gallery
from offline_train.brain.train import BrainAndImages, make_bundle, train
from offline_train.data.features import check_encoders
from offline_train.evaluate.retrieval import evaluate_ways
from offline_train.experiments.latents import with_latents
from offline_train.experiments.plan import (
    FAILED,
    RECORD,
    Planned,
    RunRecord,
    World,
)
from offline_train.features.blur import blurs_of, features_by_blur

Tell = Callable[[int, int, str], object]
"""Hears how many steps of all are done, and which run is going on."""


def run_missing(
    planned: Sequence[Planned],
    world: World,
    tell: Tell = lambda done, total, name: None,
    say: Callable[[str], object] = lambda sentence: None,
) -> None:
    """Trains and evaluates what is not done; several processes may share the runs of a folder.

    Each run is whole or absent, and a training that was ended in any way goes on from its last
    epoch. What fails does not keep the others from being run, and is tried again the next time.

    Raises:
        Problem: at the end, where runs have failed.
    """
    todo = [one for one in planned if not one.is_done]
    total, done = sum(one.n_steps for one in todo), 0
    failed: dict[str, Problem] = {}
    for one in todo:
        name = one.run.name

        def follow(step: int, before: int = done, name: str = name) -> None:
            tell(before + step, total, name)

        follow(0)
        with _alone(one) as is_ours:
            if is_ours and not one.is_done:
                try:
                    _make(one, world, follow)
                except Problem as problem:
                    say(f"{name} failed: {problem}")
                    failed[name] = problem
                    with suppress(OSError):  # of a disk that is full, as the problem may be
                        (one.begun / FAILED).write_text(str(problem), encoding="utf-8")
                else:
                    _empty(one)
        done += one.n_steps
    tell(done, total, "running")
    if failed:
        names = some_of([f"'{name}'" for name in failed], 3)
        raise Problem(
            f"{len(failed)} of {len(todo)} runs failed, {names}: {next(iter(failed.values()))}; "
            "mend that, and the same command runs them alone"
        )


def seconds_needed(planned: Sequence[Planned], world: World) -> float:
    """About how long what is missing takes: as runs of the same brain encoder did, or a step."""
    records = [record for one in planned if (record := one.record()) is not None]
    step_s = {one.settings.train.encoder: one.seconds / one.n_steps for one in records}
    needed_s = 0.0
    for one in planned:
        encoder = one.run.settings.train.encoder
        if one.is_done:
            continue
        if encoder not in step_s:
            step_s[encoder] = _step_s(one, world)
        needed_s += one.n_steps * step_s[encoder]
    return needed_s


def _make(one: Planned, world: World, tell: Callable[[int], object]) -> None:
    """Trains, evaluates, and writes what that gave."""
    run, settings = one.run, one.run.settings
    learnt, asked = world.parts(run)
    how, items = settings.train, [*learnt.items, *asked.items]
    features = features_by_blur(
        blurs_of(read_specs(settings.encoders), how.blur_prior),
        lambda specs: with_latents(world.features(specs).select(items), specs, settings.latents),
    )
    hvf: HVF | None = None
    if settings.prior is not None:
        prior = load_prior(settings.prior)
        wanted = prior.manifest.image_encoders
        check_encoders(features.encoders, wanted, f"the prior '{settings.prior}'")
        hvf = prior.hvf
        how = how.model_copy(update={"dim": prior.hvf.dim})
    began_s, first = time.perf_counter(), 0

    def follow(step: int) -> None:
        nonlocal first
        first = first or step
        tell(step)

    models = train(learnt, features, how, lambda at: follow(at.step), one.begun, hvf)
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    with sealed_directory(one.folder, RECORD) as draft:
        bundle = make_bundle(draft / "bundle", models, learnt, features, how, command_line())
        among = build_gallery(asked.items, asked.items, features, bundle, command_line())
        evaluations = evaluate_ways(bundle, asked, among, settings.evaluate, run.subject)
        shutil.rmtree(bundle.directory)
        taken_s = time.perf_counter() - began_s
        record = RunRecord(
            name=run.name,
            subject=run.subject,
            settings=settings,
            decided_by=one.decided_by,
            n_steps=one.n_steps,
            # What an interrupted run took before is not known: as if all went as this part of it.
            seconds=taken_s * one.n_steps / max(1, one.n_steps - max(first - 1, 0)),
            evaluations=tuple(evaluations),
            made=provenance(command_line(), "torch", "numpy"),
        )
        write_manifest(draft / RECORD, record)


@contextmanager
def _alone(one: Planned) -> Iterator[bool]:
    """Whether a run is this process's, and not another one's that runs the same experiment."""
    one.begun.mkdir(parents=True, exist_ok=True)
    held = lock_folder(one.begun)
    try:
        yield held is not None or not HAS_LOCKS
    finally:
        with suppress(OSError):  # it holds what to go on from, or why it failed
            one.begun.rmdir()
        if held is not None:
            os.close(held)


def _empty(one: Planned) -> None:
    """Takes away what a run needed to go on."""
    for left in one.begun.iterdir():
        left.unlink()


def _step_s(one: Planned, world: World) -> float:
    """Seconds that a step takes, tried with noise in place of trials; 0 where none can be taken."""
    how, shape = one.run.settings.train, world.trials.format
    device = "cuda" if how.device != "cpu" and torch.cuda.is_available() else "cpu"
    n = min(how.batch_size, len(world.trials.items))
    with torch.random.fork_rng():
        try:
            sizes = (len(shape.channels), shape.n_times)
            model = BrainAndImages(*sizes, {"images": how.dim}, how, n_images=n)
        except Problem:  # which the run will tell
            return 0.0
        model.to(device).train()
        optimizer = torch.optim.AdamW(model.parameters())
        trials = torch.randn(n, len(shape.channels), shape.n_times, device=device)
        fused, owner = torch.randn(n, how.dim, device=device), torch.arange(n, device=device)
        for _ in range(2):  # the first one makes what later ones find
            began_s = time.perf_counter()
            loss = model(trials, fused, owner, owner)
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - began_s
