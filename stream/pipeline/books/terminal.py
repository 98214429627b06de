"""The terminal view of a session: a line an answer; below, how answers grow, and the painting."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from hvf_core.problem import needed
from hvf_core.text import counted, printable
from index.gallery import Gallery
from stream.acquire.chunk import StreamKind
from stream.acquire.lsl import local_clock
from stream.acquire.watch.rate import Flow
from stream.pipeline.books.growth import Growth, pictures, told
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
_LINES_TO_DRAW = 24  # eight images and their pictures; many terminals open with as many
_STALLS_JOINED_S = 60.0
_FATES = {"painted": "painted", "cancelled": "left out"}


class StreamNews:
    """What a person is told of a stream: that its state is another one, as soon as that is so.

    But a stall soon after one that was told, as on a busy machine there are many, is counted, and
    a line a minute tells how many there were. The ledger has each of them.
    """

    def __init__(self) -> None:
        self._name, self._state = "", "waiting"
        self._is_counted = False
        """Whether what becomes of the last stall is not told."""
        self._n_counted = 0
        self._until_s = float("-inf")

    def of(self, health: StreamHealth, now_s: float) -> Iterator[str]:
        """The lines that are due when a stream is so; `now_s` is of a clock that only goes on."""
        before, self._name, self._state = self._state, health.stream, health.state
        if self._n_counted and now_s >= self._until_s:
            yield from self.rest()
            self._until_s = now_s + _STALLS_JOINED_S
        if health.state == before:
            return
        if health.state == "stalled":
            self._is_counted = now_s < self._until_s
            if self._is_counted:
                self._n_counted += 1
            else:
                self._until_s = now_s + _STALLS_JOINED_S
        elif health.state == "lost":
            self._is_counted = False
        if not self._is_counted:
            yield f"stream '{health.stream}' is {health.state}"

    def rest(self) -> Iterator[str]:
        """The line on stalls that were counted and not told yet, if there are any."""
        if self._n_counted:
            times = "once" if self._n_counted == 1 else f"{self._n_counted} times"
            yield f"stream '{self._name}' stalled {times} more within a minute"
        self._n_counted = 0


class TerminalView:
    """Follows the results bus; `headless`, it is lines only, with nothing that moves below them.

    With a `gallery`, pictures of it are shown beside what was painted. How long something took is
    told where it `is_timed`: in virtual time trials wait, and it means nothing. What is seen is not
    told where it `is_blind`.
    """

    def __init__(
        self,
        console: Console,
        headless: bool,
        total: int | None,
        title: str,
        gallery: Gallery | None = None,
        is_timed: bool = True,
        is_blind: bool = False,
    ):
        self._is_blind = is_blind
        self._is_timed = is_timed
        self._console = console
        self._headless = headless
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._task = self._progress.add_task(printable(title), total=total)
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._ranks: list[int] = []
        self._dropped: Counter[str] = Counter()
        self._streams: dict[StreamKind, StreamHealth] = {}
        self._news: dict[StreamKind, StreamNews] = defaultdict(StreamNews)
        self._painted: dict[int, str] = {}  # what became of each trial
        self._image: Painted | None = None  # the newest
        self._pictures: RenderableType | None = None  # of it, and of what was seen
        self._growth = Growth()
        # Coarse pictures, where a terminal has the colours and the lines for them.
        self._draws = not headless and console.color_system in ("256", "truecolor")
        self._draws = self._draws and not console.no_color and console.height >= _LINES_TO_DRAW
        self.gallery = gallery

    def open(self) -> None:
        """Shows what moves."""
        if not self._headless:
            self._live.start()

    def ready(self) -> None:
        """Says that markers count from now on, as large as can be; in virtual time nobody waits."""
        line = "READY: markers count from now on"
        if self._is_timed:
            self._console.print(Panel.fit(line) if self._console.is_terminal else line)

    def close(self) -> None:
        """Takes it away, and leaves the table of answers and the last painting."""
        self._live.stop()
        for line in chain.from_iterable(news.rest() for news in self._news.values()):
            self.say(line)
        if (table := self._growth.table()) is not None:
            self._console.print(table)
        if self._pictures is not None:
            self._console.print(self._pictures)

    def say(self, line: str | Text) -> None:
        """Shows a line that stays."""
        line = printable(line) if isinstance(line, str) else line
        whole = not self._console.is_terminal  # a file has no width; a screen breaks at words
        self._console.print(line, highlight=False, soft_wrap=whole)

    def take(self, message: Message) -> None:
        match message:
            case Noted() if message.node != SUPERVISOR:  # which has said it already
                self.say(f"{message.node}: {message.text}")
            case PaintingState():
                self._painted[message.trial] = message.state
            case Painted():
                self._painted[message.about.trial] = "painted"
                self._image = message
                if self._draws:
                    seen = message.about.stimulus
                    self._pictures = pictures(message, self._picture_of(seen), self._name_of(seen))
                self.say(self._image_line(message))
            case Retrieval():
                if not (message.answer.provisional or self._is_blind):
                    self._ranks += [message.rank] if message.rank else []
                    self._growth.add(message, self._name_of(message.about.stimulus))
                self.say(self._line(message))
            case StreamHealth():
                self._on_health(message)
            case Settled():
                self._progress.update(self._task, completed=message.markers - message.pending)
                if message.outcome == "dropped":
                    self._dropped[message.reason] += 1
                    self.say(f"trial {message.trial}: dropped ({message.reason})")
                    if self.gallery and [*self._dropped.elements()] == ["unknown_stimulus"]:
                        usual = self.gallery.ids[int(self.gallery.rows[0])]
                        self.say(f"a marker has to name an image of the gallery, as '{usual}' is")
        if not self._headless:
            self._live.update(Group(*self._moving()))

    def _moving(self) -> Iterator[RenderableType]:
        yield self._progress
        yield Text(printable(self._sums()))
        if (table := self._growth.table()) is not None:
            yield Padding(table, (1, 0))
        if self._pictures is not None:
            yield self._pictures

    def _name_of(self, stimulus: str) -> str:
        """What a stimulus is called, as answers are: its label, where the gallery has one."""
        row = None if self.gallery is None else self.gallery.row_of(stimulus)
        return stimulus if row is None else needed(self.gallery).labels[row]

    def _picture_of(self, stimulus: str) -> Path | None:
        """The picture of a stimulus, where the gallery has one."""
        row = None if self.gallery is None else self.gallery.row_of(stimulus)
        path = None if row is None else needed(self.gallery).image_of(row)
        return path if path is not None and path.is_file() else None

    def _on_health(self, message: StreamHealth) -> None:
        if not self._progress.finished:  # after its last trial a stream may end
            for line in self._news[message.kind].of(message, local_clock()):
                self.say(line)
        self._streams[message.kind] = message

    def _sums(self) -> str:
        n = len(self._ranks)
        parts = []
        if n:
            top1, top5 = (sum(rank <= k for rank in self._ranks) / n for k in (1, 5))
            parts.append(f"top-1 {top1:.0%}, top-5 {top5:.0%} of {n}")
        if (eeg := self._streams.get("eeg")) is not None:
            flow = Flow(eeg.rate_hz, eeg.drift_ppm, eeg.gaps).told()
            parts += [flow] if flow else []
            bad = [*eeg.flat, *eeg.clipped]
            parts += [f"flat or clipped: {', '.join(bad)}"] if bad else []
        if (markers := self._streams.get("markers")) is not None:
            newest = f", the last {markers.age_s:.0f} s ago" if markers.age_s else ""
            parts.append(f"markers {markers.state}{newest}")
        parts += [f"{count} dropped ({reason})" for reason, count in self._dropped.items()]
        counts = Counter(self._painted.values())
        parts += [f"{counts[fate]} {told}" for fate, told in _FATES.items() if counts[fate]]
        if self._image is not None:
            age_s = local_clock() - self._image.stamps["window_end"]
            age = f", {age_s:.1f} s old" if self._is_timed else ""
            parts.append(f"image of trial {self._image.about.trial}{age}")
        return " · ".join(parts)

    def _image_line(self, image: Painted) -> str:
        took_s = image.stamps["published"] - image.stamps["window_end"]
        took = f" ({took_s:.2f} s)" if self._is_timed else ""
        early = f" from {image.answer.tmax_s:g} s" if image.answer.provisional else ""
        return f"trial {image.about.trial}: painted{early}{took}"

    def _line(self, answer: Retrieval) -> Text:
        early = f" … at {answer.answer.tmax_s:g} s" if answer.answer.provisional else ""
        facts = [f"{answer.confidence:.0%} sure"] if answer.calibrated else []
        if not (answer.rank or self._is_blind):
            facts.append("not in the gallery")
        elif answer.rank > 1 or (answer.rank and answer.abstain):
            facts.append(f"seen at place {answer.rank}")
        facts.append(counted(answer.answer.n_repeats, "repeat"))
        if self._is_timed:
            latency_ms = (answer.stamps["published"] - answer.stamps["window_end"]) * 1e3
            facts.append(f"{latency_ms:.1f} ms")
        seen = "" if self._is_blind else self._name_of(answer.about.stimulus)
        line = Text(f"trial {answer.about.trial}: {printable(seen)}{' ' * bool(seen)}→ ")
        line.append_text(told(answer, seen))
        line.append(f"{early} ({', '.join(facts)})")
        if answer.answer.provisional:
            line.stylize("dim")
        return line
