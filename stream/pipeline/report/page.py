"""report.html: a session on one page that needs nothing but itself, but for a long one's paintings.

All figures are those of ledger and summary, and of the recording where there is no decoder.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from hvf_core.numbers import wilson
from hvf_core.problem import Problem
from hvf_core.text import counted
from stream.acquire.watch.rate import Flow
from stream.pipeline.books.summary import summary_rows
from stream.pipeline.galleries import open_accepted
from stream.pipeline.report.accuracy import ranked
from stream.pipeline.report.cards import AT_A_GLANCE, Cards
from stream.pipeline.report.curves import accuracy_part, latency_part
from stream.pipeline.report.markup import note, section, table, tile
from stream.pipeline.report.settings_part import settings_part
from stream.pipeline.report.story import ENDED, Story, n_runs, read_story
from stream.pipeline.report.timeline import timeline_part
from stream.pipeline.wire.config import FileSource, SessionConfig

REPORT = "report.html"
_ENDS = {"finish": "came to its end", "stop": "was stopped", "lost": "was cut off"}
_HERE = Path(__file__)
_PAGE, _STYLE, _SCRIPT = (
    _HERE.with_name(name).read_text(encoding="utf-8")
    for name in (REPORT, "report.css", "report.js")
)
# Whatever a stimulus is called, the page can run nothing but its own script: see its policy.
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_SIMULATED = """<p class="note"><strong>Simulated subject.</strong> These numbers and images show
that the system works, not how well it reads a person.</p>"""


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
    is_file = isinstance(config.source, FileSource)
    story = read_story(config.folder, is_timed=config.realtime and not is_file)
    gallery = open_accepted(config) if config.gallery is not None else None
    paints = config.painting is not None
    cards = Cards(story, gallery, config.folder, paints, not is_file)
    numbers = table((), ((name, told) for name, told in summary_rows(summary)))
    what = "Seen, retrieved, painted" if paints else "Seen, retrieved"
    is_short = len(story.trials) <= AT_A_GLANCE
    trials = section(
        "trials",
        what if is_short and story.decoded else "Trials",
        note(_which(story, paints)),
        cards.controls(),
        cards.html(),
    )
    parts = [
        trials if is_short else section("glance", what, cards.at_a_glance()),
        accuracy_part(story, summary),
        latency_part(story, summary),
        timeline_part(story, _names(config)),
        _streams(config, summary, story),
        _signals(config, story),
        settings_part(config, summary, numbers),
        "" if is_short else trials,
    ]
    return Template(_PAGE).substitute(
        title=escape(f"Session {summary['session']}"),
        script_policy=f"; script-src 'sha256-{_HASH}'",
        style=_STYLE + cards.styles,
        script=_SCRIPT,
        facts=escape(" · ".join(_facts(config, summary, story))),
        notes="\n".join(_notes(summary, story)),
        tiles="\n".join(_tiles(config, summary, story)),
        parts="\n".join(part for part in parts if part),
    )


def _facts(config: SessionConfig, summary: Mapping[str, Any], story: Story) -> Iterator[str]:
    """When and how long the session was, and of what."""
    try:
        began = datetime.strptime(config.session[:15], "%Y%m%d-%H%M%S")
    except ValueError:  # the id of a session that another program made
        pass
    else:
        yield f"{began:%A}, {began.day} {began:%B %Y}, {began:%H:%M:%S}"
    yield _duration(story.end_s - story.start_s)
    if summary["simulated"]:
        yield "simulated subject"
    if config.subject:
        yield f"subject {config.subject}"
    source = config.source
    if isinstance(source, FileSource):
        yield f"{source.path.name}, read in virtual time"
    else:
        yield f"EEG from {source.eeg}"
    if times := Counter(trial.stimulus for trial in story.trials).values():
        few, many = min(times), max(times)
        each = "once" if many == 1 else f"{many} times" if few == many else f"{few} to {many} times"
        yield f"{counted(len(times), 'image')}, {each} each"
    if summary["n_way"]:
        before = "".join(f", before {n_way}" for n_way in summary.get("n_way_before", ()))
        yield f"{summary['n_way']} images to tell apart{before}"
    yield _ENDS.get(summary["end"], summary["end"])


def _duration(span_s: float) -> str:
    minutes, seconds = divmod(round(span_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _notes(summary: Mapping[str, Any], story: Story) -> Iterator[str]:
    """What a reader has to know before he believes a number."""
    if summary["simulated"]:
        yield _SIMULATED
    for name, told in summary_rows(summary):
        if name in ("failed", "notice", "· nobody listened"):
            what = name.removeprefix("· ").capitalize()
            yield f'<p class="note"><strong>{escape(what)}:</strong> {escape(told)}</p>'
    if story.damage and story.damage not in summary.get("ledger_faults", ()):
        yield f'<p class="note">{escape(story.damage)}</p>'


def _tiles(config: SessionConfig, summary: Mapping[str, Any], story: Story) -> Iterator[str]:
    """The numbers that are asked for first."""
    outcome = "decoded" if config.bundle is not None else "cut"
    dropped = [f"{n} {reason}" for reason, n in summary["dropped"].items()]
    yield tile(
        str(summary[outcome]),
        f"{outcome} of {'at least ' * bool(summary.get('at_least'))}{summary['markers']} markers",
        f"dropped: {', '.join(dropped)}" if dropped else "none was dropped",
    )
    if summary["n"]:
        n = n_runs(ranked(story.decoded)) or summary["n"]
        for k, name in ((1, "top1"), (5, "top5")):
            low, high = wilson(summary[name], n)
            chance = min(1.0, k * summary["chance"])
            yield tile(
                f"{summary[name]:.1%}",
                f"top-{min(k, summary['n_way'])} of {summary['n']} answers",
                f"{low:.1%} to {high:.1%}, chance {chance:.1%}",
            )
    if "total" in summary["latency_ms"]:
        took = summary["latency_ms"]["total"]
        yield tile(f"{took['p50']:.1f} ms", "to an answer (p50)", f"p99 {took['p99']:.1f} ms")
    if summary["painting"] is not None:
        took = summary["painting"].get("image_ms")
        late = f"p50 {took['p50'] / 1e3:.2f} s after the window's end" if took else ""
        yield tile(str(summary["painting"]["painted"]), "painted", late)


def _streams(config: SessionConfig, summary: Mapping[str, Any], story: Story) -> str:
    """How the streams were in the end."""
    eeg = summary.get("streams", {})
    source = config.source
    if isinstance(source, FileSource):
        return ""
    markers = eeg.get("markers", {})
    ended = {one.who for one in story.happened if one.kind == "stream" and one.text == ENDED}
    rows = [
        (
            name,
            kind,
            ENDED if name in ended else _in_the_end(found),
            *_flow(found),
            _offset(found),
            _bad(found),
        )
        for name, kind, found in (
            (source.eeg, "EEG", eeg),
            (source.markers or "none", "markers", markers),
        )
        if "state" in found
    ]
    head = ("stream", "of", "in the end", "rate", "declared", "drift", "gaps", "offset", "bad")
    return section("streams", "Streams", table(head, rows, "plain")) if rows else ""


def _signals(config: SessionConfig, story: Story) -> str:
    """What a session without a decoder recorded."""
    if config.bundle is not None:
        return ""
    from stream.pipeline.report.signal_part import signal_part  # here: it imports scipy

    return signal_part(config, story)


def _names(config: SessionConfig) -> dict[str, str]:
    """What streams are called where there is little room."""
    source = config.source
    if isinstance(source, FileSource):
        return {}
    return {source.eeg: "EEG"} | ({source.markers: "markers"} if source.markers else {})


def _flow(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Rate, the one that was declared, drift and gaps."""
    flow = Flow(found.get("rate_hz"), found.get("drift_ppm"), found.get("gaps") or 0)
    if flow.rate_hz is None:
        return ("–", "–", "–", "–")
    nominal = f"{found['nominal_hz']:g} Hz" if "nominal_hz" in found else "–"
    drift = "another rate" if flow.drift_ppm is None else f"{flow.drift_ppm:+z.1f} ppm"
    return (f"{flow.rate_hz:.3f} Hz", nominal, drift, str(flow.gaps))


def _in_the_end(found: Mapping[str, Any]) -> str:
    """The state of a stream; of markers, that come when they come, since when there was none."""
    age_s = found.get("age_s")
    return f"the last {age_s:.0f} s before" if age_s else str(found["state"])


def _offset(found: Mapping[str, Any]) -> str:
    offset_ms, error_ms = (1e3 * found[name] for name in ("offset_s", "offset_uncertainty_s"))
    return f"{offset_ms:+z.3f} ± {error_ms:.3f} ms"


def _bad(found: Mapping[str, Any]) -> str:
    told = [f"{name}: {', '.join(found[name])}" for name in ("flat", "clipped") if found.get(name)]
    return "; ".join(told) or "–"


def _which(story: Story, paints: bool) -> str:
    n, n_decoded = len(story.trials), len(story.decoded)
    if not n_decoded:
        return "No trial was decoded."
    those = f"All {n} trials" if n_decoded == n else f"All {n} trials, {n_decoded} of them decoded"
    return (
        f"{those}. A green edge: the first answer is the image that was seen; a red one: it is "
        "not; a grey one: there is no answer."
        + " Not painted: a newer trial came first, or there was no painter yet."
        * paints
    )
