"""The search of a gallery as it is kept beside it: `search/search.json`, an index and its moments.

It is an accessory, made of the rows that the gallery had then: it names them by their checksums.
Rows that were added later are none of it; where the rows themselves have changed, it is of no use.
"""

from pathlib import Path
from typing import Literal, Self

import faiss
import numpy as np
from pydantic import Field, model_validator
from safetensors.numpy import load_file

from hvf_core.artifact import (
    check_files,
    file_sha256,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen, loading
from index.gallery import Gallery
from index.gallery.manifest import EMBEDDINGS
from index.search.approximate import Approximate
from index.search.choose import Chosen
from index.search.kinds import EXACT, KINDS, MAKE
from index.search.measure import Figures
from index.search.remainder import Moments

FOLDER, MANIFEST, INDEX, MOMENTS = "search", "search.json", "index.faiss", "moments.safetensors"
SCHEMA_VERSION: Literal[2] = 2  # 1 had figures at one factor alone, which say too little


class SearchManifest(Frozen):
    """What `search.json` says."""

    schema_version: Literal[2] = SCHEMA_VERSION
    chosen: Figures
    """Its kind and settings, and how good it was."""
    tried: tuple[Figures, ...] = Field(min_length=1)
    """The best of each kind that was tried, the exact one first."""
    blocks: tuple[str, ...] = Field(min_length=1)
    """SHA-256 of the embeddings of each block of rows that it was made of."""
    n_rows: int = Field(gt=0)
    created_by: str
    """The command that made it."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file; of exact search there is none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        chosen = self.chosen
        if self.tried[0].kind != EXACT:
            raise ValueError("the first kind that was tried is not exact search")
        if sorted(self.files) != ([] if chosen.kind == EXACT else [INDEX, MOMENTS]):
            raise ValueError(f"files {sorted(self.files)} are not those of '{chosen.kind}'")
        if chosen.kind == EXACT:
            return self
        if chosen.kind not in KINDS:
            raise ValueError(f"there is no kind '{chosen.kind}'")
        is_share = max(KINDS[chosen.kind].efforts) <= 1
        if not (0 < chosen.effort <= 1 if is_share else chosen.effort >= 1):
            raise ValueError(f"'{chosen.kind}' has no effort {chosen.effort}")
        if chosen.n_candidates < 1:
            raise ValueError("an index is asked for no image")
        return self


def save_search(gallery: Gallery, chosen: Chosen, moments: Moments, created_by: str) -> Path:
    """Writes the search of a gallery in a folder, whole or not at all, in place of another.

    Raises:
        Problem: it cannot be written.
    """
    folder = _folder_of(gallery)
    with sealed_directory(folder, MANIFEST) as draft:
        files = {}
        if chosen.index is not None:
            faiss.write_index(chosen.index, str(draft / INDEX))
            sums = {"first": moments.first, "second": moments.second}
            files = {
                MOMENTS: write_tensors(draft / MOMENTS, sums),
                INDEX: file_sha256(draft / INDEX),
            }
        manifest = SearchManifest(
            chosen=chosen.figures,
            tried=chosen.tried,
            blocks=_blocks_of(gallery),
            n_rows=gallery.n_rows,
            created_by=created_by,
            files=files,
        )
        write_manifest(draft / MANIFEST, manifest)
    return folder


def read_search(gallery: Gallery) -> SearchManifest | None:
    """What is kept beside a gallery; None where there is nothing.

    Raises:
        Problem: it is damaged, or made of other rows than the gallery has.
    """
    if gallery.folder is None or not (gallery.folder / FOLDER / MANIFEST).exists():
        return None
    folder = _folder_of(gallery)
    manifest = read_manifest(folder, MANIFEST, SearchManifest, SCHEMA_VERSION, oldest=2)
    n_blocks = len(manifest.blocks)
    blocks = gallery.manifest.blocks[:n_blocks] if gallery.manifest else ()
    n_rows = sum(block.n for block in blocks)
    if _blocks_of(gallery)[:n_blocks] != manifest.blocks or n_rows != manifest.n_rows:
        raise Problem(f"{folder} was made of other rows than '{gallery.folder}' has: {MAKE}")
    return manifest


def load_search(
    gallery: Gallery, manifest: SearchManifest, among: np.ndarray | None
) -> Approximate:
    """Opens an index, after it was verified.

    Raises:
        Problem: a file is missing or damaged.
    """
    folder = _folder_of(gallery)
    check_files(folder, manifest.files)
    with loading("the index of a gallery", str(folder / INDEX), MAKE):
        index = faiss.read_index(str(folder / INDEX))
        sums = load_file(folder / MOMENTS)
    dim = gallery.embeddings.shape[1]
    shapes = sums["first"].shape, sums["second"].shape
    if (index.ntotal, index.d, *shapes) != (manifest.n_rows, dim, (dim,), (dim, dim)):
        raise Problem(f"the index in {folder} is not that of its {MANIFEST}: {MAKE}")
    moments = Moments(manifest.n_rows, sums["first"], sums["second"])
    settings = manifest.chosen.effort, manifest.chosen.n_candidates
    search = Approximate(gallery.embeddings, index, *settings, moments, among)
    search.kind = manifest.chosen.kind
    return search


def _folder_of(gallery: Gallery) -> Path:
    if gallery.folder is None:
        raise Problem("the gallery lies in no folder, so no index can be kept with it: save it")
    return gallery.folder / FOLDER


def _blocks_of(gallery: Gallery) -> tuple[str, ...]:
    blocks = gallery.manifest.blocks if gallery.manifest else ()
    return tuple(block.sha256[EMBEDDINGS] for block in blocks)
