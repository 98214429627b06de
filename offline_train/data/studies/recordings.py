"""A lab's own recordings: files of any format that is read, and a folder of the images shown."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.images import image_files
from offline_train.data.study import Facts, ShownImage, Study, StudyPart
from stream.sources.read import read_recording


def recordings(
    paths: Sequence[Path],
    images: Path | None = None,
    stim_channel: str | None = None,
    eeg_stream: str | None = None,
    marker_stream: str | None = None,
    *,
    start_s: float = 0.0,
    stop_s: float = math.inf,
) -> Study:
    """The study of some files; each is a session, called as its file or folder.

    Args:
        paths: recordings, or folders of sessions that this program has recorded.
        images: folder of the images; a file's name is its stimulus id and, where images lie in
            folders of their own, the folder's name is their category.
        stim_channel, eeg_stream, marker_stream: see `read_recording`.
        start_s: seconds into each recording, from which on it is used.
        stop_s: seconds into each recording, up to which it is used.

    Raises:
        Problem: there are no images, or two have one name. Reading the parts raises as
            `read_recording` does.
    """

    def parts() -> Iterator[StudyPart]:
        for path in paths:
            files = [path]
            if path.is_dir():  # a recorder that was started again has begun recording-2.xdf
                files = sorted(path.glob("recording*.xdf"), key=lambda file: (len(file.name), file))
            if not files:
                raise Problem(f"the folder '{path}' holds no recording.xdf; give a session")
            for file in files:
                recording = read_recording(
                    file,
                    stim_channel=stim_channel,
                    eeg_stream=eeg_stream,
                    marker_stream=marker_stream,
                )
                facts = Facts(session=path.name if path.is_dir() else path.stem)
                yield StudyPart(recording.slice(start_s, stop_s), facts)

    shown = {}
    if images is not None:
        for stimulus, path in image_files(images).items():
            category = path.parent.name if path.parent != images else None
            shown[stimulus] = ShownImage(path.relative_to(images).as_posix(), category)
    return Study("recordings", parts(), shown)
