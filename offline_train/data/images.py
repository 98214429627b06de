"""Images of stimuli: files whose names are the stimuli's ids, known by what is in them."""

import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from hvf_core.text import printable
from index.images import open_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Entry:
    """An image that was found; its bytes are read when they are asked for."""

    id: str
    """Its file's name without the ending, or what a Parquet file says."""
    name: str
    """Where it lies, as people are told."""
    read: Callable[[], bytes]
    file: Path
    """Its own, or the shard that it is in."""
    is_alone: bool = False
    """Whether the file is its own."""
    again: Callable[[], bytes] | None = None
    """What reads its bytes once more, where `read` holds them in memory."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of stimuli, wherever they lie; they are read when they are asked for."""

    files: Mapping[str, Entry]
    """By id."""
    contents: Mapping[str, str]
    """SHA-256 of each file's bytes, by id: equal names are not enough, nor are equal times."""

    def read(self, item: str) -> NDArray[np.uint8]:
        """An image as (height, width, 3).

        Raises:
            Problem: it cannot be read, or is no longer what it was when its content was looked at.
        """
        if item not in self.files:
            raise Problem(f"the image '{item}' is not in the cache of features: give its path")
        entry = self.files[item]
        data = entry.read()
        pixels = np.array(open_image(io.BytesIO(data), entry.name))
        if hashlib.sha256(data).hexdigest() != self.contents[item]:
            raise Problem(f"the image '{entry.name}' has just changed: start again")
        return pixels


def pictures_of(
    folder: Path | None,
    items: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pictures:
    """The images of these stimuli, or all that are in a folder; every file is read once.

    Raises:
        Problem: as `image_files` does; or one cannot be read.
    """
    return pictures_in(image_files(folder, items), progress)


def pictures_in(
    files: Mapping[str, Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> Pictures:
    """The images in these files, by their ids; every file is read once."""
    found = {item: in_file(item, path) for item, path in files.items()}
    contents: dict[str, str] = {}
    for item, entry in found.items():
        contents[item] = hashlib.sha256(entry.read()).hexdigest()
        progress(len(contents), len(files))
    return Pictures(found, contents)


def in_file(item: str, path: Path) -> Entry:
    """An image that has a file of its own."""
    return Entry(item, printable(str(path)), partial(bytes_of, path, "the image "), path, True)


def content_of(pixels: NDArray[np.uint8]) -> str:
    """Names an image that is in no file, (height, width, 3), by its pixels."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def image_files(folder: Path | None, items: Sequence[str] | None = None) -> dict[str, Path]:
    """The images in a folder and below it, in the order of their paths, by the id of each.

    With `items` only the images of these stimuli, in this order, by their names.

    An id is a file's name in Unicode's composed form, as file systems do not agree on one. What is
    hidden is left out; links are followed, and no folder is gone into twice.

    Raises:
        Problem: there is no folder, or one that cannot be read, no image, two of one id, or none of
            a stimulus.
    """
    if folder is None or not folder.is_dir():
        raise Problem(f"there is no folder of images '{folder}'; give one with --images")
    files: dict[str, Path] = {}
    for path in sorted(filter(is_image, files_below(folder))):
        if any("\ud800" <= letter <= "\udfff" for letter in path.stem):  # bytes of another code
            raise Problem(f"the image {str(path)!a} has a name that is no Unicode: rename it")
        item = unicodedata.normalize("NFC", path.stem)
        if (other := files.setdefault(item, path)) is not path:
            raise of_one_id(item, other, path)
    if not files:
        raise Problem(f"the folder '{folder}' holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    if items is None:
        return files
    keys = {item: unicodedata.normalize("NFC", item) for item in items}
    absent = next((item for item, key in keys.items() if key not in files), None)
    if absent is not None:
        raise Problem(f"the folder '{folder}' has no image of stimulus '{absent}'; add it")
    return {item: files[key] for item, key in keys.items()}


def passed_over(folder: Path) -> Iterator[str]:
    """A sentence, if there are any, on the files in a folder that are no images to this program."""
    there = files_below(folder) if folder.is_dir() else ()
    if kinds := Counter(p.suffix.lower() or p.name for p in there if not is_image(p)):
        told = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        yield (
            f"{kinds.total()} files in '{folder}' are passed over ({told}): images end in "
            f"{', '.join(IMAGE_SUFFIXES)}; convert them if they are images"
        )


def of_one_id(item: str, one: object, other: object) -> Problem:
    """What is wrong with two images, by what they are called."""
    return Problem(
        f"'{one}' and '{other}' have the same id, '{item}', which is an image's name without the "
        "ending: rename one"
    )


def is_image(path: PurePath) -> bool:
    """Whether a name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def bytes_of(path: Path, what: str = "", offset: int = 0, size: int = -1) -> bytes:
    """The bytes of a file, or of a part of it, which a `Problem` calls `what`."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except (OSError, ValueError) as error:  # as of a name that no file can have
        raise Problem(
            f"{what}'{printable(str(path))}' cannot be read "
            f"({getattr(error, 'strerror', error)}): replace it, or take it out of its folder"
        ) from error


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, folder after folder, in the order of their names."""
    been: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(place)
        if (real := here.resolve()) in been:
            folders.clear()
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise Problem(
        f"the folder '{error.filename}' cannot be read ({error.strerror}): allow it, or take it out"
    ) from error
