"""What `gallery.json` says: a change of a gallery counts when it is replaced."""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from decoder.bundle import ImageEncoderRecord
from hvf_core.artifact import read_manifest
from hvf_core.specs import Frozen

SCHEMA_VERSION: Literal[2] = 2
MANIFEST = "gallery.json"
EMBEDDINGS, NAMES, INDEX = FILES = ("embeddings.f32", "names.jsonl", "names.index")
"""Of which rows are only ever added at the end: what lies behind those that count is not there."""
IMAGES = "images"


class Block(Frozen):
    """Rows that were added together."""

    n: int = Field(gt=0)
    n_images: int = Field(ge=0)
    """How many of them have an image."""
    names_bytes: int = Field(gt=0)
    """Length of their stretch of the file of names."""
    created_by: str
    """The command that made them."""
    sha256: dict[str, str]
    """Of their stretch of each of `FILES`."""


class GalleryManifest(Frozen):
    """What `gallery.json` says."""

    schema_version: Literal[2] = SCHEMA_VERSION
    space: str
    """Names the embedding space (`decoder.bundle.space_of`)."""
    image_encoders: tuple[ImageEncoderRecord, ...]
    dim: int = Field(gt=0)
    """Width of an embedding."""
    generation: int = Field(default=0, ge=0)
    """How often it was compacted, each time into files of other names."""
    blocks: tuple[Block, ...] = ()
    removed: tuple[int, ...] = ()
    """Rows that no longer count, rising."""

    @field_validator("removed")
    @classmethod
    def _rise(cls, removed: tuple[int, ...]) -> tuple[int, ...]:
        if removed and (removed[0] < 0 or any(b <= a for a, b in pairwise(removed))):
            raise ValueError("the rows that were removed should rise")
        return removed

    def path(self, folder: Path, name: str) -> Path:
        """Where one of `FILES` lies."""
        if not self.generation:
            return folder / name
        stem, kind = name.split(".")
        return folder / f"{stem}-{self.generation}.{kind}"

    @property
    def n_rows(self) -> int:
        return sum(block.n for block in self.blocks)

    @property
    def revision(self) -> str:
        """Another one after every change."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def created_by(self) -> str:
        """The commands that made it."""
        return "; ".join(dict.fromkeys(block.created_by for block in self.blocks))


def read_gallery_manifest(folder: Path) -> GalleryManifest:
    """The manifest of a gallery.

    Raises:
        Problem: there is none, it is damaged, or of another version of the program.
    """
    return read_manifest(folder, MANIFEST, GalleryManifest, SCHEMA_VERSION, oldest=SCHEMA_VERSION)
