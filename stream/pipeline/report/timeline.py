"""The session on one line: how its streams and processes were, what was said, what was dropped."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from stream.pipeline.report.charts import Frame, chart, text, ticks, time_axis
from stream.pipeline.report.markup import folded, note, section, table
from stream.pipeline.report.story import Happened, Story
from stream.pipeline.wire.nodes import SUPERVISOR

_WIDTH_PX, _LEFT_PX, _LANE_PX = 900, 168, 22
Place = Callable[[float], float]
"""Where on the axis a moment is."""
_COLOURS = {"streaming": "ok", "recovered": "ok", "stalled": "stalled", "lost": "lost"}
_NAME, _TEXT = 20, 80  # characters, at most
_MOST_EVENTS = 500
_STATES = "Streams: green is flowing, yellow silent, red lost, grey waited for or ended. "
_POINT = "A mark says what it is when the pointer rests on it."


class _Span(NamedTuple):
    start_s: float
    end_s: float
    kind: str
    told: str


class _Lane(NamedTuple):
    """A row of the chart: spans, and moments in between."""

    name: str
    spans: Sequence[_Span] = ()
    moments: Sequence[tuple[float, str]] = ()
    kind: str = ""


def timeline_part(story: Story, names: Mapping[str, str]) -> str:
    """The chart, and below it all that happened, as a table.

    Args:
        names: short ones of streams.
    """
    lanes = [lane for lane in _lanes(story, names) if lane.spans or lane.moments]
    if not lanes or story.end_s <= story.start_s:
        return ""
    unit_s, unit = time_axis(story.end_s - story.start_s)
    last = (story.end_s - story.start_s) / unit_s
    frame = Frame(
        (0, last),
        (0, len(lanes)),
        f"time ({unit})",
        x_ticks=ticks(0, last, 9),
        width_px=_WIDTH_PX,
        height_px=_LANE_PX * len(lanes) + 48,
        left_px=_LEFT_PX,
    )
    marks = []
    for i, lane in enumerate(lanes):
        top = frame.py(len(lanes) - i)
        marks += _drawn(lane, frame, top, lambda at_s: (at_s - story.start_s) / unit_s)
    told = "; ".join(f"{lane.name}: {len(lane.spans) + len(lane.moments)}" for lane in lanes)
    svg = chart(frame, f"What happened, in lanes: {told}", marks)
    return section(
        "timeline",
        "From start to end",
        f'<div class="wide"><div class="chart broad">{svg}</div></div>',
        note(_STATES * any(lane.spans for lane in lanes) + _POINT),
        _table(story),
    )


def _lanes(story: Story, names: Mapping[str, str]) -> Iterable[_Lane]:
    kinds: defaultdict[str, list[Happened]] = defaultdict(list)
    for one in story.happened:
        kinds[one.kind].append(one)
    for name in dict.fromkeys(one.who for one in kinds["stream"]):
        told = [one for one in kinds["stream"] if one.who == name]
        yield _Lane(names.get(name, name), _states(told, story.end_s))
    unheard = [_Span(h.at_s, h.until_s or h.at_s, "lost", h.text) for h in kinds["unheard"]]
    yield _Lane("nobody listened", unheard)
    notes = [one for one in kinds["note"] if one.text]
    for name, found, kind in (
        ("restarts", _restarts(story.happened), "bad"),
        ("notes", notes, ""),
        ("asked for", kinds["control"], ""),
    ):
        yield _Lane(name, (), [(h.at_s, f"{h.who}: {h.text}") for h in found], kind)
    for fate in ("decoded", "cut"):
        some = [trial for trial in story.trials if trial.fate == fate]
        yield _Lane(
            fate, (), [(t.at_s, f"trial {t.number}: {t.stimulus[:_TEXT]}") for t in some], "good"
        )
    dropped = [trial for trial in story.trials if trial.fate == "dropped"]
    for reason in sorted({trial.reason for trial in dropped}):
        some = [trial for trial in dropped if trial.reason == reason]
        moments = [(t.at_s, f"trial {t.number}: {t.stimulus[:_TEXT]}: {t.detail}") for t in some]
        yield _Lane(f"dropped: {reason}", (), moments, "bad")


def _restarts(happened: Sequence[Happened]) -> list[Happened]:
    """Processes that were lost or came back, by what the ledger has of each."""
    found = [h for h in happened if h.kind == "node_lost"]
    found += [h for h in happened if h.kind == "start"][1:]
    found += [
        h for h in happened if h.kind == "note" and h.who == SUPERVISOR and "restarted" in h.text
    ]
    return sorted(found, key=lambda one: one.at_s)


def _states(told: Sequence[Happened], end_s: float) -> list[_Span]:
    """How a stream was, from each change to the next."""
    ends = [one.at_s for one in told[1:]] + [end_s]
    spans = []
    for one, until_s in zip(told, ends, strict=True):
        kind = _COLOURS.get(one.text, "waiting")
        spans.append(_Span(one.at_s, until_s, kind, f"{one.text} for {until_s - one.at_s:.1f} s"))
    return spans


def _drawn(lane: _Lane, frame: Frame, top: float, place: Place) -> list[str]:
    middle = top + _LANE_PX / 2
    name = lane.name if len(lane.name) <= _NAME else f"{lane.name[: _NAME - 1]}…"
    n = len(lane.moments)
    marks = [text(_LEFT_PX - 8, middle + 4, f"{name} · {n}" if n else name, "end")]
    marks.append(f'<path class="grid" d="M{_LEFT_PX} {middle}H{frame.px(frame.x[1])}"/>')
    for span in lane.spans:
        left, right = frame.px(place(span.start_s)), frame.px(place(span.end_s))
        marks.append(
            f'<rect class="{span.kind}" x="{left}" y="{top + 5:g}" height="{_LANE_PX - 10}" '
            f'width="{max(right - left, 1.5):.1f}"><title>{escape(span.told)}</title></rect>'
        )
    return marks + _ticks(lane, frame, top, place)


def _ticks(lane: _Lane, frame: Frame, top: float, place: Place) -> list[str]:
    """A mark for each moment; those that would lie on each other are one."""
    at: dict[float, list[str]] = {}
    for moment_s, told in lane.moments:
        at.setdefault(frame.px(place(moment_s)), []).append(told)
    return [
        f'<path class="tick {lane.kind}" d="M{x:g} {top + 4:g}v{_LANE_PX - 8}">'
        f"<title>{escape(told[0] if len(told) == 1 else f'{told[0]} and {len(told) - 1} more')}"
        "</title></path>"
        for x, told in at.items()
    ]


def _table(story: Story) -> str:
    rows = [(f"{h.at_s - story.start_s:.1f} s", h.who, h.text) for h in story.happened if h.text]
    left_out = f"; the first {_MOST_EVENTS} of them" if len(rows) > _MOST_EVENTS else ""
    title = f"All {len(rows)} events{left_out}"
    return folded(title, table(("", "who", "what"), rows[:_MOST_EVENTS])) if rows else ""
