"""A data set as the one recording that `replay` plays, and what is said of it before."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hvf_core.problem import Problem
from hvf_core.screen import Screen
from stream.pipeline.books.about import label_in
from stream.pipeline.wire.config import SessionConfig
from stream.sources.settings import ReadSettings

if TYPE_CHECKING:
    from offline_train.data.study import Study
    from stream.sources.recording import Recording

PLAYED = "played.xdf"
"""In the session folder, while the session runs."""
OF_FORMATS = ("stim_channel", "eeg_stream", "marker_stream")
"""Settings of reading that are of the data set's files, and no more of what is played."""
_NO_RECORDING = ("-epo.fif", "_epo.fif", "-epo.fif.gz", "_epo.fif.gz", ".npy", ".pt")


def is_data_set(path: Path) -> bool:
    """Whether a path is of a data set, or of a part of one, and of no single recording."""
    return path.is_dir() or (path.is_file() and path.name.lower().endswith(_NO_RECORDING))


def study_at(path: Path, images: Path | None, asked: ReadSettings, pickles: bool) -> "Study":
    """The data set at a path; raises as `study_of` does."""
    from offline_train.data.settings import RecordingPart
    from offline_train.data.studies.find import study_of

    read = asked.model_dump(include={*OF_FORMATS})
    return study_of([path], images, RecordingPart(**read, pickles=pickles), to_play=True)


def write_played(
    study: "Study", split: str | None, config: SessionConfig, path: Path, stop_s: float | None
) -> SessionConfig:
    """Writes what is played, and says which images the gallery lacks.

    Returns:
        The config, which says whose data they are.

    Raises:
        Problem: there is nothing that can be played, or no image of it is in the gallery.
    """
    from decoder.bundle import open_bundle
    from offline_train.data.played import played
    from stream.acquire.markers import Marker, MarkerReader
    from stream.acquire.preprocess import Preprocessing
    from stream.pipeline.galleries import open_accepted
    from stream.recorder.joined import write_joined

    console, reader = Screen(), MarkerReader(config.marker_rule)
    decoded_by = None if config.bundle is None else Preprocessing.of(open_bundle(config.bundle))
    shown: dict[str, None] = {}
    subjects: list[str | None] = []
    for notice in study.notices:
        console.print(notice, highlight=False)

    def told() -> "Iterator[Recording]":
        for facts, recording in played(study, split, decoded_by):
            subjects.append(facts.subject)
            for notice in recording.notices:
                console.print(f"{facts.name}: {notice}", highlight=False)
            for marker in recording.markers:
                event = reader.read(Marker(marker.stamp_s, marker.text, marker.stamp_s))
                shown.update({event.stimulus: None} if event is not None else {})
            n = len(recording.markers)
            console.print(f"{facts.name}: {n} markers in {recording.duration_s:.0f} s")
            yield recording

    write_joined(path, study.name, told(), math.inf if stop_s is None else stop_s)
    if config.gallery is not None:
        gallery = open_accepted(config)
        if unknown := [stimulus for stimulus in shown if stimulus not in gallery]:
            what = (
                f"of the {len(shown)} images shown {len(unknown)} are not in the gallery "
                f"'{config.gallery}', as '{unknown[0]}'"
            )
            if len(unknown) == len(shown):
                raise Problem(f"{what}: make one with `offline_train gallery --trials ...`")
            console.print(f"{what}: their trials will be dropped as unknown_stimulus")
    return config.model_copy(update={"subject": config.subject or label_in(subjects[0] or "")})
