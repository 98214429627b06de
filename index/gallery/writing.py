"""Writes galleries: rows are added behind those that count, and count when the manifest is."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hvf_core.artifact import sealed_directory, space_needed, write_manifest
from hvf_core.lock import alone_in
from hvf_core.problem import Problem
from index.gallery.manifest import (
    EMBEDDINGS,
    FILES,
    IMAGES,
    INDEX,
    MANIFEST,
    NAMES,
    Block,
    GalleryManifest,
    read_gallery_manifest,
)
from index.gallery.names import Name, hash_of, index_of, line_of, same_id
from index.gallery.pictures import Picture, keep_picture
from index.gallery.reading import open_gallery
from index.gallery.table import AT_ONCE, Gallery, refuse_alike, refuse_length, wrong_length

BLOCK = 65_536
"""Rows of a block: few blocks are quickly looked through, small ones soon begun again."""
_WRITTEN = "'{}' is being written by another program: wait until it ends"


class Row(NamedTuple):
    """An image that is to be added."""

    id: str
    label: str
    picture: Picture | None = None


Part = tuple[Iterable[Row], NDArray[np.float32]]
"""Rows and their embeddings (n, dim), L2-normalised and of the gallery's space."""


class Writer:
    """Adds rows to a gallery; none counts before `commit`.

    Args:
        folder: of the gallery, which nobody else writes to (`writing`).
        manifest: what it has by now.
        created_by: the command that adds.
        thumbnail_px, linked: as `keep_picture` takes them.
    """

    def __init__(
        self,
        folder: Path,
        manifest: GalleryManifest,
        created_by: str,
        thumbnail_px: int | None = None,
        *,
        linked: bool = False,
    ) -> None:
        self.manifest = manifest
        self._folder, self._created_by = folder, created_by
        self._keep = partial(keep_picture, folder, thumbnail_px=thumbnail_px, linked=linked)
        self._before = open_gallery(folder) if manifest.n_rows > len(manifest.removed) else None
        self._first_new = manifest.n_rows
        self._added: set[str] = set()
        self._n_bytes = sum(block.names_bytes for block in manifest.blocks)
        self._open_block()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._names.close()
        self._embeddings.close()

    def add(self, rows: Iterable[Row], embeddings: NDArray[np.float32]) -> None:
        """Adds rows with their embeddings, (n, dim); each row is asked for after the one before.

        Raises:
            Problem: an id comes twice or is no Unicode, an embedding is not of unit length, an
                image cannot be kept.
        """
        if embeddings.shape[1:] != (self.manifest.dim,):
            raise Problem(
                f"embeddings of shape {embeddings.shape} are not of the gallery's width, "
                f"{self.manifest.dim}: make them with the gallery's bundle"
            )
        wrong = wrong_length(embeddings)
        for number, (row, embedding) in enumerate(zip(rows, embeddings, strict=True)):
            if wrong is not None and number == wrong[0]:
                refuse_length(row.id, wrong[1])
            self._add(row, np.ascontiguousarray(embedding, "<f4").tobytes())

    def _add(self, row: Row, embedding: bytes) -> None:
        id_ = same_id(row.id)
        if id_ in self._added or (self._before is not None and row.id in self._before):
            raise Problem(f"id {row.id!r} comes twice in the gallery: ids must be unique")
        self._added.add(id_)
        image = None
        if row.picture is not None:
            number = self.manifest.n_rows + len(self._lengths)
            image = self._keep(number, row.picture)
        line = line_of(Name(row.id, row.label, image))
        for name, file, data in (
            (NAMES, self._names, line),
            (EMBEDDINGS, self._embeddings, embedding),
        ):
            file.write(data)
            self._digests[name].update(data)
        self._lengths.append(len(line))
        self._hashes.append(hash_of(row.id))
        self._n_images += image is not None
        if len(self._lengths) == BLOCK:
            self._close_block()

    def commit(self) -> GalleryManifest:
        """All that was added counts from here on.

        Raises:
            Problem: the embeddings that were added are nearly the same.
        """
        if self._lengths:
            self._close_block()
        self._check_new()
        write_manifest(self._folder / MANIFEST, self.manifest)
        self._first_new = self.manifest.n_rows
        return self.manifest

    def _check_new(self) -> None:
        shape = (self.manifest.n_rows, self.manifest.dim)
        there = np.memmap(self._folder / EMBEDDINGS, "<f4", "r", 0, shape)
        refuse_alike(there, np.arange(self._first_new, len(there)), str(self._folder))

    def _open_block(self) -> None:
        n = self.manifest.n_rows
        self._names = _at(self._folder / NAMES, self._n_bytes)
        self._embeddings = _at(self._folder / EMBEDDINGS, 4 * n * self.manifest.dim)
        self._digests = {name: hashlib.sha256() for name in FILES}
        self._lengths: list[int] = []
        self._hashes: list[int] = []
        self._n_images = 0

    def _close_block(self) -> None:
        first = self.manifest.n_rows
        table = index_of(self._hashes, self._lengths, first, self._n_bytes).tobytes()
        with _at(self._folder / INDEX, len(table) // len(self._hashes) * first) as file:
            file.write(table)
            _settle(file)
        self._digests[INDEX].update(table)
        for file in (self._names, self._embeddings):
            _settle(file)
            file.close()
        block = Block(
            n=len(self._lengths),
            n_images=self._n_images,
            names_bytes=sum(self._lengths),
            created_by=self._created_by,
            sha256={name: digest.hexdigest() for name, digest in self._digests.items()},
        )
        blocks = (*self.manifest.blocks, block)
        self.manifest = self.manifest.model_copy(update={"blocks": blocks})
        self._n_bytes += block.names_bytes
        self._open_block()


def _at(path: Path, start: int) -> BinaryIO:
    """Opens a file for writing from a place on: over what an addition that was killed has left."""
    file = path.open("r+b" if path.exists() else "xb")
    file.seek(start)
    return file


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


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
    folder: Path,
    manifest: GalleryManifest,
    parts: Iterable[Part],
    created_by: str,
    *,
    linked: bool = False,
) -> Gallery:
    """Writes a gallery whole or not at all; a gallery that was there is replaced.

    Args:
        folder: where to.
        manifest: of one without rows.
        parts: of its rows.
        created_by: the command that makes it.
        linked: images are linked where the file system can, as those of the gallery that it
            replaces.

    Raises:
        Problem: as `Writer` says, somebody else writes there, or `folder` holds something else.
    """
    with ExitStack() as stack:
        if (folder / MANIFEST).is_file():
            stack.enter_context(alone_in(folder, _WRITTEN.format(folder)))
        draft = stack.enter_context(sealed_directory(folder, MANIFEST))
        writer = stack.enter_context(Writer(draft, manifest, created_by, linked=linked))
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


def compact_gallery(folder: Path) -> Gallery:
    """Writes a gallery anew without the rows that were removed, and with few blocks.

    Raises:
        Problem: as `make_gallery` says.
    """

    def parts() -> Iterator[Part]:  # when it is asked for the first one, nobody else writes
        gallery = open_gallery(folder)
        yield from parts_of(gallery, gallery.rows)

    before = open_gallery(folder)
    return make_gallery(folder, emptied(before), parts(), before.created_by, linked=True)


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
