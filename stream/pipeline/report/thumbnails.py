"""The pictures of the page: small, and each in it once, however often it is shown."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from hvf_core.problem import Problem
from index.gallery import Gallery
from index.images import open_image

MOST_PICTURES = 600
"""Paintings in a page, and images of trials: more than that would take long, and 10 MB."""
_LARGE_PX, _SMALL_PX = 256, 112
_FEW_TRIALS = 150


@dataclass
class Thumbnails:
    """Images of the gallery as classes of the page's style."""

    gallery: Gallery | None
    n_trials: int
    styles: dict[int, str] = field(default_factory=dict)  # by row; "" where there is no image

    @property
    def px(self) -> int:
        return _LARGE_PX if self.n_trials <= _FEW_TRIALS else _SMALL_PX

    def take(self, ids: Iterable[str]) -> None:
        """Puts images into the page, in this order, while it is not too many."""
        gallery = self.gallery
        if gallery is None or gallery.images is None:
            return
        for row in dict.fromkeys(map(gallery.row_of, ids)):
            if row is None or row in self.styles:
                continue
            if len(self.styles) >= 2 * MOST_PICTURES:
                return
            path = gallery.image_of(row)
            uri = None if path is None else data_uri(path, self.px)
            self.styles[row] = f".g{row}{{background-image:url({uri})}}" if uri else ""

    def label(self, id_: str) -> str:
        """What people call an image."""
        row = self._row(id_)
        return id_ if self.gallery is None or row is None else self.gallery.labels[row]

    def figure(self, id_: str) -> str:
        """An image with its label, or why there is none."""
        row, label = self._row(id_), self.label(id_)
        if row is None:
            return figure(no_picture("not in the gallery"), label)
        if not self.styles.get(row):
            is_full = row not in self.styles and len(self.styles) >= 2 * MOST_PICTURES
            return figure(no_picture("not in the page" if is_full else "no image"), label)
        alt = escape(label)
        return figure(f'<span class="p g{row}" role="img" aria-label="{alt}"></span>', label)

    def small(self, id_: str, told: str) -> str:
        """An image without its label, which is told to who points at it."""
        row = self._row(id_)
        kind = f"g{row}" if row is not None and self.styles.get(row) else "none"
        return f'<i class="{kind}" title="{escape(f"{self.label(id_)} {told}")}"></i>'

    def _row(self, id_: str) -> int | None:
        return self.gallery.row_of(id_) if self.gallery is not None else None


def figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def no_picture(why: str) -> str:
    return f'<span class="p none">{escape(why)}</span>'


def data_uri(path: Path, px: int) -> str | None:
    """A thumbnail; None where there is no image that can be read."""
    try:
        thumbnail = open_image(path)
    except Problem:
        return None
    file = io.BytesIO()
    thumbnail.thumbnail((px, px))
    thumbnail.save(file, "webp", quality=80, method=1)  # at 4, the default, twice as long
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
