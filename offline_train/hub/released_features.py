"""The embeddings of images that the paper's authors have released, into the cache of features.

They are Parquet files `SET_SPLIT_ENCODER-part-00000-of-00000.parquet`, whose last number counts
from zero, with the columns `image_id`, an image's file name without its ending, and `emb`. One set
of them is spoilt: all images have nearly the same embedding.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.encoders.health import COLLAPSED_COSINE, embedding_health
from index.encoders.load import ImageEncoder
from offline_train.features.cache import FeatureCache

_NAME = re.compile(r"(?P<set>.+?_(?:train|test)_(?P<key>.+))-part-(?P<i>\d{5})-of-(?P<last>\d{5})")
_AT_ONCE = 4096
_COMPARED = 15
"""Images of each file that the encoder sees itself."""
_PLACES = 3
"""Beginning, middle and end of a file: where its rows have slipped, most may still be right."""
_AGREEING_COSINE = 0.95
"""Median that is asked for: theirs come from bfloat16, and from other code that resizes images."""


def encoder_of(files: Sequence[Path]) -> str:
    """What the names of the files call the image encoder that all of them are of.

    Raises:
        Problem: they are of several; or a part is missing, or given twice.
    """
    lacking: dict[tuple[str, int], set[int]] = {}
    keys = set()
    for file in files:
        said = _NAME.fullmatch(file.stem)
        if not said:
            raise Problem(
                f"'{file}' is not called as the released embeddings are, "
                "SET_SPLIT_ENCODER-part-NUMBER-of-NUMBER.parquet: give these, under their names"
            )
        keys.add(said["key"])
        part, last = int(said["i"]), int(said["last"])
        parts = lacking.setdefault((said["set"], last), {*range(last + 1)})
        if part not in parts:
            raise Problem(
                f"'{file}' is given twice, or no part of 0 to {last}: give each part once"
            )
        parts.remove(part)
    for (name, last), parts in lacking.items():
        if parts:
            raise Problem(
                f"part {min(parts)} of '{name}' is missing, of 0 to {last}: download it, and give "
                "all parts"
            )
    if len(keys) != 1:
        raise Problem(f"the files are of {', '.join(sorted(keys))}: give those of one encoder")
    return keys.pop()


@dataclass(frozen=True)
class Released:
    """Files that were read to their ends, and have one embedding of each of their images."""

    ids: Mapping[Path, Sequence[str]]
    """The images of each file, in its order."""
    dim: int
    cosine: float
    """The median of random pairs of images, of the file where it is highest."""


def read_released(files: Sequence[Path]) -> Released:
    """Reads all files once, before anything is made of them.

    Raises:
        Problem: one cannot be read, or is not as wide as those before; a row, counted from 0, is of
            another length, not finite, all zeros, or of an image that came before; or nearly all
            embeddings are the same.
    """
    ids: dict[Path, list[str]] = {}
    seen, dim, cosine = set[str](), 0, 0.0
    for file in files:
        ids[file] = []
        for some, embeddings in _batches(file):
            dim = dim or embeddings.shape[1]
            if embeddings.shape[1] != dim:
                raise Problem(
                    f"'{file}' has embeddings of {embeddings.shape[1]} numbers, those before have "
                    f"{dim}: download it again, or give the files of one encoder"
                )
            _check_rows(file, len(ids[file]), some, embeddings, seen)
            if not ids[file] and len(some) > 1:
                cosine = max(cosine, _healthy(file, embeddings))
            ids[file] += some
    return Released(ids, dim, cosine)


def _check_rows(
    file: Path, first: int, ids: Sequence[str], embeddings: NDArray[np.float32], seen: set[str]
) -> None:
    for number, (id_, row) in enumerate(zip(ids, embeddings, strict=True), first):
        fault = (
            (not np.isfinite(row).all() and "has numbers that are not finite: download it again")
            or (not row.any() and "is all zeros: download it again")
            or (id_ in seen and "is of an image that came before: give each image once")
        )
        if fault:
            raise Problem(f"row {number} of '{file}', '{id_}', {fault}")
        seen.add(id_)


def _healthy(file: Path, embeddings: NDArray[np.float32]) -> float:
    cosine = embedding_health(embeddings)
    if cosine > COLLAPSED_COSINE:
        raise Problem(
            f"the embeddings in '{file}' are collapsed: the median cosine of random pairs of "
            f"images is {cosine:.3f}, expected at most {COLLAPSED_COSINE}; encode the images "
            "yourself, with `python -m offline_train features`"
        )
    return cosine


def import_features(
    released: Released,
    contents: Mapping[str, str],
    read: Callable[[str], NDArray[np.uint8]],
    cache: FeatureCache,
) -> tuple[int, int, float]:
    """Takes the released embeddings of images that are here, once they agree with the encoder's.

    Args:
        contents: SHA-256 of the bytes of each image, by its id.
        read: gives the (height, width, 3) image of an id.
        cache: of the encoder that the files are of.

    Returns:
        How many images were taken, how many are not here, and the median cosine of what the
        encoder gives for some of them to what was released, at the place where it is lowest.

    Raises:
        Problem: the files have another width, no image that is here, or other embeddings than the
            encoder gives; nothing is written then.
    """
    encoder = cache.encoder
    if released.dim != encoder.spec.dim:
        raise Problem(
            f"'{next(iter(released.ids))}' has embeddings of {released.dim} numbers, "
            f"'{encoder.spec.name}' gives {encoder.spec.dim}: give the encoder that they are of"
        )
    here = {file: [id_ for id_ in ids if id_ in contents] for file, ids in released.ids.items()}
    n_all, n_here = (sum(map(len, of.values())) for of in (released.ids, here))
    if not n_here:
        raise Problem(f"none of the {n_all} images in the files is here: give others with --images")
    cosine = min(_agreement(file, ids, read, encoder) for file, ids in here.items() if ids)
    for file in here:
        for some, embeddings in _batches(file):
            known = [id_ in contents for id_ in some]
            cache.add([contents[id_] for id_ in some if id_ in contents], embeddings[known])
            cache.write()
    return n_here, n_all - n_here, cosine


def _agreement(
    file: Path,
    ids: Sequence[str],
    read: Callable[[str], NDArray[np.uint8]],
    encoder: ImageEncoder,
) -> float:
    rows = np.linspace(0, len(ids) - 1, min(len(ids), _COMPARED)).astype(int)
    compared = [ids[row] for row in rows]
    ours = encoder.embed([encoder.prepare(read(id_)) for id_ in compared])
    theirs = np.concatenate([found[np.isin(some, compared)] for some, found in _batches(file)])
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.einsum("ij,ij->i", ours, theirs) / (norms + 1e-12)
    places = np.array_split(cosines, min(_PLACES, len(cosines)))
    cosine = float(min(np.median(place) for place in places))
    if cosine < _AGREEING_COSINE:
        raise Problem(
            f"the embeddings in '{file}' are not those that '{encoder.spec.name}' gives here for "
            f"the same images (median cosine {cosine:.3f}, expected {_AGREEING_COSINE}): give the "
            "images and the encoder that they were made of"
        )
    return cosine


def _batches(file: Path) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Ids and embeddings, (n, dim), all of one width."""
    try:
        import pyarrow
        from pyarrow.compute import list_value_length
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Problem("Parquet needs pyarrow: run `pip install pyarrow`") from None
    n, dim = 0, -1
    try:
        with ParquetFile(file) as opened:
            for batch in opened.iter_batches(_AT_ONCE, columns=["image_id", "emb"]):
                ids = [normalize("NFC", id_) for id_ in batch.column("image_id").to_pylist()]
                lengths = list_value_length(batch.column("emb")).fill_null(0).to_numpy()
                dim = int(lengths[0]) if dim < 0 else dim
                if (lengths != dim).any():
                    row = int(np.argmax(lengths != dim))
                    raise Problem(
                        f"row {n + row} of '{file}', '{ids[row]}', has {lengths[row]} numbers, the "
                        f"first has {dim}: download it again"
                    )
                flat = batch.column("emb").flatten().to_numpy(zero_copy_only=False)
                yield ids, flat.astype(np.float32).reshape(len(ids), dim)
                n += len(ids)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise Problem(
            f"'{file}' cannot be read as `image_id` and `emb` ({error}): download it again"
        ) from error
