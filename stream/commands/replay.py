"""`replay`: plays a recording, or a data set, and decodes it: in its own time, or faster."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Asked, Flag, as_arguments, with_settings
from hvf_core.problem import Problem, WrongUsage, needed
from stream.commands.common import (
    Headless,
    Out,
    begun,
    folder_of,
    new_config,
    new_id,
    own_streams,
    run,
)
from stream.commands.played import OF_FORMATS, PLAYED, is_data_set, study_at, write_played
from stream.pipeline.wire.config import FileSource, LiveSource, SessionSettings
from stream.sources.settings import ReadSettings


@with_settings(SessionSettings, without=("source", "demo", "trigger", "duration_s"))
def replay(
    file: Annotated[
        Path, typer.Argument(help=".set .fif .edf .bdf .vhdr .gdf .xdf, or a data set's folder")
    ],
    asked: Asked[SessionSettings],
    split: Annotated[
        str | None, typer.Option(help="Of a data set, what is played; test by default")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Of a data set, its images, where they lie elsewhere")
    ] = None,
    pickles: Annotated[
        bool, Flag("--pickles", help="Of a data set, read pickles, and no code of them")
    ] = False,
    out: Out = None,
    headless: Headless = False,
) -> None:
    """Plays a recording as LSL streams and decodes them; at speed `max`, without LSL.

    Of a data set (docs/datasets.md) the test recordings of one subject are played.

    Example: python run_realtime.py replay subject01.vhdr --bundle my-bundle --speed 4
    """
    settings = asked.settings({"replay": {}})
    played = needed(settings.replay)
    session = new_id()
    study, path = None, file.absolute()
    if is_data_set(file):
        study = study_at(file, images, played, pickles)
        path = folder_of(out, session) / PLAYED
        played = played.model_copy(update=dict.fromkeys(OF_FORMATS))
    elif not file.is_file():
        raise Problem(f"'{file}' is not there; give the path of a recording, or of a data set")
    elif split is not None or images is not None or pickles:
        raise WrongUsage(f"'{file}' is a recording: --split, --images, --pickles are of data sets")
    player: list[str] | None = None
    source: FileSource | LiveSource
    if played.speed == "max":
        read = played.model_dump(include=set(ReadSettings.model_fields))
        source = FileSource(path=path, stop_s=played.stop_s, **read)
    else:
        source, name = own_streams("hvf-replay", session)
        player = [sys.executable, "-m", "stream.sources.replay", str(path), "--wait-for-go"]
        player += ["--name", name, *as_arguments(played)]
    own = {"source": source, "realtime": played.speed == 1.0}
    with ExitStack() as last:
        config = last.enter_context(new_config(settings, out, session, **own))
        if study is not None:
            last.callback(path.unlink, missing_ok=True)
            with begun(config, path):
                config = write_played(study, split, config, path, played.stop_s)
        run(config, headless, f"replay '{file.name}'", source=player)
