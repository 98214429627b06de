"""Folders of images of stimuli: files whose names are the stimuli's ids."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from hvf_core.problem import Problem

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def image_files(folder: Path | None) -> dict[str, Path]:
    """The images in a folder and below it, in the order of their paths, by the id of each.

    An id is a file's name in Unicode's composed form, as file systems do not agree on one. What is
    hidden is left out; links are followed, and no folder is gone into twice.

    Raises:
        Problem: there is no folder, or one that cannot be read, no image, or two of one id.
    """
    if folder is None or not folder.is_dir():
        raise Problem(f"there is no folder of images '{folder}'; give one with --images")
    files: dict[str, Path] = {}
    for path in sorted(_images_below(folder)):
        other = files.setdefault(unicodedata.normalize("NFC", path.stem), path)
        if other is not path:
            raise Problem(
                f"'{other}' and '{path}' have the same name, which is the image's id: rename one"
            )
    if not files:
        raise Problem(f"the folder '{folder}' holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def _images_below(folder: Path) -> Iterator[Path]:
    been: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(place)
        if here.resolve() in been:
            folders.clear()
            continue
        been.add(here.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            here / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        )


def _refuse(error: OSError) -> None:
    raise Problem(
        f"the folder '{error.filename}' cannot be read ({error.strerror}): allow it, or take it out"
    ) from error
