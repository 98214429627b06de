"""The embeddings of images that the paper's authors have released, into the cache of features.

They are Parquet files `SET_SPLIT_ENCODER-part-00000-of-00000.parquet`, whose last number counts
from zero, with the columns `image_id`, an image's file name without its ending, and `emb`. One set
of them is spoilt: all images have nearly the same embedding.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.encoders.health import COLLAPSED_COSINE, embedding_health
from offline_train.features.cache import FeatureCache
from offline_train.hub.released_prior import name_of

_NAME = re.compile(r"(?P<set>.+?_(?:train|test)_(?P<key>.+))-part-(?P<i>\d{5})-of-(?P<last>\d{5})")
_AT_ONCE = 4096
_COMPARED = 16
"""Images that the encoder sees itself."""
_AGREEING_COSINE = 0.95
"""Median that is asked for: theirs come from bfloat16, and from other code that resizes images."""


def encoder_of(files: Sequence[Path]) -> str:
    """What this project calls the image encoder that these files are of.

    Raises:
        Problem: they are of several, or of one that is not known; or a part is missing.
    """
    found: dict[str, set[int]] = {}
    keys, last = set(), 0
    for file in files:
        said = _NAME.fullmatch(file.stem)
        if not said:
            raise Problem(
                f"'{file}' is not called as the released embeddings are, "
                "SET_SPLIT_ENCODER-part-NUMBER-of-NUMBER.parquet: give these, under their names"
            )
        keys.add(said["key"])
        last = int(said["last"])
        found.setdefault(said["set"], set(range(last + 1))).discard(int(said["i"]))
    lacking = (f"part {min(parts)} of '{name}'" for name, parts in found.items() if parts)
    if absent := next(lacking, ""):
        raise Problem(f"{absent} is missing: download it, and give all parts")
    if len(keys) != 1:
        raise Problem(f"the files are of {', '.join(sorted(keys))}: give those of one encoder")
    return name_of(keys.pop(), files[0])


def refuse_spoilt(files: Sequence[Path]) -> float:
    """The median cosine of random pairs of images, if it is as that of images should be.

    Raises:
        Problem: nearly all embeddings are the same, or a file cannot be read.
    """
    for file in files:
        _, embeddings = next(_batches(file))
        if not np.isfinite(embeddings).all() or len(embeddings) < 2:
            raise Problem(
                f"'{file}' has numbers that are not finite, or one image: download it again"
            )
        cosine = embedding_health(embeddings)
        if cosine > COLLAPSED_COSINE:
            raise Problem(
                f"the embeddings in '{file}' are collapsed: the median cosine of random pairs of "
                f"images is {cosine:.3f}, expected at most {COLLAPSED_COSINE}; encode the images "
                "yourself, with `python -m offline_train features`"
            )
    return cosine


def import_features(
    files: Sequence[Path],
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
        encoder gives for some of them to what was released.

    Raises:
        Problem: the files have another width, no image that is here, or other embeddings than the
            encoder gives.
    """
    encoder, n_taken, n_absent, cosine = cache.encoder, 0, 0, 0.0
    for file in files:
        for ids, embeddings in _batches(file):
            if embeddings.shape[1] != encoder.spec.dim:
                raise Problem(
                    f"'{file}' has embeddings of {embeddings.shape[1]} numbers, "
                    f"'{encoder.spec.name}' gives {encoder.spec.dim}: give the encoder that they "
                    "are of"
                )
            here = np.array([id_ in contents for id_ in ids])
            n_absent += int((~here).sum())
            known, rows = [id_ for id_ in ids if id_ in contents], embeddings[here]
            if known and not n_taken:
                cosine = _agreement(known, rows, read, cache)
            cache.add([contents[id_] for id_ in known], rows)
            cache.write()
            n_taken += len(known)
    if not n_taken:
        raise Problem(
            f"none of the {n_absent} images in the files is here: give others with --images"
        )
    return n_taken, n_absent, cosine


def _agreement(
    ids: Sequence[str],
    embeddings: NDArray[np.float32],
    read: Callable[[str], NDArray[np.uint8]],
    cache: FeatureCache,
) -> float:
    encoder = cache.encoder
    rows = np.linspace(0, len(ids) - 1, min(len(ids), _COMPARED)).astype(int)
    ours = encoder.embed([encoder.prepare(read(ids[row])) for row in rows])
    theirs = embeddings[rows]
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(np.median(np.einsum("ij,ij->i", ours, theirs) / (norms + 1e-12)))
    if cosine < _AGREEING_COSINE:
        raise Problem(
            f"these embeddings are not those that '{encoder.spec.name}' gives here for the "
            f"same images (median cosine {cosine:.3f}, expected {_AGREEING_COSINE}): give the "
            "images and the encoder that they were made of"
        )
    return cosine


def _batches(file: Path) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Problem("Parquet needs pyarrow: run `pip install pyarrow`") from None
    try:
        with ParquetFile(file) as opened:
            for batch in opened.iter_batches(_AT_ONCE, columns=["image_id", "emb"]):
                flat = batch.column("emb").flatten().to_numpy(zero_copy_only=False)
                ids = [normalize("NFC", id_) for id_ in batch.column("image_id").to_pylist()]
                yield ids, flat.astype(np.float32).reshape(len(ids), -1)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise Problem(
            f"'{file}' cannot be read as `image_id` and `emb` ({error}): download it again"
        ) from error
