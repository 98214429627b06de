"""The gallery of a session: what is accepted of it, and what is done with it beside the loop.

Images may be added to a gallery and removed while a session runs, and another may take its place.
So what was verified is kept in the session folder: the gallery's manifest of then, and the
candidates of `--among`. This is what the processes of the session open, those too that are started
again while the folder holds something else already, and whoever decodes the session again.
"""

import ctypes
import hashlib
import json
import mmap
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from decoder.bundle import open_bundle
from hvf_core.artifact import read_manifest, whole_file, write_manifest
from hvf_core.problem import Problem, needed
from index.gallery import MANIFEST, Gallery, check_space, load_gallery, open_gallery
from index.gallery.manifest import SCHEMA_VERSION, GalleryManifest, read_gallery_manifest
from index.gallery.reading import open_as_of
from index.search.kinds import GPU_IVF, KINDS, MILVUS, OF_GPU_IVF
from stream.pipeline.wire.config import SessionConfig

NICENESS = 10
"""Of what is done with galleries beside answers: a decoder that wakes up takes the core at once."""
_PLACE = "galleries"
"""In the session folder."""
Stamp = tuple[tuple[str, int, int, int], ...]


def accept(config: SessionConfig, gallery: Gallery, candidates: Path | None) -> Gallery:
    """Makes a gallery that was verified that of the session, from when on it is opened anew.

    Args:
        candidates: file of their ids; None: all images.

    Returns:
        The gallery with the candidates alone.

    Raises:
        Problem: as `among` says.
    """
    chosen = among(gallery, candidates)
    (config.folder / _PLACE).mkdir(exist_ok=True)
    if candidates is not None:
        ids = [chosen.ids[row] for row in chosen.rows.tolist()]
        with whole_file(_kept(config, "among.txt")) as draft:
            draft.write_text("\n".join(ids) + "\n", encoding="utf-8")
    write_manifest(accepted(config), needed(gallery.manifest))
    return chosen


def forget(config: SessionConfig) -> None:
    """Takes away what `accept` has written."""
    for file in (accepted(config), _kept(config, "among.txt")):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or something else is in it
        (config.folder / _PLACE).rmdir()


def accepted(config: SessionConfig) -> Path:
    """Where the manifest is that was accepted of the session's gallery, if one was."""
    of_folder = hashlib.sha256(str(config.gallery).encode()).hexdigest()[:12]
    return _kept(config, f"{of_folder}.json")


def candidates_of(config: SessionConfig) -> Path | None:
    """The file of the candidates' ids, as it was accepted."""
    kept = _kept(config, "among.txt")
    return kept if config.decoding.among and kept.exists() else config.decoding.among


def _kept(config: SessionConfig, name: str) -> Path:
    return config.folder / _PLACE / name


def open_accepted(config: SessionConfig) -> Gallery:
    """The gallery as the session has accepted it, with its candidates alone.

    Where it was made anew, so that nothing is left of what was accepted, it is the new one.

    Raises:
        Problem: it cannot be opened.
    """
    return among(open_whole(config), candidates_of(config))


def open_whole(config: SessionConfig) -> Gallery:
    """The same with all images."""
    folder, manifest = needed(config.gallery), _manifest(config)
    return open_gallery(folder) if manifest is None else open_as_of(folder, manifest)


def _manifest(config: SessionConfig) -> GalleryManifest | None:
    path = accepted(config)
    if not path.exists():
        return None
    return read_manifest(path.parent, path.name, GalleryManifest, SCHEMA_VERSION)


def among(gallery: Gallery, candidates: Path | None) -> Gallery:
    """A gallery with the images alone that a file names, an id a line; None: with all.

    Raises:
        Problem: the file cannot be read, or names none, or one that the gallery has not.
    """
    if candidates is None:
        return gallery
    try:
        lines = candidates.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Problem(
            f"'{candidates}' of --among cannot be read ({why}): give a text file, an id in each "
            "line"
        ) from None
    rows = {id_: gallery.row_of(id_) for id_ in lines if id_.strip()}
    if not rows:
        raise Problem(f"'{candidates}' of --among names no image: write an id into each line")
    if unknown := [id_ for id_, row in rows.items() if row is None]:
        # Not what stands there: whoever steers a session may name any file of this machine.
        raise Problem(
            f"'{candidates}' of --among names {len(rows)} images, of which the gallery has "
            f"{len(rows) - len(unknown)}, and not that of line {lines.index(unknown[0]) + 1}: name "
            "images of the gallery"
        )
    chosen = np.array(list(rows.values()), np.int64)
    return replace(gallery, removed=np.delete(np.arange(gallery.n_rows), chosen))


def stamp_of(folder: Path) -> Stamp | None:
    """Another one after every change of a gallery's files; None where there is none."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return None
    stamps = sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found)
    return tuple(stamps) if any(name == MANIFEST for name, _ in found) else None


def is_accepted(config: SessionConfig) -> bool:
    """Whether the folder of the session's gallery holds what was accepted, and nothing else."""
    if (manifest := _manifest(config)) is None:  # whoever began the session does not ask for it
        return True
    try:
        return read_gallery_manifest(needed(config.gallery)) == manifest
    except Problem:
        return False


def let_go(gallery: Gallery) -> None:
    """Takes the pages of embeddings that were looked at out of this process, if they lie in a file.

    Whoever still looks at them reads them again. To unmap a million of them takes 0.2 s, for which
    Python would hold its lock, and no thread could do anything.
    """
    if sys.platform == "linux" and gallery.folder is not None:
        place, size = gallery.embeddings.ctypes.data, gallery.embeddings.nbytes
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def usable(folder: Path, config: SessionConfig) -> Gallery:
    """A gallery that is whole, and of the space that the session decodes into.

    Of the one that the session has, only what is new is read.

    Raises:
        Problem: it is not.
    """
    known = open_whole(config) if folder == config.gallery else None
    try:
        gallery = load_gallery(folder, known)
    except (OSError, ValueError) as error:  # a file was taken away, or cut, while it was read
        raise Problem(
            f"the gallery '{folder}' cannot be read ({error}): copy it again, or make it again"
        ) from None
    check_space(gallery, open_bundle(needed(config.bundle)).manifest)
    return gallery


def refuse_without_index(gallery: Gallery, kind: str) -> None:
    """Refuses a kind of search by an index that a gallery does not have.

    Raises:
        Problem: there is none, or it is of no use, or it lies on a server and nothing can ask one.
    """
    if kind == MILVUS:
        from index.search.milvus.kept import read_kept
        from index.search.milvus.server import refuse_without_client

        refuse_without_client()
        read_kept(gallery)
    kind = OF_GPU_IVF if kind == GPU_IVF else kind
    if kind in KINDS:
        from index.search.open import open_search  # FAISS takes its time

        open_search(gallery, kind, lambda sentence: None)


def alike(config: SessionConfig, asked: str) -> str:
    """The images most like one of the session's gallery, as JSON: id, label and cosine of each.

    All of the gallery is looked at, where it is mapped into memory: nothing of it is copied.

    Args:
        asked: how many, and the id, as `5 apple`.

    Raises:
        Problem: that is not what is asked, or there is no such image.
    """
    from index.search.flat import Flat  # FAISS takes its time, and few sessions are asked

    k, _, id_ = asked.partition(" ")
    if not (k.isdecimal() and int(k) and id_.strip()):
        raise Problem(f"'like {asked}' should say how many images, and like which: `like 5 apple`")
    gallery = open_accepted(config)
    row = gallery.row_of(id_.strip())
    if row is None:
        raise Problem(f"there is no image '{id_.strip()}' in the gallery '{config.gallery}'")
    search = Flat(gallery.embeddings, gallery.rows if len(gallery.removed) else None)
    rows, cosines = search.scores(gallery.embeddings[row]).top_k(int(k) + 1)
    others = [(n, cosine) for n, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)]
    others = [(n, cosine) for n, cosine in others if n != row][: int(k)]
    told = [(gallery.ids[n], gallery.labels[n], cosine) for n, cosine in others]
    return json.dumps(told, ensure_ascii=False)
