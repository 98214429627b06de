"""Makes and changes galleries: whole or not at all, one writer at a time, beside any readers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvf_core.artifact import sealed_directory, space_needed, write_manifest
from hvf_core.lock import alone_in
from hvf_core.problem import Problem, needed
from index.gallery.appending import Part, Row, Writer
from index.gallery.manifest import FILES, IMAGES, MANIFEST, GalleryManifest, read_gallery_manifest
from index.gallery.pictures import Picture
from index.gallery.reading import open_gallery
from index.gallery.table import AT_ONCE, Gallery

_WRITTEN = "'{}' is being written by another program: wait until it ends"


@contextmanager
def writing(folder: Path) -> Iterator[GalleryManifest]:
    """Keeps other writers out of a gallery, and yields its manifest; readers are not disturbed.

    Raises:
        Problem: somebody else writes to it, or there is none.
    """
    read_gallery_manifest(folder)
    with alone_in(folder, _WRITTEN.format(folder)):
        yield read_gallery_manifest(folder)


def add_images(
    folder: Path,
    parts: Iterable[Part],
    created_by: str,
    thumbnail_px: int | None = None,
) -> Gallery:
    """Adds images to a gallery, all or none of them, also while others read it.

    Args:
        folder: of the gallery.
        parts: of what is added.
        created_by: the command that adds.
        thumbnail_px: as `keep_picture` takes it.

    Raises:
        Problem: as `writing` and `Writer` say.
    """
    with (
        space_needed(folder),
        writing(folder) as manifest,
        Writer(folder, manifest, created_by, thumbnail_px) as writer,
    ):
        for rows, embeddings in parts:
            writer.add(rows, embeddings)
        writer.commit()
    return open_gallery(folder)


def remove_images(folder: Path, ids: Iterable[str]) -> Gallery:
    """Removes images from a gallery, all or none of them, also while others read it.

    Their rows stay as holes, and their images for those who have it open, until it is compacted.

    Raises:
        Problem: somebody else writes to it, an id is not in it, or none would stay.
    """
    with writing(folder) as manifest:
        gallery = open_gallery(folder)
        rows = set(manifest.removed)
        for id_ in ids:
            row = gallery.row_of(id_)
            if row is None:
                raise Problem(f"{id_!r} is not in the gallery '{folder}': leave it out")
            rows.add(row)
        if len(rows) == manifest.n_rows:
            raise Problem(
                f"these are all {len(gallery)} images of the gallery '{folder}', and one at least "
                "has to stay: delete the folder if it is no longer needed"
            )
        removed = {"removed": tuple(sorted(rows))}
        write_manifest(folder / MANIFEST, manifest.model_copy(update=removed))
    return open_gallery(folder)


def make_gallery(
    folder: Path, manifest: GalleryManifest, parts: Iterable[Part], created_by: str
) -> Gallery:
    """Writes a gallery whole or not at all; a gallery that was there is replaced.

    Args:
        folder: where to.
        manifest: of one without rows.
        parts: of its rows.
        created_by: the command that makes it.

    Raises:
        Problem: as `Writer` says, somebody else writes there, or `folder` holds something else.
    """
    with ExitStack() as stack:
        if (folder / MANIFEST).is_file():
            stack.enter_context(alone_in(folder, _WRITTEN.format(folder)))
        draft = stack.enter_context(sealed_directory(folder, MANIFEST))
        writer = stack.enter_context(Writer(draft, manifest, created_by))
        (draft / IMAGES).mkdir()
        for rows, embeddings in parts:
            writer.add(rows, embeddings)
        writer.commit()
    return open_gallery(folder)


def save_gallery(
    folder: Path, gallery: Gallery, pictures: Iterable[NDArray[np.uint8]] | None = None
) -> Gallery:
    """Writes the rows of a gallery that count, as `make_gallery` does.

    Args:
        folder: where to.
        gallery: what to write; its images, if it has any, are copied.
        pictures: uint8 (height, width, 3) for each row that counts, written as PNG in place of its
            images; each is asked for when the one before is written.

    Returns:
        The gallery as opened there, with the paths of its images.

    Raises:
        Problem: as `make_gallery` says.
    """
    parts = parts_of(gallery, gallery.rows, pictures)
    return make_gallery(folder, emptied(gallery), parts, gallery.created_by)


def copy_galleries(
    folder: Path, sources: Sequence[tuple[Gallery, NDArray[np.int64]]], created_by: str
) -> Gallery:
    """Writes rows of galleries of one space into a new one; an image that two have is taken once.

    Raises:
        Problem: they are of different spaces or encoders, have different images of one id, or one
            of them would be replaced; or as `make_gallery` says.
    """
    first = sources[0][0]
    for source, _ in sources:
        _refuse_within(folder, needed(source.folder))
    for other, _ in sources[1:]:
        if emptied(other) != emptied(first):
            raise Problem(
                f"'{other.folder}' is of the embedding space {other.space[:12]}, "
                f"'{first.folder}' of {first.space[:12]}: make both with one bundle"
            )
    parts = (
        part
        for number, (gallery, rows) in enumerate(sources)
        for part in parts_of(gallery, _new_among(gallery, rows, sources[:number]))
    )
    return make_gallery(folder, emptied(first), parts, created_by)


def _refuse_within(folder: Path, source: Path) -> None:
    """Refuses to replace a folder by what is copied from it or from below it, or to write there."""
    if source.resolve() in folder.resolve().parents:
        raise Problem(
            f"'{folder}' lies in the gallery '{source}', and would go with it: name another folder"
        )
    places = (source, *source.resolve().parents)
    if folder.exists() and any(place.samefile(folder) for place in places):
        raise Problem(
            f"'{folder}' would be replaced, and its images are copied from '{source}': name "
            "another folder to write"
        )


def _new_among(
    gallery: Gallery, rows: NDArray[np.int64], before: Sequence[tuple[Gallery, NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """The rows whose images none of the galleries before has."""
    new = []
    for row in rows.tolist():
        twins = ((one, one.row_of(gallery.ids[row])) for one, _ in before)
        other, its = next(((one, its) for one, its in twins if its is not None), (None, None))
        if other is None:
            new.append(row)
        elif not np.allclose(other.embeddings[its], gallery.embeddings[row], atol=1e-5):
            raise Problem(
                f"'{other.folder}' and '{gallery.folder}' have different images of the id "
                f"{gallery.ids[row]!r}: remove one of them"
            )
    return np.array(new, np.int64)


def compact_gallery(folder: Path) -> Gallery:
    """Leaves the rows that were removed and their images out of a gallery, and makes few blocks.

    Rows move, into files of other names: whoever has it open keeps what it has, but for those
    images.

    Raises:
        Problem: somebody else writes to it, or there is none.
    """
    with space_needed(folder), writing(folder) as manifest:
        before = open_gallery(folder)
        told = {"generation": manifest.generation + 1, "blocks": (), "removed": ()}
        anew = manifest.model_copy(update=told)
        for name in FILES:  # of one that was killed
            anew.path(folder, name).unlink(missing_ok=True)
        with Writer(folder, anew, before.created_by) as writer:
            for rows, embeddings in parts_of(before, before.rows):
                writer.add(rows, embeddings)
            writer.commit()
        after = open_gallery(folder)
        kept = {after.image_of(row) for row in range(after.n_rows)}
        old = list((folder / IMAGES).rglob("*"))
        for name in FILES:  # of the one before, and of those before a compaction that was killed
            kept.add(anew.path(folder, name))
            old += folder.glob(name.replace(".", "*."))
        for path in old:
            if path not in kept:
                with suppress(OSError):  # as on Windows, where somebody has it open
                    path.unlink()
    return after


def emptied(gallery: Gallery) -> GalleryManifest:
    """The manifest of a gallery as this one, without rows."""
    return GalleryManifest(
        space=gallery.space,
        image_encoders=gallery.image_encoders,
        dim=gallery.embeddings.shape[1],
    )


def parts_of(
    gallery: Gallery, rows: NDArray[np.int64], pictures: Iterable[Picture | None] | None = None
) -> Iterator[Part]:
    """Rows of a gallery as `Writer.add` takes them, perhaps with other pictures than they have."""
    images = gallery.images
    if pictures is None:
        pictures = (None if images is None else images[row] for row in rows.tolist())
    given = iter(pictures)
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        named = ((gallery.ids[row], gallery.labels[row]) for row in some.tolist())
        yield (Row(*name, next(given)) for name in named), gallery.embeddings[some]
