"""The summary of a session: the numbers of summary.json, and the one table people want to see."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hvf_core.artifact import file_sha256
from hvf_core.numbers import percentiles
from hvf_core.problem import naming
from hvf_core.provenance import versions
from hvf_core.text import counted
from index.gallery import MANIFEST
from stream.acquire.chunk import StreamKind
from stream.acquire.watch.rate import Flow
from stream.pipeline.books.ledger import Ledger, Record
from stream.pipeline.books.painting_tally import (
    SPANS,
    Numbers,
    PaintingTally,
    Span,
    add_spans,
    numbers,
)
from stream.pipeline.galleries import accepted
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.pipeline.wire.fields import ReaderFacts
from stream.pipeline.wire.messages import StreamHealth
from stream.pipeline.wire.nodes import DECODE, PAINT, SUPERVISOR

if TYPE_CHECKING:  # whoever only counts draws no table
    from rich.table import Table

STAGES = {
    "lsl": Span("· sampled → readable (LSL)", "window_end", "readable"),
    "cut": Span("· cut, preprocess", "readable", "cut"),
    "hop": Span("· to the decoder", "cut", "received"),
    "embed": Span("· embed", "received", "embedded"),
    "search": Span("· search", "embedded", "searched"),
    "publish": Span("· publish", "searched", "published"),
    "total": Span("window's end → answer", "window_end", "published"),
}
_FILE = "summary.json"
_PACKAGES = (
    *("hvf-live", "torch", "diffusers", "faiss-cpu", "faiss-gpu", "numpy", "pylsl", "pyzmq", "mne"),
)


class Tally:
    """Adds up what is entered into a session's ledger."""

    def __init__(self, config: SessionConfig, n_way: int):
        self._config = config
        self.n_way = n_way
        self._ranks: defaultdict[int, list[int]] = defaultdict(list)  # by number of repeats
        self._before: list[tuple[int, int]] = []  # answers so far, among how many, at each change
        self._early: defaultdict[float, list[int]] = defaultdict(list)  # ranks, by tmax
        self._early_ms: defaultdict[float, Numbers] = defaultdict(numbers)
        self._sure = numbers()  # confidence, right?, abstain? of each answer in turn
        self._latency_ms: defaultdict[str, Numbers] = defaultdict(numbers)
        self._stages = dict(STAGES)
        if not config.realtime:
            del self._stages["lsl"]  # needs stamps that run with the clock
        is_timed = not isinstance(config.source, FileSource)
        if not is_timed:  # trials wait for a decoder that starts
            del self._stages["hop"], self._stages["total"]
        self._facts: defaultdict[str, dict[str, Any]] = defaultdict(dict)  # by node
        self._unheard: list[tuple[float, float]] = []  # from when to when
        self.painting = PaintingTally(is_timed)

    def look_up_in(self, config: SessionConfig, n_way: int) -> None:
        """Goes on among other images."""
        self._config, self.n_way = config, n_way

    def count(self, record: Record) -> None:
        """Adds what became of a trial or an image, or what a node has to say of itself."""
        match record["event"]:
            case "decoded":
                self._add_answer(record)
            case "provisional":
                self._add_provisional(record)
            case "cut":
                add_spans(self._stages, record["stamps"], self._latency_ms)
            case "painting":
                self.painting.add(record["of_trial"], record["state"])
            case "painted":
                self.painting.add_image(record["of_trial"], record)
            case "unheard":
                self._unheard.append((record["from_s"], record["until_s"]))
            case "control":
                n_old = record.get("facts", {}).get("n_old")
                if isinstance(n_old, int) and n_old > 0:  # another gallery, or other images in it
                    self._before.append((self._n_ranked, n_old))
            case "note":
                self._facts[record["node"]] |= record["facts"]

    def _add_answer(self, answer: Record) -> None:
        """Adds a final answer; rank 0 means that what was shown is not in the gallery."""
        rank = answer["rank"]
        if rank:
            self._ranks[answer["n_repeats"]].append(rank)
            if answer["calibrated"]:
                self._sure.extend((answer["probabilities"][0], rank == 1, answer["abstain"]))
        add_spans(self._stages, answer["stamps"], self._latency_ms)

    @property
    def _n_ranked(self) -> int:
        return sum(map(len, self._ranks.values()))

    def _chance(self) -> float | None:
        """Of top-1: the mean over the answers, as the gallery may have changed between them."""
        if not self.n_way:
            return None
        chance, since = 0.0, 0
        for until, n_way in (*self._before, (self._n_ranked, self.n_way)):
            chance, since = chance + (until - since) / n_way, until
        return chance / since if since else 1 / self.n_way

    def _add_provisional(self, answer: Record) -> None:
        """Adds an answer that came before the end of its trial."""
        add_spans({answer["tmax_s"]: STAGES["total"]}, answer["stamps"], self._early_ms)
        if answer["rank"]:
            self._early[answer["tmax_s"]].append(answer["rank"])

    def summary(self, ledger: Ledger, end: str, faults: Sequence[str] = ()) -> dict[str, Any]:
        """All of `summary.json`; `faults` are those of the ledger."""
        ranks = [rank for some in self._ranks.values() for rank in some]
        painting = None
        if self._config.painting is not None:
            facts = self._facts[PAINT] | self._facts[SUPERVISOR]
            painting = self.painting.summary(ledger.outcomes["decoded"], facts)
        return {
            "session": self._config.session,
            "end": end,
            "simulated": self._config.simulated,
            "unheard_s": self._unheard,
            "at_least": bool(self._unheard or faults),
            "ledger_faults": list(faults),
            "markers": ledger.markers,
            "decoded": ledger.outcomes["decoded"],
            "cut": ledger.outcomes["cut"],
            "dropped": dict(sorted(ledger.reasons.items())),
            "saved_trials": None,
            "n_way": self.n_way,
            **_hits(ranks),
            "chance": self._chance(),
            "n_way_before": [n_way for _, n_way in self._before],
            "by_repeats": {str(n): _hits(some) for n, some in sorted(self._ranks.items())},
            "by_tmax": {
                f"{round(tmax_s, 3):g}": {
                    **_hits(self._early[tmax_s]),
                    "latency_ms": percentiles(values) if "total" in self._stages else None,
                }
                for tmax_s, values in sorted(self._early_ms.items())
            },
            "confidence": _confidence(self._sure),
            "decoder": self._facts[DECODE],
            "painting": painting,
            "latency_ms": {name: percentiles(values) for name, values in self._latency_ms.items()},
            "seed": self._config.seed,
            "bundle": _checksum(self._config.bundle, "bundle.json"),
            "gallery": _of_gallery(self._config),
            "adapted": self._config.adapted_sha256,
            "versions": versions(*_PACKAGES),
        }


class StreamFacts:
    """What a session's streams are like, and what a summary tells of them.

    Attributes:
        notices: sentences on them that a person should know; those of the reader come at its end.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._last: dict[StreamKind, StreamHealth] = {}
        self._of_reader: ReaderFacts = {}

    def is_news(self, health: StreamHealth) -> bool:
        """Takes how a stream is; whether it is in another state than before."""
        before = self._last.get(health.kind)
        self._last[health.kind] = health
        return before is None or health.state != before.state

    def reader_ends(self, facts: ReaderFacts) -> None:
        """Takes what only the reader knows."""
        self._of_reader = facts

    def summary(self) -> dict[str, Any]:
        """All that is told."""
        streams = {**self._health("eeg"), **self._of_reader, "markers": self._health("markers")}
        return streams | {"notices": self.notices + streams.get("notices", [])}

    def _health(self, kind: StreamKind) -> dict[str, Any]:
        """Of a stream; nothing where none was heard."""
        common = ("state", "offset_s", "offset_uncertainty_s")
        of_eeg = (*common, *Flow._fields, "flat", "clipped")
        names = of_eeg if kind == "eeg" else (*common, "age_s")
        stream = self._last.get(kind)
        return {name: getattr(stream, name) for name in names} if stream is not None else {}


def _hits(ranks: list[int]) -> dict[str, float | None]:
    n = len(ranks)
    top1, top5 = (sum(rank <= k for rank in ranks) / n if n else None for k in (1, 5))
    return {"n": n, "top1": top1, "top5": top5}


def _confidence(answers: Numbers) -> dict[str, float | None] | None:
    """How sure calibrated answers were, and how right; None where there are none."""
    if not answers:
        return None
    confidence, right, abstain = np.array(answers).reshape(-1, 3).T
    given = abstain == 0
    return {
        "mean": round(float(confidence.mean()), 4),
        "abstained": int(abstain.sum()),
        "top1_of_given": float(right[given].mean()) if given.any() else None,
    }


def _checksum(folder: Path | None, manifest: str) -> str | None:
    """SHA-256 of the manifest, which holds those of all other files."""
    return file_sha256(folder / manifest) if folder else None


def _of_gallery(config: SessionConfig) -> str | None:
    """The same of the gallery's manifest, as the session has accepted it."""
    path = accepted(config)
    return file_sha256(path) if path.exists() else _checksum(config.gallery, MANIFEST)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`, whole or not at all."""
    draft = folder / f".{_FILE}.draft"
    with naming(folder / _FILE):
        draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / _FILE)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What `summary.json` has; None where a session has not got so far, or it is damaged."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # a crash has cut it short
        return None
    return found if isinstance(found, dict) else None


def summary_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person wants to know of a session: names and what they come to."""
    if "failure" in summary:
        yield "failed", summary["failure"]
    yield "markers", _accounted(summary)
    for from_s, until_s in summary.get("unheard_s", ()):
        span = f"from {from_s:.1f} to {until_s:.1f} s of the clock, {until_s - from_s:.1f} s"
        yield "· nobody listened", span
    if summary["n"]:
        chance = summary["chance"]
        five = min(5, summary["n_way"])
        yield f"{summary['n_way']}-way", f"n = {summary['n']}{_before_text(summary)}"
        yield "top-1", f"{summary['top1']:.1%}   (chance {chance:.1%})"
        yield f"top-{five}", f"{summary['top5']:.1%}   (chance {chance * five:.1%})"
        if len(summary["by_repeats"]) > 1:
            for n in _some_of([int(n) for n in summary["by_repeats"]]):
                yield (
                    f"· with {counted(n, 'repeat')}",
                    _hits_text(summary["by_repeats"][str(n)]),
                )
    for tmax_s, row in summary["by_tmax"].items():
        hits = f"{_hits_text(row)}   " if row["n"] else ""
        took = row["latency_ms"]
        yield f"· already at {tmax_s} s", hits + (f"p50 {took['p50']:.2f} ms" if took else "")
    if summary["confidence"] is not None:
        yield "confidence", _confidence_text(summary["confidence"])
    search = summary.get("decoder", {})
    if search.get("is_exact") is False:
        how = f"{search['search']}, not exact: recall@5 {search['recall_5']:.1%}"
        yield "search", f"{how} with {search['queries']} queries"
    streams = summary.get("streams", {})
    if flow := Flow(*(streams.get(name) for name in Flow._fields)).told():
        yield "EEG", flow
    delay_ms = streams.get("filter_delay_ms_at_10_hz")
    if delay_ms is not None:
        yield "filters' delay", f"{delay_ms:.1f} ms at 10 Hz, by which the EEG comes late"
    notices = (*streams.get("notices", ()), *summary.get("ledger_faults", ()))
    for sentence in dict.fromkeys(notices):
        yield "notice", sentence
    for stage, values in summary["latency_ms"].items():
        yield STAGES[stage].name, f"p50 {values['p50']:.2f} ms   p99 {values['p99']:.2f} ms"
    if summary["painting"] is not None:
        yield from _painting_rows(summary["painting"])


def summary_table(summary: Mapping[str, Any]) -> "Table":
    """The table at the end of a session."""
    from rich.table import Table

    subject = " (simulated subject)" if summary["simulated"] else ""
    title = f"Session {summary['session']}{subject}"
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    for name, text in summary_rows(summary):
        table.add_row(name, text, style="bold" if name == STAGES["total"].name else None)
    return table


def _painting_rows(painting: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    left_out = painting["cancelled"] + painting["superseded"]
    told = {"painted": painting["painted"], "left out": left_out, "failed": painting["failed"]}
    counts = [f"{n} {fate}" for fate, n in told.items() if n]
    yield "painted", ", ".join(counts) or "0"
    for key, span in SPANS.items():
        if key in painting:
            p50, p99 = painting[key]["p50"] / 1e3, painting[key]["p99"] / 1e3
            yield span.name, f"p50 {p50:.2f} s   p99 {p99:.2f} s"
    if "given_up" in painting:
        yield "· given up", str(painting["given_up"])


def _before_text(summary: Mapping[str, Any]) -> str:
    """That some of the answers are among other numbers of images, where they are."""
    before = summary.get("n_way_before")
    return f", before among {', '.join(map(str, before))}: chance is their mean" if before else ""


def _hits_text(row: Mapping[str, Any]) -> str:
    return f"top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%}, n {row['n']}"


def _some_of(numbers: list[int]) -> list[int]:
    """Powers of two and the last one, where there are many."""
    if len(numbers) <= 6:
        return numbers
    return [n for n in numbers if n & (n - 1) == 0 or n == numbers[-1]]


def _confidence_text(confidence: Mapping[str, Any]) -> str:
    text = f"{confidence['mean']:.1%} on average, calibrated"
    if confidence["abstained"]:
        text += f"; {confidence['abstained']} abstained"
        if confidence["top1_of_given"] is not None:
            text += f", top-1 of the others {confidence['top1_of_given']:.1%}"
    return text


def _accounted(summary: Mapping[str, Any]) -> str:
    parts = [f"{summary[what]} {what}" for what in ("decoded", "cut") if summary[what]]
    parts += [f"{n} dropped ({reason})" for reason, n in summary["dropped"].items()]
    at_least = "at least " * bool(summary.get("at_least"))
    return f"{at_least}{summary['markers']} = " + (" + ".join(parts) or "0")
