"""Adds rows to a gallery's files, behind those that count; they count once committed."""

import hashlib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hvf_core.artifact import write_manifest
from hvf_core.problem import Problem
from index.gallery.manifest import EMBEDDINGS, FILES, INDEX, MANIFEST, NAMES, Block, GalleryManifest
from index.gallery.names import Name, hash_of, index_of, line_of, same_id
from index.gallery.pictures import Picture, keep_picture
from index.gallery.reading import open_gallery
from index.gallery.table import refuse_alike, refuse_length, wrong_length

BLOCK = 65_536
"""Rows of a block: few blocks are quickly looked through, small ones soon begun again."""
_MANY = 100
"""So many new images are no series of one scene, of which all may well be alike."""


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
        thumbnail_px: as `keep_picture` takes it.
    """

    def __init__(
        self,
        folder: Path,
        manifest: GalleryManifest,
        created_by: str,
        thumbnail_px: int | None = None,
    ) -> None:
        self.manifest = manifest
        self._folder, self._created_by = folder, created_by
        self._keep = partial(keep_picture, folder, manifest.generation, thumbnail_px=thumbnail_px)
        self._before = open_gallery(folder) if manifest.n_rows > len(manifest.removed) else None
        self._path = partial(manifest.path, folder)
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
        there = np.memmap(self._path(EMBEDDINGS), "<f4", "r", 0, shape)
        refuse_alike(there, np.arange(len(there)), "fused")
        if len(there) - self._first_new >= _MANY:
            refuse_alike(there, np.arange(self._first_new, len(there)), "fused")

    def _open_block(self) -> None:
        n = self.manifest.n_rows
        self._names = _at(self._path(NAMES), self._n_bytes)
        self._embeddings = _at(self._path(EMBEDDINGS), 4 * n * self.manifest.dim)
        self._digests = {name: hashlib.sha256() for name in FILES}
        self._lengths: list[int] = []
        self._hashes: list[int] = []
        self._n_images = 0

    def _close_block(self) -> None:
        first = self.manifest.n_rows
        table = index_of(self._hashes, self._lengths, first, self._n_bytes).tobytes()
        with _at(self._path(INDEX), len(table) // len(self._hashes) * first) as file:
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
