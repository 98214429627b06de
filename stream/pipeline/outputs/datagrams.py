"""Datagrams to one address: as UDP lines, or as OSC messages."""

import socket
from collections.abc import Callable, Iterable
from typing import Any

from stream.pipeline.outputs.settings import parts_of
from stream.pipeline.outputs.story import ENDS, Told

_SEND_S = 1.0
Encode = Callable[[Told], Iterable[bytes]]


class Datagrams:
    """Sends to an address what `encode` makes of each message; nobody says whether it arrives.

    What is wrong is said once, and then it goes on as far as it can.

    Args:
        name: of the option that asked for it, without its dashes.
        address: HOST:PORT; a host's name is looked up once, with the first message.
        encode: from a message to datagrams.
        say: hears what a person should know.
    """

    def __init__(self, name: str, address: str, encode: Encode, say: Callable[[str], object]):
        self.name = name
        self._address, self._encode, self._say = address, encode, say
        self._socket: socket.socket | None = None
        self._to: tuple[Any, ...] = ()
        self._has_failed = False

    is_heard = True
    """As far as anybody knows."""

    def tell(self, told: Told) -> None:
        """Sends a message."""
        try:
            for datagram in self._encode(told):
                self._send(datagram)
        except OSError as error:
            if not self._has_failed:
                self._say(
                    f"nothing can be sent to --{self.name} {self._address} ({error.strerror}); the "
                    "session goes on, give an address that can be reached next time"
                )
            self._has_failed = True

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            if self._has_failed:  # to look up a name again would take long, each time
                return
            host, port = parts_of(self._address)
            family, kind, proto, _, self._to = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind, proto)
            self._socket.settimeout(_SEND_S)
        self._socket.sendto(datagram, self._to)


def as_lines(told: Told) -> Iterable[bytes]:
    """Lines `NAME VALUE` with whole numbers, one a datagram, as BCI2000 sends its states."""
    event = told["event"]
    if event in ("ready", "paused", "ended"):
        yield _line("Decoding", int(event == "ready"))
    if event not in ENDS:
        return
    is_given = event == "decoded" and not told["abstain"]
    yield _line("ResultCode", (told["numbers"][0] or 0) if is_given else 0)
    yield _line("ResultPercent", round(100 * told.get("confidence", 0.0)))
    yield _line("Repeats", told.get("n_repeats", 0))
    yield _line("Trial", told["trial"])  # the last one: what came before it is of this trial


def _line(name: str, value: int) -> bytes:
    return f"{name} {value}\n".encode()


def osc_encoder() -> Encode:
    """What makes OSC messages, of python-osc; raises ImportError where that is not there."""
    from pythonosc.osc_message_builder import OscMessageBuilder

    def encode(told: Told) -> Iterable[bytes]:
        builder = OscMessageBuilder(f"/hvf-live/{told['event']}")
        match told["event"]:
            case "decoded" | "provisional":
                builder.add_arg(told["trial"], "i")
                builder.add_arg(told["numbers"][0] or 0, "i")
                builder.add_arg(told["ids"][0], "s")
                builder.add_arg(told["confidence"], "f")
                builder.add_arg(told["n_repeats"], "i")
                builder.add_arg(told["tmax_s"], "f")
                builder.add_arg(int(told["abstain"]), "i")
            case "dropped":
                builder.add_arg(told["trial"], "i")
                builder.add_arg(told["reason"], "s")
            case "cut":
                builder.add_arg(told["trial"], "i")
            case "ready" | "paused":
                builder.add_arg(told["session"], "s")
            case "ended":
                builder.add_arg(told["session"], "s")
                builder.add_arg(told["reason"], "s")
            case _:
                return
        yield builder.build().dgram

    return encode
