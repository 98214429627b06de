"""How images get into a gallery: as copies of their files, as small ones, or not at all."""

import re
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvf_core.artifact import FULL
from hvf_core.problem import Problem
from index.gallery.manifest import IMAGES

Picture = Path | NDArray[np.uint8]
"""A file, or pixels (height, width, 3)."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
"""Of a copy; one that is none of these is left out, as it is the content that tells the format."""
_IN_A_FOLDER = 4096
"""Rows from here on have their images in subfolders, of so many each: file systems like it so."""


def keep_picture(
    folder: Path, generation: int, row: int, picture: Picture, thumbnail_px: int | None = None
) -> str:
    """Puts the image of a row into a gallery's folder and returns its path there.

    Args:
        folder: of the gallery, where a picture that lies in it by now stays.
        generation: of the gallery: how often its rows have moved.
        row: whose image it is.
        picture: a file, which is copied as it is, or pixels, which are kept without loss.
        thumbnail_px: where given, a JPEG of at most so many pixels a side is kept in their place.

    Raises:
        Problem: a file cannot be copied or read.
    """
    if isinstance(picture, Path) and picture.is_relative_to(folder / IMAGES):
        return picture.relative_to(folder).as_posix()
    from PIL import Image  # here: whoever only reads a gallery does without

    from index.images import open_image

    suffix = picture.suffix if isinstance(picture, Path) else ".png"
    suffix = ".jpg" if thumbnail_px else suffix if _SUFFIX.fullmatch(suffix) else ""
    stem = f"{row:05d}" if row < _IN_A_FOLDER else f"{row // _IN_A_FOLDER:05d}/{row:08d}"
    name = f"{IMAGES}/{stem}{f'-{generation}' if generation else ''}{suffix}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of an addition that was killed, perhaps another's file
    if thumbnail_px:
        image = open_image(picture) if isinstance(picture, Path) else Image.fromarray(picture)
        image.thumbnail((thumbnail_px, thumbnail_px))
        image.save(path, "jpeg", quality=85)
    elif isinstance(picture, Path):
        _copy(picture, path)
    else:
        Image.fromarray(picture).save(path, compress_level=1)
    return name


def _copy(picture: Path, path: Path) -> None:
    try:
        shutil.copyfile(picture, path)
    except OSError as error:
        if error.errno in FULL:
            raise  # and whoever makes room for the gallery is told which
        raise Problem(
            f"the image '{picture}' cannot be copied into the gallery ({error.strerror}): put it "
            "back"
        ) from error
