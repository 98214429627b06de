"""How the answers to an image grow while its repeats come, and what was painted of it last."""

import io
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hvf_core.problem import Problem
from hvf_core.text import counted, printable
from index.images import open_image
from stream.pipeline.wire.messages import Painted, Retrieval

RIGHT, WRONG = "green", "red"
"""Styles of answers; words say it too."""
_SHOWN, _KEPT = 8, 1000  # images
_NAME = 32  # characters of a stimulus, at most
_ANSWERS = 12  # of each
_PICTURE_PX = 18  # two pixels lie in a character, one above the other


@dataclass
class _Seen:
    """The final answers to an image, by its name, so far, and the newest of them."""

    name: str
    newest: Retrieval
    found: deque[Retrieval] = field(default_factory=lambda: deque(maxlen=_ANSWERS))


class Growth:
    """The images that came last, with their answers, repeat by repeat."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}  # by group, the newest last

    def add(self, answer: Retrieval, name: str) -> None:
        """Takes a final answer; the image that was seen is shown by this name."""
        group = answer.about.group
        seen = self._seen.pop(group, None) or _Seen(name, answer)
        seen.name, seen.newest = name, answer
        seen.found.append(answer)
        self._seen[group] = seen
        if len(self._seen) > _KEPT:
            del self._seen[next(iter(self._seen))]

    def table(self) -> Group | None:
        """The answers as a table, and what its numbers say, once an image came twice."""
        shown = list(self._seen.items())[-_SHOWN:]
        if all(len(seen.found) < 2 for _, seen in shown):
            return None
        newest = shown[-1][1].newest
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("seen", no_wrap=True, max_width=_NAME)
        of = "sure (%)" if newest.calibrated else "rank"
        table.add_column(f"{of} after each repeat", no_wrap=True)
        table.add_column("now")  # gives way where the screen is narrow
        for _, seen in sorted(shown):
            cells = Text().join(_cell(answer) for answer in seen.found)
            now = told(seen.newest, seen.name)
            now.no_wrap, now.overflow = True, "ellipsis"
            table.add_row(Text(printable(seen.name)), cells, now)
        number = "how sure of the answer" if newest.calibrated else "place of the image seen"
        return Group(table, Text(f"{number}; × where the answer was wrong", style="dim"))


def told(answer: Retrieval, seen: str) -> Text:
    """An answer, after whether it is right where that is known.

    By its label, or by its id where it is another image of the same label as what was seen.
    """
    is_namesake = answer.rank != 1 and answer.labels[0] == seen
    label = printable(answer.ids[0] if is_namesake else answer.labels[0])
    if answer.abstain:
        return Text(f"abstains from ({label})", style="dim")
    if not answer.rank:
        return Text(label)
    verdict, style = ("right", RIGHT) if answer.rank == 1 else ("wrong", WRONG)
    return Text(f"{verdict}: {label}", style=style)


def _cell(answer: Retrieval) -> Text:
    number = round(100 * answer.confidence) if answer.calibrated else answer.rank
    style = "" if not answer.rank else RIGHT if answer.rank == 1 else WRONG
    return Text(f"{number:3d}{'×' if answer.rank > 1 else ' '}", style=style)


def pictures(image: Painted, seen: Path | None, name: str) -> Table:
    """What was seen, where there is a picture of it, and what was painted, as characters."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    caption = Text(f"seen: {printable(name)}", style="dim")
    cells = [] if seen is None else [Group(_blocks(seen), caption)]
    repeats = counted(image.answer.n_repeats, "repeat")
    caption = Text(f"painted from trial {image.about.trial} ({repeats})", style="dim")
    grid.add_row(*cells, Group(_blocks(io.BytesIO(image.image)), caption))
    return grid


def _blocks(file: Path | io.BytesIO) -> Text:
    try:
        small = open_image(file).resize((_PICTURE_PX, _PICTURE_PX), Image.Resampling.BOX)
    except Problem:  # a session does not end for want of a picture
        return Text("cannot be read", style="dim")
    text, rows = Text(no_wrap=True), np.asarray(small).tolist()
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    text.rstrip()
    return text
