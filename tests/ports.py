"""Ports of this machine that are free, and that no system gives out by itself meanwhile."""

import itertools
import os
import socket
from contextlib import ExitStack, suppress

_firsts = itertools.count(10_000 + 24 * (os.getpid() % 240), 4)  # each worker has its own


def free_port() -> int:
    """The first of four ports that are free."""
    while True:
        first = next(_firsts)
        with ExitStack() as open_, suppress(OSError):
            for port in range(first, first + 4):
                open_.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
