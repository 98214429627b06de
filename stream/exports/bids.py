"""A session as BIDS-EEG: BrainVision files by mne-bids, with events, stimuli and answers.

What the files say is true of the samples and the clock of the session; docs/exports.md tells how.
"""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem, naming
from stream.acquire.units import MICROVOLTS
from stream.exports.columns import EVENTS, of_decoded
from stream.exports.evenly import Run, runs_of
from stream.exports.events import CODES, Event, events_of, run_of
from stream.exports.finished import FinishedSession, Say
from stream.exports.settings import BidsFacts
from stream.exports.stimuli import Stimulus, write_stimuli
from stream.exports.tables import read_json, read_tsv, write_json, write_tsv
from stream.pipeline.books.trial_formats import channel_types

_PIPELINE = "hvf-live"
_DERIVATIVES = f"derivatives/{_PIPELINE}"
_DESCRIPTION = "dataset_description.json"
_SIMULATED = {"Description": "Whether the EEG is made up, and of no person"}
_MADE = ("onset", "duration", "trial_type", "value", "sample")  # by mne-bids, of annotations
_README = """# {name}

EEG of people who look at images, recorded, decoded live and exported by hvf-live.

Every event `image` is a marker of the stimulus program; `stim_id` leads to `stimuli/stimuli.tsv`.
What was decoded is in `{derivatives}`, joined by `trial`; the recordings as they were streamed are
in `sourcedata/`. Spans `BAD_ACQ_SKIP` were not recorded, their samples are zeros.

A subject that is simulated, whose EEG is made up, is called so in `participants.tsv`.
"""


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
    except ImportError as error:
        raise Problem(
            f"BIDS needs mne-bids and pybv ({error.name} is missing): install them with "
            '`pip install -c constraints.txt -e ".[export]"`'
        ) from None
    _check_root(root)
    runs = [run for recording in session.recordings(say) for run in runs_of(recording)]
    paths = _paths(mne_bids.BIDSPath, root, facts, len(runs))
    if (there := paths[0].fpath).exists() and not overwrite:
        raise Problem(f"'{there}' is there already: give another --run, or --overwrite")
    shown = [row["stimulus"] for row in session.table.rows if row.get("onset_s") is not None]
    told = read_json(root / _DESCRIPTION)
    stimuli = write_stimuli(root, shown, session.gallery(say), say)
    events = events_of(session, runs, stimuli)
    n_inside = 0
    for path, run, some in zip(paths, runs, events, strict=True):
        inside = [event for event in some if 0 <= event["place"] < run.n_times]
        n_inside += len(inside)
        say(f"writing '{path.fpath.name}' …")
        _write_run(path, run, inside, session, facts)
    _describe(root, told, session, facts)
    _write_answers(root, paths, runs, session, stimuli)
    for file in session.recording_files:
        first = next(i for i, run in enumerate(runs) if run.recording.path == file)
        _copy_source(file, root, paths[first])
    n_outside = sum(len(some) for some in events) - n_inside
    if n_outside:
        say(f"{n_outside} markers lie outside of the recording, and are in the answers alone")
    return [path.fpath for path in paths]


def _check_root(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise Problem(f"'{root}' is no folder: give --bids the folder of a data set, or a new one")
    is_empty = not root.exists() or not any(root.iterdir())
    if not is_empty and not (root / _DESCRIPTION).is_file():
        raise Problem(
            f"'{root}' holds other files and no {_DESCRIPTION}: give --bids the folder "
            "of a data set, or a new one"
        )


def _paths(kind: Any, root: Path, facts: BidsFacts, n: int) -> list[Any]:
    """Where each run goes; a number for each, if there are several."""
    first = facts.run or 1
    numbers = [facts.run] if n == 1 else list(range(first, first + n))
    told = {"subject": facts.subject, "session": facts.session, "task": facts.task}
    return [
        kind(root=root, run=number, datatype="eeg", suffix="eeg", extension=".vhdr", **told)
        for number in numbers
    ]


def _write_run(
    path: Any, run: Run, events: Sequence[Event], session: FinishedSession, facts: BidsFacts
) -> None:
    import mne_bids

    raw = _raw(run, session, facts)
    raw.set_annotations(_annotations(events, run.recording.rate_hz))
    present = {event["trial_type"] for event in events}
    participants = path.root / "participants.tsv"
    _, rows = read_tsv(participants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is made up here, as that it comes from no file
        written = mne_bids.write_raw_bids(
            raw,
            path,
            event_id={kind: code for kind, code in CODES.items() if kind in present} or None,
            format="BrainVision",
            allow_preload=True,
            overwrite=True,
            readme=False,
            verbose="ERROR",
        )
    _mend_participants(participants, path.subject, rows, session.config.simulated)
    beside = written.copy().update(extension=".json")
    is_whole = not run.gaps
    told = {
        "TaskDescription": "Images are shown, one after the other",
        "EEGReference": facts.reference or "n/a",
        "EEGGround": facts.ground or "n/a",
        "Manufacturer": facts.manufacturer or "n/a",
        "RecordingDuration": run.n_times / run.recording.rate_hz,
        "RecordingType": "continuous" if is_whole else "discontinuous",
    }
    write_json(beside.fpath, read_json(beside.fpath) | told)
    _mend_channels(written.copy().update(suffix="channels", extension=".tsv").fpath, run)
    sidecar = written.copy().update(suffix="events", extension=".json").fpath
    columns, _ = read_tsv(sidecar.with_suffix(".tsv"))
    write_json(sidecar, {name: EVENTS[name] for name in columns})
    if facts.montage is not None:
        for file in written.directory.glob("*_coordsystem.json"):
            where = f"Template places of '{facts.montage}' in MNE-Python, not measured on this head"
            write_json(file, read_json(file) | {"EEGCoordinateSystemDescription": where})


def _raw(run: Run, session: FinishedSession, facts: BidsFacts) -> Any:
    """What MNE calls Raw: in volts, zeros where nothing was recorded."""
    import mne

    recording, trigger = run.recording, session.config.trigger
    unit = recording.signal(recording.brain_channels).unit
    told = (recording.kinds, unit, trigger.channel if trigger is not None else None)
    types = channel_types(recording.channels, *told)
    if {"mag", "grad"} & set(types):
        raise Problem(
            f"'{recording.path}' holds MEG, and BIDS-EEG takes EEG alone: export it with --epochs"
        )
    # Beside EEG a unit may be anything: what is no voltage is kept as it is.
    volts = [one == MICROVOLTS for one in recording.units]
    types = [
        kind if kind in ("eeg", "stim", "misc") or is_volts else "misc"
        for kind, is_volts in zip(types, volts, strict=True)
    ]
    factors = np.array([1.0 if kind in ("stim", "misc") else 1e-6 for kind in types])
    data = np.zeros((len(types), run.n_times))
    data[:, run.places] = run.samples.T * factors[:, None]
    info = mne.create_info(list(recording.channels), recording.rate_hz, types, verbose="ERROR")
    for channel, kind in zip(info["chs"], types, strict=True):
        if kind in ("stim", "misc"):
            channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    raw = mne.io.RawArray(data, info, copy="auto", verbose="ERROR")
    raw.info["line_freq"] = facts.line_hz
    if facts.montage is not None:
        _place(raw, facts.montage)
    return raw


def _place(raw: Any, name: str) -> None:
    import mne

    try:
        montage = mne.channels.make_standard_montage(name)
    except ValueError:
        known = ", ".join(mne.channels.get_builtin_montages())
        raise Problem(f"there is no montage '{name}'; --montage takes {known}") from None
    there = {one.casefold() for one in montage.ch_names}
    if not any(one.casefold() in there for one in raw.ch_names):
        raise Problem(
            f"no channel of the session has a place in the montage '{name}': give --montage "
            "another one, or leave it out"
        )
    raw.set_montage(montage, match_case=False, on_missing="ignore", verbose="ERROR")


def _annotations(events: Sequence[Event], rate_hz: float) -> Any:
    import mne

    return mne.Annotations(
        [event["place"] / rate_hz for event in events],
        [event["duration"] for event in events],
        [event["trial_type"] for event in events],
        extras=[
            {name: event[name] for name in EVENTS if name in event and name not in _MADE}
            for event in events
        ],
    )


def _mend_channels(file: Path, run: Run) -> None:
    """Units as recorded; nothing of filters and of the state of channels, as nobody knows it."""
    names, rows = read_tsv(file)
    for row, unit in zip(rows, run.recording.units, strict=True):
        if row["type"] in ("MISC", "TRIG"):
            row["units"] = unit or "n/a"
        row |= dict.fromkeys(("low_cutoff", "high_cutoff", "status"), "n/a")
    write_tsv(file, names, rows)


def _mend_participants(
    file: Path, subject: str, before: Sequence[Mapping[str, str]], is_simulated: bool
) -> None:
    """Keeps what somebody has said of participants, and says which are simulated."""
    names, rows = read_tsv(file)
    told = {row["participant_id"]: dict(row) for row in before}
    rows = [row | told.get(row["participant_id"], {}) for row in rows]
    for row in rows:
        if row["participant_id"] == f"sub-{subject}":
            row["simulated"] = str(is_simulated).lower()
    write_tsv(file, dict.fromkeys((*names, "simulated")), rows)
    sidecar = file.with_suffix(".json")
    write_json(sidecar, read_json(sidecar) | {"simulated": _SIMULATED})


def _describe(
    root: Path, told: Mapping[str, Any], session: FinishedSession, facts: BidsFacts
) -> None:
    """Says what the data set is, and by what it was made, beside what was told of it before."""
    told = told or {
        "Name": facts.name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        **({"License": facts.license} if facts.license else {}),
        **({"Authors": list(facts.authors)} if facts.authors else {}),
    }
    ours = _generated_by(session)
    makers = [one for one in told.get("GeneratedBy", ()) if one != ours]
    write_json(root / _DESCRIPTION, {**told, "GeneratedBy": [*makers, ours]})
    if not any(root.glob("README*")):
        text = _README.format(name=told["Name"], derivatives=_DERIVATIVES)
        with naming(root / "README"):
            (root / "README").write_text(text, encoding="utf-8")


def _generated_by(session: FinishedSession) -> dict[str, str]:
    simulated = "; SIMULATED: EEG that is made up, of no person" * session.config.simulated
    return {
        "Name": _PIPELINE,
        "Version": version(_PIPELINE),
        "Description": f"Recorded and exported by hvf-live{simulated}",
    }


def _write_answers(
    root: Path,
    paths: Sequence[Any],
    runs: Sequence[Run],
    session: FinishedSession,
    stimuli: Mapping[str, Stimulus],
) -> None:
    """The table of trials, by runs: raw data do not depend on who has decoded them."""
    folder = root / _DERIVATIVES
    maker = _generated_by(session)
    told = {
        "Name": "What hvf-live has decoded",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [maker | {"Description": f"Decoded live; {maker['Description']}"}],
    }
    write_json(folder / _DESCRIPTION, told)
    by_run: list[list[dict[str, Any]]] = [[] for _ in runs]
    for row in session.table.rows:
        if row.get("onset_s") is None:
            continue
        number = run_of(runs, row["onset_s"])
        place = runs[number].place_of(row["onset_s"])
        onset_s = place / runs[number].recording.rate_hz
        stim_id = stimuli[row["stimulus"]].stim_id
        by_run[number].append({"onset": onset_s, "duration": 0.0, "stim_id": stim_id, **row})
    columns = list(dict.fromkeys(("onset", "duration", "trial", "stim_id", *session.table.columns)))
    for path, rows in zip(paths, by_run, strict=True):
        file = folder / path.fpath.relative_to(root)
        file = file.with_name(f"{file.stem.removesuffix('_eeg')}_desc-decoded_events.tsv")
        write_tsv(file, columns, sorted(rows, key=lambda row: row["onset"]))
        write_json(file.with_suffix(".json"), of_decoded(columns))


def _copy_source(file: Path, root: Path, path: Any) -> None:
    to = (root / "sourcedata" / path.fpath.relative_to(root)).with_suffix(".xdf")
    with naming(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
