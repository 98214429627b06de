"""Downloads: gone on with where they broke off, by this process or an earlier one, and verified."""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hvf_core.artifact import file_sha256, space_needed
from hvf_core.problem import Problem

TRIES = 5
"""How often in a row a connection may break without that anything has come."""
PAUSE_S = 1.0
_TIMEOUT_S = 20.0


def download(
    address: str,
    draft: Path,
    digest: str = "",
    n_bytes: int = 0,
    tell: Callable[[int], None] = lambda n: None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fills a file with what is at an address; what is in it already is not fetched again.

    Args:
        draft: not yet where anybody looks for it; it stays where this fails.
        digest: SHA-256, at least its beginning, or SHA-1 as git has it, in hexadecimal.
        n_bytes: its size, where that is known.
        tell: is told of how many bytes there are.
        headers: of the request; an authorization does not go on to another host.

    Raises:
        Problem: it is not what its digest says, and is gone, or the disk is full.
        huggingface_hub.errors.HTTPError: it cannot be had.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    draft.parent.mkdir(parents=True, exist_ok=True)
    tries_left = TRIES
    while not n_bytes or _size(draft) != n_bytes:
        before = _size(draft)
        try:
            with space_needed(draft):
                _go_on(address, draft, tell, headers or {})
            break
        except HTTPError as fault:
            tries_left = TRIES if _size(draft) > before else tries_left - 1
            is_refused = isinstance(fault, HfHubHTTPError) and fault.response.status_code != 416
            if is_refused or not tries_left:
                raise
            time.sleep(PAUSE_S)
    found = _git_sha1(draft) if len(digest) == 40 else file_sha256(draft)
    if not found.startswith(digest):
        draft.unlink()
        raise Problem(
            f"what {urlsplit(address).hostname} sent as '{address}' is damaged (its checksum is "
            f"{found[:12]}, expected {digest[:12]}): fetch it again, by another network if this "
            "one changes files"
        )


def _go_on(
    address: str, draft: Path, tell: Callable[[int], None], headers: Mapping[str, str]
) -> None:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    n = _size(draft)
    asked = {"Accept-Encoding": "identity", **headers} | ({"Range": f"bytes={n}-"} if n else {})
    with get_session().stream("GET", address, headers=asked, timeout=_TIMEOUT_S) as response:
        is_whole = response.headers.get("Content-Range", "").endswith(f"/{n}")
        if response.status_code == 416 and is_whole:
            return
        if response.status_code == 416:  # more is here than there: the next try begins anew
            draft.unlink()
        hf_raise_for_status(response)
        with draft.open("ab" if response.status_code == 206 else "wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
                tell(out.tell())


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _git_sha1(file: Path) -> str:
    """The SHA-1 that git names a file's bytes by."""
    content = file.read_bytes()  # small: what is large has a SHA-256
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
