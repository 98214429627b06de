"""What MNE reads, as a recording: .set .fif .edf .bdf .vhdr .gdf."""

import glob
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
from mne.io.constants import FIFF

from hvf_core.problem import Problem
from stream.acquire.markers import BadSpan
from stream.acquire.units import MICROVOLTS, kept_as
from stream.sources.edf_records import Annotation, Records, edf_records
from stream.sources.file_units import file_units
from stream.sources.recording import JOIN_PAUSE_S, Recording, sorted_markers, unreadable

SUFFIXES = (".set", ".fif", ".fif.gz", ".edf", ".bdf", ".vhdr", ".gdf")

# What MNE, EEGLAB and BrainVision write where two pieces of a recording were joined, and MNE's own
# rule for what marks bad spans.
_JOIN = re.compile(r"(bad )?boundary$|edge|new segment/|bad_acq_skip", re.IGNORECASE)
_BAD = re.compile(r"bad", re.IGNORECASE)
# Of BrainVision's markers, what comes before the code (`Stimulus/S  7`) or text of a stimulus.
_STIMULUS = re.compile(r"^(Stimulus/(S +(?=\d)|S(?=\d{3}$))?|Comment/)")
# EEGLAB keeps codes as floating-point numbers; where types are numbers a boundary is -99.
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0")
_EEGLAB_BOUNDARY = "-99"

_EPOCHS = re.compile(r"number of trials is \d+\. It must be 1 for raw")  # what MNE says of a .set

_DATA = {"eeg", "mag", "grad", "seeg", "ecog"}  # of MNE's types of channels
_FIFF_UNITS = {FIFF.FIFF_UNIT_V: "V", FIFF.FIFF_UNIT_T: "T", FIFF.FIFF_UNIT_T_M: "T/m"}


class _Read(NamedTuple):
    """What MNE, and the file itself where MNE passes it over, say of a recording."""

    raw: mne.io.BaseRaw
    types: dict[str, str]
    """MNE's, of the channels by name."""
    records: Records | None
    annotations: Sequence[Annotation]
    said: Sequence[str]
    """What MNE has warned of."""


def read_with_mne(path: Path, stim_channel: str | None) -> Recording:
    raw, types, records, annotations, said = _read(path)
    stamps_s = _stamps(raw, records, path)
    joins = [one for one in annotations if _JOIN.match(one.text)]
    bad = [one for one in annotations if _BAD.match(one.text) and one not in joins]
    stim_channels = [name for name, kind in types.items() if kind == "stim"]
    if stim_channel is None:
        markers = [
            one for one in annotations if not (_JOIN.match(one.text) or _BAD.match(one.text))
        ]
        markers = markers or _stim_events(raw, stamps_s, stim_channels, path)
    elif stim_channel in types:
        markers = _stim_events(raw, stamps_s, [stim_channel], path)
    else:
        raise Problem(
            f"'{path}' has no channel '{stim_channel}' to take markers from; "
            f"give --stim-channel one of {_listed(stim_channels or raw.ch_names)}"
        )
    channels = tuple(name for name in types if name not in (stim_channel, *stim_channels))
    picks = [raw.ch_names.index(name) for name in channels]
    units, factors = _units(raw, picks, path)
    kinds = [types[name] for name in channels]
    if path.suffix.lower() == ".vhdr":  # MNE calls voltages that it cannot spell `misc`
        volts = [i for i, unit in enumerate(units) if unit == MICROVOLTS]
        kinds = ["eeg" if i in volts and kind == "misc" else kind for i, kind in enumerate(kinds)]
    if _DATA.isdisjoint(kinds):
        raise Problem(f"'{path}' has no EEG channel; choose a recording of EEG or MEG")
    samples = raw.get_data(picks)
    samples *= factors[:, None]
    recording = Recording(
        path=path,
        name=Path(path.name.removesuffix(".gz")).stem,
        channels=channels,
        units=units,
        rate_hz=float(raw.info["sfreq"]),
        stamps_s=stamps_s,
        samples=np.ascontiguousarray(samples.T, np.float32),
        markers=sorted_markers((one.onset_s, one.text) for one in markers),
        bad_spans=tuple(
            BadSpan(one.onset_s, one.onset_s + one.duration_s, one.text) for one in bad
        ),
        kinds=tuple(kinds),
        notices=tuple(_notices(path, said, bad)),
    )
    return _in_pieces(recording, joins)


def _read(path: Path) -> _Read:
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            raw = mne.io.read_raw(path, preload=True, verbose="WARNING")
        said = [str(one.message) for one in told]
        types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
        records = edf_records(path) if path.suffix.lower() in (".edf", ".bdf") else None
        return _Read(raw, types, records, _annotations(raw, path, records, said), said)
    except Exception as error:  # damage surfaces in the libraries as anything
        if _EPOCHS.search(str(error)) or path.name.endswith(("-epo.fif", "_epo.fif")):
            raise Problem(
                f"'{path}' holds epochs, and a continuous recording is needed: give the file that "
                "they were cut from"
            ) from error
        raise unreadable(path, error) from error


def _units(
    raw: mne.io.BaseRaw, picks: Sequence[int], path: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """The units in which channels are kept, and what takes MNE's values to them."""
    told = file_units(path)
    if len(told) != len(raw.ch_names):
        told = [(_FIFF_UNITS.get(channel["unit"], ""), 1.0) for channel in raw.info["chs"]]
    made = [(kept_as(told[i][0]), told[i][1]) for i in picks]
    units = tuple(unit for (unit, _), _ in made)
    return units, np.array([factor / mnes for (_, factor), mnes in made])


def _annotations(
    raw: mne.io.BaseRaw, path: Path, records: Records | None, said: Iterable[str]
) -> Sequence[Annotation]:
    """All of them; MNE itself passes over those that lie outside of the samples."""
    passed_over = any(text.startswith("Omitted") for text in said)
    if records is not None and (passed_over or records.is_discontinuous):
        return records.annotations
    annotations, zero_s = raw.annotations, raw.first_time
    if passed_over and path.suffix.lower() == ".set":
        annotations = mne.read_annotations(path)
    elif passed_over and path.suffix.lower() == ".vhdr":
        annotations = mne.read_annotations(_marker_file(path), sfreq=raw.info["sfreq"])
    rows = zip(annotations.onset, annotations.duration, annotations.description, strict=True)
    # The onsets in a Raw count from a zero that is `first_time` before its first sample.
    return [
        Annotation(float(onset_s - zero_s), max(0.0, float(duration_s)), _meaning(str(text), path))
        for onset_s, duration_s, text in rows
    ]


def _meaning(text: str, path: Path) -> str:
    """An annotation's text, without what only the format of the file adds to it."""
    match path.suffix.lower():
        case ".vhdr":
            return _STIMULUS.sub("", text)
        case ".set":
            number = _WHOLE_NUMBER.fullmatch(text)
            code = number[1] if number else text
            return "boundary" if code == _EEGLAB_BOUNDARY else code
        case _:
            return text


def _notices(path: Path, said: Iterable[str], bad: Sequence[Annotation]) -> Iterator[str]:
    for text in said:
        if text.startswith("MarkerFile"):
            yield (
                f"the header '{path.name}' names a file of markers that is not there ({text}): put "
                "the .vmrk beside it under that name"
            )
    if bad:
        names = ", ".join(sorted({one.text for one in bad})[:5])
        yield f"'{path.name}' has {len(bad)} spans marked bad ({names}), see --keep-bad"


def _marker_file(path: Path) -> Path:
    """The file of markers that a BrainVision header names, or the one that is called like it."""
    file = _named(path, b"MarkerFile")
    return file if file is not None and file.is_file() else path.with_suffix(".vmrk")


def _named(path: Path, key: bytes) -> Path | None:
    """The file that a BrainVision header names under a key."""
    found = re.search(rb"(?m)^" + key + rb"=(.+?)\s*$", path.read_bytes())
    name = found[1].decode("utf-8", "replace").replace("$b", path.stem) if found else ""
    return path.parent / name if name else None


def files_beside(path: Path) -> list[Path]:
    """What a recording is read from beside its own file, where that names it, whatever its name."""
    match path.suffix.lower() if path.is_file() else "":
        case ".vhdr":
            named = [_named(path, key) for key in (b"DataFile", b"MarkerFile")]
            return [file for file in named if file is not None]
        case ".set" if tables := sorted(path.parent.glob("*.fdt")):
            text = path.read_bytes()
            named_in = [f for f in tables if f.name.encode() in text]
            return named_in or tables  # where it is compressed, no name can be seen
        case ".fif" if "_split-" in path.name:  # as BIDS calls the parts of a large one
            parts = re.sub(r"_split-\d+", "_split-*", glob.escape(path.name))
            return sorted(path.parent.glob(parts))
        case _:
            return []


def _stamps(raw: mne.io.BaseRaw, records: Records | None, path: Path) -> np.ndarray:
    """When each sample was taken, after the first one: seconds, (n,)."""
    rate_hz = float(raw.info["sfreq"])
    if records is None or not records.is_discontinuous:
        return np.arange(raw.n_times) / rate_hz
    starts_s = records.starts_s
    per_record, rest = divmod(raw.n_times, max(1, len(starts_s)))
    if rest or not (np.diff(starts_s) > (per_record - 0.5) / rate_hz).all():
        raise Problem(
            f"'{path}' is discontinuous (EDF+D), and its records do not say in order when each of "
            "them began; export it again as EDF+C, or piece by piece"
        )
    return (starts_s[:, None] + np.arange(per_record) / rate_hz).ravel()


def _in_pieces(recording: Recording, joins: Sequence[Annotation]) -> Recording:
    """The recording with a pause where pieces were joined, and without what nobody recorded.

    So no trial spans a join, for the reason that none spans lost samples: a gap.
    """
    stamps_s, period_s = recording.stamps_s, 1 / recording.rate_hz
    edge_s = period_s / 4  # EEGLAB puts a join half a sample before the first of the new piece

    def number_at(time_s: float) -> int:
        return int(np.searchsorted(stamps_s, time_s - edge_s))

    firsts = sorted({number_at(one.onset_s) for one in joins} - {0, len(stamps_s)})
    pauses_s = JOIN_PAUSE_S * np.searchsorted(firsts, np.arange(len(stamps_s)), side="right")

    def moved_s(time_s: float) -> float:
        nearest = int(np.searchsorted(stamps_s, time_s + period_s / 2, side="right")) - 1
        return time_s + float(pauses_s[max(0, nearest)]) if len(pauses_s) else time_s

    was_recorded = np.ones(len(stamps_s), bool)
    for one in joins:
        if one.text.lower().startswith("bad_acq_skip"):  # MNE fills with zeros what this one covers
            was_recorded[number_at(one.onset_s) : number_at(one.onset_s + one.duration_s)] = False
    return replace(
        recording,
        stamps_s=(stamps_s + pauses_s)[was_recorded],
        samples=recording.samples[was_recorded],
        markers=tuple(replace(m, stamp_s=moved_s(m.stamp_s)) for m in recording.markers),
        bad_spans=tuple(
            replace(span, start_s=moved_s(span.start_s), stop_s=moved_s(span.stop_s))
            for span in recording.bad_spans
        ),
    )


def _stim_events(
    raw: mne.io.BaseRaw, stamps_s: np.ndarray, stim_channels: Sequence[str], path: Path
) -> list[Annotation]:
    """The events of the only one of `stim_channels`, which may last a single sample.

    They are what `mne.find_events` finds: every rise, so of the codes 0, 3, 5, 3 the 3 and the 5.
    """
    if not stim_channels:
        return []
    if len(stim_channels) > 1:
        raise Problem(
            f"'{path}' has no annotations but {len(stim_channels)} stim channels; "
            f"choose one with --stim-channel: {_listed(stim_channels)}"
        )
    events = mne.find_events(raw, stim_channels[0], shortest_event=1, verbose="ERROR")
    onsets_s = stamps_s[events[:, 0] - raw.first_samp].tolist()
    return [
        Annotation(onset_s, 0.0, str(code))
        for onset_s, code in zip(onsets_s, events[:, 2].tolist(), strict=True)
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
