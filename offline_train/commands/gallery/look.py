"""gallery info, sheet and like: what is in a gallery, and what looks like what."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvf_core.problem import Problem, WrongUsage, needed
from hvf_core.text import counted, printable
from offline_train.commands.gallery.choice import Folder, IdFile, Ids, Pattern, chosen
from offline_train.commands.options import Encoders, console

if TYPE_CHECKING:
    import numpy as np

    from index.gallery import Gallery
    from index.gallery.sheet import Layout, Tile

SheetFile = Annotated[Path, typer.Option("--out", help="PNG to write; more pages get a number")]


def info(gallery: Folder) -> None:
    """Verifies a gallery and says what is in it.

    Example: python -m offline_train gallery info g
    """
    from index.gallery import load_gallery

    found = load_gallery(gallery)
    encoders = ", ".join(f"{one.name} ({one.dim})" for one in found.image_encoders)
    kept = sum(found.image_of(row) is not None for row in found.rows.tolist())
    facts = {
        "images": f"{len(found)}, {kept} of them with a picture; {len(found.removed)} removed",
        "space": f"{found.space[:12]}, {found.embeddings.shape[1]} numbers an image",
        "encoders": encoders,
        "health": _health(found),
        "added in": counted(len(needed(found.manifest).blocks), "block"),
        "sizes": ", ".join(f"{name} {size}" for name, size in _sizes(gallery).items()),
        "search": _search(found),
        "made by": found.created_by,
    }
    for name, text in facts.items():
        console.print(f"{name:<9} {text}", highlight=False)


def sheet(
    gallery: Folder,
    out: SheetFile,
    ids: Ids = None,
    file: IdFile = None,
    match: Pattern = None,
    columns: Annotated[int, typer.Option(min=1, max=100, help="Images beside each other")] = 10,
    rows: Annotated[int, typer.Option(min=1, max=200, help="Rows of a page")] = 8,
    px: Annotated[int, typer.Option(min=16, max=1024, help="Side of an image in pixels")] = 128,
) -> None:
    """Draws a contact sheet: all images of a gallery, or some, with their labels and ids.

    Example: python -m offline_train gallery sheet g --match 'cat_*' --out cats.png
    """
    from index.gallery import open_gallery
    from index.gallery.sheet import Layout

    there = open_gallery(gallery)
    everything = not ids and file is None and match is None
    shown = there.rows.tolist() if everything else chosen(there, ids, file, match)
    tiles = [_tile(there, row) for row in shown]
    _draw(tiles, Layout(columns, rows, px), out)


def like(
    gallery: Folder,
    image: Annotated[str, typer.Argument(help="Id of an image of the gallery, or a picture file")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many images")] = 10,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the bundle, for a picture file")
    ] = None,
    encoders: Encoders = None,
    out: Annotated[Path | None, typer.Option(help="Contact sheet of them, a PNG to write")] = None,
) -> None:
    """Names the images of a gallery that are most like one of it, or like a picture.

    Example: python -m offline_train gallery like g cat_01 -k 20 --out like_cat.png
    """
    from index.gallery import open_gallery
    from index.gallery.sheet import Layout, Tile
    from index.search.flat import Flat

    there = open_gallery(gallery)
    row = there.row_of(image)
    if row is not None:
        vector, first = there.embeddings[row], _tile(there, row)
    else:
        vector = _embedding(there, Path(image), bundle, encoders)
        first = Tile(Path(image), (Path(image).name,))
    search = Flat(there.embeddings, there.rows if len(there.removed) else None)
    rows, cosines = search.scores(vector).top_k(k + (row is not None))
    found = zip(rows.tolist(), cosines.tolist(), strict=True)
    nearest = [(one, cosine) for one, cosine in found if one != row][:k]
    for one, cosine in nearest:
        line = printable(f"{cosine:6.3f}  {there.ids[one]}  {there.labels[one]}")
        console.print(line, highlight=False, soft_wrap=True)
    if out is not None:
        tiles = [first, *(_tile(there, one, f"{cosine:.3f}") for one, cosine in nearest)]
        _draw(tiles, Layout(), out)


def _embedding(
    gallery: "Gallery", file: Path, bundle: Path | None, encoders: str | None
) -> "np.ndarray":
    """What a bundle makes of a picture file."""
    if not os.path.isfile(file):  # False also of a name that no file can have
        raise Problem(
            f"'{file}' is neither an image of the gallery '{gallery.folder}' nor a file: give an "
            "id or a picture"
        )
    if bundle is None or encoders is None:
        raise WrongUsage("for a picture file give --bundle and --encoders, to embed it with")
    from decoder.bundle import load_bundle
    from index.gallery import check_space
    from offline_train.brain.gallery import embed_picture

    opened = load_bundle(bundle)
    check_space(gallery, opened.manifest)
    return embed_picture(file, opened, encoders)


def _tile(gallery: "Gallery", row: int, *more: str) -> "Tile":
    from index.gallery.sheet import Tile

    names = dict.fromkeys((gallery.labels[row], gallery.ids[row]))  # often one and the same
    return Tile(gallery.image_of(row), (*names, *more))


def _draw(tiles: "Sequence[Tile]", layout: "Layout", out: Path) -> None:
    from hvf_core.artifact import refuse_unwritable, whole_file
    from index.gallery.sheet import sheets

    if out.suffix.lower() != ".png" or out.is_dir():
        raise WrongUsage(f"a contact sheet is a PNG, '{out}' is none: end its name in .png")
    refuse_unwritable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    a_page = layout.columns * layout.rows
    n_pages = -(-len(tiles) // a_page)
    many = [out.with_name(f"{out.stem}-{n:03d}{out.suffix}") for n in range(1, n_pages + 1)]
    paths = many if n_pages > 1 else [out]
    for path, page in zip(paths, sheets(tiles, layout), strict=True):
        with whole_file(path) as draft:
            page.save(draft, "png")
    where = f"{n_pages} pages, '{many[0]}' to '{many[-1]}'" if n_pages > 1 else f"'{out}'"
    console.print(f"{counted(len(tiles), 'image')} in {where}")


def _health(gallery: "Gallery") -> str:
    from index.encoders.health import COLLAPSED_COSINE, embedding_health
    from index.gallery.table import FEW, sample_of

    if len(gallery) < FEW:
        return "too few images to tell"
    cosine = embedding_health(gallery.embeddings[sample_of(gallery.rows)])
    return f"median cosine of random pairs {cosine:.2f} (at most {COLLAPSED_COSINE})"


def _sizes(folder: Path) -> dict[str, str]:
    """Megabytes of the embeddings, the names, the images and the search index."""
    sums: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0].split(".")[0].split("-")[0]
            sums[part] = sums.get(part, 0) + path.stat().st_size
    return {name: f"{size / 1e6:.1f} MB" for name, size in sorted(sums.items())}


def _search(gallery: "Gallery") -> str:
    from index.search.stored import read_search

    try:
        kept = read_search(gallery)
    except Problem as problem:
        return str(problem)
    if kept is None:
        return "exact, there is no index"
    one = kept.chosen
    return (
        f"{one.kind} of {kept.n_rows} rows: {one.p50_ms:.2f} ms, recall@5 {one.recall_5:.3f}, "
        f"log p ±{one.log_p_error:.3f}, on {one.n_queries} {one.queries} queries"
    )
