"""BIDS data sets with images, as published, but few subjects, channels and images.

Recordings are written byte by byte as EDF and BDF, and as BrainVision by pybv.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pybv
from PIL import Image

from tests.lookalikes import things
from tests.lookalikes.things import TEST, TEST_FILES, TRAIN, TRAIN_FILES
from tests.lookalikes.things_eeg2 import continuous

CHANNELS = ["Oz", "Pz", "O1", "O2"]
Row = Mapping[str, object]


def write_edf(
    path: Path, volts: np.ndarray, rate_hz: int, told: Sequence[tuple[float, str]] = ()
) -> None:
    """EDF of two bytes a sample, or BDF of three; records of one second, microvolts.

    What is `told`, by onset, makes it EDF+: a signal of annotations, all of them in the first
    record.
    """
    is_bdf, n = path.suffix == ".bdf", len(volts)
    top, width = (2**23 - 1, 3) if is_bdf else (2**15 - 1, 2)
    n_records = volts.shape[1] // rate_hz
    names = [(name, "uV", -1000, 1000, -top, top, rate_hz) for name in CHANNELS[:n]]
    texts = [f"+{number}\x14\x14\0" for number in range(n_records)] if told else []
    if told:
        texts[0] += "".join(f"+{onset_s:g}\x14{text}\x14\0" for onset_s, text in told)
        longest = -(-max(map(len, texts)) // 2)
        names.append(("EDF Annotations", "", -1, 1, -top, top, longest))
    head = ("\xffBIOSEMI" if is_bdf else "0".ljust(8)) + "X X X X".ljust(80)
    head += "Startdate 01-MAY-2024 X X X".ljust(80) + "01.05.2412.30.00"
    kind = "24BIT" if is_bdf else "EDF+C" if told else ""
    head += f"{256 * (len(names) + 1):<8}{kind:<44}{n_records:<8}{1:<8}{len(names):<4}"
    label, unit, low, high, lowest, highest, length = zip(*names, strict=True)
    columns = ((label, 16), ([""] * len(names), 80), (unit, 8), (low, 8), (high, 8))
    columns += ((lowest, 8), (highest, 8), ([""] * len(names), 80), (length, 8))
    head += "".join(f"{one:<{size}}" for values, size in columns for one in values)
    head += "".ljust(32 * len(names))
    whole = np.round(volts[:, : n_records * rate_hz] * 1e6 / 1000 * top).astype("<i4")
    records = whole.reshape(n, n_records, rate_hz).transpose(1, 0, 2).reshape(n_records, -1, 1)
    body = np.ascontiguousarray(records).view(np.uint8)[:, :, :width].reshape(n_records, -1)
    with path.open("wb") as file:
        file.write(head.encode("latin-1"))
        for number, record in enumerate(body):
            file.write(record.tobytes())
            if told:
                file.write(texts[number].encode().ljust(2 * longest, b"\0"))


def write_tsv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_run(
    place: Path, name: str, suffix: str, volts: np.ndarray, rate_hz: int, events: Sequence[Row]
) -> None:
    """A recording with its events and channels."""
    place.mkdir(parents=True, exist_ok=True)
    if suffix == ".vhdr":
        base = f"{name}_eeg"
        pybv.write_brainvision(
            data=volts, sfreq=rate_hz, ch_names=CHANNELS, fname_base=base, folder_out=place
        )
    else:
        write_edf(place / f"{name}_eeg{suffix}", volts, rate_hz)
    kinds = [{"name": channel, "type": "EEG", "units": "uV"} for channel in CHANNELS]
    write_tsv(place / f"{name}_channels.tsv", kinds)
    write_tsv(place / f"{name}_events.tsv", events)


def begin(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    told = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(told))
    return root


def nm000232(root: Path, rate_hz: int = 1000) -> Path:
    """THINGS-EEG2: BDF, tasks train (runs), test and rest; ids are numbers in columns of events."""
    begin(root, "THINGS-EEG2")
    stimuli = things.write_images(root / "stimuli")
    rows = []
    for split, files in (("train", TRAIN_FILES), ("test", TEST_FILES)):
        for number, (concept, name) in enumerate(files, 1):
            label = f"stim-{split}{number:0{5 if split == 'train' else 3}d}"
            below = f"{'training' if split == 'train' else split}_images/{concept}"
            copy = stimuli / below / f"{label}_image.jpg"
            copy.write_bytes((stimuli / below / name).read_bytes())
            rows.append(
                {
                    "stimulus_id": label,
                    "type": "image",
                    "license": "n/a",
                    "copyright": "Original image owners (THINGS database, Hebart et al. 2019)",
                    "description": f"THINGS-EEG2 {split} stimulus tot_img_number={number}; "
                    f'concept "{concept}"; original filename "{name}".',
                    "URL": "https://things-initiative.org/",
                    "filename": f"{below}/{copy.name}",
                    "present": "true",
                }
            )
    write_tsv(stimuli / "stimuli.tsv", rows)
    place = root / "sub-01" / "ses-01" / "eeg"
    for task, files in (("train_run-01", TRAIN_FILES), ("train_run-02", TRAIN_FILES), ("test", ())):
        images = TRAIN if files else TEST
        rng = np.random.default_rng(len(task) + len(images))
        codes = [int(code) for _ in range(2) for code in rng.permutation(len(images)) + 1]
        codes.insert(3, 99999)  # a target
        volts, onsets = continuous(CHANNELS, images, codes, rate_hz, 0.2, rng)
        events = [
            {
                "onset": onset / rate_hz,
                "duration": 0.1,
                "sample": onset,
                "value": code % 100,
                "trial_type": "image" if code < 99999 else "target",
                "tot_img_number": code if code < 99999 else "n/a",
                "img_category": 1,
                "category_name": (files or TEST_FILES)[code - 1][0] if code < 99999 else "n/a",
                "block": 1,
                "sequence": 1,
                "img_in_sequence": 1,
                "soa": 0.2,
            }
            for code, onset in zip(codes, onsets.tolist(), strict=True)
        ]
        write_run(place, f"sub-01_ses-01_task-{task}", ".bdf", volts, rate_hz, events)
    rest = dict.fromkeys(events[0], "n/a") | {"onset": 0.5, "trial_type": "rest_marker"}
    write_run(place, "sub-01_ses-01_task-rest_run-01", ".bdf", volts[:, :3000], rate_hz, [rest])
    return root


def ds003825(root: Path, in_samples: bool = True, rate_hz: int = 1000) -> Path:
    """THINGS-EEG1: BrainVision, one run of all; onsets are in samples, in seconds in editions."""
    begin(root, "THINGS-EEG")
    trained = (*TRAIN, "ball_01b")  # of a concept of the test, as all of them are there
    shown = [name for name in trained for _ in range(2)] + [name for name in TEST for _ in range(3)]
    rng = np.random.default_rng(3)
    codes = [int(code) + 1 for code in rng.permutation(len(shown))]
    volts, onsets = continuous(CHANNELS, tuple(shown), codes, rate_hz, 0.1, rng)
    events: list[Row] = []
    for number, (code, onset) in enumerate(zip(codes, onsets.tolist(), strict=True)):
        image = shown[code - 1]
        concept = image.rpartition("_")[0]
        events.append(
            {
                "onset": onset if in_samples else onset / rate_hz,
                "duration": 50 if in_samples else 0.05,
                "eventnumber": number,
                "objectnumber": 1,
                "object": concept,
                "stim": f"stimuli\\{concept}\\{image}.jpg",
                "stimname": f"{image}.jpg",
                "stimnumber": 1,
                "isteststim": int(image in TEST),
                "teststimnumber": TEST.index(image) if image in TEST else -1,
                "istarget": int(number == 5),
            }
        )
    place = root / "sub-01" / "eeg"
    write_run(place, "sub-01_task-rsvp", ".vhdr", volts, rate_hz, events)
    return root


def write_numbered(folder: Path, n: int, pattern: str = "{:05d}.jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, n + 1):
        pixels = np.full((8, 8, 3), number % 256, np.uint8)
        Image.fromarray(pixels).save(folder / pattern.format(number))
    return folder


NUMBERED = tuple(f"{number:05d}" for number in range(1, 41))
"""Images of Alljoined's kind: the first 30 are trained on."""


def nm000134(root: Path, rate_hz: int = 256) -> Path:
    """Alljoined-1.6M: EDF; ids sit in trial_type, of which more than one may share an onset."""
    begin(root, "Alljoined-1.6M")
    write_numbered(root / "stimuli", len(NUMBERED))
    for session, run in (("01", 1), ("01", 2), ("02", 1), ("02old", 1)):
        rng = np.random.default_rng(run)
        codes = [int(code) + 1 for code in rng.permutation(len(NUMBERED))]
        volts, onsets = continuous(CHANNELS, NUMBERED, codes, rate_hz, 0.25, rng)
        events: list[Row] = [
            {
                "onset": onset / rate_hz,
                "duration": 0.1,
                "sample": onset,
                "trial_type": f"stim_{'train' if code <= 30 else 'test'},{code},-1,{number}",
            }
            for number, (code, onset) in enumerate(zip(codes, onsets.tolist(), strict=True))
        ]
        events.insert(7, {**events[6], "trial_type": "behav,1,-1,7"})
        events.append({**events[20], "trial_type": "stim_train,1,-1,99"})  # of two, which was it?
        name = f"sub-08_ses-{session}_task-images_run-{run:02d}"
        write_run(root / "sub-08" / f"ses-{session}" / "eeg", name, ".edf", volts, rate_hz, events)
    return root


def nm000133(root: Path, rate_hz: int = 512, column: str = "stim_file") -> Path:
    """Alljoined1, and any data set that says stim_file (or stim_id): NSD's images, BDF."""
    begin(root, "Alljoined1")
    write_numbered(root / "stimuli" / "nsd", len(NUMBERED))
    for session in ("01", "02"):
        rng = np.random.default_rng(int(session))
        codes = [int(code) + 1 for code in rng.permutation(len(NUMBERED))]
        volts, onsets = continuous(CHANNELS, NUMBERED, codes, rate_hz, 0.25, rng)
        named = {"stim_file": "nsd/{}.jpg", "stim_id": "{}"}[column]
        events = [
            {
                "onset": onset / rate_hz,
                "duration": 0.3,
                "trial_type": "image",
                column: named.format(NUMBERED[code - 1]),
            }
            for code, onset in zip(codes, onsets.tolist(), strict=True)
        ]
        events.append({"onset": 0.1, "duration": 0, "trial_type": "pause", column: "n/a"})
        if column == "stim_id":
            for row, code in zip(events, [*codes, 0], strict=True):
                row["split"] = "n/a" if not code else "train" if code <= 30 else "test"
        name = f"sub-01_ses-{session}_task-images"
        write_run(root / "sub-01" / f"ses-{session}" / "eeg", name, ".bdf", volts, rate_hz, events)
    return root


def hub_recording(path: Path, rate_hz: int = 256) -> None:
    """A block of Alljoined-1.6M on the hub: EDF+, whose annotations name the images."""
    codes = [int(code) + 1 for code in np.random.default_rng(0).permutation(len(NUMBERED))]
    rng = np.random.default_rng(1)
    volts, onsets = continuous(CHANNELS, NUMBERED, codes, rate_hz, 0.25, rng)
    texts = [
        f"stim_{'train' if code <= 30 else 'test'},{code},-1,{number}"
        for number, code in enumerate(codes)
    ]
    texts[3] = f"session_1,block_2,{texts[3]}"
    write_edf(path, volts, rate_hz, list(zip(onsets / rate_hz, texts, strict=True)))
