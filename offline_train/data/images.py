"""Images of stimuli: files whose names are the stimuli's ids, known by what is in them."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from hvf_core.text import printable
from index.images import read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of stimuli; they are read when they are asked for."""

    files: Mapping[str, Path]
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
        pixels = read_image(self.files[item])
        if _content(self.files[item]) != self.contents[item]:
            raise Problem(f"the image '{self.files[item]}' has just changed: start again")
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
    contents: dict[str, str] = {}
    for item, path in files.items():
        contents[item] = _content(path)
        progress(len(contents), len(files))
    return Pictures(files, contents)


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


def _content(path: Path) -> str:
    try:
        return file_sha256(path)
    except (OSError, ValueError) as error:  # as of a name that no file can have
        raise Problem(
            f"the image '{printable(str(path))}' cannot be read "
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
