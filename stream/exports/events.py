"""What happened in a recording, placed on its samples: stimuli, other markers, what was lost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stream.acquire.markers import BadSpan, Marker
from stream.exports.evenly import Run
from stream.exports.finished import FinishedSession
from stream.exports.stimuli import Stimulus
from stream.exports.tables import cell
from stream.sources.recording import Recording, offsets_at

CODES = {"image": 1, "marker": 2, "BAD_marked": 3, "BAD_ACQ_SKIP": 4}
"""A number for each type of event."""
_OF_TRIAL = ("trial", "stimulus", "group", "repeat", "block", "marker", "onset_s")
Columns = dict[str, Any]
Event = dict[str, Any]
"""`place` in the file, `duration` in s, `trial_type`, and columns of its own."""


def markers_of(recording: Recording) -> Iterator[Marker]:
    """The markers of a recording, as they were sent."""
    offsets_s = offsets_at(recording.marker_offsets, [one.stamp_s for one in recording.markers])
    for one, offset_s in zip(recording.markers, offsets_s.tolist(), strict=True):
        yield Marker(one.stamp_s, one.text, one.stamp_s + offset_s, offset_s)


def run_of(runs: Sequence[Run], at_s: float) -> int:
    """In which run a moment is, or to which it is nearest."""
    return min(range(len(runs)), key=lambda number: runs[number].apart_s(at_s))


def events_of(
    session: FinishedSession, runs: Sequence[Run], stimuli: Mapping[str, Stimulus]
) -> list[list[Event]]:
    """The events of each run, also those before its first sample and after its last one."""
    events: list[list[Event]] = [[_gap(run, *gap) for gap in run.gaps] for run in runs]
    recordings = {id(run.recording): run.recording for run in runs}.values()
    markers = [marker for recording in recordings for marker in markers_of(recording)]
    texts: dict[str | float, str] = {}
    for marker in markers:
        texts |= {marker.mark: marker.text, marker.stamp_s: marker.text}
    trials = {row["trial"]: row for row in session.shown}
    marks = {trial: mark for mark, trial in session.marks.items()}
    for trial, row in trials.items():
        number = run_of(runs, row["onset_s"])
        run, stimulus = runs[number], stimuli[row["stimulus"]]
        place = run.place_of(row["onset_s"])
        columns: Columns = {name: row.get(name) for name in _OF_TRIAL}
        columns |= {"stim_id": stimulus.stim_id, "stim_file": stimulus.stim_file}
        if columns["marker"] is None:  # which sessions of before have not entered
            columns["marker"] = texts.get(marks.get(trial) or row["onset_s"])
        if run.is_recorded(place):
            columns["residual_s"] = run.stamp_s(place) - row["onset_s"]
        events[number].append(_event(place, "image", columns))
    # Sessions of before have entered no marks: there, a stamp and a text make the same marker.
    onsets_s = {row["onset_s"] for trial, row in trials.items() if trial not in marks}
    for marker in markers:
        if marker.mark in session.marks or marker.stamp_s in onsets_s:
            continue
        number, span = run_of(runs, marker.stamp_s), BadSpan.of(marker)
        kind, text = ("marker", marker.text) if span is None else ("BAD_marked", span.why)
        duration_s = 0.0 if span is None else span.stop_s - span.start_s
        place = runs[number].place_of(marker.stamp_s)
        told: Columns = {"marker": text, "onset_s": marker.stamp_s}
        events[number].append(_event(place, kind, told, duration_s))
    return [sorted(some, key=lambda event: event["place"]) for some in events]


def _gap(run: Run, place: int, count: int) -> Event:
    return _event(place, "BAD_ACQ_SKIP", {}, count / run.recording.rate_hz)


def _event(place: int, kind: str, columns: Columns, duration_s: float = 0.0) -> Event:
    told = {name: cell(value) for name, value in columns.items() if value is not None}
    return {"place": place, "duration": duration_s, "trial_type": kind} | told
