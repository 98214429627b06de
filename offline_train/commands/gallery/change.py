"""gallery remove, subset, merge and compact: what needs no image to be embedded."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.provenance import command_line
from hvf_core.text import counted
from offline_train.commands.gallery.choice import Folder, IdFile, Ids, Pattern, chosen
from offline_train.commands.options import Out, console


def remove(gallery: Folder, ids: Ids = None, file: IdFile = None, match: Pattern = None) -> None:
    """Removes images from a gallery, all or none, also while a session answers from it.

    Example: python -m offline_train gallery remove g cat_01 cat_02
    """
    from index.gallery import open_gallery
    from index.gallery.changes import remove_images

    there = open_gallery(gallery)
    names = [there.ids[row] for row in chosen(there, ids, file, match)]
    now = remove_images(gallery, names)
    console.print(f"{counted(len(names), 'image')} removed: {len(now)} in '{gallery}'")


def subset(
    gallery: Folder, out: Out, ids: Ids = None, file: IdFile = None, match: Pattern = None
) -> None:
    """Copies some images of a gallery, in the order in which they are named, into another one.

    Example: python -m offline_train gallery subset g --match 'cat_*' --out cats
    """
    import numpy as np

    from hvf_core.artifact import refuse_taken
    from index.gallery import MANIFEST, load_gallery
    from index.gallery.changes import copy_galleries

    refuse_taken(out, MANIFEST, "a gallery")
    there = load_gallery(gallery)
    rows = np.array(chosen(there, ids, file, match))
    console.print(f"{len(copy_galleries(out, [(there, rows)], command_line()))} images in '{out}'")


def merge(
    galleries: Annotated[list[Path], typer.Argument(help="Folders of galleries of one space")],
    out: Out,
) -> None:
    """Copies galleries of one embedding space into one; an image that two have is taken once.

    Example: python -m offline_train gallery merge g more --out all
    """
    from hvf_core.artifact import refuse_taken
    from index.gallery import MANIFEST, load_gallery
    from index.gallery.changes import copy_galleries

    refuse_taken(out, MANIFEST, "a gallery")
    sources = [(one, one.rows) for one in map(load_gallery, galleries)]
    console.print(f"{len(copy_galleries(out, sources, command_line()))} images in '{out}'")


def compact(gallery: Folder) -> None:
    """Frees what removed images take on the disk, and makes many small additions one.

    Example: python -m offline_train gallery compact g
    """
    from index.gallery import open_gallery
    from index.gallery.changes import compact_gallery

    n_before = open_gallery(gallery).n_rows
    now = compact_gallery(gallery)
    console.print(
        f"{counted(n_before - len(now), 'row')} freed: {counted(len(now), 'image')} in '{gallery}'"
    )
