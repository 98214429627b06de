"""Where a page is served, and how a person gets there. It loads nothing: commands begin with it."""

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from hvf_core.problem import Problem
from stream.dashboard.doors import Doors
from stream.pipeline.outputs.settings import parts_of

_MORE_PORTS = 100
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of all that is bound, what answers here
_WORDS: Mapping[str, str] = {"control": "page", "look": "page to look at only"}


def listening(address: str) -> socket.socket:
    """A socket at HOST:PORT, or at the next port that is free.

    Raises:
        Problem: there is none, or the host is none of this machine.
    """
    host, first = parts_of(address)
    for port in range(first, min(first + _MORE_PORTS, 2**16)):
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if os.name == "posix":  # elsewhere it would let two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            bound.listen(128)
            return bound
        except (OSError, UnicodeError) as error:
            bound.close()
            if getattr(error, "errno", None) != errno.EADDRINUSE:
                raise Problem(
                    f"no page can be served at '{address}' ({error}): give an address of this "
                    "machine, as --page 127.0.0.1:8765"
                ) from None
    raise Problem(
        f"'{address}' and the {_MORE_PORTS} ports after it are taken: give another --page"
    )


def doors_of(address: str, bound: socket.socket) -> Doors:
    """Who is let in at a socket."""
    return Doors(parts_of(address)[0], bound.getsockname()[1])


def lines_of(links: Mapping[str, list[str]]) -> list[str]:
    """What a person is told: where the page is."""
    return [f"{_WORDS[rights]}: {' or '.join(there)}" for rights, there in links.items()]


def announce(
    bound: socket.socket, doors: Doors, say: Callable[[str], object], *, opens: Path | None
) -> Thread:
    """Says where the page is once it answers, in the thread it gives back.

    Of a page that dies before it answers nothing is said.

    Args:
        opens: the folder of its session, if the page is to be opened too.
    """
    from stream.dashboard.links import links_in

    host, port = bound.getsockname()[:2]
    links = doors.links()

    def tell() -> None:
        asked = urlsplit(links["control"][0])
        if _answers(_LOOPBACK.get(host, host), port, f"{asked.path}?{asked.query}"):
            for line in lines_of(links):
                say(line)
            for file, there in links_in(opens).items() if opens is not None else ():
                if there == links:
                    open_browser(file)

    thread = Thread(target=tell, daemon=True)
    thread.start()
    return thread


def _answers(host: str, port: int, path: str) -> bool:
    """Waits until somebody has answered there; False where nobody is left who could."""
    from http.client import HTTPConnection, HTTPException

    with closing(HTTPConnection(host, port)) as line:
        try:
            line.request("GET", path)
            line.getresponse()
        except (OSError, HTTPException):
            return False
    return True


def has_screen() -> bool:
    """Whether a browser can be opened that a person sees."""
    is_shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return is_shown or sys.platform in ("darwin", "win32")


def open_browser(file: Path) -> None:
    """Opens the page to which the file of its links leads, where there is a screen."""
    if has_screen():
        webbrowser.open(file.absolute().as_uri())
