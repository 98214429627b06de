"""Epochs that MNE has saved, with a table of what was shown: their metadata, or a table beside.

A table beside, `NAME-epo.tsv` or `.csv`, is joined by the sample at which each epoch begins.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mne
import numpy as np

from hvf_core.problem import Problem
from offline_train.data.studies.things_images import stem
from offline_train.data.study import CutTrials, Facts, Source, Study, StudyPart, split_of, told
from stream.acquire.units import kept_as
from stream.sources.recording import unreadable

FILE = re.compile(r"[-_]epo\.fif(\.gz)?$")
_STIMULUS = ("stimulus", "stim_id", "image_id", "stim_file", "image")
_FACTS = ("subject", "session", "run")
_BASE = {"eeg": ("V", 1e-2), "mag": ("T", 1e-8), "grad": ("T/m", 1e-8)}
"""Of each kind, MNE's unit and more than it can be of (SD): what is larger is in another unit."""


def saved_epochs(files: Sequence[Path]) -> Study:
    """The study of these files, of which trials are read when they are needed.

    Its parts raise a `Problem` where a file is damaged, or nothing says what was shown in each of
    its epochs.
    """
    return Study(
        "epochs", tuple(Source.of(path, partial(_parts, path), *_tables(path)) for path in files)
    )


def _parts(path: Path) -> Iterator[StudyPart]:
    epochs = open_epochs(path)
    table = _table(path, epochs)
    named = {"subject": FILE.sub("", path.name)}
    facts = [Facts(**named | _said(row), split=split_of(row.get("split"))) for row in table]
    for one in dict.fromkeys(facts):
        rows = [i for i, of_row in enumerate(facts) if of_row == one]
        stimuli = [_stimulus(table[i], path) for i in rows]
        yield StudyPart(cut_epochs(path, epochs, np.array(rows), stimuli), one)


def open_epochs(path: Path) -> mne.BaseEpochs:
    """The epochs of a file, whose samples stay there."""
    try:
        return mne.read_epochs(path, preload=False, verbose="ERROR")
    except Exception as error:  # damage surfaces in the library as anything
        raise unreadable(path, error) from error


def cut_epochs(
    path: Path, epochs: mne.BaseEpochs, rows: np.ndarray, stimuli: Sequence[str]
) -> CutTrials:
    """Some of the epochs, by their rows; the EEG of them, or else what magnetometers record."""
    types = epochs.get_channel_types()
    kind = next((one for one in _BASE if one in types), None)
    if kind is None:
        raise Problem(f"'{path}' has no channel of EEG or MEG: give epochs that have some")
    picks = [i for i, one in enumerate(types) if one == kind]

    def read(some: slice) -> np.ndarray:
        try:
            taken = epochs[rows[some]].get_data(picks=picks, verbose="ERROR")
        except Exception as error:
            raise unreadable(path, error) from error
        return np.asarray(taken)

    (unit, factor), most = kept_as(_BASE[kind][0]), _BASE[kind][1]
    if read(slice(0, 1)).std() > most:  # as of z-scores, which MNE takes for volts or teslas
        unit, factor = "", 1.0
    return CutTrials(
        path.as_posix(),
        stimuli=stimuli,
        read=read,
        channels=tuple(epochs.ch_names[i] for i in picks),
        rate_hz=float(epochs.info["sfreq"]),
        tmin_s=float(epochs.tmin),
        n_times=len(epochs.times),
        kind="eeg" if kind == "eeg" else "meg",
        unit=unit,
        factor=factor,
    )


def _table(path: Path, epochs: mne.BaseEpochs) -> Sequence[Mapping[str, Any]]:
    """A row for each epoch: the metadata, the table beside, or the names of the events."""
    if (kept := epochs.metadata) is not None:
        return kept if isinstance(kept, list) else kept.to_dict("records")
    if not (beside := _tables(path)):
        names = {code: name for name, code in epochs.event_id.items()}
        if len(names) < 2:
            raise Problem(
                f"'{path}' does not say what was shown: give its epochs metadata with a column "
                "stimulus, or put a table with the columns sample and stimulus in "
                f"{FILE.sub('-epo', path.name)}.tsv"
            )
        return [{"stimulus": names[code]} for code in epochs.events[:, 2]]
    with beside[0].open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if beside[0].suffix == ".tsv" else ","))
    by_sample = {row.get("sample"): row for row in rows}
    wanted = [str(sample) for sample in epochs.events[:, 0]]
    if len(by_sample) != len(rows) or (absent := [s for s in wanted if s not in by_sample]):
        told = "a sample twice, or none" if len(by_sample) != len(rows) else f"no row {absent[0]}"
        raise Problem(
            f"'{beside[0]}' has {told} in its column sample, expected one row for the sample of "
            f"every event of '{path.name}': rows are never joined by their order"
        )
    return [by_sample[sample] for sample in wanted]


def _tables(path: Path) -> list[Path]:
    """The tables that lie beside a file of epochs, of which the first is read."""
    base = FILE.sub("-epo", path.name)
    return [f for end in (".tsv", ".csv") if (f := path.with_name(base + end)).is_file()]


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    return {one: said for one in _FACTS if (said := told(row.get(one))) is not None}


def _stimulus(row: Mapping[str, Any], path: Path) -> str:
    for column in _STIMULUS:
        if (said := told(row.get(column))) is not None:
            return stem(said) if column in ("stim_file", "image") else said
    raise Problem(
        f"the table of '{path}' has the columns {', '.join(map(str, row))}, expected one of "
        f"{', '.join(_STIMULUS)}, with a value in every row"
    )
