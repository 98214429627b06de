"""Charts as inline SVG: a frame with axes, and the marks in it; colours are the page's."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TypeVar

from stream.pipeline.report.accuracy import Share

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 10, 38  # px around the axes
T = TypeVar("T")
Point = tuple[float, float]
_MOST_POINTS = 300  # of a line: more than a screen shows


@dataclass(frozen=True)
class Frame:
    """The axes of a chart, from their lowest to their highest value.

    Attributes:
        x_ticks, y_ticks: the values at which a text stands.
        as_x, as_y: the text of a value.
        left_px: room for the texts of the y axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str = ""
    x_ticks: Sequence[float] = ()
    y_ticks: Sequence[float] = ()
    as_x: Callable[[float], str] = "{:g}".format
    as_y: Callable[[float], str] = "{:g}".format
    width_px: int = 440
    height_px: int = 230
    left_px: int = _LEFT

    def px(self, x: float) -> float:
        """Where a value lies, clipped to the axes."""
        share = (min(max(x, self.x[0]), self.x[1]) - self.x[0]) / (self.x[1] - self.x[0])
        return round(self.left_px + share * (self.width_px - self.left_px - _RIGHT), 1)

    def py(self, y: float) -> float:
        share = (min(max(y, self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.height_px - _BOTTOM - share * (self.height_px - _TOP - _BOTTOM), 1)


def chart(frame: Frame, title: str, marks: Iterable[str]) -> str:
    """The whole chart; `title` says to who cannot see it what it shows."""
    width, height, bottom = frame.width_px, frame.height_px, frame.height_px - _BOTTOM
    parts = []
    for value in frame.y_ticks:
        y = frame.py(value)
        parts.append(f'<path class="grid" d="M{frame.left_px} {y}H{width - _RIGHT}"/>')
        parts.append(text(frame.left_px - 6, y + 4, frame.as_y(value), "end"))
    for value in frame.x_ticks:
        x = frame.px(value)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(text(x, bottom + 17, frame.as_x(value), "middle"))
    parts.append(f'<path class="axis" d="M{frame.left_px} {bottom}H{width - _RIGHT}"/>')
    middle = (frame.left_px + width - _RIGHT) / 2
    parts.append(text(middle, height - 4, frame.x_label, "middle"))
    if frame.y_label:
        at = (frame.py(frame.y[0]) + frame.py(frame.y[1])) / 2
        turned = f' transform="rotate(-90 12 {at})"'
        parts.append(text(12, at, frame.y_label, "middle", turned))
    body = "".join([*parts, *marks])
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def text(x: float, y: float, content: str, anchor: str = "start", more: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{where}{more}>{escape(content)}</text>'


def line(frame: Frame, points: Iterable[Point], kind: str) -> str:
    """A line; of many points those that a screen can show."""
    return f'<path class="line {kind}" d="{_path(frame, _thinned(list(points)))}"/>'


def band(frame: Frame, points: Iterable[tuple[float, float, float]], kind: str) -> str:
    """The area between two lines, of points (x, low, high)."""
    some = _thinned(list(points))
    around = [(x, high) for x, _, high in some] + [(x, low) for x, low, _ in reversed(some)]
    return f'<path class="band {kind}" d="{_path(frame, around)}Z"/>'


def level(frame: Frame, y: float) -> str:
    """A horizontal line, such as that of chance."""
    return f'<path class="level" d="M{frame.left_px} {frame.py(y)}H{frame.width_px - _RIGHT}"/>'


def dots(frame: Frame, shares: Sequence[tuple[float, Share]], kind: str, shift_px: int = 0) -> str:
    """Shares with their intervals, at x; each says its numbers."""
    marks = []
    for x, found in shares:
        at, told = frame.px(x) + shift_px, escape(told_share(found))
        low, high, middle = (frame.py(y) for y in (found.low, found.high, found.share))
        marks.append(
            f'<g class="{kind}"><title>{told}</title><path class="line" d="M{at:g} {low}V{high}"/>'
            f'<circle cx="{at:g}" cy="{middle}" r="4"/></g>'
        )
    return "".join(marks)


def bars(frame: Frame, edges: Sequence[float], heights: Sequence[float], kind: str) -> str:
    """A bar between each two edges."""
    marks = []
    for (low, high), height in zip(pairwise(edges), heights, strict=True):
        left, right, top = frame.px(low), frame.px(high), frame.py(height)
        told = f"{frame.as_x(low)} to {frame.as_x(high)}: {height:g}"
        if height:
            marks.append(
                f'<path class="bar {kind}" d="M{left} {frame.py(0)}V{top}H{right - 1:g}'
                f'V{frame.py(0)}Z"><title>{escape(told)}</title></path>'
            )
    return "".join(marks)


def upright(frame: Frame, x: float, label: str, row: int = 0) -> str:
    """A vertical line with its name beside it, which stands the lower the larger `row` is."""
    at = frame.px(x)
    path = f'<path class="level" d="M{at} {_TOP}V{frame.height_px - _BOTTOM}"/>'
    is_right = at > frame.width_px - 110
    side = (at - 4, "end") if is_right else (at + 4, "start")
    return path + text(side[0], _TOP + 11 + 14 * row, label, side[1])


def told_share(found: Share) -> str:
    return f"{found.share:.1%} ({found.low:.1%} to {found.high:.1%}), n = {found.n}"


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round values in a range, about n of them."""
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def time_axis(span_s: float) -> tuple[float, str]:
    """How many seconds the unit of a time axis has, and its name."""
    for unit_s, name in ((3600.0, "h"), (60.0, "min")):
        if span_s >= 3 * unit_s:
            return unit_s, name
    return 1.0, "s"


def _path(frame: Frame, points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{frame.px(x):g} {frame.py(y):g}" for x, y in points)


def _thinned(points: list[T]) -> list[T]:
    step = math.ceil(len(points) / _MOST_POINTS)
    return points[::step] + points[-1:] if step > 1 else points
