"""What the decoder has learnt of repeats and said of trials, for one that is started in its place.

A file of records, one after another, each written at once after its answer is out. A record that a
crash cut short is taken off.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np

from hvf_core.problem import Problem, naming
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.messages import Retrieval

_LARGEST = 2**28  # bytes of a record
_DAMAGE = (ValueError, TypeError, msgpack.UnpackException, Problem)


@dataclass(frozen=True)
class Learnt:
    """What a group gained by a trial, and the answers to it; no trial: the group begins anew."""

    group: str
    trial: int | None
    given: np.ndarray
    answers: tuple[Retrieval, ...]


class Memory:
    """The file, read once and then written to.

    Args:
        shape: of what a trial gives.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self._path, self._shape = path, shape
        path.parent.mkdir(exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def recalled(self) -> Iterator[Learnt]:
        """What the file holds, in the order in which it was learnt; it ends where it is damaged."""
        whole = 0
        with self._path.open("rb") as file:
            records = msgpack.Unpacker(file, max_buffer_size=_LARGEST)
            try:
                for group, trial, numbers, dtype, frames in records:
                    given = np.frombuffer(numbers, dtype).reshape(self._shape)
                    answers = [one for one in map(unpack, frames) if isinstance(one, Retrieval)]
                    yield Learnt(str(group), trial, given, tuple(answers))
                    whole = records.tell()
            except _DAMAGE:
                pass  # what comes after it is not known, as after a crash
        os.truncate(self._path, whole)

    def learn(self, learnt: Learnt) -> None:
        """Adds a record."""
        given, frames = np.ascontiguousarray(learnt.given), [pack(one) for one in learnt.answers]
        record = (learnt.group, learnt.trial, given.tobytes(), given.dtype.str, frames)
        with naming(self._path):
            self._file.write(msgpack.packb(record))

    def forget(self, group: str) -> None:
        """Adds that a group begins anew."""
        self.learn(Learnt(group, None, np.zeros(self._shape, np.float32), ()))
