"""What a person sees of a recording: a table that moves, or lines where there is no terminal."""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hvf_core.text import printable
from stream.acquire.lsl import FoundStream, did_you_mean
from stream.recorder.tap import Tap

_LINE_EVERY_S = 10.0
_BEHIND_S = 2.0  # with writing, from when on it is told
_STYLES = {"missing": "bold red", "lost": "bold red", "silent": "yellow"}


class View:
    """Shows streams that are waited for, then those that are recorded.

    `headless`, or where it is no terminal, it is lines only. `title` is said in place of the file's
    path, where that is nobody's to find.
    """

    def __init__(self, console: Console, headless: bool, title: str = ""):
        self.title = title
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._moves = console.is_terminal and not headless
        self._told, self._next_line_s = "", time.monotonic() + _LINE_EVERY_S
        if self._moves:
            self._live.start()

    def close(self) -> None:
        """Takes away what moves."""
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Shows a line that stays."""
        whole = not self._console.is_terminal  # a file has no width; a screen breaks at words
        self._console.print(printable(sentence), highlight=False, soft_wrap=whole)

    def waiting(
        self,
        found: Sequence[FoundStream],
        missing: Sequence[str],
        others: Sequence[FoundStream] = (),
    ) -> None:
        """Shows which streams are there, which are waited for, and what else answers."""
        there = ", ".join(dict.fromkeys(f"'{one.name}'" for one in (*found, *others))) or "none"
        waits = ", ".join(f"'{name}'" for name in missing) or "any stream"
        told = f"waiting for {waits}{did_you_mean(missing, others) or ';'} there: {there}"
        if not self._moves:
            if told != self._told:
                self.say(told)
            self._told = told
            return
        table = _table("stream", "type", "channels", "Hz", "")
        for one in found:
            table.add_row(*_described(one), "there")
        for name in missing:
            table.add_row(printable(name), "", "", "", Text("missing", _STYLES["missing"]))
        self._live.update(Group(Text(printable(told)), table))

    def recording(
        self, taps: Sequence[Tap], path: Path, size: int, elapsed_s: float, behind_s: float
    ) -> None:
        """Shows how the file grows, `behind_s` after its last writing."""
        told = f"{self.title or path}: {size_told(size)}, {time_told(elapsed_s)}"
        if behind_s > _BEHIND_S:
            told += f"; the disk stands still for {behind_s:.0f} s: samples wait in memory"
        if not self._moves:
            if time.monotonic() >= self._next_line_s:
                self._next_line_s = time.monotonic() + _LINE_EVERY_S
                self.say(f"{told}: {'; '.join(map(tap_told, taps)) or 'no stream'}")
            return
        table = _table("stream", "type", "channels", "Hz", "samples", "s", "came at", "gaps", "")
        for tap in taps:
            tally = tap.tally
            rate = "" if tally.rate_hz is None else f"{tally.rate_hz:.2f} Hz"
            gaps = str(tally.n_gaps) if tap.stream.rate_hz else ""
            counts = (f"{tally.n_samples:,}", f"{tally.seconds:.0f}", rate, gaps)
            state, style = str(tap.state), _STYLES.get(tap.state, "green")
            if lack_s := tally.lack_s(tap.elapsed_s):
                state, style = f"{state}, {lack_s:.0f} s are lacking", _STYLES["missing"]
            table.add_row(*_described(tap.stream), *counts, Text(state, style))
        self._live.update(Group(Text(printable(told)), table))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in ("stream", "type", "") else "right")
    return table


def _described(stream: FoundStream) -> tuple[str, ...]:
    rate = f"{stream.rate_hz:g}" if stream.rate_hz else "irregular"
    return (printable(stream.name), printable(stream.type), str(stream.n_channels), rate)


def tap_told(tap: Tap) -> str:
    """A stream and what came of it, in words."""
    state = f" ({tap.state})" if tap.state != "recording" else ""
    return f"'{tap.stream.name}' {tap.tally.told(tap.elapsed_s)}{state}"


def size_told(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def time_told(seconds: float) -> str:
    """As 0:01:40."""
    return str(timedelta(seconds=int(seconds)))
