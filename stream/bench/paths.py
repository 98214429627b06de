"""Paths that a person gives a benchmark: what is wrong with one is said before it measures."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvf_core.problem import Problem


@contextmanager
def given(path: Path) -> Iterator[None]:
    """What the system has against a path is said in a sentence.

    Raises:
        Problem: it cannot be read, made or written.
    """
    try:
        yield
    except OSError as error:
        way_out = "give another path, or make room there"
        raise Problem(f"'{path}' cannot be used ({error.strerror}): {way_out}") from None


def check_file(file: Path | None) -> None:
    """Makes a file that results are added to, where one is wanted and is not there.

    Raises:
        Problem: it cannot be written.
    """
    if file is not None:
        with given(file):
            file.open("a", encoding="utf-8").close()


@contextmanager
def workplace(prefix: str, keep: Path | None) -> Iterator[Path]:
    """A new folder, in `keep`; without one it goes in the end, however that comes.

    Raises:
        Problem: it cannot be made.
    """
    with given(keep or Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=keep))
    try:
        yield folder
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
