"""`replay`: plays a recording and decodes it, in its own time, faster, or in virtual time."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Asked, as_arguments, with_settings
from hvf_core.problem import Problem, needed
from stream.commands.common import Headless, Out, new_config, new_id, own_streams, run
from stream.pipeline.wire.config import FileSource, LiveSource, SessionSettings
from stream.sources.settings import ReadSettings


@with_settings(SessionSettings, without=("source", "demo", "trigger", "duration_s"))
def replay(
    file: Annotated[Path, typer.Argument(help=".set .fif .edf .bdf .vhdr .gdf or .xdf")],
    asked: Asked[SessionSettings],
    out: Out = None,
    headless: Headless = False,
) -> None:
    """Plays a recording as LSL streams and decodes them; at speed `max`, without LSL.

    Example: python run_realtime.py replay subject01.vhdr --bundle my-bundle --speed 4
    """
    settings = asked.settings({"replay": {}})
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise Problem(f"'{file}' {what}; give the path of a recording")
    played = needed(settings.replay)
    session = new_id()
    player: list[str] | None = None
    source: FileSource | LiveSource
    if played.speed == "max":
        read = played.model_dump(include=set(ReadSettings.model_fields))
        source = FileSource(path=file.absolute(), stop_s=played.stop_s, **read)
    else:
        source, name = own_streams("hvf-replay", session)
        player = [sys.executable, "-m", "stream.sources.replay", str(file), "--wait-for-go"]
        player += ["--name", name, *as_arguments(played)]
    own = {"source": source, "realtime": played.speed == 1.0}
    config = new_config(settings, out, session, **own)
    run(config, headless, f"replay '{file.name}'", source=player)
