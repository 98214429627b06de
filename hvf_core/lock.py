"""Locks of folders: one process at a time, for as long as it lives."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvf_core.problem import Problem

try:
    import fcntl
except ImportError:  # Windows has no lock that is inherited
    HAS_LOCKS = False
else:
    HAS_LOCKS = True


@contextmanager
def alone_in(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps others who ask for it out of a folder.

    Raises:
        Problem: somebody is in there, and this is the refusal.
    """
    if not HAS_LOCKS:
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        lock(file, refusal)
        if os.fstat(file).st_ino != os.stat(folder).st_ino:  # it was replaced just before
            raise Problem(refusal)
        yield
    finally:
        os.close(file)


def lock(file: int, refusal: str) -> None:
    """Locks an open file or folder until it is closed, or refuses in these words."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Problem(refusal) from None
    except OSError:
        pass  # a file system that has no locks
