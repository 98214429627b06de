"""Directories that are either whole or absent: a JSON manifest, and files with checksums.

Bundles, galleries and trial sets are all kept this way.
"""

import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.numpy import save_file

from hvf_core.problem import Problem, naming
from hvf_core.specs import first_fault

try:
    import fcntl
except ImportError:  # on Windows, where what a killed process leaves stays
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

Manifest = TypeVar("Manifest", bound=BaseModel)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room."""
_DRAFT = ".draft-"


def cache_folder() -> Path:
    """Where what was made on this machine is kept; HVF_LIVE_CACHE names another place."""
    if named := os.environ.get("HVF_LIVE_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvf-live"
    except RuntimeError:  # as of a container's user
        raise Problem("this user has no home: set HVF_LIVE_CACHE to a folder for caches") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def space_needed(path: Path, way_out: str = "") -> Iterator[None]:
    """Turns what a disk that is full raises into a `Problem`; its way out by default is room."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        where = ""
        with suppress(Problem):  # without a home nothing of it is in a cache
            where = " in HVF_LIVE_CACHE" if path.is_relative_to(cache_folder()) else ""
        way_out = way_out or f"make room, or name another disk{where}"
        raise Problem(f"{path} cannot be written ({error}): {way_out}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a draft that replaces a file when the block ends well; a full disk is a `Problem`.

    Whatever else the system refuses names the file, and not its draft.
    """
    draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
    with naming(path):
        try:
            with space_needed(path):
                yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Yields a draft whose files take the places of those in a folder when the block ends well."""
    with naming(folder), space_needed(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_DRAFT}*"):
            _drop(left)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as made:
            draft = Path(made)
            lock = lock_folder(draft)
            try:
                yield draft
                for file in sorted(draft.iterdir()):
                    file.replace(folder / file.name)
            finally:
                if lock is not None:
                    os.close(lock)


def refuse_unwritable(directory: Path) -> None:
    """Refuses a directory in which no file can be made, before any work is done for it."""
    try:
        there = next(
            place for place in (directory, *directory.absolute().parents) if place.exists()
        )
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise Problem(
            f"{directory} cannot be written ({error.strerror}): name another place"
        ) from None


def refuse_foreign(directory: Path, manifest_name: str) -> None:
    """Refuses a place for a `sealed_directory`, before any work is done for it.

    A directory that is neither empty nor holds a file `manifest_name` is not ours: a `Problem`, as
    a file is, and a place that cannot be written.
    """
    refuse_unwritable(directory.parent)
    _refuse_without(directory, manifest_name)


def refuse_other_results(folder: Path, *ours: str) -> None:
    """Refuses a place for `whole_files`, before any work is done for it.

    As `refuse_foreign` does; files are put into what is there, which has to hold one of `ours`.
    """
    refuse_unwritable(folder)
    _refuse_without(folder, *ours)


def _refuse_without(directory: Path, *ours: str) -> None:
    if directory.exists():
        there = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
        # What a killed process has left is no reason: it is taken away.
        if there.isdisjoint(ours) and not all(name.startswith(_DRAFT) for name in there):
            raise Problem(
                f"{directory} is there already and holds no {' or '.join(ours)}, so it is left "
                "alone: name a directory that is new or empty"
            )


def refuse_taken(directory: Path, manifest_name: str, what: str) -> None:
    """Refuses as `refuse_foreign` does, and what of ours is there: it may have taken a day."""
    refuse_foreign(directory, manifest_name)
    if (directory / manifest_name).is_file():
        raise Problem(f"'{directory}' is {what} already: name another --out, or remove it")


@contextmanager
def sealed_directory(directory: Path, manifest_name: str) -> Iterator[Path]:
    """Yields a draft beside `directory` that takes its place when the block ends well.

    A reader therefore sees the old directory or the new one, never half of one. What is there and
    is not ours is left alone, as `refuse_foreign` says.

    Raises:
        Problem: it cannot be written, or is not ours.
    """
    directory = directory.resolve()  # where it is a link, what it points to is replaced
    refuse_foreign(directory, manifest_name)
    _clear(directory)
    draft = directory.with_name(f".{directory.name}.draft-{os.getpid()}")
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    lock = lock_folder(draft)
    try:
        with space_needed(directory):
            yield draft
        try:
            if directory.exists():
                directory.rename(old)
            draft.rename(directory)
        except PermissionError:
            raise Problem(
                f"{directory} cannot be replaced, as on Windows while something reads it: end what "
                "uses it, or name another directory"
            ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _clear(directory: Path) -> None:
    """Takes away what killed processes left beside a directory; where it is gone, it is back."""
    name = glob.escape(directory.name)
    for draft in directory.parent.glob(f".{name}.draft-*"):
        if not _drop(draft):
            return
    for old in directory.parent.glob(f".{name}.old-*") if HAS_LOCKS else ():
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(directory)


def _drop(draft: Path) -> bool:
    """Takes a draft away, unless it is being written."""
    lock = lock_folder(draft)
    if lock is None:
        return False
    shutil.rmtree(draft, ignore_errors=True)
    os.close(lock)
    return True


def lock_folder(folder: Path) -> int | None:
    """Holds a folder until this process ends; None where another does, or there are no locks."""
    if not HAS_LOCKS:
        return None
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def write_tensors(
    path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None
) -> str:
    """Writes arrays, and facts about them, as safetensors and returns the file's SHA-256.

    It is a draft as a rule: whoever has it written says what cannot be, as `whole_file` does.
    """
    ordered = {name: np.array(array, order="C") for name, array in arrays.items()}
    with usual_mode(path):
        save_file(ordered, path, dict(facts) if facts else None)
    return file_sha256(path)


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Gives a file that the block writes the mode that files have by the umask.

    safetensors would have it read by nobody else, beside manifests that the umask lets others read.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    yield
    path.chmod(mode)


def write_manifest(path: Path, manifest: BaseModel) -> None:
    """Writes a manifest as indented JSON; one that was there is replaced at once."""
    with whole_file(path) as draft:
        draft.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(
    directory: Path,
    name: str,
    model: type[Manifest],
    schema_version: int,
    files: Iterable[str] = (),
    optional: str = "",
    oldest: int = 1,
) -> Manifest:
    """The manifest of a directory, of a schema version from `oldest` to `schema_version`.

    Where `files` are named, it gives the checksums of these, perhaps of an `optional` one, and of
    no other.
    """
    path = directory / name
    if not os.path.isfile(path):  # False also of a name that no file can have
        raise Problem(f"there is no {path}: give the directory in which {name} lies, or make it")
    try:
        found = from_json(path.read_bytes())  # strict: half a character is none
    except (OSError, ValueError) as error:
        raise Problem(f"{path} is not JSON ({error}): it is damaged, make it again") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if isinstance(version, int) and version > schema_version:
        raise Problem(
            f"{path} has schema version {version}, this program reads up to {schema_version}: "
            "update the program"
        )
    if isinstance(version, int) and version < oldest:
        how = f", with `{made_by}`" if isinstance(made_by := found.get("created_by"), str) else ""
        raise Problem(
            f"{path} has schema version {version}, which this program no longer reads: "
            f"make it again{how}"
        )
    try:
        manifest = model.model_validate(found)
    except ValidationError as error:
        raise Problem(
            f"{path} is not valid {first_fault(error)}: mend it there, or make it again"
        ) from error
    wanted = sorted(files)
    given = sorted(found.get("files", ()))
    if wanted and [name for name in given if name != optional] != wanted:
        raise Problem(
            f"{path} gives checksums of {', '.join(given)}, expected {', '.join(wanted)}: "
            "make its directory again"
        )
    return manifest


def check_finite(file: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses weights of which a value is not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Problem(
                f"tensor {name} of {file} has values that are not finite: the training diverged, "
                "repeat it with a lower learning rate"
            )


def check_files(directory: Path, checksums: Mapping[str, str]) -> None:
    """Refuses files that are missing, or of another SHA-256 than a manifest gives by file name."""
    for name, expected in checksums.items():
        path = directory / name
        if not path.is_file():
            raise Problem(f"{path} is missing: copy the whole directory again, or make it again")
        if file_sha256(path) != expected:
            raise Problem(
                f"{path} is damaged (its checksum is not the one that was written with it): "
                "copy the whole directory again, make it again or, where it is a cache, delete it"
            )
