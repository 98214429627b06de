"""report.html: a session on one page that needs nothing but itself, neither network nor script."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from hvf_core.problem import Problem
from index.gallery import Gallery, open_gallery
from index.images import open_image
from stream.pipeline.books.ledger import Record, read_ledger
from stream.pipeline.books.summary import summary_rows
from stream.pipeline.wire.config import SessionConfig

REPORT = "report.html"
# Whatever a stimulus is called, the page can load nothing and run nothing: see its policy.
_PAGE = Template(Path(__file__).with_name(REPORT).read_text(encoding="utf-8"))
MOST_TRIALS = 600
"""Of longer sessions the page shows every second trial, or every third and so on."""
_LARGE_PX, _SMALL_PX = 256, 112  # of thumbnails; small ones keep a long page below 10 MB
_FEW_TRIALS = 150


class _Trial(NamedTuple):
    """What the ledger has of a trial that was decoded."""

    group: str
    """Of the repeats that it belongs to."""
    answer: Record
    image: Record | None
    """Of the last one that was painted."""
    fate: str
    """Why there is none."""


@dataclass
class _Thumbnails:
    """Images of the gallery, each of which is in the page once, however often it is shown."""

    gallery: Gallery | None
    px: int
    styles: dict[int, str] = field(default_factory=dict)  # by row

    def of(self, id_: str) -> str:
        """The HTML of an image of the gallery, with its label."""
        gallery = self.gallery
        row = gallery.row_of(id_) if gallery is not None else None
        if gallery is None or row is None:
            return _figure(_no_picture("not in the gallery"), id_)
        label = gallery.labels[row]
        if row not in self.styles:
            uri = None if gallery.images is None else _data_uri(gallery.images[row], self.px)
            if uri is None:
                return _figure(_no_picture("no image"), label)
            self.styles[row] = f".g{row}{{background-image:url({uri})}}"
        alt = escape(label)
        return _figure(f'<span class="p g{row}" role="img" aria-label="{alt}"></span>', label)


def write_report(config: SessionConfig, summary: Mapping[str, Any]) -> Path:
    """Writes the report of a session that is over, and has this summary, into its folder.

    Raises:
        Problem: the page cannot be written.
    """
    path = config.folder / REPORT
    try:
        path.write_text(_page(config, summary), encoding="utf-8")
    except OSError as error:
        raise Problem(
            f"the report '{path}' cannot be written ({error}); all that it would show is in the "
            "session folder"
        ) from None
    return path


def _page(config: SessionConfig, summary: Mapping[str, Any]) -> str:
    damage: list[str] = []
    trials = _trials(config.folder, damage.append)
    shown = _some_of(trials)
    gallery = open_gallery(config.gallery) if config.gallery is not None else None
    thumbnails = _Thumbnails(gallery, _LARGE_PX if len(shown) <= _FEW_TRIALS else _SMALL_PX)
    cards = _cards(shown, thumbnails, config)
    return _PAGE.substitute(
        title=escape(f"Session {summary['session']}"),
        styles="\n".join(thumbnails.styles.values()),
        subject=_SIMULATED if summary["simulated"] else "",
        numbers="\n".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in summary_rows(summary)
        ),
        heading="Seen, retrieved, painted" if config.painting is not None else "Seen, retrieved",
        which=escape(" ".join([_which(trials, shown), *damage])),
        cards=cards,
    )


_SIMULATED = """<p class="note"><strong>Simulated subject.</strong> These numbers and images show
that the system works, not how well it reads a person.</p>"""


def _trials(folder: Path, say: Callable[[str], object]) -> list[_Trial]:
    groups: dict[int, str] = {}
    answers: dict[int, Record] = {}
    images: dict[int, Record] = {}
    fates: dict[int, str] = {}
    for record in read_ledger(folder / "ledger.jsonl", say):
        match record["event"]:
            case "marker" if "group" in record:
                groups[record["trial"]] = record["group"]
            case "decoded":
                answers[record["trial"]] = record
            case "painted":
                images[record["of_trial"]] = record
            case "painting":
                fates[record["of_trial"]] = f"{record['state']}: {record.get('detail', '')}"
    never = "never begun: a newer trial came first, or there was no painter yet"
    return [
        _Trial(groups.get(n) or answer["stimulus"], answer, images.get(n), fates.get(n, never))
        for n, answer in sorted(answers.items())
    ]


def _some_of(trials: Sequence[_Trial]) -> Sequence[_Trial]:
    if len(trials) <= MOST_TRIALS:
        return trials
    painted = [trial for trial in trials if trial.image is not None] or trials
    return painted[:: -(-len(painted) // MOST_TRIALS)]


def _which(trials: Sequence[_Trial], shown: Sequence[_Trial]) -> str:
    if not trials:
        return "No trial was decoded."
    green = "A green edge: the first answer is the image that was seen; a red one: it is not."
    if len(shown) == len(trials):
        return f"All {len(trials)} decoded trials. {green}"
    return (
        f"{len(shown)} of {len(trials)} decoded trials; all answers are in ledger.jsonl, all "
        f"painted images in the folder images. {green}"
    )


def _cards(trials: Sequence[_Trial], thumbnails: _Thumbnails, config: SessionConfig) -> str:
    """All in one block; where images came more than once, a block for each of them."""
    blocks: dict[str, list[str]] = {}
    repeated = any(trial.answer["n_repeats"] > 1 for trial in trials)
    for trial in trials:
        block = blocks.setdefault(trial.group if repeated else "", [])
        block.append(_card(trial, thumbnails, config))
    return "\n".join(
        (f"<h3>{escape(group)}</h3>\n" if group else "")
        + '<div class="cards">\n'
        + "\n".join(block)
        + "\n</div>"
        for group, block in blocks.items()
    )


def _card(trial: _Trial, thumbnails: _Thumbnails, config: SessionConfig) -> str:
    answer = trial.answer
    told = [f"rank {answer['rank']}" if answer["rank"] else "not in the gallery"]
    if answer["calibrated"]:
        told.append(f"{answer['probabilities'][0]:.0%} sure")
    if answer["n_repeats"] > 1:
        told.append(f"{answer['n_repeats']} repeats")
    pictures = {
        "seen": thumbnails.of(answer["stimulus"]),
        "retrieved": thumbnails.of(answer["ids"][0]),
    }
    if config.painting is not None:
        pictures["painted"] = _painted(trial, thumbnails.px, config.folder)
    row = "".join(f"<div><h4>{name}</h4>{picture}</div>" for name, picture in pictures.items())
    right = {0: "", 1: " right"}.get(answer["rank"], " wrong")
    title = f"trial {answer['trial']} · {escape(' · '.join(told))}"
    return f'<article class="card{right}"><h3>{title}</h3><div class="row">{row}</div></article>'


def _painted(trial: _Trial, px: int, folder: Path) -> str:
    image = trial.image
    if image is None:
        return _figure(_no_picture(trial.fate), "–")
    uri = _data_uri(folder / image["file"], px)
    if uri is None:
        return _figure(_no_picture(f"{image['file']} is missing or damaged"), "–")
    alt = f"painted in trial {trial.answer['trial']}"
    picture = f'<img class="p" loading="lazy" src="{uri}" alt="{alt}">'
    early = f" at {image['tmax_s']:g} s" if image["provisional"] else ""
    return _figure(picture, f"seed {image['seed']}{early}")


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _no_picture(why: str) -> str:
    return f'<span class="p none">{escape(why)}</span>'


def _data_uri(path: Path, px: int) -> str | None:
    """A thumbnail; None where there is no image that can be read."""
    try:
        thumbnail = open_image(path)
    except Problem:
        return None
    file = io.BytesIO()
    thumbnail.thumbnail((px, px))
    thumbnail.save(file, "webp", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
