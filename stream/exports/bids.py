"""A session as BIDS-EEG: BrainVision files by mne-bids, with events, stimuli and answers.

What the files say is true of the samples and the clock of the session; docs/exports.md tells how.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvf_core.problem import Problem
from stream.exports.columns import EVENTS
from stream.exports.dataset import (
    added_to,
    check_root,
    copy_sources,
    describe,
    mend_participants,
    participants_of,
    redescribe,
    write_answers,
)
from stream.exports.evenly import Run, runs_of
from stream.exports.events import CODES, Event, events_of
from stream.exports.finished import FinishedSession, Say
from stream.exports.raws import montage_of, raw_of, types_of
from stream.exports.settings import BidsFacts
from stream.exports.stimuli import write_stimuli
from stream.exports.tables import read_json, read_tsv, write_json, write_tsv


def export_bids(
    session: FinishedSession, root: Path, facts: BidsFacts, overwrite: bool, say: Say
) -> list[Path]:
    """Writes a session into a data set, which may hold others; the files of its runs.

    Raises:
        Problem: the folder is no data set, or has these runs already; the session has no EEG; mne-
            bids is not installed.
    """
    try:
        import mne_bids
        import pybv  # noqa: F401 (by which mne-bids writes)
    except ImportError as error:
        raise Problem(
            f"BIDS needs mne-bids and pybv ({error.name} is missing): install them with "
            '`pip install -c constraints.txt -e ".[export]"`'
        ) from None
    check_root(root)
    runs = [run for recording in session.recordings(say) for run in runs_of(recording)]
    _check_runs(runs, session, facts)
    paths = _paths(mne_bids.BIDSPath, root, facts, len(runs))
    files = [path.fpath for path in paths]
    if (there := next((file for file in files if file.exists()), None)) and not overwrite:
        raise Problem(f"'{there}' is there already: give another --run, or --overwrite")
    n_outside = 0
    with added_to(root, paths[0].subject) as draft:
        told = describe(draft, session, facts)
        shown = [row["stimulus"] for row in session.shown]
        stimuli = write_stimuli(root, draft, shown, session.gallery(say), say)
        for path, run, some in zip(paths, runs, events_of(session, runs, stimuli), strict=True):
            inside = [event for event in some if 0 <= event["place"] < run.n_times]
            n_outside += len(some) - len(inside)
            say(f"writing '{path.fpath.name}' …")
            _write_run(path.copy().update(root=draft), run, inside, session, facts)
        redescribe(draft, told)
        places = [file.relative_to(root) for file in files]
        write_answers(draft, places, runs, session, stimuli)
        copy_sources(draft, places, runs)
    if n_outside:
        markers = "a marker lies" if n_outside == 1 else f"{n_outside} markers lie"
        say(f"{markers} outside of the recording: in the table of answers alone")
    return files


def _check_runs(runs: Sequence[Run], session: FinishedSession, facts: BidsFacts) -> None:
    if not runs:
        raise Problem(
            f"the recording of '{session.config.folder}' is too short: nobody knows when its "
            "samples were taken"
        )
    for recording in {id(run.recording): run.recording for run in runs}.values():
        if {"mag", "grad"} & set(types_of(recording, session)):
            raise Problem(
                f"'{recording.path}' holds MEG, and BIDS-EEG takes EEG alone: export it with "
                "--epochs"
            )
        if facts.montage is not None:
            montage_of(facts.montage, recording.channels)


def _paths(kind: Any, root: Path, facts: BidsFacts, n: int) -> list[Any]:
    """Where each run goes; a number for each, if there are several."""
    first = facts.run or 1
    numbers = [None] if n == 1 and facts.run is None else [f"{first + i:02}" for i in range(n)]
    told = {"subject": facts.subject, "session": facts.session, "task": facts.task}
    return [
        kind(root=root, run=number, datatype="eeg", suffix="eeg", extension=".vhdr", **told)
        for number in numbers
    ]


def _write_run(
    path: Any, run: Run, events: Sequence[Event], session: FinishedSession, facts: BidsFacts
) -> None:
    import mne_bids

    raw = raw_of(run, types_of(run.recording, session), events)
    raw.info["line_freq"] = facts.line_hz
    if facts.montage is not None:
        montage = montage_of(facts.montage, raw.ch_names)
        raw.set_montage(montage, match_case=False, on_missing="ignore", verbose="ERROR")
    present = {event["trial_type"] for event in events}
    participants = participants_of(path.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is made up here, as that it comes from no file
        mne_bids.write_raw_bids(
            raw,
            path,
            event_id={kind: code for kind, code in CODES.items() if kind in present} or None,
            format="BrainVision",
            allow_preload=True,
            overwrite=True,
            readme=False,
            verbose="ERROR",
        )
    mend_participants(path.root, path.subject, participants, session.is_simulated)
    _mend_sidecars(path, run, facts)


def _mend_sidecars(path: Any, run: Run, facts: BidsFacts) -> None:
    """Has them say what is known, what columns mean, and nothing that nobody knows."""
    sidecar = path.fpath.with_suffix(".json")
    told = {
        "TaskDescription": "Images are shown, one after the other",
        "EEGReference": facts.reference or "n/a",
        "EEGGround": facts.ground or "n/a",
        "Manufacturer": facts.manufacturer or "n/a",
        "CapManufacturersModelName": facts.cap or "n/a",
        "RecordingDuration": run.n_times / run.recording.rate_hz,
        "RecordingType": "discontinuous" if run.gaps else "continuous",
    }
    told |= {"Experimenter": facts.experimenter} if facts.experimenter else {}
    write_json(sidecar, read_json(sidecar) | told)
    channels = path.copy().update(suffix="channels", extension=".tsv").fpath
    names, rows = read_tsv(channels)
    for row, unit in zip(rows, run.recording.units, strict=True):
        if row["type"] in ("MISC", "TRIG"):
            row["units"] = unit or "n/a"
        row |= dict.fromkeys(("low_cutoff", "high_cutoff", "status"), "n/a")
    write_tsv(channels, names, rows)
    events = path.copy().update(suffix="events", extension=".tsv").fpath
    if events.is_file():
        write_json(
            events.with_suffix(".json"), {name: EVENTS[name] for name in read_tsv(events)[0]}
        )
    if facts.montage is not None:
        for file in path.directory.glob("*_coordsystem.json"):
            where = f"Template places of '{facts.montage}' in MNE-Python, not measured on this head"
            write_json(file, read_json(file) | {"EEGCoordinateSystemDescription": where})
