"""Opens galleries: their files are mapped into memory, and verified by whoever starts a session."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

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
from index.gallery.names import ROW_BYTES, Column, Name, Names, hash_of, index_of, name_in
from index.gallery.table import AT_ONCE, Gallery, refuse_alike, refuse_length, wrong_length

_TRIES = 10
_WAY_OUT = "copy the whole gallery again, or make it again"


def open_gallery(folder: Path) -> Gallery:
    """Opens a gallery that was verified before: neither names, embeddings nor pictures are read.

    Rows may be added to it and removed meanwhile; it has those that it had when it was opened.

    Raises:
        Problem: when it is missing, of another version of the program, damaged, or empty.
    """
    return _opened(folder)[0]


def _opened(folder: Path) -> tuple[Gallery, GalleryManifest]:
    after = read_gallery_manifest(folder)
    for _ in range(_TRIES):
        manifest, fault, gallery = after, None, None
        try:
            gallery = _mapped(folder, manifest)
        except (OSError, ValueError) as error:
            fault = error
        after = read_gallery_manifest(folder)
        if after == manifest:  # otherwise these may be files of two galleries
            break
    if gallery is None:
        raise Problem(f"{folder} holds no whole gallery ({fault}): {_WAY_OUT}")
    return gallery, manifest


def open_as_of(folder: Path, manifest: GalleryManifest) -> Gallery:
    """Opens a gallery as its manifest was before: what was added or removed since changes nothing.

    Where it was made anew since, its rows are others: then it is opened as it is.

    Raises:
        Problem: its files are missing, or as `open_gallery` says.
    """
    try:
        there = read_gallery_manifest(folder)
    except Problem:  # it is damaged by now, or just replaced
        there = manifest
    is_other = there.blocks[: len(manifest.blocks)] != manifest.blocks
    if is_other and there.generation == manifest.generation:
        return open_gallery(folder)
    try:
        return _mapped(folder, manifest)
    except (OSError, ValueError):  # it was compacted since
        return open_gallery(folder)


def _mapped(folder: Path, manifest: GalleryManifest) -> Gallery:
    n, dim = manifest.n_rows, manifest.dim
    if not n:
        raise Problem(f"{folder} holds no image: make it again")
    if manifest.removed and manifest.removed[-1] >= n:
        raise ValueError(f"row {manifest.removed[-1]} of {n} is removed")
    path = partial(manifest.path, folder)
    sizes = (4 * n * dim, sum(block.names_bytes for block in manifest.blocks), ROW_BYTES * n)
    for name, size in zip((EMBEDDINGS, NAMES, INDEX), sizes, strict=True):
        if (there := path(name).stat().st_size) < size:
            raise ValueError(f"{name} has {there} bytes, expected {size}")
    names = Names(path(NAMES), path(INDEX), manifest.blocks)
    # What is written to the array stays in this process.
    embeddings = np.memmap(path(EMBEDDINGS), "<f4", "c", 0, (n, dim)).view(np.ndarray)

    def image(name: Name) -> Path | None:
        return None if name.image is None else folder / name.image

    has_images = any(block.n_images for block in manifest.blocks)
    return Gallery(
        ids=Column(names, lambda name: name.id),
        labels=Column(names, lambda name: name.label),
        embeddings=embeddings,
        space=manifest.space,
        image_encoders=manifest.image_encoders,
        created_by=manifest.created_by,
        images=Column(names, image) if has_images else None,
        removed=np.array(manifest.removed, np.int64),
        folder=folder,
        revision=manifest.revision,
        manifest=manifest,
    )


def load_gallery(folder: Path, known: Gallery | None = None) -> Gallery:
    """Opens a gallery and verifies it: the work of whoever starts a session or an evaluation.

    Args:
        folder: of the gallery.
        known: the same gallery before a change: blocks that it had are not read again.

    Raises:
        Problem: when it is missing, damaged, of another version of the program, or not consistent:
            its ids are not those of its index, one comes twice, its images lie elsewhere, or its
            embeddings are not of unit length or nearly the same.
    """
    for _ in range(_TRIES):
        gallery, manifest = _opened(folder)
        before = known.manifest if known is not None else None
        is_same = before is not None and before.generation == manifest.generation
        try:
            _verify(gallery, folder, manifest, before.blocks if before and is_same else ())
            break
        except Problem:
            if read_gallery_manifest(folder).revision == gallery.revision:
                raise  # otherwise it was replaced meanwhile
    return gallery


def _verify(
    gallery: Gallery, folder: Path, manifest: GalleryManifest, known: Sequence[Block]
) -> None:
    embeddings, names, index = (manifest.path(folder, name) for name in FILES)
    row, start = 0, 0
    is_known = True
    for number, block in enumerate(manifest.blocks):
        is_known = is_known and number < len(known) and block == known[number]
        if not is_known:
            _verify_names(names, index, block, row, start)
            _verify_embeddings(embeddings, block, row, gallery)
        row, start = row + block.n, start + block.names_bytes
    gallery.check_ids()
    for path in _links(folder / IMAGES):
        raise Problem(f"{path} is a link, images lie in the gallery itself: copy them there")
    refuse_alike(gallery.embeddings, gallery.rows, str(folder))


def _read(path: Path, start: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(n_bytes)


def _verify_names(names: Path, index: Path, block: Block, row: int, start: int) -> None:
    text, table = (
        _read(names, start, block.names_bytes),
        _read(index, ROW_BYTES * row, ROW_BYTES * block.n),
    )
    _check_sum(names, hashlib.sha256(text), block.sha256.get(NAMES))
    _check_sum(index, hashlib.sha256(table), block.sha256.get(INDEX))
    if _index(names, text, block.n, row, start) != table:
        raise Problem(f"{index} is not that of its {NAMES}: {_WAY_OUT}")


def _verify_embeddings(path: Path, block: Block, row: int, gallery: Gallery) -> None:
    """Reads a part at a time, past what is mapped, which would count as memory."""
    dim = gallery.embeddings.shape[1]
    digest, wrong = hashlib.sha256(), None
    with path.open("rb") as file:
        file.seek(4 * dim * row)
        for first in range(row, row + block.n, AT_ONCE):
            part = file.read(4 * dim * min(AT_ONCE, row + block.n - first))
            digest.update(part)
            found = wrong_length(np.frombuffer(part, "<f4").reshape(-1, dim))
            if found is not None and wrong is None:
                wrong = first + found[0], found[1]
    _check_sum(path, digest, block.sha256.get(EMBEDDINGS))
    if wrong is not None:
        refuse_length(gallery.ids[wrong[0]], wrong[1])


def _check_sum(path: Path, digest: "hashlib._Hash", expected: str | None) -> None:
    if digest.hexdigest() != expected:
        raise Problem(
            f"{path} is damaged (its checksum is not the one that was written with it): {_WAY_OUT}"
        )


def _index(path: Path, text: bytes, n: int, first: int, start: int) -> bytes:
    """The index that the lines of a block have."""
    lines = text.splitlines(keepends=True)
    try:
        hashes = [hash_of(name_in(line).id) for line in lines]
    except ValueError as error:
        raise Problem(f"{path} is damaged ({error}): {_WAY_OUT}") from None
    if len(lines) != n:
        raise Problem(f"{path} has {len(lines)} lines, {MANIFEST} says {n}: {_WAY_OUT}")
    return index_of(hashes, list(map(len, lines)), first, start).tobytes()


def _links(folder: Path) -> Iterator[Path]:
    """The folder or what is in it, where it is a link."""
    if folder.is_symlink():
        yield folder
    elif folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry)
                elif entry.is_dir():
                    yield from _links(Path(entry))
