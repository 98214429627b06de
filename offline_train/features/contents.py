"""What the bytes of images were, so that those that have not changed are not read to know them."""

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from hvf_core.artifact import whole_file
from offline_train.checkpoint import identify
from offline_train.data.images import Entry

_LINE = re.compile("([0-9a-f]{32}) ([0-9a-f]{64})")
_UNSURE_NS = 2_000_000_000
"""What was changed so lately may change again within a tick of its file system's clock."""


class Contents:
    """SHA-256 of images, by where they lie and what the system says of their files.

    That is size, time, number on the disk, and the time of the last change, which no program sets.
    """

    def __init__(self, cache: Path, places: Sequence[Path]) -> None:
        named = identify([*sorted(str(place.absolute()) for place in places)])
        self._file = cache / f"contents-{named[:16]}.txt"
        there = self._file.read_text("ascii", "replace") if self._file.is_file() else ""
        # A line that is no such one is of no use, and its image is read.
        self._before = {found[1]: found[2] for found in _LINE.finditer(there)}
        self._now: dict[str, str] = {}
        self._n_new = 0

    def __contains__(self, named: object) -> bool:
        """Whether an image of this name, in a shard, is known, as its file is now."""
        name = str(named)
        return self._stamp(name, Path(name.rpartition(", row ")[0])) in self._before

    def of(self, entry: Entry) -> str:
        """The SHA-256 of an image's bytes.

        Raises:
            Problem: they cannot be read.
        """
        stamp = self._stamp(entry.name, entry.file)
        content = self._before.get(stamp)
        if content is None:
            content = hashlib.sha256(entry.read()).hexdigest()
            self._n_new += 1
        if stamp:
            self._now[stamp] = content
        return content

    def write(self) -> None:
        """Keeps what is known by now."""
        if self._n_new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._file) as draft:
                draft.write_text(
                    "".join(f"{k} {v}\n" for k, v in (self._before | self._now).items()), "ascii"
                )

    def _stamp(self, name: str, file: Path) -> str:
        """Of an image as it is now; empty where that is not sure to tell it apart."""
        try:
            now = file.stat()
        except OSError:  # which is told when it is read
            return ""
        if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) < _UNSURE_NS:
            return ""
        told = (name, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
