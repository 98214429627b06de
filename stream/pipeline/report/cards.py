"""The trials one by one: what was seen, found and painted; the page's script filters and sorts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

from hvf_core.problem import needed
from index.gallery import Gallery
from stream.pipeline.books.ledger import Record
from stream.pipeline.report.story import Story, Trial
from stream.pipeline.report.thumbnails import (
    MOST_PICTURES,
    Thumbnails,
    data_uri,
    figure,
    no_picture,
)

T = TypeVar("T")
_SHOWN = 5  # images of an answer
AT_A_GLANCE = 6
"""Cards that stand near the top of a page that has more of them."""
_ORDERS = {
    "time": "time",
    "image": "image, then time",
    "sure": "how sure, most first",
    "rank": "rank, best first",
    "late": "latency, longest first",
}


class Cards:
    """The cards of a session's trials.

    Args:
        paints: whether there is a painter.
        is_timed: whether latency means anything.
    """

    def __init__(
        self, story: Story, gallery: Gallery | None, folder: Path, paints: bool, is_timed: bool
    ):
        self._story, self._folder = story, folder
        self._paints, self._is_timed = paints, is_timed
        decoded = story.decoded
        self.repeats = any(needed(trial.answer)["n_repeats"] > 1 for trial in decoded)
        self._thumbnails = Thumbnails(gallery, len(decoded))
        some = spread(decoded, MOST_PICTURES)
        self._thumbnails.take(id_ for t in some for id_ in (t.stimulus, needed(t.answer)["ids"][0]))
        self._thumbnails.take(id_ for t in some for id_ in needed(t.answer)["ids"][:_SHOWN])
        painted = [trial.number for trial in decoded if trial.image is not None]
        self._inside = set(spread(painted, MOST_PICTURES))

    @property
    def styles(self) -> str:
        return "\n".join(filter(None, self._thumbnails.styles.values()))

    def html(self) -> str:
        """All cards, those of one image after each other where images came again."""
        if not self._story.trials:
            return '<p class="dim">No marker came.</p>'
        parts, groups = [], dict.fromkeys(trial.group for trial in self._story.trials)
        if not self.repeats:
            parts = [self._card(trial) for trial in self._story.trials]
        for group in groups if self.repeats else ():
            parts.append(f"<h3>{escape(self._thumbnails.label(group))}</h3>")
            parts += [self._card(trial) for trial in self._story.trials if trial.group == group]
        return '<div class="cards" id="cards">\n' + "\n".join(parts) + "\n</div>"

    def at_a_glance(self) -> str:
        """Of the images that came last, each one's last answer, or the last that was painted."""
        last: dict[str, Trial] = {}
        for trial in self._story.decoded:
            before = last.pop(trial.group, trial)
            last[trial.group] = trial if trial.image or not before.image else before
        shown = list(last.values())[-AT_A_GLANCE:]
        if not shown:
            return ""
        every = f'<p><a href="#trials">All {len(self._story.trials)} trials</a> are below.</p>'
        return f'<div class="cards">{"".join(map(self._card, shown))}</div>{every}'

    def controls(self) -> str:
        """What the script hears to; hidden where there is none."""
        shown = Counter(kind for trial in self._story.trials for kind in _kinds(trial))
        n = len(self._story.trials)
        options = [f'<option value="">all {n}</option>']
        options += [
            f'<option value="{_key(kind)}">{escape(kind)} ({count})</option>'
            for kind, count in sorted(shown.items(), key=lambda one: _KINDS.get(one[0], 9))
        ]
        orders = dict(_ORDERS)
        if not self._story.decoded:
            orders = {"time": "time", "image": "image, then time"}
        elif not self._is_timed:
            del orders["late"]
        usual = "image" if self.repeats else "time"
        order = "".join(
            f'<option value="{key}"{" selected" * (key == usual)}>{name}</option>'
            for key, name in orders.items()
        )
        return (
            '<form class="controls" id="controls" hidden>'
            f'<label>show <select name="kind">{"".join(options)}</select></label>'
            '<label>with <input name="text" type="search" placeholder="image, reason"></label>'
            f'<label>by <select name="order">{order}</select></label>'
            '<output name="n"></output></form>'
        )

    def _card(self, trial: Trial) -> str:
        answer = trial.answer
        kinds = " ".join(map(_key, _kinds(trial)))
        at_s = trial.at_s - self._story.start_s
        values = {"t": f"{at_s:.2f}"}
        if answer is None:
            told = [f"dropped ({trial.reason})" if trial.fate == "dropped" else trial.fate]
            body = f"<p>{escape(trial.stimulus)}</p>"
            body += f'<p class="dim">{escape(trial.detail)}</p>' if trial.detail else ""
        else:
            told = [f"rank {answer['rank']}" if answer["rank"] else "not in the gallery"]
            told += self._told(answer)
            values["p"] = f"{answer['probabilities'][0]:.4f}"
            values["r"] = str(answer["rank"] or "")
            if self._is_timed and "published" in answer["stamps"]:
                values["l"] = f"{_latency_ms(answer):.1f}"
            body = self._pictures(trial, answer)
        data = "".join(f' data-{key}="{value}"' for key, value in values.items() if value)
        more = escape(" · ".join([f"{at_s:.1f} s", *told]))
        return (
            f'<article class="card {_edge(trial)}" data-k="{kinds}"{data} '
            f'data-g="{escape(trial.group)}"><h4>trial {trial.number}</h4>'
            f'<p class="told">{more}</p>{body}</article>'
        )

    def _told(self, answer: Record) -> Iterable[str]:
        if answer["calibrated"]:
            yield f"{answer['probabilities'][0]:.0%} sure"
        if answer["abstain"]:
            yield "abstains"
        if answer["n_repeats"] > 1:
            yield f"{answer['n_repeats']} repeats"
        if self._is_timed and "published" in answer["stamps"]:  # a ledger may be damaged
            yield f"{_latency_ms(answer):.1f} ms"

    def _pictures(self, trial: Trial, answer: Record) -> str:
        pictures = {
            "seen": self._thumbnails.figure(trial.stimulus),
            "retrieved": self._thumbnails.figure(answer["ids"][0]),
        }
        if self._paints:
            pictures["painted"] = self._painted(trial)
        row = "".join(f"<div><h5>{name}</h5>{picture}</div>" for name, picture in pictures.items())
        others = zip(answer["ids"], answer["probabilities"], strict=False)  # of a damaged ledger
        sure = answer["calibrated"]
        next_ones = "".join(
            self._thumbnails.small(id_, f"{p:.1%}" if sure else "")
            for id_, p in list(others)[1:_SHOWN]
        )
        then = f'<div class="then"><span>then</span>{next_ones}</div>' if next_ones else ""
        return f'<div class="row">{row}</div>{then}'

    def _painted(self, trial: Trial) -> str:
        image = trial.image
        if image is None:
            return figure(no_picture(trial.painting), "–")
        early = f" at {image['tmax_s']:g} s" if image["provisional"] else ""
        caption = f"seed {image['seed']}{early}"
        source: str | None = image["file"]  # beside the page
        if trial.number in self._inside:
            source = data_uri(self._folder / image["file"], self._thumbnails.px)
        if source is None:
            return figure(no_picture(f"{image['file']} is missing or damaged"), "–")
        alt = f"painted in trial {trial.number}"
        return figure(f'<img class="p" loading="lazy" src="{escape(source)}" alt="{alt}">', caption)


def spread(some: Sequence[T], n: int) -> Sequence[T]:
    """At most n of them, from all over."""
    return some[:: -(-len(some) // n)] if len(some) > n else some


_KINDS = {"right": 0, "wrong": 1, "top-5": 2, "abstained": 3, "cut": 4}


def _kinds(trial: Trial) -> list[str]:
    """What it may be looked for as."""
    answer = trial.answer
    if answer is None:
        return [f"dropped: {trial.reason}"] if trial.fate == "dropped" else [trial.fate]
    kinds = ["abstained"] if answer["abstain"] else []
    if answer["rank"]:
        kinds.append("right" if answer["rank"] == 1 else "wrong")
        kinds += ["top-5"] if answer["rank"] <= 5 else []
    return kinds


def _key(kind: str) -> str:
    return escape(kind.replace(" ", "-"))


def _edge(trial: Trial) -> str:
    if trial.answer is None:
        return "lost" if trial.fate == "dropped" else ""
    return {0: "", 1: "right"}.get(trial.answer["rank"], "wrong")


def _latency_ms(answer: Record) -> float:
    stamps = answer["stamps"]
    latency_ms: float = (stamps["published"] - stamps["window_end"]) * 1e3
    return latency_ms
