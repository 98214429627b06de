"""The gallery: the images among which a decoded trial is looked up, row by row."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from decoder.bundle import BundleManifest, ImageEncoderRecord
from hvf_core.problem import Problem
from index.encoders.health import refuse_collapsed
from index.gallery.manifest import GalleryManifest
from index.gallery.names import Column, same_id

FEW = 16
"""So few images may well be alike; of more, the cosines of random pairs show a spoilt encoder."""
_SAMPLE = 2048
AT_ONCE = 8192
"""Embeddings that are looked at at a time: no second copy of all."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images, row by row: ids, names for people, and fused embeddings.

    Rows that were removed stay where they are, and do not count. One that `open_gallery` gives is
    mapped into memory, where all processes of a session share it; one made of tuples is in memory.

    Raises:
        Problem: when the columns differ in length, or no row counts.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    embeddings: np.ndarray
    """float32 (n_rows, dim), L2-normalised."""
    space: str
    image_encoders: tuple[ImageEncoderRecord, ...]
    created_by: str
    images: Sequence[Path | None] | None = None
    """None where no row has one."""
    removed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows that do not count, rising."""
    folder: Path | None = None
    """Where it lies; None of one in memory."""
    revision: str = ""
    """Another one after every addition and removal."""
    manifest: GalleryManifest | None = None
    """What its folder's manifest said when it was opened."""

    def __post_init__(self) -> None:
        n = len(self.ids)
        images = n if self.images is None else len(self.images)
        if not n or not len(self.labels) == len(self.embeddings) == images == n:
            raise Problem(
                f"a gallery of {n} ids, {len(self.labels)} labels, {len(self.embeddings)} "
                f"embeddings and {images} images is not a table: give one of each per image"
            )
        if not len(self):
            raise Problem("all images of the gallery are removed: one at least has to stay")

    @property
    def n_rows(self) -> int:
        """How many rows there are, those that were removed too."""
        return len(self.ids)

    def __len__(self) -> int:
        """How many images count."""
        return self.n_rows - len(self.removed)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows that count, rising."""
        return np.delete(np.arange(self.n_rows), self.removed)

    @property
    def counted(self) -> np.ndarray:
        """The embeddings of the rows that count, (n, dim): a copy only where some do not."""
        return self.embeddings[self.rows] if len(self.removed) else self.embeddings

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self.row_of(id_) is not None

    def row_of(self, id_: str | None) -> int | None:
        """The row of an image, or None when it is not in the gallery."""
        if id_ is None:
            return None
        return next((row for row in self._rows_of(id_) if not self.is_removed(row)), None)

    def image_of(self, row: int) -> Path | None:
        """The file of a row's image, where it has one."""
        return None if self.images is None else self.images[row]

    def is_removed(self, row: int) -> bool:
        """Whether a row no longer counts."""
        place = int(self.removed.searchsorted(row))
        return place < len(self.removed) and bool(self.removed[place] == row)

    def _rows_of(self, id_: str) -> Collection[int]:
        if isinstance(self.ids, Column):
            return list(self.ids.names.rows_of(id_))
        return self._rows.get(same_id(id_), ())

    @cached_property
    def _rows(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for row, id_ in enumerate(map(same_id, self.ids)):
            found[id_] = (*found.get(id_, ()), row)
        return found

    def check(self) -> None:
        """Looks at every id and every embedding.

        Raises:
            Problem: an id comes twice, or an embedding is not finite or not of unit length.
        """
        self.check_ids()
        for start in range(0, self.n_rows, AT_ONCE):
            wrong = wrong_length(self.embeddings[start : start + AT_ONCE])
            if wrong is not None:
                refuse_length(self.ids[start + wrong[0]], wrong[1])

    def check_ids(self) -> None:
        """Refuses an id that comes twice."""
        if isinstance(self.ids, Column):
            hashes, rows = self.ids.names.hashes()
            order = np.argsort(hashes)
            same = np.flatnonzero(np.diff(hashes[order]) == 0)
            suspects: Sequence[int] = rows[order[np.union1d(same, same + 1)]].tolist()
        else:
            suspects = range(self.n_rows)
        counted = (same_id(self.ids[row]) for row in suspects if not self.is_removed(row))
        known: set[str] = set()
        for id_ in counted:
            if id_ in known:
                raise Problem(f"id {id_!r} comes twice in the gallery: ids must be unique")
            known.add(id_)


def refuse_alike(embeddings: NDArray[np.float32], rows: NDArray[np.int64], name: str) -> None:
    """Refuses embeddings of which those of a sample of these rows are nearly the same."""
    if len(rows) >= FEW:
        refuse_collapsed(embeddings[sample_of(rows)], name)


def sample_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of these rows, drawn always the same."""
    drawn = np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False)
    return np.sort(drawn)


def wrong_length(embeddings: NDArray[np.float32]) -> tuple[int, float] | None:
    """The first of embeddings (n, dim) whose length is not 1, and its length."""
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # so written, NaN is wrong as well
    return (int(wrong[0]), float(lengths[wrong[0]])) if wrong.size else None


def refuse_length(id_: str, length: float) -> NoReturn:
    """Refuses an embedding for its length."""
    raise Problem(
        f"the embedding of {id_!r} has length {length:.6g}, not 1: make the gallery again from "
        "normalised, finite embeddings"
    )


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
