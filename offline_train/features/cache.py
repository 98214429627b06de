"""What image encoders have seen, on disk: known by the content of each image.

It knows encoders by their weights and by what these give: other names cost nothing, and nothing
that has changed is taken for what it was.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hvf_core.artifact import space_needed, whole_file, write_tensors
from hvf_core.problem import Problem
from index.encoders.load import BATCH, ImageEncoder, same_encoder
from index.images import READING
from offline_train.checkpoint import identify

BLOCK = 256
"""Images between two writes to the cache: what an interruption costs at most."""
MERGED = 64
"""So many small files become one: a process can have a thousand open."""


_Run = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Keys, in the order of their first halves, and their places."""
_LONGER = 4


class Index:
    """Where the embedding of each content is: 24 bytes of memory for each, whatever it is.

    It is some sorted runs, each several times as long as the next: whatever is added moves but a
    few times, however much is known.
    """

    def __init__(self) -> None:
        # One value, as other threads look into it meanwhile.
        self._runs: tuple[_Run, ...] = ()

    def add(self, contents: Sequence[str], places: NDArray[np.int64]) -> None:
        """Adds contents; those that are known are at the new place from now on."""
        if not contents:
            return
        runs, run = [*self._runs], _sorted(_keys(contents), places)
        while runs and len(runs[-1][1]) < _LONGER * len(run[1]):
            older = runs.pop()
            run = _sorted(*(np.concatenate(pair) for pair in zip(run, older, strict=True)))
        self._runs = (*runs, run)

    def find(self, contents: Sequence[str]) -> NDArray[np.int64]:
        """The place of each, or -1."""
        wanted, found = _keys(contents), np.full(len(contents), -1)
        for keys, places in self._runs:  # the newest last
            at = np.minimum(np.searchsorted(keys[:, 0], wanted[:, 0]), len(keys) - 1)
            found = np.where((keys[at] == wanted).all(axis=1), places[at], found)
        return found


def _sorted(keys: NDArray[np.uint64], places: NDArray[np.int64]) -> _Run:
    """A run of these, of which the first of one key counts."""
    order = np.argsort(keys[:, 0], kind="stable")  # what was in two runs is merged in one go
    order = order[np.append(True, np.diff(keys[order, 0]) != 0)]
    return keys[order], places[order]


def _keys(contents: Sequence[str]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(one.encode(), digest_size=16).digest() for one in contents)
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


class Stored:
    """Embeddings of some images where they lie on disk: rows are read when they are asked for."""

    def __init__(self, files: Sequence[np.ndarray], places: NDArray[np.int64], dim: int) -> None:
        self._files, self._places, self._dim = files, places, dim

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """These rows, (n, dim)."""
        places = self._places[rows].tolist()
        found = np.empty((len(places), self._dim), np.float32)
        for row, place in zip(found, places, strict=True):
            row[:] = self._files[place >> 32][place & 0xFFFFFFFF]
        return found


class FeatureCache:
    """What one encoder has seen: its embeddings, which lie in files, by the images' contents."""

    def __init__(self, cache_dir: Path, encoder: ImageEncoder, say: Callable[[str], None]) -> None:
        self.encoder = encoder
        self._index = Index()
        self._files: list[np.ndarray] = []  # memory-mapped
        self._small: list[tuple[Path, int, list[str]]] = []  # which of them, and what they know
        self._unwritten: dict[str, np.ndarray] = {}
        # A folder without READING at its end knew images by their names: it is left alone.
        name = f"{encoder.spec.name}-{encoder.checksum[:16]}-{READING}"
        self._folder = cache_dir / name
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                self._read(path)
            except FileNotFoundError:
                continue  # another process has set it aside, or has merged it with others
            except (SafetensorError, KeyError, TypeError, ValueError):
                path.replace(path.with_suffix(".damaged"))
                say(f"'{path}' is damaged and set aside: its images are encoded again")

    def __contains__(self, content: str) -> bool:
        return content in self._unwritten or bool(self._index.find([content])[0] >= 0)

    def rows(self, contents: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings (n, dim) of images; raises as `stored` does."""
        return self.stored(contents)[:]

    def stored(self, contents: Sequence[str]) -> Stored:
        """The embeddings of images that it has seen and written, by their contents.

        Raises:
            Problem: it has not seen one.
        """
        places = self._index.find(contents)
        if n_absent := int((places < 0).sum()):
            raise Problem(
                f"the cache '{self._folder}' lacks {n_absent} of {len(contents)} images: encode "
                "them again, or name another one with --cache"
            )
        return Stored(list(self._files), places, self.encoder.spec.dim)

    def add(self, contents: Sequence[str], embeddings: np.ndarray) -> None:
        """Takes embeddings (n, dim), which are on disk after the next `write`.

        Raises:
            Problem: they are not finite.
        """
        if not np.isfinite(embeddings).all():
            raise Problem(
                f"image encoder {self.encoder.spec.name!r} gives values that are not finite: "
                "its weights are damaged, fetch them again"
            )
        self._unwritten.update(zip(contents, embeddings, strict=True))

    def write(self) -> None:
        """Adds a file, named by what is in it, so that it takes no other one's place."""
        if self._unwritten:
            self._put(list(self._unwritten), np.stack(list(self._unwritten.values())))
            self._unwritten.clear()

    def _put(self, contents: list[str], embeddings: np.ndarray) -> Path:
        facts = {
            "contents": json.dumps(contents),
            "encoder": self.encoder.checksum,
            "fingerprint": json.dumps(self.encoder.fingerprint),
            "sha256": _checksum(contents, embeddings),
        }
        with space_needed(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{identify(dict(facts))[:16]}.safetensors"
        with whole_file(path) as draft:
            write_tensors(draft, {"embeddings": embeddings}, facts)
        self._read(path)
        return path

    def _read(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            facts, there = file.metadata(), file.get_slice("embeddings")
            shape, dtype = there.get_shape(), np.dtype(_DTYPES[there.get_dtype()])
        # What is known lies in the file: a million images' features are more than memory holds.
        place = path.stat().st_size - dtype.itemsize * int(np.prod(shape))
        embeddings = np.memmap(path, dtype, "r", place, tuple(shape)).view(np.ndarray)
        contents, fingerprint = json.loads(facts["contents"]), json.loads(facts["fingerprint"])
        if facts["sha256"] != _checksum(contents, embeddings):
            raise ValueError("not what was written")
        ours = self.encoder
        is_ours = facts["encoder"] == ours.checksum and embeddings.shape[1] == ours.spec.dim
        if not is_ours or not same_encoder(ours.fingerprint, fingerprint):
            return
        number = len(self._files)
        self._files.append(embeddings)
        self._index.add(contents, (number << 32) + np.arange(len(contents)))
        if len(contents) <= BLOCK:
            self._small.append((path, number, contents))
        if len(self._small) >= MERGED:
            self._merge()

    def _merge(self) -> None:
        """Makes one file of the small ones, which are deleted once it is whole."""
        small, self._small = self._small, []
        rows = {
            content: row
            for _, number, contents in small
            for content, row in zip(contents, self._files[number], strict=True)
        }
        merged = self._put(list(rows), np.stack(list(rows.values())))
        for path, number, _ in small:
            self._files[number] = self._files[number][:0].copy()  # which lets go of the file
            if path != merged:
                with suppress(OSError):  # another process has merged it too, or still reads it
                    path.unlink()


_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


def _checksum(contents: Sequence[str], embeddings: np.ndarray) -> str:
    named = json.dumps([*contents, embeddings.dtype.str, embeddings.shape])
    return hashlib.sha256(named.encode() + embeddings.tobytes()).hexdigest()


class Feed:
    """Images on their way through encoders into their caches, a batch of them in memory at most."""

    def __init__(self, caches: Sequence[FeatureCache]) -> None:
        self._caches = caches
        self._prepared: list[dict[str, Tensor]] = [{} for _ in caches]
        self._n = 0

    def prepare(
        self, content: str, image: Callable[[], NDArray[np.uint8]]
    ) -> list[Tensor | None] | None:
        """What each encoder takes of an image (height, width, 3), if it has not seen it.

        Other threads may call it. The image is not asked for where all know it: that is None.
        """
        wanted = [content not in cache for cache in self._caches]
        if not any(wanted):
            return None
        pixels = image()
        pairs = zip(self._caches, wanted, strict=True)
        return [cache.encoder.prepare(pixels) if lacks else None for cache, lacks in pairs]

    def take(self, content: str, made: Sequence[Tensor | None]) -> None:
        """Takes what was prepared, and has encoders see it as soon as there is a batch."""
        for prepared, one in zip(self._prepared, made, strict=True):
            if one is not None:
                prepared[content] = one
        self._n += 1
        if self._n % BATCH == 0:
            self._embed()
        if self._n % BLOCK == 0:
            self.write()

    def write(self) -> None:
        """Has all that was taken on disk when it returns."""
        self._embed()
        for cache in self._caches:
            cache.write()

    def _embed(self) -> None:
        for cache, prepared in zip(self._caches, self._prepared, strict=True):
            if prepared:
                cache.add(list(prepared), cache.encoder.embed(list(prepared.values())))
                prepared.clear()
