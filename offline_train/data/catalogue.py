"""The data sets that are known: their sources and sizes, and whether one of them is whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.saved import read_saved
from offline_train.data.studies import alljoined, bids, epochs
from offline_train.data.studies.find import saved_below

_HEAD = 256  # bytes of an EDF header, and of each signal in it

NO_FILES = "there are no files of it"


@dataclass(frozen=True)
class DataSet:
    """One of them; `folder` is the name of the folder to put it into."""

    folder: str
    about: str
    source: str
    size: str
    licence: str
    n_subjects: int | None = None


DATA_SETS = (
    DataSet(
        "things-eeg2-preprocessed",
        "THINGS-EEG2: 17 channels, 100 Hz, whitened; sub-XX/preprocessed_eeg_*.npy",
        "https://osf.io/3jk45 (preprocessed), with image_metadata.npy",
        "11 GB",
        "CC-BY-4.0",
        10,
    ),
    DataSet(
        "things-eeg2-nice",
        "THINGS-EEG2: 63 channels, 250 Hz, whitened (NICE, ATM); sub-XX/preprocessed_eeg_*.npy",
        "huggingface.co: LidongYang/EEG_Image_decode, with image_metadata.npy of OSF",
        "103 GB",
        "as its source",
        10,
    ),
    DataSet(
        "things-eeg2-ubp",
        "THINGS-EEG2: 63 channels, 250 Hz, whitened by session, as for HVF; sub-XX/{train,test}.pt",
        "https://huggingface.co/datasets/Haitao999/things-eeg",
        "26 GB",
        "as its source",
        10,
    ),
    DataSet(
        "things-eeg2-raw",
        "THINGS-EEG2: 63 channels, 1 kHz; sub-XX/ses-XX/raw_eeg_*.npy",
        "https://osf.io/3jk45 (raw), with image_metadata.npy",
        "not known",
        "CC-BY-4.0",
        10,
    ),
    DataSet(
        "nm000232",
        "THINGS-EEG2 in BIDS: 63 channels, 1 kHz",
        "https://github.com/nemarDatasets/nm000232; unpack the zips in stimuli/",
        "not known",
        "CC-BY-4.0",
        10,
    ),
    DataSet(
        "ds003825",
        "THINGS-EEG1 in BIDS: 63 channels, 1 kHz, 10 images a second",
        "https://openneuro.org/datasets/ds003825; images from https://things-initiative.org",
        "not known",
        "CC0",
        50,
    ),
    DataSet(
        "nm000134",
        "Alljoined-1.6M in BIDS: Emotiv, 32 channels, 256 Hz",
        "https://doi.org/10.82901/nemar.nm000134, or huggingface.co/datasets/Alljoined/"
        "Alljoined-1.6M (raw_eeg)",
        "8.5 GB",
        "CC-BY-NC-ND or -SA",
        20,
    ),
    DataSet(
        "nm000133",
        "Alljoined1 in BIDS: 64 channels, 512 Hz, images of NSD",
        "https://doi.org/10.82901/nemar.nm000133",
        "5 GB",
        "CC-BY-NC-ND-4.0",
        8,
    ),
    DataSet(
        "things-meg",
        "THINGS-MEG: 271 channels, 200 Hz; preprocessed_P?-epo.fif",
        "https://openneuro.org/datasets/ds004212 (derivatives/preprocessed), with THINGS' "
        "image_paths.csv",
        "not known",
        "CC0",
        4,
    ),
    DataSet(
        "things-meg-ubp",
        "THINGS-MEG: 271 channels, 200 Hz, float16; sub-XX/{train,test}.pt",
        "https://huggingface.co/datasets/Haitao999/things-eeg-meg",
        "10 GB",
        "as its source",
        4,
    ),
)


def faults(folder: Path, n_subjects: int | None, pickles: bool) -> Iterator[str]:
    """Sentences on what of a data set is damaged or missing; none where it is whole.

    Of recordings it looks at sizes that headers tell, of saved arrays whether they go to their end.
    """
    subjects: set[str] = set()
    files = [*saved_below(folder), *alljoined.files_of_hub(folder)]
    files += [file for file in folder.rglob("*.fif") if epochs.FILE.search(file.name)]
    if bids.root_of(folder) is not None:
        files = []
        for events in bids.event_files(folder):
            try:
                files.append(bids.recording_beside(events))
            except Problem as problem:
                yield str(problem)
    if not files:
        yield NO_FILES
        return
    for file in files:
        said = re.findall(r"(?:sub-(\d+)/|_P(\d+)-epo)", file.relative_to(folder).as_posix())
        subjects |= {"".join(one) for one in said}
        yield from _damage(file, pickles)
    if n_subjects is not None and len(subjects) < n_subjects:
        there = ", ".join(sorted(subjects)) or "none"
        yield f"{len(subjects)} of {n_subjects} subjects are there: {there}"


def _damage(file: Path, pickles: bool) -> Iterator[str]:
    size = file.stat().st_size if file.exists() else 0
    if size == 0:
        yield f"'{file}' is empty, or a link to what is not there"
    elif file.suffix in (".edf", ".bdf"):
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
            try:
                length, n_records, n = int(head[184:192]), int(head[236:244]), int(head[252:256])
                opened.seek(_HEAD + 216 * n)
                samples = sum(int(opened.read(8)) for _ in range(n))
            except ValueError:
                yield f"'{file}' has no header of EDF or BDF"
                return
        if (whole := length + n_records * samples * (3 if file.suffix == ".bdf" else 2)) > size:
            yield f"'{file}' has {size} bytes of {whole}"
    elif file.suffix == ".vhdr":
        beside = [file.with_suffix(end) for end in (".eeg", ".vmrk")]
        yield from (f"'{one}' is missing" for one in beside if not one.exists())
    elif file.suffix in (".npy", ".pt") and pickles:
        try:
            read_saved(file, pickles)
        except Problem as problem:
            yield str(problem)
