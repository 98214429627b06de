"""The terminal view of a session: the last answers, how many are right, what was dropped."""

from collections import Counter, deque

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream.acquire.lsl import local_clock
from stream.pipeline.books.summary import STAGES
from stream.pipeline.wire.messages import (
    Message,
    Noted,
    Painted,
    PaintingState,
    Retrieval,
    Settled,
    StreamHealth,
)
from stream.pipeline.wire.nodes import SUPERVISOR

SHOWN = (Noted, Painted, PaintingState, Retrieval, Settled, StreamHealth)
"""The kinds of messages that the view takes."""
_LAST = 8


class TerminalView:
    """Follows the results bus; a live table, or one line per answer where `headless`."""

    def __init__(self, console: Console, headless: bool, total: int | None, title: str):
        self._console = console
        self._headless = headless
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._task = self._progress.add_task(title, total=total)
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._answers: deque[Retrieval] = deque(maxlen=_LAST)
        self._ranks: list[int] = []
        self._dropped: Counter[str] = Counter()
        self._stream: StreamHealth | None = None
        self._painted: dict[int, str] = {}  # what became of each trial
        self._image: Painted | None = None  # the newest

    def open(self) -> None:
        """Shows the live table."""
        if not self._headless:
            self._live.start()

    def close(self) -> None:
        """Takes the live table away, where there is one."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Shows an event above the table."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def take(self, message: Message) -> None:
        match message:
            case Noted() if message.node != SUPERVISOR:  # which has said it already
                self.say(f"{message.node}: {message.text}")
            case PaintingState():
                self._painted[message.trial] = message.state
            case Painted():
                self._painted[message.about.trial] = "painted"
                self._image = message
                if self._headless:
                    self.say(_image_line(message))
            case Retrieval():
                self._show(message)
                if message.rank and not message.answer.provisional:
                    self._ranks.append(message.rank)
                if self._headless:
                    self.say(_line(message))
            case StreamHealth():
                self._on_health(message)
            case Settled():
                self._progress.update(self._task, completed=message.markers - message.pending)
                if message.outcome == "dropped":
                    self._dropped[message.reason] += 1
                    if self._headless:
                        self.say(f"trial {message.trial}: dropped ({message.reason})")
        if not self._headless:
            self._live.update(Group(self._progress, self._table()))

    def _show(self, answer: Retrieval) -> None:
        """An answer takes the place of an earlier, provisional one to the same trial."""
        for i, shown in enumerate(self._answers):
            if shown.about.trial == answer.about.trial:
                self._answers[i] = answer
                return
        self._answers.append(answer)

    def _on_health(self, message: StreamHealth) -> None:
        changed = self._stream is not None and message.state != self._stream.state
        if changed and not self._progress.finished:  # after its last trial a stream may end
            self.say(f"stream '{message.stream}' is {message.state}")
        self._stream = message

    def _table(self) -> Table:
        table = Table(expand=False, caption=escape(self._caption()), caption_justify="left")
        for heading in ("trial", "shown", "decoded", "sure", "rank", "repeats", "sample → answer"):
            table.add_column(heading)
        for answer in self._answers:
            table.add_row(
                str(answer.about.trial),
                escape(answer.about.stimulus),
                escape(_decoded(answer)),
                f"{answer.confidence:.0%}" if answer.calibrated else "–",
                _rank(answer),
                str(answer.answer.n_repeats),
                f"{_latency_ms(answer):.2f} ms",
                style=_style(answer),
            )
        return table

    def _caption(self) -> str:
        n = len(self._ranks)
        parts = []
        if n:
            top1, top5 = (sum(rank <= k for rank in self._ranks) / n for k in (1, 5))
            parts.append(f"top-1 {top1:.0%}, top-5 {top5:.0%} of {n}")
        if self._stream is not None:
            parts.append(f"{self._stream.rate_hz:.0f} Hz, {self._stream.drift_ppm:+.0f} ppm")
            bad = [*self._stream.flat, *self._stream.clipped]
            parts += [f"flat or clipped: {', '.join(bad)}"] if bad else []
        parts += [f"{count} dropped ({reason})" for reason, count in self._dropped.items()]
        counts = Counter(self._painted.values())
        parts += [f"{counts[state]} {state}" for state in ("painted", "cancelled") if counts[state]]
        if self._image is not None:
            trial, age_s = self._image.about.trial, _age_s(self._image)
            parts.append(f"image of trial {trial}, {age_s:.1f} s old")
        return " · ".join(parts)


def _decoded(answer: Retrieval) -> str:
    text = f"({answer.labels[0]})" if answer.abstain else answer.labels[0]
    return f"{text} … at {answer.answer.tmax_s:g} s" if answer.answer.provisional else text


def _style(answer: Retrieval) -> str | None:
    if answer.answer.provisional or answer.abstain:
        return "dim"
    return "green" if answer.rank == 1 else None


def _rank(answer: Retrieval) -> str:
    return str(answer.rank) if answer.rank else "not in the gallery"


def _repeats(answer: Retrieval) -> str:
    n = answer.answer.n_repeats
    return f"{n} repeat" + "s" * (n != 1)


def _latency_ms(answer: Retrieval) -> float:
    start, end = STAGES["total"]
    return (answer.stamps[end] - answer.stamps[start]) * 1e3


def _age_s(image: Painted) -> float:
    """How long ago the EEG that it was painted from could be read."""
    return local_clock() - image.stamps["readable"]


def _image_line(image: Painted) -> str:
    took_s = image.stamps["published"] - image.stamps["readable"]
    early = f" from {image.answer.tmax_s:g} s" if image.answer.provisional else ""
    return f"trial {image.about.trial}: painted{early} ({took_s:.2f} s, seed {image.seed})"


def _line(answer: Retrieval) -> str:
    sure = f"{answer.confidence:.0%} sure, " if answer.calibrated else ""
    abstains = "abstains from " if answer.abstain else ""
    return (
        f"trial {answer.about.trial}: {answer.about.stimulus} → {abstains}{_decoded(answer)} "
        f"({sure}rank {_rank(answer)}, {_repeats(answer)}, {_latency_ms(answer):.2f} ms)"
    )
