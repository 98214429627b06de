"""Where what this program makes comes from, as manifests and summaries say it."""

import platform
import shlex
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pydantic import JsonValue


def command_line() -> str:
    """The command that runs, as it was typed."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def provenance(command: str, *packages: str) -> dict[str, JsonValue]:
    """The command that made something, the versions that it ran with, and the machine's kind."""
    return {"command": command, "versions": versions(*packages), "platform": platform.platform()}


def versions(*packages: str) -> dict[str, JsonValue]:
    """Of Python, and of those of these packages that are installed."""
    found: dict[str, JsonValue] = {"python": platform.python_version()}
    for package in packages:
        if (installed := _version(package)) is not None:
            found[package] = installed
    return found


@cache  # each is looked for in the file that its package was installed with
def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):  # of faiss-cpu and faiss-gpu, one is there
        return version(package)
    return None
