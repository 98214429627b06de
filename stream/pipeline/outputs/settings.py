"""What goes out of a session beside its bus."""

from typing import Annotated

from pydantic import AfterValidator

from hvf_core.problem import WrongUsage
from hvf_core.settings import Settings, setting


def parts_of(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 host is in brackets.

    Raises:
        WrongUsage: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise WrongUsage(
            f"'{address}' is no HOST:PORT that can be sent to; give one such as 127.0.0.1:5000"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _checked(address: str) -> str:
    parts_of(address)
    return address


def _has_room(address: str) -> str:
    if (port := parts_of(address)[1]) > 65_532:
        raise WrongUsage(f"{port} is the first of four ports, of which none is above 65535")
    return address


Address = Annotated[str, AfterValidator(_checked)]


class PageSettings(Settings):
    """The page of a session in a browser; see docs/dashboard.md."""

    address: Address = setting("127.0.0.1:8765", option="--page")
    """HOST:PORT of it; where the port is taken, the next free one. It is opened by the link that is
    printed, which holds a token."""
    browser: bool = setting(True, option="--no-browser")
    """Whether a browser opens by itself, where there is a screen: it does, but for this option."""


class OutputSettings(Settings):
    """Where answers go, for programs that do not listen to the bus; see docs/results.md."""

    lsl: bool = setting(True, option="--no-results")
    """Whether answers go out over LSL: they do, but for this option."""
    results: str = setting("hvf-live-results", option="--results", min_length=1)
    """Name of the LSL stream of answers as JSON, with which those of the others begin."""
    udp: Address | None = setting(None, option="--udp")
    """Send what becomes of each marker to HOST:PORT too, as lines of text over UDP."""
    osc: Address | None = setting(None, option="--osc")
    """The same as OSC messages."""
    listen: Annotated[Address, AfterValidator(_has_room)] | None = setting(None, option="--listen")
    """Let programs of other hosts in, with the lab's keys, at HOST:PORT and three ports after it:
    0.0.0.0:5757 is every address of this one."""
    page: PageSettings | None = setting(None, option="--dashboard")
    """Show the session on a page in the browser."""
    blind: bool = setting(False, option="--blind")
    """Keep what was shown in the session's folder: answers go out without the truth."""
