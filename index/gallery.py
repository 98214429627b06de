"""The gallery: the images among which a decoded trial is looked up.

A table of ids, labels and images, and a file of embeddings. Opening it reads the table; embeddings
are mapped into memory, where all processes of a session share them, and pictures are left alone.
"""

import hashlib
import json
import math
import shutil
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError, safe_open

from decoder.bundle import BundleManifest, ImageEncoderRecord
from hvf_core.artifact import (
    check_files,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen

SCHEMA_VERSION: Literal[1] = 1
MANIFEST = "gallery.json"
EMBEDDINGS = "embeddings.safetensors"


class GalleryManifest(Frozen):
    """What `gallery.json` says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    space: str
    """Names the embedding space (`decoder.bundle.space_of`)."""
    image_encoders: tuple[ImageEncoderRecord, ...]
    created_by: str
    """The command that made it."""
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    images: tuple[Annotated[str, Field(pattern=r"^images/[^/\\:]*[^/\\:.]$")], ...] | None = None
    """Path of each image below the gallery's directory, and nowhere else."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the file of embeddings."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images, row by row: ids, names for people, and fused embeddings.

    Raises:
        Problem: when the columns differ in length.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    embeddings: np.ndarray
    """float32 (n, dim), L2-normalised."""
    space: str
    image_encoders: tuple[ImageEncoderRecord, ...]
    created_by: str
    images: tuple[Path, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        images = n if self.images is None else len(self.images)
        if not n or not len(self.labels) == len(self.embeddings) == images == n:
            raise Problem(
                f"a gallery of {n} ids, {len(self.labels)} labels, {len(self.embeddings)} "
                f"embeddings and {images} images is not a table: give one of each per image"
            )

    def check(self) -> None:
        """Looks at every id and every embedding.

        Raises:
            Problem: an id comes twice, or an embedding is not finite or not of unit length.
        """
        if len(self._rows) < len(self):
            twice = next(id_ for row, id_ in enumerate(self.ids) if self.row_of(id_) != row)
            raise Problem(f"id {twice!r} comes twice in the gallery: ids must be unique")
        lengths = np.linalg.norm(self.embeddings, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # so written, NaN is wrong as well
        if wrong.size:
            raise Problem(
                f"the embedding of {self.ids[wrong[0]]!r} has length {lengths[wrong[0]]}, not 1: "
                "make the gallery again from normalised, finite embeddings"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, id_: str | None) -> int | None:
        """The row of an image, or None when it is not in the gallery."""
        return None if id_ is None else self._rows.get(unicodedata.normalize("NFC", id_))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {unicodedata.normalize("NFC", id_): row for row, id_ in enumerate(self.ids)}


def save_gallery(
    directory: Path, gallery: Gallery, pictures: Iterable[np.ndarray] | None = None
) -> Gallery:
    """Writes a gallery whole or not at all; a gallery that was there is replaced.

    Args:
        directory: where to.
        gallery: what to write; its images, if it has any, are copied.
        pictures: uint8 (height, width, 3) for each row, written as PNG in place of its images; each
            is asked for when the one before is written.

    Returns:
        The gallery as opened there, with the paths of its images.

    Raises:
        Problem: as `Gallery.check` says, an image cannot be copied, or `directory` holds something
            else.
    """
    gallery.check()
    images = None
    with sealed_directory(directory, MANIFEST) as draft:
        (draft / "images").mkdir()
        if pictures is not None:
            images = tuple(f"images/{row:05d}.png" for row in range(len(gallery)))
            for name, picture in zip(images, pictures, strict=True):
                Image.fromarray(picture).save(draft / name, compress_level=1)
        elif gallery.images is not None:
            images = tuple(f"images/{i:05d}{path.suffix}" for i, path in enumerate(gallery.images))
            for name, path in zip(images, gallery.images, strict=True):
                try:
                    shutil.copyfile(path, draft / name)
                except OSError as error:
                    raise Problem(
                        f"the image '{path}' cannot be copied into '{directory}' "
                        f"({error.strerror}): put it back, or make room"
                    ) from error
        told = {"ids": _ids_sha256(gallery)}
        checksum = write_tensors(draft / EMBEDDINGS, {"embeddings": gallery.embeddings}, told)
        manifest = GalleryManifest(
            space=gallery.space,
            image_encoders=gallery.image_encoders,
            created_by=gallery.created_by,
            ids=gallery.ids,
            labels=gallery.labels,
            images=images,
            files={EMBEDDINGS: checksum},
        )
        write_manifest(draft / MANIFEST, manifest)
    return open_gallery(directory)


def load_gallery(directory: Path) -> Gallery:
    """Opens a gallery and verifies it: the work of whoever starts a session or an evaluation.

    Raises:
        Problem: when it is missing, damaged, made by a newer program, or not consistent: its ids
            are not those of its embeddings, or its images lie elsewhere.
    """
    # Older galleries give checksums of their images too, which are left alone here.
    check_files(directory, {EMBEDDINGS: _manifest(directory).files.get(EMBEDDINGS, "")})
    gallery = open_gallery(directory)
    with safe_open(directory / EMBEDDINGS, "np") as file:
        of_ids = (file.metadata() or {}).get("ids")  # which those of before do not tell
    if of_ids not in (None, _ids_sha256(gallery)):
        raise Problem(
            f"the ids in {directory / MANIFEST} are not those that its embeddings were made of: "
            "copy the whole gallery again, or make it again"
        )
    for path in (directory / "images", *(gallery.images or ())):
        if path.is_symlink():
            raise Problem(f"{path} is a link, images lie in the gallery itself: copy them there")
    gallery.check()
    return gallery


def open_gallery(directory: Path) -> Gallery:
    """Opens a gallery that was verified before: neither embeddings nor pictures are read.

    Raises:
        Problem: when it is missing, made by a newer program, or its manifest is damaged.
    """
    manifest = _manifest(directory)
    images = manifest.images
    return Gallery(
        ids=manifest.ids,
        labels=manifest.labels,
        embeddings=_mapped(directory / EMBEDDINGS),
        space=manifest.space,
        image_encoders=manifest.image_encoders,
        created_by=manifest.created_by,
        images=None if images is None else tuple(directory / name for name in images),
    )


def _ids_sha256(gallery: Gallery) -> str:
    return hashlib.sha256(json.dumps(gallery.ids).encode()).hexdigest()


def _manifest(directory: Path) -> GalleryManifest:
    return read_manifest(directory, MANIFEST, GalleryManifest, SCHEMA_VERSION)


def _mapped(path: Path) -> np.ndarray:
    """The embeddings as they lie in the file, at its end.

    What is written to the array stays in this process.
    """
    try:
        with safe_open(path, "np") as file:  # it reads the header, and checks the size
            place = file.get_slice("embeddings")
            kind, shape = place.get_dtype(), tuple(place.get_shape())
            if kind != "F32" or len(shape) != 2 or len(file.keys()) != 1:
                raise ValueError(f"{list(file.keys())}, embeddings {kind} of shape {shape}")
        first = path.stat().st_size - 4 * math.prod(shape)
        return np.memmap(path, "<f4", "c", first, shape).view(np.ndarray)
    except (OSError, ValueError, SafetensorError) as error:
        raise Problem(
            f"{path} holds no embeddings ({error}): copy the whole gallery again, or make it again"
        ) from None


def check_space(gallery: Gallery, bundle: BundleManifest) -> None:
    """Refuses a gallery whose embeddings cannot be compared with a bundle's.

    Raises:
        Problem: when the gallery is of another space, or as wide as none of it is.
    """
    if gallery.space != bundle.space:
        raise Problem(
            f"the gallery is of the embedding space {gallery.space[:12]}, the bundle decodes into "
            f"{bundle.space[:12]}: make the gallery again with this bundle"
        )
    if (width := gallery.embeddings.shape[1]) != bundle.embedding_dim:
        raise Problem(
            f"the gallery's embeddings have {width} numbers, the bundle's {bundle.embedding_dim}: "
            "make the gallery again with this bundle"
        )
