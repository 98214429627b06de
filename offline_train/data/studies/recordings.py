"""A lab's own recordings: files of any format that is read, and a folder of the images shown."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from hvf_core.problem import Problem
from offline_train.data.images import files_below, is_image
from offline_train.data.study import Facts, Source, Study, StudyPart, images_in
from stream.sources.read import SUFFIXES, read_recording
from stream.sources.settings import ALL, ReadSettings
from stream.sources.xdf import recordings_in


def recordings(
    paths: Sequence[Path],
    images: Path | None = None,
    asked: ReadSettings = ALL,
    stop_s: float | None = None,
) -> Study:
    """The study of some files; each is a session, called as its file or folder.

    Args:
        paths: recordings, or folders of sessions that this program has recorded.
        images: folder of the images; a file's name is its stimulus id and, where images lie in
            folders of their own, the folder's name is their category.
        asked, stop_s: what of each recording is read, as by `read_recording`.

    Raises:
        Problem: there are no images, or two have one name. Reading the parts raises as
            `read_recording` does.
    """

    def sources() -> Iterator[Source]:
        for path in paths:
            files = [path]
            if path.is_dir():
                files = recordings_in(path)
            if not files:
                there = sorted(f.name for f in path.iterdir() if f.name.lower().endswith(SUFFIXES))
                if not there and any(map(is_image, files_below(path))):
                    raise Problem(
                        f"the folder '{path}' holds images and no recording: give recordings of "
                        "EEG or MEG, and this with --images"
                    )
                hint = f", as '{path / there[0]}' of {len(there)} that are there" if there else ""
                raise Problem(
                    f"the folder '{path}' is no session, as it holds no recording.xdf; give the "
                    f"recordings themselves{hint}, or a session"
                )
            for file in files:
                facts = Facts(session=path.name if path.is_dir() else path.stem)
                yield Source.of(file, partial(_read, file, facts, asked, stop_s))

    found = images_in(images) if images is not None else {}
    shown = {
        id_: one._replace(category=PurePosixPath(one.path).parent.name or None)
        for id_, one in found.items()
    }
    return Study("recordings", tuple(sources()), shown)


def _read(
    file: Path, facts: Facts, asked: ReadSettings, stop_s: float | None
) -> Iterator[StudyPart]:
    yield StudyPart(read_recording(file, asked, stop_s), facts)
