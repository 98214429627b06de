"""What a data set says beside its recordings: what it is, of whom, and what was decoded."""

import filecmp
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hvf_core.lock import alone_in
from hvf_core.problem import Problem, naming
from stream.exports.columns import of_decoded
from stream.exports.evenly import Run
from stream.exports.events import run_of
from stream.exports.finished import FinishedSession
from stream.exports.settings import BidsFacts
from stream.exports.stimuli import Stimulus
from stream.exports.tables import read_json, read_tsv, write_json, write_tsv

_PIPELINE = "hvf-live"
_DERIVATIVES = f"derivatives/{_PIPELINE}"
_DESCRIPTION = "dataset_description.json"
_SHARED = ("*.json", "*.tsv", "README*", f"{_DERIVATIVES}/*.json")
_VERSION = "1.10.0"  # of BIDS
_README = """# {name}

EEG of people who look at images, recorded, decoded live and exported by hvf-live.

Every event `image` is a marker of the stimulus program; `stim_id` leads to `stimuli/stimuli.tsv`.
What was decoded is in `{derivatives}`, joined by `trial`; the recordings as they were streamed
are in `sourcedata/`. Spans `BAD_ACQ_SKIP` were not recorded, their samples are zeros.

A subject that is simulated, whose EEG is made up, is called so in `participants.tsv`.
"""


def check_root(root: Path) -> None:
    """Refuses a folder that holds something else than a data set.

    Raises:
        Problem: it does.
    """
    if root.exists() and not root.is_dir():
        raise Problem(f"'{root}' is no folder: give --bids the folder of a data set, or a new one")
    is_empty = not root.exists() or not any(root.iterdir())
    if not is_empty and not (root / _DESCRIPTION).is_file():
        raise Problem(
            f"'{root}' holds other files and no {_DESCRIPTION}: give --bids the folder of a data "
            "set, or a new one"
        )


@contextmanager
def added_to(root: Path, subject: str) -> Iterator[Path]:
    """Yields a draft of what a data set gets; its files take their places when the block ends well.

    What recordings share is in the draft as it is in the data set, for more to be added.

    Raises:
        Problem: another export writes into the data set.
    """
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    refusal = f"another export writes into '{root}': wait until that is over"
    try:
        with alone_in(root, refusal), TemporaryDirectory(prefix=".draft-", dir=root) as folder:
            draft = Path(folder)
            for pattern in (*_SHARED, f"sub-{subject}/**/*_scans.tsv"):
                for file in filter(Path.is_file, root.glob(pattern)):
                    _copied(file, draft / file.relative_to(root))
            yield draft
            for file in sorted(draft.rglob("*")):
                to = root / file.relative_to(draft)
                if file.is_dir():
                    to.mkdir(exist_ok=True)
                elif not (to.is_file() and filecmp.cmp(file, to, shallow=False)):
                    shutil.move(file, to)  # also to another disk, to which a subject may be a link
    finally:
        if is_new and not any(root.iterdir()):
            root.rmdir()


def _copied(file: Path, to: Path) -> None:
    with naming(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


def describe(root: Path, session: FinishedSession, facts: BidsFacts) -> dict[str, Any]:
    """Says what the data set is, and by what it was made, beside what was told of it before."""
    new = {"Name": facts.name, "BIDSVersion": _VERSION, "DatasetType": "raw"}
    more: dict[str, Any] = {"License": facts.license, "Authors": list(facts.authors)}
    new |= {name: value for name, value in more.items() if value}
    told = _described(root, new, session)
    if not any(root.glob("README*")):
        text = _README.format(name=told["Name"], derivatives=_DERIVATIVES)
        with naming(root / "README"):
            (root / "README").write_text(text, encoding="utf-8")
    return told


def redescribe(root: Path, told: Mapping[str, Any]) -> None:
    """Says it again: mne-bids makes up authors where it finds none."""
    write_json(root / _DESCRIPTION, told)


def _described(root: Path, new: Mapping[str, Any], session: FinishedSession) -> dict[str, Any]:
    simulated = "; SIMULATED: EEG that is made up, of no person" * session.is_simulated
    ours = {
        "Name": _PIPELINE,
        "Version": version(_PIPELINE),
        "Description": f"Recorded, decoded live and exported by hvf-live{simulated}",
    }
    told = read_json(root / _DESCRIPTION) or dict(new)
    makers = [one for one in told.get("GeneratedBy", ()) if one != ours]
    told = told | {"GeneratedBy": [*makers, ours]}
    write_json(root / _DESCRIPTION, told)
    return told


def participants_of(root: Path) -> Sequence[Mapping[str, str]]:
    """What a data set says of its participants."""
    return read_tsv(root / "participants.tsv")[1]


def mend_participants(
    root: Path, subject: str, before: Sequence[Mapping[str, str]], is_simulated: bool
) -> None:
    """Keeps what somebody has said of participants, and says which are simulated."""
    file = root / "participants.tsv"
    names, rows = read_tsv(file)
    told = {row["participant_id"]: dict(row) for row in before}
    rows = [row | told.get(row["participant_id"], {}) for row in rows]
    for row in rows:
        if row["participant_id"] == f"sub-{subject}":
            row["simulated"] = str(is_simulated).lower()
    write_tsv(file, dict.fromkeys((*names, "simulated")), rows)
    sidecar, simulated = file.with_suffix(".json"), "Whether the EEG is made up, and of no person"
    write_json(sidecar, read_json(sidecar) | {"simulated": {"Description": simulated}})


def write_answers(
    root: Path,
    files: Sequence[Path],
    runs: Sequence[Run],
    session: FinishedSession,
    stimuli: Mapping[str, Stimulus],
) -> None:
    """The table of trials, by runs: raw data do not depend on who has decoded them.

    Args:
        files: of the runs, below the data set.
    """
    folder = root / _DERIVATIVES
    told = {"Name": "What hvf-live has decoded", "BIDSVersion": _VERSION}
    _described(folder, told | {"DatasetType": "derivative"}, session)
    by_run: list[list[dict[str, Any]]] = [[] for _ in runs]
    for row in session.shown:
        number = run_of(runs, row["onset_s"])
        place = runs[number].place_of(row["onset_s"])
        onset_s = place / runs[number].recording.rate_hz
        stim_id = stimuli[row["stimulus"]].stim_id
        by_run[number].append({"onset": onset_s, "duration": 0.0, "stim_id": stim_id, **row})
    columns = list(dict.fromkeys(("onset", "duration", "trial", "stim_id", *session.table.columns)))
    for raw, rows in zip(files, by_run, strict=True):
        name = f"{raw.stem.removesuffix('_eeg')}_desc-decoded_events.tsv"
        file = folder / raw.with_name(name)
        write_tsv(file, columns, sorted(rows, key=lambda row: row["onset"]))
        write_json(file.with_suffix(".json"), of_decoded(columns))


def copy_sources(root: Path, files: Sequence[Path], runs: Sequence[Run]) -> None:
    """Copies the recordings, each under the name of its first run."""
    first = {run.recording.path: file for run, file in reversed([*zip(runs, files, strict=True)])}
    for source, file in first.items():
        _copied(source, (root / "sourcedata" / file).with_suffix(".xdf"))
