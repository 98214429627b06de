"""Images of stimuli: files whose names are the stimuli's ids."""

from pathlib import Path

import numpy as np
from PIL import Image

from hvf_core.problem import Problem

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def image_files(folder: Path | None) -> dict[str, Path]:
    """The images in a folder and below it, in the order of their paths, by the id of each.

    Raises:
        Problem: there is no folder, no image in it, or two images have one id.
    """
    if folder is None or not folder.is_dir():
        raise Problem(f"there is no folder of images '{folder}'; give one with --images")
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        other = files.setdefault(path.stem, path)
        if other is not path:
            raise Problem(
                f"'{other}' and '{path}' have the same name, which is the image's id: rename one"
            )
    if not files:
        raise Problem(f"the folder '{folder}' holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 (height, width, 3).

    Raises:
        Problem: it cannot be read.
    """
    try:
        return np.array(Image.open(path).convert("RGB"))
    except OSError as error:
        raise Problem(f"the image '{path}' cannot be read ({error}); replace it") from None
