"""How a Milvus server is named; nothing here imports its client."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator

from hvf_core.problem import WrongUsage
from hvf_core.settings import Settings, setting

TOKEN = "MILVUS_TOKEN"
"""The variable of the environment that has the token: what is in a config or on a command line is
written down, and seen by others."""
PORT = 19530
_URI = re.compile(r"https?://(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/\w*)?")


def checked_uri(uri: str) -> str:
    """A server's address.

    Raises:
        ValueError: it is none, or holds a password.
    """
    if "@" in uri:
        raise ValueError(
            f"an address with a name and a password would be written down: leave them out, and put "
            f"USER:PASSWORD into the environment as {TOKEN}"
        )
    if not _URI.fullmatch(uri):
        raise ValueError(f"no address of a Milvus server: give one such as http://server:{PORT}")
    return uri


def uri_of(option: str, uri: str) -> str:
    """The server's address that an option has.

    Raises:
        WrongUsage: it is none, or holds a password.
    """
    try:
        return checked_uri(uri)
    except ValueError as error:
        raise WrongUsage(f"{option} is {error}") from None


def token() -> str:
    """What the server is shown; empty where it asks for none."""
    return os.environ.get(TOKEN, "")


def in_the_clear(uri: str) -> bool:
    """Whether what is sent can be read on its way: it leaves this machine without TLS."""
    found = _URI.fullmatch(uri)
    is_here = found is not None and re.fullmatch(r"localhost|127\..*|\[::1\]", found["host"])
    return uri.startswith("http://") and not is_here


class MilvusSettings(Settings):
    """The Milvus server that holds the gallery's index."""

    uri: Annotated[str, AfterValidator(checked_uri)] = setting(option="--milvus-uri")
    """Milvus server that holds the gallery's index, as http://server:19530, for --search milvus."""
    deadline_s: float = setting(0.05, gt=0, le=60)
    """An answer waits no longer for the server; then it is found on this machine."""
