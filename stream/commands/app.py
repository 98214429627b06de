"""The command line of the live system: its commands, and the demo where none is named."""

import sys
from difflib import get_close_matches

from hvf_core.options import LIVE, app_of, run_app
from hvf_core.problem import WrongUsage
from stream.commands.before.adapt import adapt
from stream.commands.before.doctor import doctor
from stream.commands.before.keys import keys
from stream.commands.before.streams import streams
from stream.commands.bench import AS_THEY_ARE, bench
from stream.commands.config import config
from stream.commands.dashboard import dashboard
from stream.commands.demo import demo
from stream.commands.export import export
from stream.commands.finish import finish
from stream.commands.live import live
from stream.commands.record import record
from stream.commands.replay import replay

_ALL = (
    demo,
    live,
    replay,
    record,
    adapt,
    dashboard,
    finish,
    export,
    streams,
    doctor,
    keys,
    config,
)
COMMANDS = {command.__name__: command for command in (*_ALL, bench)}

app = app_of(
    "Decodes, from live EEG, which image a person is looking at. Without a command: the demo.",
    *_ALL,
)
app.command(context_settings=AS_THEY_ARE)(bench)


def run_command() -> None:
    """Runs the command that the command line names."""
    arguments = sys.argv[1:]
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in COMMANDS:
        near = get_close_matches(first, COMMANDS, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise WrongUsage(f"'{first}' is no command; {hint}there are {', '.join(COMMANDS)}")
    # A benchmark makes its streams itself.
    if first != "bench" and any(word.split("=")[0] == "--channels" for word in arguments):
        raise WrongUsage(
            "there is no --channels here, as the bundle has picked its channels; where a stream "
            "calls them otherwise: --rename MINE=ITS,MINE=ITS"
        )
    if first not in (*COMMANDS, "--help"):
        arguments = ["demo", *arguments]
    run_app(app, LIVE, arguments)
