"""gallery index: chooses and builds what finds the images of a large gallery."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from hvf_core.problem import WrongUsage
from hvf_core.provenance import command_line
from index.search.kinds import AUTO, EXACT, FEWEST, KINDS
from offline_train.commands.gallery.choice import Folder
from offline_train.commands.options import console

if TYPE_CHECKING:  # FAISS takes its time, and --help waits for nothing
    from index.search.measure import Figures, Queries

UNCALIBRATED = 15.0
"""`factor · cosine` is an image's log-likelihood: that of a bundle that has learnt no scale yet."""


def index(
    gallery: Folder,
    kind: Annotated[
        str, typer.Option(help=f"{AUTO} measures all kinds, or one of {', '.join((EXACT, *KINDS))}")
    ] = AUTO,
    queries: Annotated[
        Path | None, typer.Option(help="Folder of a trial set that was not trained on")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle")] = None,
) -> None:
    """Chooses how a gallery is searched by what is found, and builds the index for it.

    Brain embeddings lie elsewhere than image embeddings: give held-out trials and their bundle, and
    kinds are measured on these, and on weaker ones that are made of them. Without, image embeddings
    with noise stand for them: what comes of it is called simulated, and has to be better.

    Example: python -m offline_train gallery index g --queries held_out --bundle b
    """
    from index.gallery import open_gallery
    from index.search.choose import Rows, choose
    from index.search.measure import simulated_queries
    from index.search.remainder import moments_of
    from index.search.stored import save_search

    if kind not in (AUTO, EXACT, *KINDS):
        raise WrongUsage(f"there is no kind '{kind}': give {', '.join((AUTO, EXACT, *KINDS))}")
    opened = open_gallery(gallery)
    if len(opened) < FEWEST and kind != EXACT:
        console.print(f"{len(opened)} images are searched exactly, which takes no time: no index")
        return
    rows = opened.rows
    asked = asked_of(queries, bundle, gallery)
    asked = (
        asked.with_weaker(opened.embeddings, rows)
        if asked
        else simulated_queries(opened.embeddings, rows, UNCALIBRATED)
    )
    kinds = [name for name, one in KINDS.items() if len(rows) <= (one.tried_up_to or len(rows))]
    tried = kinds if kind == AUTO else [] if kind == EXACT else [kind]
    with console.status("reading the embeddings") as status:
        moments = moments_of(opened.embeddings)
        chosen = choose(Rows(opened.embeddings, rows, moments), asked, tried, status.update)
        save_search(opened, chosen, moments, command_line())
    console.print(_table(chosen.tried, len(rows)))
    console.print(_verdict(chosen.figures, chosen.tried[0]))


def asked_of(trials: Path | None, bundle: Path | None, gallery: Path) -> "Queries | None":
    """The embeddings of held-out trials; None where none are given.

    Raises:
        WrongUsage: one of the two is given without the other.
        Problem: the bundle has seen the trials, or is of another space than the gallery.
    """
    if trials is None or bundle is None:
        if trials != bundle:
            raise WrongUsage("--queries and --bundle belong together: give both, or neither")
        return None
    from decoder.bundle import load_bundle
    from index.gallery import check_space, open_gallery
    from offline_train.brain.gallery import brain_queries
    from offline_train.data.trial_set import load_trial_set
    from offline_train.evaluate.seen import check_seen

    opened, trial_set = load_bundle(bundle), load_trial_set(trials)
    check_space(open_gallery(gallery), opened.manifest)
    check_seen(opened, trial_set)
    return brain_queries(opened, trial_set)


def _table(tried: "tuple[Figures, ...]", n_images: int) -> Table:
    source = _source(tried[0])
    title = f"{n_images} images, {tried[-1].n_queries} {source}"
    table = Table(title=title, box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    for column in (
        "kind",
        "p50 ms",
        "p99 ms",
        "recall@1",
        "recall@5",
        "regret",
        "log p",
        "build s",
    ):
        table.add_column(column, no_wrap=True, justify="left" if column == "kind" else "right")
    for figures in tried:
        table.add_row(
            figures.kind,
            f"{figures.p50_ms:.2f}",
            f"{figures.p99_ms:.2f}",
            f"{figures.recall_1:.4f}",
            f"{figures.recall_5:.4f}",
            f"{figures.regret:.4f}",
            f"±{figures.log_p_error:.3f}",
            f"{figures.build_s:.0f}",
        )
    return table


def _verdict(chosen: "Figures", exact: "Figures") -> str:
    if chosen.kind == EXACT:
        return (
            f"exact search is taken, {exact.p50_ms:.2f} ms for each answer: of what was tried, "
            "nothing faster is good enough"
        )
    found = (
        f"recall@5 {chosen.recall_5:.4f}, regret {chosen.regret:.4f}, log p "
        f"±{chosen.log_p_error:.3f} at up to {max(chosen.times):g} times the evidence, measured "
        f"with {_source(chosen)}"
    )
    good = "taken" if chosen.good else "kept, and `auto` leaves it alone: it is not good enough"
    return f"'{chosen.kind}' is {good} ({found}), {chosen.p50_ms:.2f} ms for each answer"


def _source(figures: "Figures") -> str:
    if figures.queries == "simulated":
        return "simulated queries"
    return "brain embeddings" + (", two in three of them made weaker" if figures.weaker else "")
