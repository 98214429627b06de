"""The lock of a session: it is held while any of its processes lives, whichever of them that is.

Other folders can be locked too, by one process at a time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvf_core.problem import Problem

try:
    import fcntl
except ImportError:  # Windows has no lock that is inherited
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True


@contextmanager
def held(folder: Path) -> Iterator[tuple[int, ...]]:
    """Holds the session in a folder; processes that inherit the file descriptors hold it too.

    Raises:
        Problem: somebody else holds it, or there is no session.
    """
    if not _HAS_LOCKS:
        yield ()
        return
    try:
        file = os.open(folder / "config.json", os.O_RDWR)
    except OSError as error:
        raise Problem(
            f"'{folder}' has no config.json that can be opened ({error.strerror}): give the folder "
            "of a session"
        ) from None
    try:
        _lock(
            file, f"the session in '{folder}' runs still: end it first, with Ctrl-C where it runs"
        )
        yield (file,)
    finally:
        os.close(file)


@contextmanager
def alone_in(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps others who ask for it out of a folder that is no session's.

    Raises:
        Problem: somebody is in there, and this is the refusal.
    """
    if not _HAS_LOCKS:
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        _lock(file, refusal)
        yield
    finally:
        os.close(file)


def _lock(file: int, refusal: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Problem(refusal) from None
    except OSError:
        pass  # a file system that has no locks
