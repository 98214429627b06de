"""A session's trials as MNE's epochs, with the table of trials as their metadata.

They are cut from its recording by the code that cut them live, and are those of --save-trials.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Trial
from stream.exports.finished import FinishedSession, Say
from stream.pipeline.books.trial_file import write_whole
from stream.pipeline.books.trial_formats import Head, Row, channel_types
from stream.pipeline.trials import trial_plan
from stream.sources.cut_recording import run_through
from stream.sources.recording import Recording


@dataclass(frozen=True)
class _Cut:
    """A trial of the session, cut again."""

    head: Head
    row: Row
    samples: np.ndarray


def export_epochs(session: FinishedSession, path: Path, say: Say) -> int:
    """Writes the trials that the session has cut or decoded; how many they are.

    Raises:
        Problem: there are none in the recording, the channels change in it, or the model of the
            session is gone.
    """
    plan = _plan(session)
    cut = [one for recording in session.recordings(say) for one in _cut(session, recording, plan)]
    wanted = sum(row.get("fate") in ("cut", "decoded") for row in session.table.rows)
    if not cut:
        raise Problem(
            f"the recording of '{session.config.folder}' holds none of the {wanted} trials that "
            "the session has cut, and epochs need one"
        )
    if any(one.head != cut[0].head for one in cut):
        raise Problem(
            f"the recordings of '{session.config.folder}' have other channels or another rate: "
            "one file of epochs cannot hold them"
        )
    if len(cut) < wanted:
        say(f"{wanted - len(cut)} of {wanted} trials are not in the recording, and left out")
    cut.sort(key=lambda one: float(one.row["onset_s"]))
    say(f"writing '{path.name}' …")
    samples = np.stack([one.samples for one in cut])
    for note in write_whole(path, cut[0].head, [one.row for one in cut], samples):
        say(note)
    return len(cut)


def _plan(session: FinishedSession) -> TrialPlan:
    plan = replace(trial_plan(session.config), marker_rule=session.marker_rule)
    bundle = session.config.bundle
    if bundle is None:
        return plan
    return replace(plan, preprocessing=Preprocessing.of(open_bundle(bundle)))


def _cut(session: FinishedSession, recording: Recording, plan: TrialPlan) -> Iterator[_Cut]:
    """The trials in a recording, as they came: before any preprocessing."""
    trials = TrialStream(recording.channels, recording.rate_hz, plan, kinds=recording.kinds)
    unit = recording.signal(recording.brain_channels).unit
    trigger = plan.trigger.channel if plan.trigger is not None else None
    types = channel_types(recording.channels, recording.kinds, unit, trigger)
    window = (trials.window.first, trials.window.last)
    head = Head(recording.channels, recording.rate_hz, window, types)
    columns, rows = session.table.columns, {row["trial"]: row for row in session.table.rows}
    for one in run_through(trials, recording):
        if not isinstance(one, Trial):
            continue
        row = rows.get(session.trial_of(one.event, 1 / recording.rate_hz))
        if row is not None and row.get("fate") in ("cut", "decoded"):
            told = {name: row.get(name) for name in columns}
            told |= {"residual_s": one.residual_s, "first_stamp_s": one.first_stamp_s}
            yield _Cut(head, told, one.samples.T.copy())
