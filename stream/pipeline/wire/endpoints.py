"""The addresses at which the nodes of a session meet."""

import os
import socket
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from hvf_core.settings import Settings

Transport = Literal["auto", "ipc", "tcp"]
KEYS, BINDING_KEYS = "client.json", "server.json"
_PREFIX = "hvf-"
_LONGEST_IPC = 103  # bytes of a path on macOS; Linux takes four more


class Endpoints(Settings):
    """ZeroMQ addresses; the node named first binds. Behind a # of tcp is the file of its keys."""

    trials: str
    """reader to decode: trials (PUSH/PULL)."""
    reports: str
    """results from all others: announcements, outcomes, answers, images (PULL/PUSH)."""
    results: str
    """results to everyone: answers, images, ledger (PUB/SUB)."""
    answers: str = ""
    """decode to everyone: answers before they are in the ledger (PUB/SUB); sessions that were
    recorded before there was this way have none."""
    recording: str
    """record from reader: raw samples and markers (PULL/PUSH)."""
    control: str
    """supervisor to every node: readiness, heartbeats, commands (ROUTER/DEALER)."""
    embeddings: str = ""
    """paint from decode: what to paint, the latest only (PULL/PUSH); sessions that were
    recorded before there was a painter have none."""
    signals: str = ""
    """reader to everyone who watches: EEG and the quality of its channels (PUB/SUB)."""
    overheard: str = ""
    """results to reader: the markers that it has heard itself (PUSH/PULL); sessions that were
    recorded before there was this way have none."""

    @classmethod
    def local(cls, transport: Transport = "auto") -> "Endpoints":
        """Addresses for this user of this machine alone, with a folder that only he can enter.

        In it are the sockets; where ipc is missing, or its path would be too long, there are keys
        in it, once they are made.
        """
        names = cls.model_fields
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if transport == "auto":
            longest = max(len(os.fsencode(folder / name)) for name in names)
            has_ipc = hasattr(socket, "AF_UNIX") and longest <= _LONGEST_IPC
            transport = "ipc" if has_ipc else "tcp"
        if transport == "ipc":
            return cls(**{name: f"ipc://{folder}/{name}" for name in names})
        ports = _free_ports(len(names))
        return cls(**{name: f"tcp://127.0.0.1:{ports.pop()}#{folder / KEYS}" for name in names})

    @property
    def folder(self) -> Path:
        """What `local` has made; without it nobody can join the session any more."""
        scheme, _, rest = self.control.partition("://")
        return Path(rest if scheme == "ipc" else rest.partition("#")[2]).parent

    def remove(self) -> None:
        """Removes the folder that `local` has made, wherever temporary files were then."""
        folder = self.folder
        # What another machine's session, or another program, names so is not ours: of such a
        # folder nothing else goes, and while something is left it stays.
        if folder.name.startswith(_PREFIX):
            with suppress(OSError):
                for name in (*type(self).model_fields, KEYS, BINDING_KEYS):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()

    @field_validator("*")
    @classmethod
    def _stays_here(cls, endpoint: str) -> str:
        if not endpoint.startswith(("ipc://", "tcp://127.0.0.1:", "tcp://localhost:")):
            raise ValueError(f"endpoint '{endpoint}' leaves this machine")
        return endpoint


def _free_ports(n: int) -> list[int]:
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
