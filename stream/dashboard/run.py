"""Serves the page of one session.

`python -m stream.dashboard.run FOLDER HANDLE` is the process beside a session: it serves on a
socket that it inherits, is told on its standard input whom to let in, and ends once that is closed,
with whoever started it.
"""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import uvicorn

from hvf_core.problem import Problem, one_sentence
from hvf_core.swift import give_way
from stream.dashboard.app import Dashboard
from stream.dashboard.asks import LONGEST
from stream.dashboard.doors import Doors
from stream.dashboard.feed import Feed
from stream.dashboard.links import kept
from stream.pipeline.wire.config import SessionConfig, read_config

_ENDS_S = 2
_BEGINS_S = 30.0  # its config is written when a session begins


def serve(
    config: SessionConfig,
    bound: socket.socket,
    doors: Doors,
    until: Callable[[], object] | None = None,
) -> None:
    """Serves the page of a session.

    Args:
        until: end when this returns; else with a signal.
    """
    feed = Feed(config)
    dashboard = Dashboard(feed, doors)
    server = uvicorn.Server(
        uvicorn.Config(
            dashboard.app(),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=LONGEST,
            ws_per_message_deflate=False,  # most pages are on this machine
            timeout_graceful_shutdown=_ENDS_S,
        )
    )
    feed.begin()
    try:
        with kept(config.folder, doors.links()):
            asyncio.run(_serve(server, dashboard, feed, bound, until))
    finally:
        feed.end()


async def _serve(
    server: uvicorn.Server,
    dashboard: Dashboard,
    feed: Feed,
    bound: socket.socket,
    until: Callable[[], object] | None,
) -> None:
    loop = asyncio.get_running_loop()

    async def end() -> None:
        await asyncio.to_thread(feed.catch_up)
        await dashboard.pages.say_last()
        server.should_exit = True

    def wait(until: Callable[[], object]) -> None:
        until()
        asyncio.run_coroutine_threadsafe(end(), loop)

    if until is not None:
        Thread(target=wait, args=(until,), daemon=True).start()
    await server.serve(sockets=[bound])


def read_begun(folder: Path) -> SessionConfig:
    """The config of a session in a folder, where one is about to begin.

    Raises:
        Problem: none has begun.
    """
    until_s = time.monotonic() + _BEGINS_S
    while True:
        try:
            return read_config(folder / "config.json").model_copy(update={"folder": folder})
        except Problem:  # it is not there, or not whole
            if time.monotonic() > until_s:
                raise
        time.sleep(0.05)


def main() -> None:
    """The process beside a session."""
    folder, handle = Path(sys.argv[1]), int(sys.argv[2])
    give_way()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    doors = Doors(**json.loads(sys.stdin.buffer.readline()))
    bound = socket.socket(fileno=handle)
    serve(read_begun(folder), bound, doors, until=sys.stdin.buffer.read)


if __name__ == "__main__":
    with one_sentence():
        main()
