"""Images as a person sees them: upright, 8-bit RGB, on white; all that is shown is opened here.

EXIF's orientation is followed, 16 bits are scaled to 8, what is transparent shows white, CMYK
becomes RGB; of an animation it is the first frame. Colour profiles are not applied.
"""

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hvf_core.problem import Problem

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Only these are tried, whatever a file's name says: Pillow starts programs for some others."""
READING = 2
"""To be raised when the same file gives other pixels than before, as their features do then too."""
MOST_PIXELS = 89_478_485
"""From where on Pillow warns of an image that takes all memory; 12 megapixels take 36 MB."""

_FAULTS = (
    *(OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, struct.error),
    *(EOFError, MemoryError, Image.DecompressionBombError),
)
"""What Pillow raises at damaged files."""


def open_image(file: Path | io.BytesIO, called: str | None = None) -> Image.Image:
    """An image in RGB, decoded; what is in no file may be `called` somehow in errors.

    Raises:
        Problem: there is none that can be read, or it is too large.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(
                    f"it has {image.width} x {image.height} pixels, at most {MOST_PIXELS} are read"
                )
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except _FAULTS as error:
        unknown = isinstance(error, UnidentifiedImageError)
        said = " ".join(str(getattr(error, "strerror", None) or error).split())
        reason = f"it is none of {', '.join(FORMATS)}" if unknown else said or type(error).__name__
        named = called or (str(file) if isinstance(file, Path) else None)
        name = "an image" if named is None else f"the image '{named}'"
        raise Problem(
            f"{name} cannot be read ({reason}): replace it, or take it out of its folder"
        ) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as (height, width, 3); raises as `open_image` does."""
    return np.array(open_image(path))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        grey = np.rint(np.asarray(image) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
