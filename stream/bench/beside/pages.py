"""Whether open pages delay answers: ten, of which one is on a browser that stands still.

`run_realtime.py bench pages`: as `bench clients`, of a session with a dashboard. In every second
block of trials the pages are open: each shows the EEG, the channels and the mean of the trials; the
one that stands still has asked for all of it as well, and reads nothing. The dashboard itself is
there all the time.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from stream.bench.beside.blocks import Nice, Trials, compare
from stream.dashboard.asks import WATCHED
from stream.dashboard.links import links_in

_LONGEST = 2**24  # bytes of a message


@contextmanager
def pages(folder: Path, n: int) -> Iterator[None]:
    """Pages of a session: `n`, of which one stands still."""
    (links,) = links_in(folder).values()
    address = links["control"][0].replace("http", "ws", 1).replace("/?", "/live?v=1&")
    with ExitStack() as left:
        for at in range(n):
            stalled: dict[str, Any] = {"max_queue": 1, "ping_interval": None} if at == 0 else {}
            page = left.enter_context(
                connect(address, max_size=_LONGEST, close_timeout=0, **stalled)
            )
            page.send(json.dumps({"id": 1, "ask": "watch", "kinds": WATCHED}))
            if at:
                threading.Thread(target=_read, args=(page,), daemon=True).start()
        yield


def _read(page: ClientConnection) -> None:
    with suppress(WebSocketException, OSError):  # it is closed
        for _ in page:
            pass


def main(
    trials: Trials = 1000,
    pages_open: Annotated[int, typer.Option("--pages", min=2)] = 10,
    nice: Nice = 0,
) -> None:
    """Answers a subject with pages open and without, in turn, and prints one table."""
    options = ("--dashboard", "--no-browser")
    compare(
        f"{pages_open} pages, one of which stands still", pages, pages_open, trials, nice, options
    )
