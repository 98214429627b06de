"""The images that a prior is trained on: in folders and shards, read when they are asked for."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.image_table import pictures_of_table
from offline_train.data.images import Entry, Pictures, of_one_id, passed_over
from offline_train.features.contents import Contents
from offline_train.features.shards import entries

_TABLES = (".csv", ".tsv")


def find_images(
    places: Sequence[Path],
    cache: Path,
    progress: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = lambda text: None,
) -> Pictures:
    """The images in folders, shards and files, or of one table; their bytes are read once.

    They are in no order, so that those that are only looked at, the last ones, are of all kinds.

    Args:
        cache: remembers what they are, so that what has not changed is not read the next time.
        progress: told how many are known.
        say: hears of files in folders that are passed over.

    Raises:
        Problem: there is none, two have one id, or as `entries` and `pictures_of_table` do.
    """
    if len(places) == 1 and places[0].suffix.lower() in _TABLES:
        pictures = pictures_of_table(places[0], progress=lambda n, total: progress(n))
        return Pictures(pictures.files, _in_no_order(pictures.contents))
    found, contents = dict[str, Entry](), dict[str, str]()
    known = Contents(cache, places)
    try:
        for entry in entries(places, known):
            other = found.setdefault(entry.id, replace(entry, read=entry.again or entry.read))
            if entry.id in contents:
                raise of_one_id(entry.id, other.name, entry.name)
            contents[entry.id] = known.of(entry)
            progress(len(contents))
    finally:
        known.write()
    if not found:
        raise Problem(f"there is no image in {', '.join(map(str, places))}: give others")
    if all(one.is_alone for one in found.values()):
        for sentence in chain.from_iterable(map(passed_over, places)):
            say(sentence)
    return Pictures(found, _in_no_order(contents))


def _in_no_order(contents: Mapping[str, str]) -> dict[str, str]:
    items = sorted(contents, key=lambda item: (zlib.crc32(item.encode()), item))
    return {item: contents[item] for item in items}
