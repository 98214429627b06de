"""gallery build and add: embeds images, of a folder, of a table, or that were embedded before."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvf_core.options import TRAIN, Flag, onward
from hvf_core.problem import Problem, WrongUsage, needed
from hvf_core.provenance import command_line
from hvf_core.text import counted
from index.encoders.spec import read_specs
from offline_train.commands.gallery.choice import Folder
from offline_train.commands.options import (
    BundleFolder,
    Cache,
    Encoders,
    Images,
    Out,
    bar,
    console,
    encoded,
    test_trials,
)

if TYPE_CHECKING:
    from decoder.bundle import Bundle, ImageEncoderRecord
    from index.gallery import Gallery
    from index.gallery.appending import Row
    from offline_train.brain.gallery import Featured

_MANY_BLOCKS = 200
Table = Annotated[
    Path | None,
    typer.Option(help="In place of --images: CSV, TSV or Parquet with columns path, id, label"),
]
Thumbnails = Annotated[
    int | None,
    typer.Option(
        "--thumbnails",
        metavar="PX",
        min=16,
        help="Keep small JPEGs, not copies of images",
    ),
]
Without = Annotated[bool, Flag("--without-images", help="Keep no images, only ids and labels")]


def build(
    bundle: BundleFolder,
    out: Out,
    images: Images = None,
    table: Table = None,
    trials: Annotated[
        Path | None,
        typer.Option(help="A trial set: of --images only what its test trials show"),
    ] = None,
    encoders: Encoders = None,
    labels: Annotated[
        str, typer.Option(help="Comma-separated classes, for a bundle trained with --labels")
    ] = "",
    thumbnails: Thumbnails = None,
    without_images: Without = False,
    cache: Cache = Path("features"),
) -> None:
    """Embeds images with a bundle's HVF: the gallery that is searched.

    Killed, it goes on from there when it is called again.

    Example: python -m offline_train gallery --bundle b --images test --encoders paper-retrieval ...
    """
    from decoder.bundle import load_bundle
    from hvf_core.artifact import refuse_taken
    from index.gallery import MANIFEST
    from offline_train.brain.gallery import make_from_features

    _refuse_both(thumbnails, without_images)
    if trials is not None and images is None:
        raise WrongUsage("--trials says which of the --images: give these too")
    refuse_taken(out, MANIFEST, "a gallery")
    opened = load_bundle(bundle)
    if classes := [label for label in labels.split(",") if label]:
        new = _classes(classes, opened)
    else:
        wanted = None if trials is None else test_trials(trials).items
        new = _embedded(opened, images, table, encoders, cache, not without_images, wanted)
    with bar("fusing") as tell:
        made = make_from_features(
            *(out, new.rows, new.contents, new.features, opened),
            *(command_line(), thumbnails, tell),
        )
    console.print(f"{len(made)} images in '{out}'")
    console.print(onward("prepare-test", bundle=bundle), soft_wrap=True)


def add(
    gallery: Folder,
    bundle: BundleFolder,
    images: Images = None,
    table: Table = None,
    encoders: Encoders = None,
    new_only: Annotated[
        bool, Flag("--new-only", help="Pass over images whose ids are in the gallery")
    ] = False,
    thumbnails: Thumbnails = None,
    without_images: Without = False,
    cache: Cache = Path("features"),
) -> None:
    """Adds images to a gallery, all or none, also while a session answers from it.

    Example: python -m offline_train gallery add g --bundle b --images more --encoders encoders.json
    """
    from decoder.bundle import load_bundle
    from index.gallery import check_space, open_gallery
    from index.gallery.changes import add_images
    from offline_train.brain.gallery import fused

    _refuse_both(thumbnails, without_images)
    opened, there = load_bundle(bundle), open_gallery(gallery)
    check_space(there, opened.manifest)
    passed = partial(_new_ids, there, new_only)
    new = _embedded(opened, images, table, encoders, cache, not without_images, None, passed)
    with bar("fusing") as tell:
        parts = fused(new.rows, new.features, opened, tell)
        now = add_images(gallery, parts, command_line(), thumbnails)
    console.print(f"{counted(len(new.rows), 'image')} added: {len(now)} in '{gallery}'")
    if (n_blocks := len(needed(now.manifest).blocks)) > _MANY_BLOCKS:
        console.print(
            f"it was added to {n_blocks} times, which makes it slower: "
            f"{TRAIN} gallery compact {gallery}"
        )


@dataclass(frozen=True)
class _New:
    """Images that are to be in a gallery."""

    rows: "Sequence[Row]"
    contents: Sequence[str]
    features: "Featured"


def _classes(labels: Sequence[str], bundle: "Bundle") -> _New:
    from index.gallery.appending import Row
    from offline_train.data.features import label_features

    features = label_features(sorted(labels))
    _check_encoders(bundle, features.encoders)
    return _New([Row(label, label) for label in labels], labels, features)


def _check_encoders(bundle: "Bundle", found: "Sequence[ImageEncoderRecord]") -> None:
    from offline_train.data.features import check_encoders

    wanted = bundle.manifest.image_encoders
    check_encoders(found, wanted, f"the bundle '{bundle.directory}'")


def _embedded(
    bundle: "Bundle",
    images: Path | None,
    table: Path | None,
    encoders: str | None,
    cache: Path,
    keep: bool,
    wanted: Sequence[str] | None = None,
    passed: Callable[[Sequence[str]], Container[str]] = lambda ids: (),
) -> _New:
    """Images of a folder or a table, less those that are passed over, as the encoders see them.

    Of a folder it is those that are `wanted`, and each of these; None: all.
    """
    from index.gallery.appending import Row
    from offline_train.data.image_table import ImageTable, read_image_table
    from offline_train.data.images import image_files, passed_over

    if (images is None) == (table is None) or encoders is None:
        raise WrongUsage(
            "give --images or --table, and --encoders; with --labels a bundle needs none of them"
        )
    if table is not None:
        found = read_image_table(table)
    else:
        files = image_files(images, wanted)
        for sentence in passed_over(needed(images)):
            console.print(sentence)
        found = ImageTable({id_: id_ for id_ in files}, files, {})
    left_out = passed(tuple(found.labels))
    ids = [id_ for id_ in found.labels if id_ not in left_out]
    with bar("reading images") as tell:
        read = found.pictures({id_: id_ for id_ in ids}, tell)
    _tell_of_twins(read.contents)
    features = encoded(read, read_specs(encoders), cache, partial(_check_encoders, bundle))
    rows = [Row(i, found.labels[i], found.files.get(i) if keep else None) for i in ids]
    return _New(rows, list(read.contents.values()), features)


def _new_ids(gallery: "Gallery", new_only: bool, ids: Sequence[str]) -> Container[str]:
    """Those that are in the gallery by now, if they may be passed over."""
    there = {id_ for id_ in ids if id_ in gallery}
    if there and not new_only:
        raise Problem(
            f"{next(iter(sorted(there)))!r} is in the gallery '{gallery.folder}' by now, like "
            f"{len(there) - 1} others: rename it, or pass over what is there with --new-only"
        )
    if len(there) == len(ids):
        raise Problem(f"all {len(ids)} images are in the gallery '{gallery.folder}' by now")
    return there


def _tell_of_twins(contents: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    twins = [(first[c], id_) for id_, c in contents.items() if first.setdefault(c, id_) != id_]
    if twins:
        one, other = twins[0]
        console.print(
            f"{len(twins)} images are the same as another one, first '{one}' and '{other}': no "
            "answer can tell them apart"
        )


def _refuse_both(thumbnails: int | None, without_images: bool) -> None:
    if thumbnails is not None and without_images:
        raise WrongUsage("--thumbnails has no meaning with --without-images: leave one out")
