"""What ties a gallery to a collection: what both say it was made of, and how good its index is."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from safetensors.numpy import load_file

from hvf_core.artifact import (
    check_files,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen, loading
from index.gallery import Gallery
from index.gallery.manifest import EMBEDDINGS
from index.search.measure import Figures
from index.search.milvus.server import FIRST_S, Server
from index.search.remainder import Moments

FOLDER, MANIFEST, MOMENTS = "milvus", "milvus.json", "moments.safetensors"
SCHEMA_VERSION: Literal[1] = 1
LOAD = "load it with `python -m offline_train gallery load-milvus GALLERY --uri URI`"
"""The way out wherever a collection is of no use."""
N_CANDIDATES = 1000
"""Images that a server is asked for; their cosines are computed here."""


class Provenance(Frozen):
    """What a collection was made of, as its property says it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    space: str
    """The embedding space."""
    encoders: tuple[str, ...]
    """The image encoders, NAME:CHECKSUM."""
    dim: int = Field(gt=0)
    n_rows: int = Field(gt=0)
    rows: str
    """SHA-256 over those of the embeddings of the gallery's blocks."""
    revision: str
    """Of the gallery when it was loaded."""
    index: str
    """One of `INDEXES`."""
    created_by: str


class MilvusManifest(Frozen):
    """What `milvus.json` beside a gallery says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    collection: str
    made_of: Provenance
    figures: Figures
    """How good its search was when it was loaded."""
    files: dict[str, str]


def provenance_of(gallery: Gallery, index: str, created_by: str, n_rows: int) -> Provenance | None:
    """Of a gallery's first rows; None where they are not whole blocks."""
    blocks = gallery.manifest.blocks if gallery.manifest else ()
    digest, n = hashlib.sha256(), 0
    for block in blocks:
        if n == n_rows:
            break
        digest.update(block.sha256[EMBEDDINGS].encode())
        n += block.n
    if n != n_rows:
        return None
    return Provenance(
        space=gallery.space,
        encoders=tuple(f"{one.name}:{one.checksum}" for one in gallery.image_encoders),
        dim=gallery.embeddings.shape[1],
        n_rows=n_rows,
        rows=digest.hexdigest(),
        revision=gallery.revision,
        index=index,
        created_by=created_by,
    )


def collection_of(gallery: Gallery) -> str:
    """The name of a gallery's collection, where nobody gives one: the same as it grows."""
    blocks = gallery.manifest.blocks if gallery.manifest else ()
    first = blocks[0].sha256[EMBEDDINGS] if blocks else ""
    return f"hvf_{hashlib.sha256((gallery.space + first).encode()).hexdigest()[:16]}"


def read_provenance(server: Server, collection: str) -> Provenance | None:
    """What a collection was made of; None where there is no such collection.

    Raises:
        Lost: the server does not tell.
        Problem: the collection is not this program's, or of another version of it.
    """
    said = server.said_of(collection)
    if said is None:
        return None
    try:
        return Provenance.model_validate_json(said)
    except ValidationError:
        raise Problem(
            f"the collection '{collection}' at {server.uri} was written by another version of "
            "this program: load the gallery again into another --collection"
        ) from None


def refuse_other(server: Server, collection: str, gallery: Gallery) -> Provenance:
    """What a collection was made of, after it was found to be the first rows of a gallery.

    Raises:
        Lost: the server does not tell.
        Problem: there is none, it is of another gallery, or not all of its rows are there.
    """
    there = read_provenance(server, collection)
    where = f"the collection '{collection}' at {server.uri}"
    if there is None:
        raise Problem(f"{where} is not there: {LOAD}")
    refuse_foreign_rows(there, gallery, where)
    server.make_ready(collection, FIRST_S)
    n = server.count(collection, there.n_rows)
    if n != there.n_rows:
        raise Problem(f"{where} has {n} of its {there.n_rows} images: {LOAD}, which goes on")
    return there


def refuse_foreign_rows(there: Provenance, gallery: Gallery, where: str) -> None:
    """Refuses a collection of other images than a gallery's first ones.

    Raises:
        Problem: it is.
    """
    if there.space != gallery.space:
        raise Problem(
            f"{where} is of the embedding space {there.space[:12]}, the gallery of "
            f"{gallery.space[:12]}: load the gallery into another --collection"
        )
    ours = provenance_of(gallery, there.index, there.created_by, there.n_rows)
    if ours is None or (ours.rows, ours.encoders) != (there.rows, there.encoders):
        raise Problem(
            f"{where} was made of other images than '{gallery.folder}' has (of its revision "
            f"{there.revision}, by `{there.created_by}`): load the gallery into another "
            "--collection"
        )


def save_kept(
    gallery: Gallery, collection: str, made_of: Provenance, figures: Figures, moments: Moments
) -> None:
    """Writes what is known of a collection beside the gallery, whole or not at all."""
    with sealed_directory(folder_of(gallery), MANIFEST) as draft:
        sums = {"first": moments.first, "second": moments.second}
        files = {MOMENTS: write_tensors(draft / MOMENTS, sums)}
        kept = MilvusManifest(collection=collection, made_of=made_of, figures=figures, files=files)
        write_manifest(draft / MANIFEST, kept)


def read_kept(gallery: Gallery) -> MilvusManifest:
    """What is known of a gallery's collection.

    Raises:
        Problem: it was never loaded, or has other rows since.
    """
    folder = folder_of(gallery)
    if not (folder / MANIFEST).exists():
        raise Problem(f"the gallery '{gallery.folder}' is on no Milvus server: {LOAD}")
    kept = read_manifest(folder, MANIFEST, MilvusManifest, SCHEMA_VERSION, oldest=SCHEMA_VERSION)
    refuse_foreign_rows(kept.made_of, gallery, f"the collection of {folder}")
    return kept


def read_moments(gallery: Gallery, kept: MilvusManifest) -> Moments:
    """The sums over a collection's embeddings.

    Raises:
        Problem: their file is missing or damaged.
    """
    folder = folder_of(gallery)
    check_files(folder, kept.files)
    with loading("the sums over a gallery", str(folder / MOMENTS), LOAD):
        sums = load_file(folder / MOMENTS)
    return Moments(kept.made_of.n_rows, sums["first"], sums["second"])


def folder_of(gallery: Gallery) -> Path:
    if gallery.folder is None:
        raise Problem("the gallery lies in no folder, so nothing can be kept with it: save it")
    return gallery.folder / FOLDER
