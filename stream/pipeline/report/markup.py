"""Pieces of the page's HTML; what comes from outside is escaped where it is put in."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

_PAGE, _STYLE = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("report.html", "report.css")
)


def still_page(
    title: str,
    facts: str,
    notes: Iterable[str],
    tiles: Iterable[str],
    parts: Iterable[str],
    style: str = "",
) -> str:
    """A whole page in the look of a session's report, that runs no script."""
    page = Template(_PAGE).substitute(
        title=escape(title),
        script_policy="",
        style=_STYLE + style,
        script="",
        facts=escape(facts),
        notes="\n".join(notes),
        tiles="\n".join(tiles),
        parts="\n".join(part for part in parts if part),
    )
    return page.replace("<script></script>", "")


def tile(number: str, what: str, more: str = "") -> str:
    """A number that is asked for first."""
    return (
        f'<div class="tile"><strong>{escape(number)}</strong><span>{escape(what)}</span>'
        f'<span class="dim">{escape(more)}</span></div>'
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page; "" where there is nothing in it."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{body}\n</section>' if body else ""


def note(sentence: str) -> str:
    return f'<p class="dim">{escape(sentence)}</p>'


def chart_with(title: str, svg: str, caption: str = "", kind: str = "") -> str:
    """A chart below its name, and above what has to be known to read it."""
    told = f'<p class="dim">{escape(caption)}</p>' if caption else ""
    return f'<div class="chart {kind}"><h3>{escape(title)}</h3>{svg}{told}</div>'


def side_by_side(*charts: str) -> str:
    there = "\n".join(chart for chart in charts if chart)
    return f'<div class="charts">\n{there}\n</div>' if there else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of texts; the first of each row is its name."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    above = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<div class="wide"><table class="{kind}">{above}<tbody>\n{body}\n</tbody></table></div>'


def folded(title: str, *parts: str) -> str:
    """What opens when its title is clicked."""
    body = "\n".join(part for part in parts if part)
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>" if body else ""


def legend(*kinds: tuple[str, str]) -> str:
    """What the colours mean: (kind of marks, its name)."""
    keys = "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in kinds)
    return f'<p class="legend">{keys}</p>'
