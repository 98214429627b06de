"""The network: whether streams can be found on it, what a firewall lets in, and who has keys."""

import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from stream.doctor.program import said_by
from stream.doctor.verdict import Named, Verdict, verdict

_SITE_GROUP = "239.255.172.215"  # one of those at which liblsl asks for streams
_PORTS = "UDP 16571, UDP and TCP 16572 to 16604"
LET_THROUGH = (
    f"let the firewall pass Python ({_PORTS}) and switch VPNs off or, "
    "where all streams are of this machine, write ResolveScope = machine under [multicast] into "
    "lsl_api.cfg"
)
_UFW = Path("/etc/ufw/ufw.conf")


def multicast(named: Named) -> Iterator[Verdict]:
    """Asks on each interface, as LSL does, and hears whether that comes back."""
    import psutil

    is_up = {name for name, one in psutil.net_if_stats().items() if one.isup}
    found: dict[str, bool] = {}
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        for one in addresses:
            if name in is_up and one.family == socket.AF_INET:
                found[name] = _comes_back(one.address)
    heard = [name for name, comes in found.items() if comes]
    deaf = [name for name, comes in found.items() if not comes]
    yield verdict(
        f"IPv4 multicast comes back on {', '.join(heard) or 'no interface'}",
        (not heard, LET_THROUGH),
        (deaf, f"not on {', '.join(deaf)}, where no streams are found: {LET_THROUGH}"),
    )
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
            own.bind(("::1", 0))
        fault = ""
    except OSError as error:
        fault = f"it has no loopback ({error}), write IPv6 = disable under [ports]"
    yield verdict("IPv6 on this machine", (fault, fault))


def _comes_back(address: str) -> bool:
    """Whether a packet to LSL's group is heard on the interface of this address."""
    here = socket.inet_aton(address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(0.5)
            one.bind(("", 0))
            member = socket.inet_aton(_SITE_GROUP) + here
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
            one.sendto(b"hvf-live", (_SITE_GROUP, one.getsockname()[1]))
            return one.recv(8) == b"hvf-live"
    except OSError:
        return False


def firewall(named: Named) -> Iterator[Verdict]:
    """What a firewall says of itself to this user; many say it to nobody but root."""
    fact, shuts = _FIREWALLS.get(sys.platform, _unknown)()
    listen = named.settings.outputs.listen
    ports = _PORTS
    if listen is not None:
        first = int(listen.rpartition(":")[2])
        ports += f", and of this session TCP {first} to {first + 3}"
    yield verdict(fact, (shuts, f"streams of other machines need it to let in {ports}"))


def _of_linux() -> tuple[str, bool]:
    if _UFW.is_file() and "ENABLED=yes" in _UFW.read_text("utf-8", "replace"):
        return "the firewall ufw is on", True
    if said_by("systemctl", "is-active", "firewalld") == "active":
        return "the firewall firewalld is on", True
    rules = said_by("nft", "list", "ruleset") or said_by("iptables", "-S")
    if not rules:
        how = "`sudo nft list ruleset` or `sudo iptables -S` shows them"
        return f"rules of a firewall, if there are any, are not told to this user: {how}", False
    # What is passed on, as Docker's, is no matter of ours: what comes in is.
    chains = re.findall(r"chain \S+ \{(?=[^}]*hook input)[^}]*\}", rules)
    chains += re.findall(r"^-[AP] INPUT .*$", rules, re.MULTILINE)
    shuts = any(re.search(r"\b(drop|reject)\b", one, re.IGNORECASE) for one in chains)
    return f"the firewall's rules {'shut something out' if shuts else 'let all in'}", shuts


def _of_windows() -> tuple[str, bool]:
    said = said_by("netsh", "advfirewall", "show", "currentprofile", "state")
    is_on = "ON" in said.split()
    how = "Windows Security, Firewall, Allow an app: Python, in private networks"
    return f"the firewall of Windows is {'on' if is_on else 'off'} ({how})", is_on


def _of_mac() -> tuple[str, bool]:
    said = said_by("/usr/libexec/ApplicationFirewall/socketfilterfw", "--getglobalstate")
    is_on = "enabled" in said
    how = "System Settings, Network, Firewall, Options: Python"
    return f"the firewall of macOS is {'on' if is_on else 'off'} ({how})", is_on


def _unknown() -> tuple[str, bool]:
    return f"of a firewall on {sys.platform} nothing is known here", False


_FIREWALLS: Mapping[str, Callable[[], tuple[str, bool]]] = {
    "linux": _of_linux,
    "win32": _of_windows,
    "darwin": _of_mac,
}


def keys(named: Named) -> Iterator[Verdict]:
    """Whether those that let other hosts in are this user's alone."""
    from stream.pipeline.wire.keys import lab_keys, refuse_useless_keys

    if not lab_keys().is_file():
        yield verdict("no keys let other hosts in; `keys make` or --listen makes them")
        return
    refuse_useless_keys()
    yield verdict(f"keys that let other hosts in, for this user alone: '{lab_keys()}'")


CHECKS = (multicast, firewall, keys)
