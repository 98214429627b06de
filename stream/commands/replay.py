"""`replay`: plays a recording and decodes it, in its own time, faster, or in virtual time."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem
from stream.commands.common import Headless, Out, new_config, run
from stream.pipeline.wire.config import FileSource, LiveSource, SessionSettings

NAME = "hvf-replay"


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
    if not file.exists():
        raise Problem(f"there is no file '{file}'; give the path of a recording")
    played = settings.replay
    part = FileSource(
        path=file.absolute(),
        start_s=played.start_s,
        stop_s=None if played.duration_s is None else played.start_s + played.duration_s,
        **played.model_dump(include={"stim_channel", "eeg_stream", "marker_stream"}),
    )
    source, player = part, None
    if played.speed != "max":
        source = LiveSource(eeg=NAME, markers=f"{NAME}-markers", wait_s=60.0)
        player = _player(part, played.speed)
    config = new_config(settings, out, source=source, realtime=played.speed == 1.0)
    run(config, headless, f"replay '{file.name}'", source=player)


def _player(part: FileSource, speed: float) -> list[str]:
    """The command that plays a part of a recording as LSL streams."""
    command = [sys.executable, "-m", "stream.sources.replay", str(part.path), "--wait-for-go"]
    command += ["--name", NAME, "--speed", str(speed)]
    for name, value in part.model_dump(exclude={"kind", "path"}, exclude_none=True).items():
        command += [f"--{name.removesuffix('_s').replace('_', '-')}", str(value)]
    return command
