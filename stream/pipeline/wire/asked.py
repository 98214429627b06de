"""What somebody asks a session to do, as it comes on the control socket."""

from collections.abc import Sequence
from dataclasses import dataclass

from hvf_core.problem import Problem

_LONGEST = 2**16  # characters of a request: it is kept in the ledger


@dataclass(frozen=True)
class Asked:
    """What somebody who is no node asks the session to do."""

    envelope: tuple[bytes, ...]
    """Where the answer goes; first the address of the line that it came over."""
    by: str
    verb: str
    argument: str


def parted(frames: Sequence[bytes]) -> tuple[tuple[bytes, ...], Sequence[bytes]]:
    """The envelope of what a ROUTER has received, and what is in it."""
    # REQ sockets put an empty frame before what they say, and hear nothing without one.
    is_req = frames[1] == b"" and len(frames) > 2
    n_envelope = 2 if is_req else max(1, len(frames) - 3)
    return tuple(frames[:n_envelope]), frames[n_envelope:]


def read_asked(envelope: tuple[bytes, ...], words: Sequence[bytes]) -> Asked:
    """A request that can be obeyed or refused.

    Raises:
        Problem: it is none.
    """
    try:
        by, verb, argument = (word.decode() for word in words)
        if len(by) + len(verb) + len(argument) > _LONGEST:
            raise ValueError("it is too long")
    except ValueError:
        text = "say three texts, which are short: who asks, a verb, its argument"
        raise Problem(text) from None
    return Asked(envelope, by, verb, argument)
