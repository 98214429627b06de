"""Records streams into one file, until somebody asks for the end."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from hvf_core.problem import Problem, asked_to_end, naming
from stream.acquire.lsl import FoundStream, did_you_mean
from stream.recorder.intake import Intake, StreamsFile, is_among, is_pattern, lacking
from stream.recorder.settings import RecordSettings
from stream.recorder.tap import Tap
from stream.recorder.view import View, size_told, tap_told, time_told
from stream.sources.xdf_writer import XdfWriter, free_path

_FIRST_LOOK_S = 1.0  # for all streams that are there to answer
_LOOK_S = 0.1
_FLUSH_S = 1.0


class Writing:
    """Writes a file in a thread of its own: a disk that stands still stops nothing else.

    Attributes:
        written_s: when all that had come was on the disk, on the monotonic clock.
    """

    def __init__(self, path: Path, intake: Intake):
        self._writer = XdfWriter(path)
        self._file = StreamsFile(self._writer, intake)
        self._stopping = threading.Event()
        self.written_s = time.monotonic()
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._run)

    @property
    def size_bytes(self) -> int:
        return self._writer.size_bytes

    @property
    def has_ended(self) -> bool:
        """Whether it has come to an end, by itself where nobody has stopped it."""
        return self._done.done()

    def stop(self) -> None:
        """Asks it to write what has come, and to close the file."""
        self._stopping.set()

    def check(self) -> None:
        """Waits for its end; raises `Problem` where the file could not be written."""
        self._done.result()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_LOOK_S):
                self._file.write()
                if time.monotonic() >= self.written_s + _FLUSH_S:
                    self._writer.flush()
                    self.written_s = time.monotonic()
            self._file.write()
        finally:
            self._writer.close()


class Recorded(NamedTuple):
    """What became of a recording."""

    path: Path | None
    """The file; None where it was ended before the streams were there."""
    ended_by: int
    """The signal, or 0."""


def record(
    settings: RecordSettings, path: Path, view: View, is_read: Callable[[], bool]
) -> Recorded:
    """Waits for the streams and records them.

    `is_read` says whether somebody still reads what the view shows: else it ends.

    Raises:
        Problem: a stream did not come in time; the file cannot be written.
    """
    with asked_to_end() as asked:
        wanted = (*settings.streams, *settings.require)
        intake = Intake(lambda stream: is_among(stream.name, wanted))

        def is_over() -> bool:
            return bool(asked) or not is_read()

        made = None
        try:
            if _wait(settings, intake, view, is_over):
                made = _record(settings, intake, path, view, is_over)
            else:
                view.say("nothing was recorded: it was ended before the streams were there")
        finally:
            intake.stop()
            view.close()
        return Recorded(made, asked[0] if asked else 0)


def missing(settings: RecordSettings, found: Sequence[FoundStream]) -> list[str]:
    """Which streams are waited for: what is required, and what is named by its whole name."""
    named = [name for name in settings.streams if not is_pattern(name)]
    return lacking(dict.fromkeys((*settings.require, *named)), found)


def _wait(
    settings: RecordSettings, intake: Intake, view: View, is_over: Callable[[], bool]
) -> bool:
    """Waits until all streams are there; whether they are, or nobody wants to wait."""
    begun_s = time.monotonic()
    while not is_over():
        found = intake.there()
        absent, waited_s = missing(settings, found), time.monotonic() - begun_s
        if waited_s > _FIRST_LOOK_S and (settings.now or (found and not absent)):
            return True
        if settings.wait_s is not None and waited_s > settings.wait_s:
            others = intake.others()
            there = ", ".join(map(str, (*found, *others))) or "none"
            meant = did_you_mean(absent, others)
            which = ", ".join(f"'{name}'" for name in absent) or "any stream"
            raise Problem(
                f"{which} did not come within {settings.wait_s:g} s{meant} (there: {there}); "
                "start what sends it, or give --now to begin without it"
            )
        if waited_s > _FIRST_LOOK_S:
            view.waiting(found, absent, intake.others())
        time.sleep(_LOOK_S)
    return False


def _record(
    settings: RecordSettings,
    intake: Intake,
    asked_path: Path,
    view: View,
    is_over: Callable[[], bool],
) -> Path:
    path = free_path(asked_path)
    if path != asked_path:
        view.say(f"'{asked_path}' is there already and is not overwritten: this is '{path}'")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    intake.begin()
    writing = Writing(path, intake)
    streams = ", ".join(str(tap.stream) for tap in intake.taps) or "nothing yet"
    view.say(f"{view.title or f'recording into {path}'}: {streams}")
    begun_s = time.monotonic()
    end_s = begun_s + (settings.duration_s or float("inf"))
    for name in missing(settings, [tap.stream for tap in intake.taps]):
        view.say(f"'{name}' is not there: it is recorded from when it comes")
    try:
        while not is_over() and not writing.has_ended and time.monotonic() < end_s:
            _show(writing, intake, path, view, begun_s)
        elapsed_s = time.monotonic() - begun_s
        intake.stop()
    finally:
        writing.stop()
    while not writing.has_ended:
        _show(writing, intake, path, view, begun_s)
    view.close()
    view.say(f"{view.title or path}: {size_told(writing.size_bytes)}, {time_told(elapsed_s)}")
    for line in map(_end_of, intake.taps):
        view.say(line)
    writing.check()
    if not intake.taps:
        path.unlink()
        raise Problem(
            "nothing was recorded, as no stream came, and the empty file was removed; `streams` "
            "lists what is there"
        )
    return path


def _show(writing: Writing, intake: Intake, path: Path, view: View, begun_s: float) -> None:
    now_s = time.monotonic()
    intake.check()
    for sentence in intake.taken():
        view.say(sentence)
    behind_s = now_s - writing.written_s
    view.recording(intake.taps, path, writing.size_bytes, now_s - begun_s, behind_s)
    time.sleep(_LOOK_S)


def _end_of(tap: Tap) -> str:
    """What the file holds of a stream."""
    told = f"  {tap_told(tap)}"
    if tap.n_offsets:
        return told
    return f"{told}; no clock offset was measured: its stamps are those of '{tap.stream.hostname}'"
