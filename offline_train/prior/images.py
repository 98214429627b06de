"""The images that a prior is trained on: in folders and shards, read when they are asked for."""

import hashlib
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.images import open_image
from offline_train.data.image_table import pictures_of_table
from offline_train.data.images import Pictures, of_one_id, passed_over
from offline_train.features.shards import Entry, entries

_TABLES = (".csv", ".tsv")


@dataclass(frozen=True, eq=False)
class FoundImages:
    """Images wherever they lie, as `Pictures` are those that have files of their own."""

    files: Mapping[str, Entry]
    """Files, and what is one in a shard, by id."""
    contents: Mapping[str, str]
    """SHA-256 of each file's bytes, by id."""

    def read(self, item: str) -> NDArray[np.uint8]:
        """An image as (height, width, 3).

        Raises:
            Problem: it cannot be read, or is no longer what it was when its content was looked at.
        """
        entry = self.files[item]
        data = entry.read()
        if hashlib.sha256(data).hexdigest() != self.contents[item]:
            raise Problem(f"the image '{entry.name}' has just changed: start again")
        return np.array(open_image(io.BytesIO(data), entry.name))


def find_images(
    places: Sequence[Path],
    progress: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = lambda text: None,
) -> FoundImages | Pictures:
    """The images in folders, shards and files, or of one table; the bytes of all are read once.

    They are in no order, so that those that are only looked at, the last ones, are of all kinds.

    Args:
        progress: told how many have been read.
        say: hears of files in folders that are passed over.

    Raises:
        Problem: there is none, two have one id, or as `entries` and `pictures_of_table` do.
    """
    if len(places) == 1 and places[0].suffix.lower() in _TABLES:
        pictures = pictures_of_table(places[0], progress=lambda n, total: progress(n))
        return Pictures(pictures.files, _in_no_order(pictures.contents))
    found, contents = dict[str, Entry](), dict[str, str]()
    for entry in entries(places):
        other = found.setdefault(entry.id, _without_bytes(entry))
        if entry.id in contents:
            raise of_one_id(entry.id, other.name, entry.name)
        contents[entry.id] = hashlib.sha256(entry.read()).hexdigest()
        progress(len(contents))
    if not found:
        raise Problem(f"there is no image in {', '.join(map(str, places))}: give others")
    if all(one.path for one in found.values()):
        for sentence in chain.from_iterable(map(passed_over, places)):
            say(sentence)
    return FoundImages(found, _in_no_order(contents))


def _without_bytes(entry: Entry) -> Entry:
    return Entry(entry.id, entry.name, entry.again or entry.read, entry.path)


def _in_no_order(contents: Mapping[str, str]) -> dict[str, str]:
    items = sorted(contents, key=lambda item: (zlib.crc32(item.encode()), item))
    return {item: contents[item] for item in items}
