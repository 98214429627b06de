"""The search of a gallery as it is kept beside it: `search/search.json`, an index and its moments.

It is an accessory, made of the rows that the gallery had then: it names them by their checksums.
Rows that were added later are none of it; where the rows themselves have changed, it is of no use.
"""

from pathlib import Path
from typing import Literal

import faiss
import numpy as np
from pydantic import Field
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
from index.search.kinds import MAKE
from index.search.measure import Figures
from index.search.remainder import Moments

FOLDER, MANIFEST, INDEX, MOMENTS = "search", "search.json", "index.faiss", "moments.safetensors"
SCHEMA_VERSION: Literal[1] = 1


class SearchManifest(Frozen):
    """What `search.json` says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    chosen: Figures
    """Its kind and settings, and how good it was."""
    tried: tuple[Figures, ...]
    """The best of each kind that was tried, the exact one first."""
    blocks: tuple[str, ...]
    """SHA-256 of the embeddings of each block of rows that it was made of."""
    n_rows: int = Field(gt=0)
    created_by: str
    """The command that made it."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file; of exact search there is none."""


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
    manifest = read_manifest(folder, MANIFEST, SearchManifest, SCHEMA_VERSION)
    if _blocks_of(gallery)[: len(manifest.blocks)] != manifest.blocks:
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
