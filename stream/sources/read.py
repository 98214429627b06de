"""Reads a recording, by the ending of its name."""

import math
import os
from dataclasses import replace
from pathlib import Path

from hvf_core.problem import Problem
from stream.sources.mne_files import SUFFIXES as MNE_SUFFIXES
from stream.sources.mne_files import read_with_mne
from stream.sources.recording import Recording
from stream.sources.settings import ALL, ReadSettings
from stream.sources.xdf_files import read_xdf

SUFFIXES = (*MNE_SUFFIXES, ".xdf")


def read_recording(
    path: str | Path, asked: ReadSettings = ALL, stop_s: float | None = None
) -> Recording:
    """Reads a file in one of the formats `SUFFIXES`, up to its end or `stop_s`; it is in memory.

    Of what MNE reads, the markers are the annotations, without bad spans, filter edges and joins;
    where there are none, or `stim_channel` is given, they are the events of a stim channel. In
    XDF they are a stream of type Markers; `eeg_stream` and `marker_stream` choose among several
    streams, by name or by id. A recording without markers is read too.

    Raises `Problem` where the file is missing, unknown, damaged, without EEG or without samples,
    and where more than one stream or stim channel could be meant.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False also of a name that no file can have
        raise Problem(f"there is no file '{path}'; give the path of a recording")
    if path.name.lower().endswith(".xdf"):
        if asked.stim_channel is not None:
            raise Problem(
                f"--stim-channel '{asked.stim_channel}' does not apply to '{path}', as the markers "
                "of .xdf files are a stream; choose it with --marker-stream"
            )
        recording = read_xdf(path, asked.eeg_stream, asked.marker_stream)
    elif path.name.lower().endswith(MNE_SUFFIXES):
        if (wanted := asked.eeg_stream or asked.marker_stream) is not None:
            raise Problem(
                f"'{path}' has no stream '{wanted}', as only .xdf files hold streams; "
                "leave out --eeg-stream and --marker-stream"
            )
        recording = read_with_mne(path, asked.stim_channel)
    else:
        raise Problem(
            f"'{path}' ends in '{path.suffix}', which is no known format; "
            f"give a file that ends in one of {', '.join(SUFFIXES)}"
        )
    if not len(recording.samples):
        raise Problem(f"'{path}' has no samples of '{recording.name}'; choose another recording")
    recording = replace(recording, notices=(*recording.notices, *recording.unit_notices()))
    if asked.start_s or stop_s is not None:
        recording = recording.slice(asked.start_s, math.inf if stop_s is None else stop_s)
    return replace(recording, notices=(*recording.notices, *recording.join_notices()))
