"""The links of a session's pages, in its folder while they are served: for this user alone.

Such a file is JSON to who asks where a page is served, and leads a browser there that opens it:
with what a program is started every user of the machine sees, and so would the token be.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hvf_core.lock import HAS_LOCKS, lock
from stream.client import said_in

_BEGINS, _ENDS = "page-link-", ".html"
_LEADS = "<meta http-equiv=refresh content='0;url={}'>"
_WRITTEN_S = 60.0  # by then a file is whole, or whoever wrote it was killed
_log = logging.getLogger("hvf-live.dashboard")
Links = Mapping[str, list[str]]
"""What a person opens, by what it lets him do."""


@contextmanager
def kept(folder: Path, links: Links) -> Iterator[None]:
    """Keeps the links of a page that is served, until it is no more.

    Where they cannot be written, a warning says so, and the page is served.
    """
    links_in(folder)  # takes away what killed ones have left
    with ExitStack() as until_then:
        try:
            until_then.enter_context(_file_of(links, folder))
        except OSError as error:  # as of an archive, which can be read only, or of a full disk
            _log.warning(
                "the links of the page are kept nowhere ('%s': %s)", folder, error.strerror
            )
        yield


@contextmanager
def _file_of(links: Links, folder: Path) -> Iterator[None]:
    """Their file, locked: by that one that was killed is known from one that is there."""
    number, path = tempfile.mkstemp(_ENDS, _BEGINS, folder)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            if HAS_LOCKS:
                lock(number, f"'{path}' is another page's")
            json.dump({"leads": _LEADS.format(links["control"][0]), "links": links}, file)
            file.flush()
            yield
    finally:
        with suppress(OSError):
            os.unlink(path)


def links_in(folder: Path) -> dict[Path, Links]:
    """Of each page of a session that is served now, the links, by the file that leads there."""
    found = {}
    for file in sorted(folder.glob(f"{_BEGINS}*{_ENDS}")):
        try:
            if said := said_in(file):
                found[file] = said["links"]
        except ValueError:  # it is just being written, or never will be whole
            with suppress(OSError):
                if time.time() > file.stat().st_mtime + _WRITTEN_S:
                    file.unlink()
    return found
