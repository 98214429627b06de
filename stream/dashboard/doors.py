"""Who is let in: by the name under which a page was asked for, its origin, and its token."""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit

Rights = Literal["control", "look"]


@dataclass(frozen=True)
class Refusal:
    """Why somebody is not let in."""

    status: int
    sentence: str


def _new_tokens() -> dict[str, Rights]:
    return {secrets.token_urlsafe(16): "control", secrets.token_urlsafe(16): "look"}


@dataclass(frozen=True)
class Doors:
    """What is asked of whoever comes.

    A token is asked for on loopback too, which every user of the machine reaches. A name that
    somebody else gives this address (DNS rebinding) is none of this machine's, and a page of
    another origin neither reads nor steers anything.
    """

    host: str
    """On which the page is served."""
    port: int
    tokens: dict[str, Rights] = field(default_factory=_new_tokens, repr=False)

    @property
    def cookie(self) -> str:
        """Its name: cookies of one host know no ports."""
        return f"hvf_live_{self.port}"

    def rights(
        self, headers: Mapping[str, str], token: str = "", *, is_socket: bool = False
    ) -> Rights | Refusal:
        """What whoever comes may do.

        Args:
            headers: by lower-case names.
            token: of the address or the cookie.
            is_socket: whether it asks for a WebSocket, of which browsers tell the origin.
        """
        host = headers.get("host", "")
        name = _parts(f"//{host}").hostname or ""
        if not self._is_ours(name):
            return Refusal(421, f"'{name[:60]}' is not the name of this machine: give its address")
        origin = headers.get("origin")
        if origin is not None and _parts(origin).netloc != host:
            return Refusal(403, f"the page is not for '{origin[:60]}', which is another origin")
        is_led_to = headers.get("sec-fetch-mode") == "navigate" and not is_socket
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_led_to:
            return Refusal(403, "the page is not for pages of other origins")
        for known, rights in self.tokens.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return rights
        return Refusal(
            401,
            "the page is opened by its link, with the token that was printed where it was started: "
            "`python run_realtime.py dashboard FOLDER` prints it again",
        )

    def _is_ours(self, name: str) -> bool:
        if _is_loopback(self.host):
            return _is_loopback(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            ours = socket.gethostname().casefold()
            short = ours.partition(".")[0]
            return name.casefold() in ("localhost", ours, short, f"{short}.local", self.host)
        return True  # nobody can give another address this one's number

    def links(self) -> dict[str, list[str]]:
        """What a person opens, by what it lets him do: under each name of this machine."""
        hosts = [self.host]
        if self.host in ("0.0.0.0", "::"):  # many networks know no names: its numbers too
            hosts = [socket.gethostname(), *(_addresses() if self.host == "0.0.0.0" else ())]
        at = [f"http://{f'[{host}]' if ':' in host else host}:{self.port}/" for host in hosts]
        return {
            rights: [f"{one}?token={token}" for one in at] for token, rights in self.tokens.items()
        }


def _is_loopback(host: str) -> bool:
    """Whether nobody on another machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _addresses() -> list[str]:
    """This machine's, in the networks that it is connected to."""
    import psutil

    is_up = {name for name, one in psutil.net_if_stats().items() if one.isup}
    found = [
        one.address
        for name, addresses in sorted(psutil.net_if_addrs().items())
        for one in addresses
        if name in is_up and one.family == socket.AF_INET
    ]
    return [address for address in found if not _is_loopback(address)]


def _parts(address: str) -> SplitResult:
    """Of what somebody says that an address is; all are "" where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
