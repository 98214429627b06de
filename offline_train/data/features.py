"""Features: the embeddings of images by frozen encoders, extracted once.

The cache knows images by their content, and encoders by their weights and by what these give: other
names cost nothing, and nothing that has changed is taken for what it was.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import Problem, needed
from index.encoders.health import refuse_collapsed
from index.encoders.load import ImageEncoder
from offline_train.checkpoint import identify
from offline_train.features.cache import BLOCK, FeatureCache, Feed

LABEL = "label"
"""Name of what stands in an encoder's place where classes are told apart."""
_SAMPLE = 4096
"""So many images tell whether the embeddings of all are nearly the same."""


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of images by every encoder; images and trials are joined by id, never by row."""

    items: tuple[str, ...]
    """Image ids."""
    encoders: tuple[ImageEncoderRecord, ...]
    embeddings: Mapping[str, np.ndarray]
    """float32 (items, dim) by the encoder's name, as the encoder gives them."""
    blurs: tuple["Features", ...] = ()
    """The same of these images less blurred, and more, where a blur prior learns from them."""

    def at(self, rows: NDArray[np.intp]) -> Mapping[str, NDArray[np.float32]]:
        """The embeddings of the items of these numbers, (n, dim) by the encoder's name."""
        return {name: array[rows] for name, array in self.embeddings.items()}

    def select(self, items: Sequence[str]) -> "Features":
        """The features of these items, in this order.

        Raises:
            Problem: when there are none of one of them.
        """
        rows = {item: row for row, item in enumerate(self.items)}
        absent = next((item for item in items if item not in rows), None)
        if absent is not None:
            raise Problem(f"image {absent!r} has no features: extract them for all stimuli")
        found = self.at(np.array([rows[item] for item in items], np.intp))
        blurs = tuple(one.select(items) for one in self.blurs)
        return Features(tuple(items), self.encoders, found, blurs)


def check_encoders(
    found: Sequence[ImageEncoderRecord], wanted: Sequence[ImageEncoderRecord], whose: str
) -> None:
    """Refuses other image encoders than a model was trained with."""
    if tuple(found) == tuple(wanted):
        return
    theirs, ours = (", ".join(encoder.name for encoder in listed) for listed in (wanted, found))
    here = f"these are {ours}"
    if ours == theirs:
        other = next(one.name for one, known in zip(found, wanted, strict=True) if one != known)
        here = f"'{other}' has other weights, or sees or gives something else, here"
    is_of_labels = [encoder.name for encoder in wanted] == [LABEL]
    give = "--labels in the same order" if is_of_labels else "--encoders"
    raise Problem(
        f"{whose} was trained with the image encoders {theirs}, and {here}: give the same {give}"
    )


def label_features(labels: Sequence[str]) -> Features:
    """One-hot vectors in place of images' embeddings, to tell a few classes apart."""
    encoder = ImageEncoderRecord(name=LABEL, dim=len(labels), checksum=identify(list(labels)))
    return Features(tuple(labels), (encoder,), {LABEL: np.eye(len(labels), dtype=np.float32)})


def extract_features(
    contents: Mapping[str, str],
    read: Callable[[str], np.ndarray],
    encoders: Sequence[ImageEncoder],
    cache_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Features:
    """The features of images that fit into memory; see `encode_images`."""
    encoded = encode_images(contents, read, encoders, cache_dir, progress, say)
    return encoded.select(tuple(contents))


def encode_images(
    contents: Mapping[str, str],
    read: Callable[[str], np.ndarray],
    encoders: Sequence[ImageEncoder],
    cache_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    without_file: Container[str] = (),
) -> "Encoded":
    """Encodes images that the cache does not know.

    Args:
        contents: what names the content of each image, by its id.
        read: gives the uint8 (height, width, 3) image of an id; called only for images of which
            some encoder has not seen the content, and one of them is in memory at a time.
        encoders: frozen image encoders; each has a folder in the cache.
        cache_dir: where embeddings are kept, written every `BLOCK` images.
        progress: told how many of the images to be encoded are done.
        say: hears of files of the cache that are set aside, as they are damaged.
        without_file: ids that cannot be read, as nothing but their contents is known.

    Raises:
        Problem: when the cache lacks images without a file, before any is encoded; when images
            cannot be read, after all others were encoded; or an encoder gives embeddings that are
            not finite or nearly the same for all images.
    """
    caches = [FeatureCache(cache_dir, encoder, say) for encoder in encoders]
    feed = Feed(caches)
    todo = {content: item for item, content in contents.items()}
    todo = {c: item for c, item in todo.items() if any(c not in cache for cache in caches)}
    if absent := [item for item in todo.values() if item in without_file]:
        raise Problem(
            f"{len(absent)} of {len(contents)} images, '{absent[0]}' first, have no path and are "
            f"not in the cache '{cache_dir}' by these encoders: name the one that `features` has "
            "filled with --cache, or give paths"
        )
    unread: list[str] = []
    for number, (content, item) in enumerate(todo.items(), 1):
        try:
            feed.take(content, needed(feed.prepare(content, partial(read, item))))
        except Problem as problem:
            unread.append(str(problem))
        if number % BLOCK == 0 or number == len(todo):
            feed.write()
            progress(number, len(todo))
    if unread:
        rest = "" if len(unread) == 1 else f" (one of {len(unread)}: {'; '.join(unread[1:])})"
        raise Problem(unread[0] + rest)
    refuse_spoilt(caches, list(dict.fromkeys(contents.values())))
    return Encoded(contents, caches)


def refuse_spoilt(caches: Sequence[FeatureCache], contents: Sequence[str]) -> None:
    """Refuses embeddings that are nearly the same, by a sample of images of these contents."""
    sample = contents[:: 1 + len(contents) // _SAMPLE]
    for cache in caches if len(sample) > 1 else ():
        refuse_collapsed(cache.rows(sample), cache.encoder.spec.name)


def records_of(encoders: Sequence[ImageEncoder]) -> tuple[ImageEncoderRecord, ...]:
    """What models remember of image encoders."""
    return tuple(
        ImageEncoderRecord(name=one.spec.name, dim=one.spec.dim, checksum=one.checksum)
        for one in encoders
    )


class Encoded:
    """Images that all encoders have seen: their features are read when they are asked for."""

    def __init__(self, contents: Mapping[str, str], caches: Sequence[FeatureCache]) -> None:
        self.items = tuple(contents)
        self.encoders = records_of([cache.encoder for cache in caches])
        named = list(contents.values())
        self._stored = {cache.encoder.spec.name: cache.stored(named) for cache in caches}

    def at(self, rows: NDArray[np.intp]) -> Mapping[str, NDArray[np.float32]]:
        """The embeddings of the items of these numbers, (n, dim) by the encoder's name."""
        return {name: stored[rows] for name, stored in self._stored.items()}

    def select(self, items: Sequence[str]) -> Features:
        """The features of these images, in this order."""
        rows = np.array([self._row_of[item] for item in items], np.intp)
        return Features(tuple(items), self.encoders, self.at(rows))

    @cached_property
    def _row_of(self) -> Mapping[str, int]:
        return {item: row for row, item in enumerate(self.items)}
