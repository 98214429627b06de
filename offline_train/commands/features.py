"""features: what image encoders see in very many images, kept in the cache that all others read."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvf_core.options import TRAIN, Flag
from hvf_core.problem import Problem
from index.encoders.spec import PRESETS
from offline_train.commands.options import Cache, bar, console

if TYPE_CHECKING:
    from offline_train.features.cache import FeatureCache
    from offline_train.features.run import Survey


def features(
    images: Annotated[
        list[Path], typer.Argument(help="Folders, shards (.tar, .parquet), or folders of shards")
    ],
    encoders: Annotated[
        str, typer.Option(help=f"{', '.join(PRESETS)}, or others: docs/encoders.md")
    ],
    out: Annotated[
        Path, typer.Option(help="Table of the images, for `gallery --table` and `mbp --images`")
    ] = Path("features.csv"),
    cache: Cache = Path("features"),
    skip_broken: Annotated[
        bool, Flag("--skip-broken", help="Pass over images that cannot be read, and list them")
    ] = False,
) -> None:
    """Encodes images, however many, into the cache; it goes on where it was interrupted.

    On several GPUs: accelerate launch -m offline_train features ...

    Example: python -m offline_train features imagenet/train --encoders paper-prior
    """
    import torch

    from hvf_core.artifact import refuse_unwritable, space_needed
    from index.encoders.load import load_encoders
    from index.encoders.spec import read_specs
    from offline_train.features.cache import FeatureCache
    from offline_train.features.run import alone_at, encode, finish, parts_of, survey
    from offline_train.together import joined

    refuse_unwritable(out.absolute().parent)
    specs = read_specs(encoders)
    # The first process looks at everything before the others begin.
    state = joined(cpu=not torch.cuda.is_available())
    n_processes, n = state.num_processes, 0
    console.quiet = not state.is_main_process
    parts, rank = parts_of(out, n_processes), state.process_index
    with alone_at(out) if state.is_main_process else nullcontext():
        with state.main_process_first():
            if state.is_main_process:
                with console.status("counting images"):
                    found = survey(images)
                n = found.n
            loaded = load_encoders(specs, str(state.device))
            caches = [FeatureCache(cache, encoder, console.print) for encoder in loaded]
            if state.is_main_process:
                _tell_what_is_ahead(found, caches, cache, n_processes)
        with bar("encoding images") as tell, space_needed(out):
            told = (parts[rank], (rank, n_processes), skip_broken)
            n_threads = max(1, min(16, (os.cpu_count() or 1) // n_processes))
            encode(images, caches, *told, n_threads, lambda k: tell(min(k * n_processes, n), n))
            tell(n, n)
        state.wait_for_everyone()
        if state.is_main_process:
            if n_processes > 1:
                caches = [FeatureCache(cache, encoder, console.print) for encoder in loaded]
            n, n_broken = finish(out, parts, caches)
            console.print(f"features of {n} images in '{cache}', and their table in '{out}'")
            if n_broken:
                listed = out.with_name(f"{out.stem}-broken.txt")
                console.print(f"{n_broken} images could not be read: they are listed in '{listed}'")
            kept = "" if cache == Path("features") else f" --cache {cache}"
            options = f"--table {out} --encoders {encoders}{kept} --bundle ..."
            console.print(f"next: {TRAIN} gallery {options}", soft_wrap=True)


def _tell_what_is_ahead(
    found: "Survey", caches: "Sequence[FeatureCache]", cache: Path, n_processes: int
) -> None:
    """As some of the images let expect; refuses a disk that is too small for it."""
    from offline_train.features.run import look

    began_s = time.monotonic()
    with console.status("looking at some of them"):
        n_new = look(found.sample, caches)
    per_image_s = (time.monotonic() - began_s) / len(found.sample)
    share = n_new / len(found.sample)
    size_mb = share * found.n * sum(one.encoder.spec.dim for one in caches) * 4e-6
    duration = timedelta(seconds=round(per_image_s * found.n / n_processes))
    console.print(
        f"{found.n} images, some {share:.0%} of them new: {size_mb:,.1f} MB in '{cache}', "
        f"about {duration}",
        soft_wrap=True,
    )
    free_mb = shutil.disk_usage(cache.absolute().parent).free / 1e6
    if size_mb > free_mb:
        raise Problem(
            f"'{cache}' needs {size_mb:,.0f} MB, and {free_mb:,.0f} MB are free: make "
            "room, or name another disk with --cache"
        )
