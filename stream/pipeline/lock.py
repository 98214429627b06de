"""The lock of a session: it is held while any of its processes lives, whichever of them that is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvf_core.lock import HAS_LOCKS, lock
from hvf_core.problem import Problem


@contextmanager
def held(folder: Path) -> Iterator[tuple[int, ...]]:
    """Holds the session in a folder; processes that inherit the file descriptors hold it too.

    Raises:
        Problem: somebody else holds it, or there is no session.
    """
    if not HAS_LOCKS:
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
        lock(file, f"the session in '{folder}' runs still: end it first, with Ctrl-C where it runs")
        yield (file,)
    finally:
        os.close(file)
