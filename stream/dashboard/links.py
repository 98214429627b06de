"""The links of a session's pages, in its folder while they are served: for this user alone."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hvf_core.lock import HAS_LOCKS, lock
from stream.client import said_in

_log = logging.getLogger("hvf-live.dashboard")


@contextmanager
def kept(folder: Path, port: int, links: Mapping[str, str]) -> Iterator[None]:
    """Keeps the links of a page that is served, until it is no more.

    The file is locked meanwhile: by that one that was killed is known from one that is there.
    """
    path = folder / f"page-{port}.json"
    try:
        path.unlink(missing_ok=True)  # what was killed has left it
        path.touch(mode=0o600)
        file = path.open("w", encoding="utf-8")
    except OSError as error:  # as of an archive, which can be read only
        _log.warning("the links of the page are kept nowhere ('%s': %s)", path, error.strerror)
        yield
        return
    try:
        with file:
            if HAS_LOCKS:
                lock(file.fileno(), f"'{path}' is another page's")
            json.dump(links, file)
            file.flush()
            yield
    finally:
        with suppress(OSError):
            path.unlink()


def links_in(folder: Path) -> list[dict[str, str]]:
    """Of each page of a session that is served now, its links by what they let a person do."""
    return [said for path in sorted(folder.glob("page-*.json")) if (said := said_in(path))]
