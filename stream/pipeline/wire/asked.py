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


def read_asked(envelope: tuple[bytes, ...], words: Sequence[bytes], session: str) -> Asked:
    """A request that can be obeyed or refused.

    Raises:
        Problem: it is none, or meant for another session, which had this address before.
    """
    try:
        by, verb, argument, *meant = (word.decode() for word in words)
        if len(meant) > 1:
            raise ValueError("it is too many")
        if len(by) + len(verb) + len(argument) > _LONGEST:
            raise ValueError("it is too long")
    except ValueError:
        raise Problem(
            "say three texts, which are short: who asks, a verb, its argument; and, if you like, "
            "the session's id"
        ) from None
    if meant and meant[0] not in (session, ""):
        raise Problem(f"this is the session '{session}', not '{meant[0][:40]}'")
    return Asked(envelope, by, verb, argument)
