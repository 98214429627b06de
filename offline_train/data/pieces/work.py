"""Cuts a study into pieces beside the trial set that is made of them, or takes what is there.

Whoever was killed goes on from there: a piece is taken again where its files, and all that is asked
for, are what they were.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue, ValidationError

from hvf_core.lock import alone_in
from hvf_core.problem import Problem
from hvf_core.provenance import versions
from offline_train.data.pieces.piece import (
    Cut,
    CutPart,
    HowCut,
    Piece,
    cut_source,
    cuts_of,
    stamps_of,
)
from offline_train.data.pieces.workers import Job, cut_side_by_side, workers_for
from offline_train.data.study import Source, Study

_FORMAT = 2  # of pieces, and of the code that cuts them
_DECISIVE = {"recording", "markers", "reject", "channel_map", "true_rate_hz"}
_PACKAGES = ("hvf-live", "numpy", "scipy", "mne", "scikit-learn")


@dataclass(frozen=True)
class Telling:
    """Who hears how the cutting goes."""

    part: Callable[[CutPart], object]
    """What became of each part, in the order of the study."""
    share: Callable[[float], object] = lambda share: None
    """Which share of all is cut."""
    say: Callable[[str], object] = lambda sentence: None
    """Sentences on what was cut before."""


def folder_of(directory: Path) -> Path:
    """Where what is cut is kept until the trial set in `directory` is whole."""
    return directory.with_name(f".{directory.name}.pieces")


@contextmanager
def cut_study(study: Study, how: HowCut, directory: Path, tell: Telling) -> Iterator[list[Cut]]:
    """Yields what is cut of each part of a study, in its order; what is cut is kept until the end.

    Args:
        directory: the trial set that is to be made.

    Raises:
        Problem: a source cannot be read or cut, no trial is left of any, or another process makes
            the same trial set.
    """
    folder = folder_of(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strange = next((path for path in folder.iterdir() if path.is_dir()), None)
    except FileExistsError:
        strange = folder
    if strange is not None:
        raise Problem(
            f"'{strange}' is none of the files in which '{folder}' keeps what is cut: take it away"
        )
    busy = f"'{directory}' is being prepared by another process: wait for it, or name another --out"
    with alone_in(folder, busy):
        is_done = False
        try:
            yield _cut_all(study, how, folder, tell)
            is_done = True
        finally:
            is_bare = not any(folder.glob("*.json"))  # no piece in it is whole
            if is_done or is_bare or not any(source.files for source in study.sources):
                shutil.rmtree(folder, ignore_errors=True)


def _cut_all(study: Study, how: HowCut, folder: Path, tell: Telling) -> list[Cut]:
    places = {source: folder / _key(source) for source in study.sources}
    asked = _asked(study, how)
    done = _kept(places, how, asked, tell.say)
    for file in folder.iterdir():
        if file.name.startswith(".") or file.name.split(".")[0] not in map(_key, done):
            file.unlink()
    share = _Share(study.sources, tell.share)
    for source in done:
        share(source, 1.0)
    todo = [Job(source, at) for source, at in places.items() if source not in done]
    n_workers = how.settings.workers or workers_for([job.source for job in todo])
    by_others = n_workers > 1 and len(todo) > 1
    cuts: list[Cut] = []
    others = cut_side_by_side(todo if by_others else [], how, asked, n_workers, share)
    with closing(others):
        for source, at in places.items():
            while by_others and source not in done:
                done.add(other := next(others).source)
                share(other, 1.0)
            if is_own := source not in done:
                cut_source(source, how, at, asked, partial(share, source), tell.part)
                share(source, 1.0)
            for cut in (found := cuts_of(at, how)):
                if not is_own:  # of what is cut here, it has been told
                    tell.part(cut.part)
            cuts += found
    if not any(map(len, cuts)):
        dropped = sum((Counter(cut.part.dropped) for cut in cuts), Counter[str]())
        told = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
        raise Problem(
            f"no trial was left of the recordings (dropped: {told or 'no marker fits'}); "
            "check the markers, the window and --stimuli"
        )
    return cuts


class _Share:
    """Which share of all sources is cut, by their sizes."""

    def __init__(self, sources: Sequence[Source], tell: Callable[[float], object]) -> None:
        self._sizes = {source: source.size or 1 for source in sources}
        self._cut = dict.fromkeys(sources, 0.0)
        self._done, self._all, self._tell = 0.0, sum(self._sizes.values()), tell

    def __call__(self, source: Source, share: float) -> None:
        self._done += self._sizes[source] * (share - self._cut[source])
        self._cut[source] = share
        self._tell(round(self._done / self._all, 9))


def _kept(
    places: Mapping[Source, Path],
    how: HowCut,
    asked: Mapping[str, JsonValue],
    say: Callable[[str], object],
) -> set[Source]:
    """The sources of which there are pieces that are still right; of others it is said why not."""
    kept, others, n_others = set[Source](), dict[str, None](), 0
    for source, at in places.items():
        try:
            text = at.with_suffix(".json").read_bytes() if source.files else b""
            piece = Piece.model_validate_json(text)
        except (OSError, ValidationError):
            continue
        changed = [
            key for key in asked.keys() | piece.asked if asked.get(key) != piece.asked.get(key)
        ]
        if changed:
            n_others += 1
            others |= {
                f"{k} was {piece.asked.get(k)}, is {asked.get(k)}": None for k in sorted(changed)
            }
        elif piece.files != stamps_of(source):
            say(f"'{source.name}' has changed since it was cut: it is cut again")
        elif cuts_of(at, how) or not piece.parts:
            kept.add(source)
    if n_others:
        told = "; ".join([*others][:3])
        say(f"{n_others} of the recordings were cut otherwise ({told}): they are cut again")
    if kept:
        say(f"{len(kept)} of {len(places)} recordings were cut before, and are not cut again")
    return kept


def _asked(study: Study, how: HowCut) -> dict[str, JsonValue]:
    """All that decides what is cut of a file, but for the file."""
    images, fitted = hashlib.sha256(), hashlib.sha256()
    for image in study.images.items():
        images.update(repr(image).encode())
    for name, array in sorted(how.preprocessing.arrays.items()):
        fitted.update(name.encode() + array.tobytes())
    sections = how.settings.model_dump(mode="json", include=_DECISIVE)
    sections["preprocessing"] = how.preprocessing.settings.model_dump(mode="json")
    sections["adaptation"] = how.adaptation and how.adaptation.model_dump(mode="json")
    asked: dict[str, JsonValue] = {}
    for name, values in sections.items():
        if isinstance(values, dict) and name != "channel_map":
            asked |= {f"{name}.{key}": value for key, value in values.items()}
        else:
            asked[name] = values
    return asked | {
        "sums_noise": how.sums_noise,
        "images": images.hexdigest()[:8],
        "fitted": fitted.hexdigest()[:8],
        "format": _FORMAT,
        **versions(*_PACKAGES),
    }


def _key(source: Source) -> str:
    """How the files of its piece are called."""
    return hashlib.sha256(source.name.encode()).hexdigest()[:16]
