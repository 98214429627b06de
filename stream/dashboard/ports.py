"""Where a page is served, and how a person gets there. It loads nothing: commands begin with it."""

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import Mapping
from threading import Thread

from hvf_core.problem import Problem
from stream.dashboard.doors import Doors
from stream.pipeline.outputs.settings import parts_of

_MORE_PORTS = 100
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
    return Doors.of(parts_of(address)[0], bound.getsockname()[1])


def lines_of(links: Mapping[str, str]) -> list[str]:
    """What a person is told: where the page is."""
    return [f"{_WORDS[rights]}: {link}" for rights, link in links.items()]


def has_screen() -> bool:
    """Whether a browser can be opened that a person sees."""
    is_shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return is_shown or sys.platform in ("darwin", "win32")


def open_browser(links: Mapping[str, str]) -> Thread:
    """Opens the page, where there is a screen, in a thread that ends once it is open."""
    thread = Thread(target=_open, args=(links["control"],), daemon=True)
    thread.start()
    return thread


def _open(link: str) -> None:
    if has_screen():
        webbrowser.open(link)
