"""The links of a session's pages, in its folder while they are served: for this user alone."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hvf_core.lock import HAS_LOCKS, lock
from stream.client import said_in

_BEGINS, _ENDS = "page-", ".json"
_log = logging.getLogger("hvf-live.dashboard")


@contextmanager
def kept(folder: Path, links: Mapping[str, str]) -> Iterator[None]:
    """Keeps the links of a page that is served, until it is no more.

    The file is locked meanwhile: by that one that was killed is known from one that is there.
    """
    links_in(folder)  # takes away what killed ones have left
    try:
        number, path = tempfile.mkstemp(_ENDS, _BEGINS, folder)
    except OSError as error:  # as of an archive, which can be read only
        _log.warning("the links of the page are kept nowhere ('%s': %s)", folder, error.strerror)
        yield
        return
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            if HAS_LOCKS:
                lock(number, f"'{path}' is another page's")
            json.dump(links, file)
            file.flush()
            yield
    finally:
        with suppress(OSError):
            os.unlink(path)


def links_in(folder: Path) -> list[dict[str, str]]:
    """Of each page of a session that is served now, its links by what they let a person do."""
    found = []
    for file in sorted(folder.glob(f"{_BEGINS}*{_ENDS}")):
        with suppress(ValueError):  # it is just being written
            found.append(said_in(file))
    return [links for links in found if links]
