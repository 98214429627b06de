"""The peers, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal


@dataclass(frozen=True)
class Peer:
    """A program that answers trials.

    Attributes:
        packages: distributions that it is made of; where one is missing it is left out.
        module: of this folder, that is run; "": a session of ours.
        subscriber: by what its answers are subscribed to; `own`: its program has one.
        way: the same in words.
    """

    packages: tuple[str, ...]
    module: str
    subscriber: Literal["bus", "lsl", "own"]
    way: str

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in self.packages}

    def missing(self) -> list[str]:
        """Packages of it that are not installed."""
        missing = []
        for name in self.packages:
            try:
                version(name)
            except PackageNotFoundError:
                missing.append(name)
        return missing


OURS = "hvf-live"
PEERS: Mapping[str, Peer] = {
    OURS: Peer((), "", "bus", "ZeroMQ, its own bus"),
    "mne-lsl": Peer(("mne-lsl",), "mne_lsl_epochs", "lsl", "LSL, a string stream"),
    "plain": Peer(("pylsl",), "plain", "lsl", "LSL, a string stream"),
    "ezmsg": Peer(
        ("ezmsg", "ezmsg-lsl", "ezmsg-sigproc"), "ezmsg_units", "own", "ezmsg's own transport"
    ),
}
