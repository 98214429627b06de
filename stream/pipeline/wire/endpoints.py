"""The addresses at which the nodes of a session meet."""

import socket
import tempfile
from contextlib import ExitStack

from pydantic import field_validator

from hvf_core.settings import Settings


class Endpoints(Settings):
    """ZeroMQ addresses; the node named first binds."""

    trials: str
    """reader to decode: trials (PUSH/PULL)."""
    reports: str
    """results from all others: announcements, outcomes, answers, images (PULL/PUSH)."""
    results: str
    """results to everyone: answers, images, ledger (PUB/SUB)."""
    recording: str
    """record from reader: raw samples and markers (PULL/PUSH)."""
    control: str
    """supervisor to every node: readiness, heartbeats, commands (ROUTER/DEALER)."""
    embeddings: str = ""
    """paint from decode: what to paint, the latest only (PULL/PUSH); sessions that were
    recorded before there was a painter have none."""
    signals: str = ""
    """reader to everyone who watches: EEG and the quality of its channels (PUB/SUB)."""

    @classmethod
    def local(cls) -> "Endpoints":
        """Addresses that only this machine reaches: ipc, or loopback tcp where ipc is missing."""
        names = cls.model_fields
        if hasattr(socket, "AF_UNIX"):
            folder = tempfile.mkdtemp(prefix="hvf-")
            return cls(**{name: f"ipc://{folder}/{name}" for name in names})
        ports = _free_ports(len(names))
        return cls(**{name: f"tcp://127.0.0.1:{ports.pop()}" for name in names})

    @field_validator("*")
    @classmethod
    def _stays_here(cls, endpoint: str) -> str:
        if not endpoint.startswith(("ipc://", "tcp://127.0.0.1:", "tcp://localhost:")):
            raise ValueError(f"endpoint '{endpoint}' leaves this machine, which needs CURVE keys")
        return endpoint


def _free_ports(n: int) -> list[int]:
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
