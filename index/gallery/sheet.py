"""Contact sheets: pages of small images with their labels and ids, to look at."""

import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from hvf_core.problem import Problem
from hvf_core.text import printable
from index.images import open_image

_GAP_PX, _LINE_PX = 8, 14
_FONT_PX = 10


@dataclass(frozen=True)
class Tile:
    """An image on a sheet, and the lines below it."""

    image: Path | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How the pages are laid out."""

    columns: int = 10
    rows: int = 8
    px: int = 128
    """Side of an image."""


def sheets(tiles: Sequence[Tile], layout: Layout) -> Iterator[Image.Image]:
    """The pages, one after the other; an image that is missing or damaged is an empty place."""
    file = Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf")  # Pillow's own has Latin alone
    font = ImageFont.truetype(file, _FONT_PX)
    letters = FT2Font(str(file)).get_charmap()
    a_page = layout.columns * layout.rows
    n_lines = max(len(tile.lines) for tile in tiles)
    step_x, step_y = layout.px + _GAP_PX, layout.px + n_lines * _LINE_PX + _GAP_PX
    for start in range(0, len(tiles), a_page):
        some = tiles[start : start + a_page]
        n_columns, n_rows = min(layout.columns, len(some)), -(-len(some) // layout.columns)
        size = (_GAP_PX + n_columns * step_x, _GAP_PX + n_rows * step_y)
        page = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(page)
        for number, tile in enumerate(some):
            row, column = divmod(number, layout.columns)
            x, y = _GAP_PX + column * step_x, _GAP_PX + row * step_y
            _put(page, draw, tile.image, x, y, layout.px)
            for line, text in enumerate(tile.lines):
                place = (x, y + layout.px + 1 + line * _LINE_PX)
                shown = _fitting(draw, legible(text, letters), font, layout.px)
                draw.text(place, shown, "black", font)
        yield page


def legible(text: str, letters: Container[int]) -> str:
    """A text on one line, with the codes of those letters that a font lacks in their place."""
    line = printable(" ".join(unicodedata.normalize("NFC", text).split()))
    return "".join(one if ord(one) in letters else ascii(one)[1:-1] for one in line)


def _put(
    page: Image.Image, draw: ImageDraw.ImageDraw, file: Path | None, x: int, y: int, px: int
) -> None:
    try:
        image = None if file is None else open_image(file)
    except Problem:
        image = None
    if image is None:
        draw.rectangle((x, y, x + px - 1, y + px - 1), fill="#eeeeee")
        return
    image.thumbnail((px, px))
    page.paste(image, (x + (px - image.width) // 2, y + (px - image.height) // 2))


def _fitting(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont,
    width_px: int,
) -> str:
    """As much of a line as there is room for."""
    shown = text[:200]
    while draw.textlength(shown, font) > width_px:
        shown = shown[:-2] + "…" if len(shown) > 2 else ""
    return shown
