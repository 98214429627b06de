"""What numpy, pickle and torch have saved: no code of it runs, and large arrays stay on disk.

Three ways of saving come down to one pickle: `np.save` of a dict puts it behind a header,
`pickle.dump` puts nothing before it, `torch.save` puts it into a zip. All that is taken of it are
arrays of plain numbers and texts, and plain containers; whatever names anything else is refused.
The bytes of a large array are not read: the array is mapped from where they lie in the file.
"""

import codecs
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.lib import format as npy

from hvf_core.problem import Problem, needed

_LARGE = 1 << 20  # bytes; frames of a pickle are smaller
_PLAIN = re.compile(r"[biufcSUO]\d+")  # kinds of dtype: no records, no dates
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, OverflowError, RecursionError, struct.error, zipfile.BadZipFile),
)


def read_saved(path: Path, pickles: bool) -> dict[str, Any]:
    """The dict that a file holds: numbers, texts, lists, dicts and arrays, large ones mapped.

    Args:
        pickles: whether a person has said that a pickle may be read.

    Raises:
        Problem: the file is damaged or cut short, holds something else, or names code.
    """
    if not path.is_file():
        raise Problem(f"there is no file '{path}': give what was downloaded")
    if not pickles:
        raise Problem(
            f"'{path}' is saved as a pickle, in which there may be code of anybody's: give "
            "--pickles to have its arrays and plain values read, and nothing in it run"
        )
    try:
        with path.open("rb") as file:
            _to_pickle(file, path)
            made = _resolved(_Unpickler(_File(file, path)).load(), path)
    except _DAMAGE as error:
        raise Problem(
            f"'{path}' cannot be read ({str(error) or type(error).__name__}): it is damaged or "
            "was cut short, or is no file of numpy, pickle or torch; download it again"
        ) from error
    if not isinstance(made, dict):
        raise Problem(f"'{path}' holds no dict, as files of data sets do, but one {type(made)}")
    return {str(name): value for name, value in made.items()}


def _to_pickle(file: BinaryIO, path: Path) -> None:
    """Goes to where the pickle of a file begins."""
    start = file.read(4)
    file.seek(0)
    if start == b"PK\3\4":
        with zipfile.ZipFile(file) as archive:
            found = [one for one in archive.infolist() if one.filename.endswith("/data.pkl")]
            if len(found) != 1 or found[0].compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is a zip, but none of torch's")
            member = found[0]
        file.seek(member.header_offset + 26)
        lengths = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + 30 + sum(lengths))
    elif start == npy.MAGIC_PREFIX[:4]:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = read(file)
        if not dtype.hasobject:
            raise Problem(f"'{path}' holds one array without names, so it is of no known data set")
    elif not start.startswith(b"\x80"):
        raise ValueError("it does not begin as one")


def mapped_anew(array: np.ndarray) -> np.ndarray:
    """An array that is mapped from a file, anew: what was read of it before leaves the memory."""
    if not isinstance(array, np.memmap):
        return array
    placed: Any = {"offset": array.offset, "shape": array.shape}
    placed["order"] = "C" if array.flags.c_contiguous else "F"
    return np.memmap(needed(array.filename), array.dtype, "r", **placed)


class _Stretch(bytes):
    """Bytes of a file that were passed over."""

    at: int
    length: int


class _File:
    """A file of which, where it is told so, large stretches are passed over and only noted."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._file, self._size = file, path.stat().st_size
        self.passes_over = False
        self.readline = file.readline
        self.readinto = file.readinto  # type: ignore[attr-defined]

    def read(self, length: int) -> bytes:
        at = self._file.tell()
        if at + length > self._size:
            raise EOFError(f"{at + length - self._size} bytes are missing at its end")
        if length < _LARGE or not self.passes_over:
            return self._file.read(length)
        stretch = _Stretch()
        stretch.at, stretch.length = at, length
        self._file.seek(length, 1)
        return stretch


class _DType:
    """What a pickle says of a dtype."""

    def __init__(self, kind: str, *_: object) -> None:
        if not _PLAIN.fullmatch(kind):
            raise ValueError(f"an array of {kind}, expected numbers or texts")
        self.made = np.dtype(kind)

    def set_state(self, version: int, endian: str, *more: object) -> None:
        if any(more[:3]):  # a dtype inside it, names of fields, fields
            raise ValueError("an array of records, expected numbers or texts")
        self.made = self.made.newbyteorder(">" if endian == ">" else "=")


class _Array:
    """What a pickle says of an array."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.order = "C"

    def set_state(
        self, version: int, shape: tuple[int, ...], dtype: _DType, is_fortran: bool, raw: Any
    ) -> None:
        self.shape, self.dtype, self.raw = shape, dtype.made, raw
        self.order = "F" if is_fortran else "C"

    def resolved(self, path: Path) -> Any:
        """The array; texts as such, and what is in an array of objects in its place."""
        if self.dtype == object:
            values = np.empty(len(self.raw), object)
            values[:] = [_resolved(value, path) for value in self.raw]
            return values.reshape(self.shape, order=self.order)[()]  # type: ignore[call-overload]
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        if n_bytes != (self.raw.length if isinstance(self.raw, _Stretch) else len(self.raw)):
            raise ValueError(f"an array of shape {self.shape} has another number of bytes")
        if isinstance(self.raw, _Stretch):
            placed: Any = {"offset": self.raw.at, "shape": self.shape, "order": self.order}
            return np.memmap(path, self.dtype, "r", **placed)
        array = np.frombuffer(self.raw, self.dtype)
        return array.reshape(self.shape, order=self.order)[()]  # type: ignore[call-overload]


def _from_buffer(raw: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.set_state(1, shape, dtype, order == "F", raw)
    return array


def _scalar(dtype: _DType, raw: bytes) -> _Array:
    return _from_buffer(raw, dtype, (), "C")


def _encode(text: str, encoding: str) -> bytes:
    """As the bytes of an array are kept by the oldest pickles."""
    return codecs.latin_1_encode(text)[0]


def _names(modules: Iterable[str], taken: dict[str, Callable[..., Any]]) -> dict[Any, Any]:
    return {(module, name): made for module in modules for name, made in taken.items()}


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    **_names(
        ("numpy.core.multiarray", "numpy._core.multiarray"),
        {"_reconstruct": _Array, "scalar": _scalar},
    ),
    **_names(("numpy.core.numeric", "numpy._core.numeric"), {"_frombuffer": _from_buffer}),
}


class _Unpickler(pickle._Unpickler):
    """Python's own, that knows no names but those, and hands large bytes on as they come."""

    stack: list[Any]
    read: Callable[[int], bytes]

    def __init__(self, file: _File) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _KNOWN:
            raise Problem(
                f"'{self._file.path}' names '{module}.{name}', which is neither an array nor a "
                "plain container and may be code, so nothing of it is read: take the file from its "
                "authors, or save what is in it as arrays"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any, /) -> Any:
        raise Problem(
            f"'{self._file.path}' holds tensors, expected arrays: save `tensor.numpy()` instead"
        )

    def _load_bytes(self, length_of_length: int) -> None:
        length = int.from_bytes(self.read(length_of_length), "little")
        self._file.passes_over = True
        self.stack.append(self.read(length))
        self._file.passes_over = False

    def _load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _DType):
            raise ValueError("it sets the state of what has none")
        self.stack[-1].set_state(*state)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BINBYTES[0]: lambda self: self._load_bytes(4),
        pickle.BINBYTES8[0]: lambda self: self._load_bytes(8),
        pickle.BYTEARRAY8[0]: lambda self: self._load_bytes(8),
        pickle.BUILD[0]: _load_build,
    }


def _resolved(value: Any, path: Path) -> Any:
    """The value with arrays in place of what was said of them."""
    if isinstance(value, _Array):
        return value.resolved(path)
    if isinstance(value, dict):
        return {key: _resolved(one, path) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(one, path) for one in value]
    return value
