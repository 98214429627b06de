"""Images in folders, and in shards of them (.tar, .parquet), which are not unpacked."""

import posixpath
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from hvf_core.problem import Problem
from offline_train.data.images import (
    IMAGE_SUFFIXES,
    Entry,
    bytes_of,
    files_below,
    in_file,
    is_image,
)

SHARDS = (".tar", ".parquet")
_AT_ONCE = 32  # rows of a Parquet file
_LINKS = 8  # after each other
_IDS = ("id", "image_id", "__key__", "key")


def entries(places: Sequence[Path], known: Container[str] = ()) -> Iterator[Entry]:
    """The images in folders, shards and files, in an order that is always the same.

    Args:
        known: names of entries whose bytes are not needed: Parquet is gone through without them.

    Raises:
        Problem: one is not there, is none of these, or is damaged.
    """
    for place in places:
        if not place.is_dir():
            found = iter([place])
        else:
            found = (file for file in files_below(place) if is_image(file) or _is_shard(file))
        for file in found:
            if not file.exists():
                raise Problem(f"there is no '{file}': give folders, shards or files that are there")
            if file.suffix.lower() == ".tar":
                yield from _of_tar(file)
            elif _is_shard(file):
                yield from _of_parquet(file, known)
            elif file.is_file() and is_image(file):
                yield in_file(_id(file.stem), file)
            else:
                known = ", ".join((*SHARDS, *IMAGE_SUFFIXES))
                raise Problem(f"'{file}' is no folder, and no file that ends in one of {known}")


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() in SHARDS


def _id(name: str) -> str:
    return normalize("NFC", name)


def _of_tar(path: Path) -> Iterator[Entry]:
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # or it remembers all
                name = PurePosixPath(member.name)
                if is_image(name) and not name.name.startswith(".") and not member.isdir():
                    read = partial(bytes_of, path, "the shard ", member.offset_data, member.size)
                    if not member.isfile():
                        read = partial(_followed, path, posixpath.normpath(member.name))
                    yield Entry(_id(name.stem), f"{path}/{name}", read, path)
            _check_end(path, tar.offset)
    except (OSError, tarfile.TarError) as error:
        raise _damaged(path, error) from error


def _check_end(path: Path, offset: int) -> None:
    """Behind the last file of a tar there are zeros, and nothing else; a cut one lacks them."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
        if any(block):  # which is taken for the end
            raise tarfile.ReadError(f"what begins at byte {offset} is no file")
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without the zeros that close a tar")
        if not offset:
            raise tarfile.ReadError("it holds nothing but zeros")
        while block := file.read(1 << 20):
            if block.strip(b"\0"):
                raise Problem(
                    f"the shard '{path}' goes on behind its end at byte {offset}, as where tars "
                    "were joined by `cat`: give them apart, or join them by `tar --concatenate`"
                )


def _followed(path: Path, link: str) -> bytes:
    """The bytes of what a link in a tar leads to."""
    members, name = _members(path), link
    for _ in range(_LINKS):
        there = members.get(name)
        if isinstance(there, tuple):
            return bytes_of(path, "the shard ", *there)
        name = there or name
    raise Problem(
        f"'{path}/{link}' is a link to '{name}', which is no file of this shard: make it again "
        "with `tar --dereference`, or take the link out"
    )


@lru_cache(maxsize=1)
def _members(path: Path) -> dict[str, str | tuple[int, int]]:
    """Where each file of a tar lies, and to which name each link leads."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
    except (OSError, tarfile.TarError) as error:
        raise _damaged(path, error) from error
    found: dict[str, str | tuple[int, int]] = {}
    for member in members:
        name, to = posixpath.normpath(member.name), member.linkname
        if member.isfile():
            found[name] = member.offset_data, member.size
        elif member.islnk() or member.issym():  # the latter from where it lies
            beside = posixpath.dirname(name) if member.issym() else ""
            found[name] = posixpath.normpath(posixpath.join(beside, to))
    return found


def _damaged(path: Path, error: Exception) -> Problem:
    if isinstance(error, PermissionError):
        return Problem(f"the shard '{path}' cannot be read ({error.strerror}): allow it")
    return Problem(
        f"the shard '{path}' cannot be read ({error}): it is damaged or was cut short, download it "
        "again"
    )


def _of_parquet(path: Path, known: Container[str]) -> Iterator[Entry]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Problem(
            f"'{path}' needs pyarrow, which is not installed: `pip install pyarrow`, or give .tar"
        ) from None
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            images = next((one for one in ("image", "jpg", "png") if one in names), None)
            if images is None:
                raise Problem(
                    f"'{path}' has the columns {', '.join(names)}, expected `image` with the bytes "
                    "of files: give another one"
                )
            ids = next((one for one in _IDS if one in names), None)
            kind = file.schema_arrow.field(images).type
            is_named = pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0
            row = 0
            # Rows become known in their order.
            is_known = _row_name(path, file.metadata.num_rows - 1) in known
            wanted = [f"{images}.path"] * is_named if is_known else [images]
            for batch in file.iter_batches(_AT_ONCE, columns=wanted + [ids] * bool(ids)):
                for one in batch.to_pylist():
                    again = partial(_row_again, path, images, row)
                    image = one.get(images) or {}
                    held = image if isinstance(image, dict) else {"bytes": image}
                    if is_known:
                        held["bytes"] = b""
                    yield _of_row(path, row, held, one[ids] if ids else None, again)
                    row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _row_name(path: Path, row: int) -> str:
    return f"{path}, row {row}"


def _of_row(
    path: Path, row: int, held: Mapping[str, Any], id_: Any, again: Callable[[], bytes]
) -> Entry:
    """A row of a Parquet file, whose image is a map of `bytes` and perhaps `path`."""
    data, name = held.get("bytes"), held.get("path")
    if not isinstance(data, bytes):
        raise Problem(f"row {row} of '{path}' has no bytes of an image: download it again")
    stem = PurePosixPath(name).stem if name else f"{path.stem}-{row:06d}"
    id_ = _id(str(id_) if id_ is not None else stem)
    return Entry(id_, _row_name(path, row), lambda: data, path, again=again)


def _row_again(path: Path, column: str, row: int) -> bytes:
    """The image of one row; all of its row group are read for it, as Parquet has it."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                if row < n:
                    image = file.read_row_group(group, columns=[column])[column][row].as_py()
                    return image["bytes"] if isinstance(image, dict) else image
                row -= n
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    raise Problem(f"'{path}' has fewer rows than before: it has just changed, start again")
