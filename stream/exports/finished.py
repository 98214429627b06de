"""A session that is over, as its folder holds it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hvf_core.problem import Problem
from index.gallery import Gallery
from stream.acquire.markers import Event, MarkerRule
from stream.pipeline.books.about import FORM
from stream.pipeline.books.ledger import Record, read_ledger
from stream.pipeline.books.summary import read_summary
from stream.pipeline.books.trials_table import TrialRow, TrialsTable, trials_table
from stream.pipeline.galleries import open_accepted
from stream.pipeline.lock import held
from stream.pipeline.wire.config import SessionConfig, read_config
from stream.pipeline.wire.orders import changed
from stream.sources.read import read_recording
from stream.sources.recording import Recording
from stream.sources.xdf import recordings_in

Say = Callable[[str], object]
_HEAD_BYTES, _SIMULATED = 2**20, b"<simulated>true</simulated>"
"""Of a recording, where the headers of its streams are, and what one of them may say."""


@dataclass(frozen=True)
class FinishedSession:
    """A session's config and the whole of its ledger."""

    config: SessionConfig
    records: Sequence[Record]

    @cached_property
    def table(self) -> TrialsTable:
        """What became of every marker."""
        return trials_table(self.config, self.records)

    @property
    def shown(self) -> list[TrialRow]:
        """Of it the rows whose marker is known: a damaged ledger may have lost some."""
        return [row for row in self.table.rows if row.get("onset_s") is not None]

    @cached_property
    def marks(self) -> dict[str, int]:
        """The trials by their markers; see `stream.acquire.markers.Marker.mark`."""
        marks: dict[str, int] = {}
        for record in self.records:
            if record["event"] == "marker" and record.get("mark"):
                marks.setdefault(record["mark"], record["trial"])  # a duplicate is another trial
        return marks

    def trial_of(self, event: Event, within_s: float) -> int:
        """The trial that a marker was in the session; 0 where it was none."""
        if (trial := self.marks.get(event.mark)) is not None:
            return trial
        # Codes of a trigger channel, and markers of sessions of before, have their onset alone.
        near = [
            row["trial"]
            for row in self.shown
            if row.get("stimulus") == event.stimulus
            and abs(row["onset_s"] - event.onset_s) < within_s
        ]
        return near[0] if near else 0

    @property
    def marker_rule(self) -> MarkerRule:
        """Which markers may have opened trials; which of them have, the ledger says.

        A later recording does not tell whether an earlier one has started them.
        """
        return self.config.marker_rule.model_copy(update={"start": None, "stop": None})

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a person has said of it, by the names of BIDS: before it began, or on its page."""
        config = self.config
        for record in self.records:
            is_done = record["event"] == "control" and record["outcome"] == "done"
            if is_done and record["verb"] == "set" and record["argument"].split(" ")[0] in FORM:
                config = changed(config, "set", record["argument"])
        told = {"subject": config.subject, **config.about.model_dump(exclude={"form"})}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def recording_files(self) -> list[Path]:
        """Its recordings, in the order of time."""
        return recordings_in(self.config.folder)

    @cached_property
    def is_simulated(self) -> bool:
        """Whether the EEG is made up: sessions know of their own streams, others tell it."""
        return self.config.simulated or any(map(_tells_simulated, self.recording_files))

    def recordings(self, say: Say) -> Iterator[Recording]:
        """Its recordings, read one after the other."""
        for file in self.recording_files:
            say(f"reading '{file.name}' …")
            yield read_recording(file)

    def gallery(self, say: Say) -> Gallery | None:
        """The gallery among whose images it has answered, where that is still there."""
        if self.config.gallery is None:
            return None
        try:
            return open_accepted(self.config)
        except Problem as problem:
            say(f"no images are copied, as the session's gallery cannot be opened: {problem}")
            return None


@contextmanager
def finished_session(folder: Path, say: Say) -> Iterator[FinishedSession]:
    """Opens a session that is over; nobody else changes its folder meanwhile.

    Raises:
        Problem: it is none, runs still, was not finished, or has recorded nothing.
    """
    folder = folder.absolute()
    with held(folder):
        config = read_config(folder / "config.json").model_copy(update={"folder": folder})
        if read_summary(folder) is None:
            raise Problem(
                f"the session in '{folder}' was cut off: run `python run_realtime.py finish "
                f"{folder}` first, which closes its books"
            )
        yield FinishedSession(config, read_ledger(folder / "ledger.jsonl", say))


def _tells_simulated(recording: Path) -> bool:
    with recording.open("rb") as file:
        return _SIMULATED in file.read(_HEAD_BYTES)


def needs_recording(session: FinishedSession) -> None:
    """Refuses a session without a recording.

    Raises:
        Problem: it has none.
    """
    if not session.recording_files:
        raise Problem(
            f"the session in '{session.config.folder}' has no recording.xdf, of which its EEG "
            "could be exported: sessions record unless record=false; --parquet has its trials"
        )
