"""fetch: weights for a machine without a network, and bundles, from the Hugging Face hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from decoder.painting.spec import PRESETS as BASES
from hvf_core.options import TRAIN
from hvf_core.problem import WrongUsage
from hvf_core.text import printable
from offline_train.commands.options import console

if TYPE_CHECKING:
    from hvf_core.hub.load import Source


def fetch(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Names, of which `fetch` alone shows a list; or a bundle: OWNER/NAME"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", "--out", help="Folder to write; weights: else this machine's cache"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a bundle: branch, tag or commit")] = None,
) -> None:
    """Downloads weights, or a bundle, and verifies them; what broke off is gone on with.

    Example: python -m offline_train fetch paper-retrieval sdxl-turbo --to weights
    """
    from huggingface_hub import constants

    from offline_train.hub.offers import sources_named

    cache = to / "hub" if to else Path(constants.HF_HUB_CACHE)
    if not what:
        _show_offers(cache)
        return
    found = [sources_named(name) for name in what]
    sources = [source for one in found for source in one or ()]
    if revision and None not in found:
        raise WrongUsage("--revision is for bundles: leave it out, or give OWNER/NAME")
    if None in found:
        _fetch_bundle(what, to, revision)
        return
    _show_places(sources)
    _fetch_weights(sources, cache)
    console.print(f"in '{to or cache}', verified: {', '.join(what)}")
    if to:
        console.print(
            f"next, on the machine without a network: copy '{to}' there and begin with "
            "`export HF_HOME=PATH-OF-THE-COPY` (on Windows `set HF_HOME=PATH-OF-THE-COPY`)"
        )
    for name in what:
        if name in BASES:
            console.print(f"then, once: {TRAIN} empty-prompt --base {name}")
            break


def _fetch_bundle(what: list[str], to: Path | None, revision: str | None) -> None:
    from offline_train.hub.bundles import fetch_bundle

    if len(what) > 1 or to is None:
        raise WrongUsage("a bundle is fetched alone, into a folder that is its own: give --to")
    fetched = fetch_bundle(what[0], revision, to)
    console.print(f"bundle in '{to}': {len(fetched.manifest.channels)} channels")
    console.print(f"next: {TRAIN} gallery --bundle {to} ...", soft_wrap=True)


def _fetch_weights(sources: "list[Source]", cache: Path) -> None:
    from offline_train.hub.fetch import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    times = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console) as progress:
        task = progress.add_task("", visible=False)

        def tell(name: str, n_bytes: int, total: int) -> None:
            progress.update(task, description=printable(name), visible=True)
            progress.update(task, completed=n_bytes, total=total)

        fetch(sources, cache, tell)


def _show_offers(cache: Path) -> None:
    from hvf_core.hub.load import size_of
    from offline_train.hub.fetch import is_here
    from offline_train.hub.offers import offers

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("name", "size", "here", "what for"):
        table.add_column(title)
    for offer in offers():
        here = "yes" if is_here(offer.sources, cache) else "no"
        table.add_row(offer.name, size_of(offer.sources), here, offer.about)
    console.print(table)
    console.print()
    _show_places(source for offer in offers() for source in offer.sources)
    console.print(f"\nhere: in '{cache}'; next: {TRAIN} fetch NAME ... --to FOLDER", soft_wrap=True)


def _show_places(sources: "Iterable[Source]") -> None:
    for place, licence in sorted({(one.place, one.licence) for one in sources}):
        told = f" ({licence})" if licence else ""
        console.print(f"from {place.partition('?')[0]}{told}", soft_wrap=True, highlight=False)
