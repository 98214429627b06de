"""`dashboard`: the page of a session that runs or ran, beside it or afterwards."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem
from stream.pipeline.outputs.settings import PageSettings

_SESSIONS = Path("sessions")


@with_settings(PageSettings)
def dashboard(
    asked: Asked[PageSettings],
    folder: Annotated[
        Path | None, typer.Argument(help="Of a session; the one that runs, or the newest, without")
    ] = None,
) -> None:
    """Shows a session in the browser until Ctrl-C; the session goes on.

    Example: python run_realtime.py dashboard sessions/20261122-101500-ab12
    """
    import logging

    from hvf_core.screen import Screen
    from stream.dashboard.links import links_in
    from stream.dashboard.ports import announce, doors_of, lines_of, listening, open_browser
    from stream.dashboard.run import serve
    from stream.pipeline.wire.config import read_config

    settings = asked.settings()
    found = (folder or _chosen()).absolute()
    if not (found / "config.json").is_file():
        raise Problem(f"'{found}' holds no session: give the folder of one, as sessions/ID")
    config = read_config(found / "config.json").model_copy(update={"folder": found})
    logging.basicConfig(format="%(message)s")
    console = Screen()

    def say(*lines: str) -> None:
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)

    say(f"session: {found}")
    if asked.given("address") is None and (there := links_in(found)):
        for links in there.values():
            say(*lines_of(links))
        say("it is served there already; --page HOST:PORT serves it elsewhere too")
        if settings.browser:
            open_browser(next(iter(there)))
        return
    bound = listening(settings.address)
    doors = doors_of(settings.address, bound)
    announce(bound, doors, say, opens=found if settings.browser else None)
    serve(config, bound, doors)


def _chosen() -> Path:
    """The folder of the session that runs, or else of the newest below sessions/."""
    from stream.client import discover

    running = discover()
    if len(running) > 1:
        told = "; ".join(f"{one.folder} ({one.title})" for one in running)
        raise Problem(
            f"{len(running)} sessions run on this machine: name the folder of one: {told}"
        )
    if running:
        return Path(running[0].folder)
    configs = sorted(_SESSIONS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise Problem(
            f"no session runs on this machine, and '{_SESSIONS}' holds none: give a session's "
            "folder, or begin one: python run_realtime.py --dashboard"
        )
    return configs[-1].parent
