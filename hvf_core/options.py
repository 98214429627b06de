"""Settings as the options of a command for typer, and what command lines begin and end with."""

import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_origin

import typer

from hvf_core.problem import WrongUsage
from hvf_core.settings import (
    Declared,
    Given,
    Layer,
    Settings,
    Tree,
    from_assignments,
    merge,
    settings_of,
    value_of,
)
from hvf_core.toml import read_toml

Section = TypeVar("Section", bound=Settings)
Flag = partial(typer.Option, metavar="")
"""An option that takes no value, and is shown as one: typer would write `<bool>` after it."""
_Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as TOML")]
_Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, by its KEY as in the TOML, over which it wins",
    ),
]
_METAVARS = {int: "INTEGER", float: "NUMBER", Path: "PATH", dict: "A=B,C=D", tuple: "A,B,..."}


@dataclass(frozen=True)
class Asked(Generic[Tree]):
    """What a person asked for, in a TOML file and on the command line; options hold their paths."""

    tree: type[Tree]
    file: Layer
    line: Layer

    def given(self, path: str) -> Given | None:
        """What was given for a setting, on the line or else in the file."""
        return {**self.file, **self.line}.get(path)

    def settings(self, defaults: Mapping[str, Any] | None = None) -> Tree:
        """The settings: `defaults` of the command by path, then the file's, then the line's."""
        usual = {path: Given(value, path) for path, value in (defaults or {}).items()}
        return merge(self.tree, usual, self.file, self.line)

    def section(self, name: str, tree: type[Section]) -> Section:
        """One section alone, where the others need what is not known yet."""
        given = {**self.file, **self.line}.items()
        inside = {p.removeprefix(f"{name}."): one for p, one in given if p.startswith(f"{name}.")}
        return merge(tree, inside)

    def also(self, line: Layer) -> "Asked[Tree]":
        """The same, with settings that options of the command itself have given."""
        return replace(self, line={**self.line, **line})

    def without(self, section: str, option: str) -> "Asked[Tree]":
        """The same, with a section switched off by an option; the line may not set any of it."""
        for path, given in self.line.items():
            if path.startswith(f"{section}."):
                raise WrongUsage(f"{given.named} has no meaning with {option}: leave one out")
        return self.also({section: Given(None, option)})


def with_settings(
    tree: type[Tree], *paths: str, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command, as its parameter `asked`, an `Asked`, and to typer the options for it.

    The options are those of the settings in `paths`, or of the whole tree, less those in
    `without`; paths are of settings or of sections. `--config` and `--set` reach all of the tree.
    """

    def is_in(path: str, chosen: Sequence[str]) -> bool:
        return any(f"{path}.".startswith(f"{one}.") for one in chosen)

    offered = {
        path.replace(".", "__"): one
        for path, one in settings_of(tree).items()
        if one.option and (not paths or is_in(path, paths)) and not is_in(path, without)
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*, config: _Config = None, assignments: _Assignments = None, **values: Any) -> None:
            line = dict(from_assignments(tree, assignments or ()))
            for name, one in offered.items():
                given = values.pop(name)
                if isinstance(given, list):  # of an option that may be given several times
                    given = ",".join(given) or None
                if given is not None:
                    value = _flag(one) if given is True else value_of(one, given)
                    line[one.path] = Given(value, one.option)
            file = {} if config is None else read_toml(tree, config)
            command(asked=Asked(tree, file, line), **values)

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "asked"
        ]
        *general, _ = inspect.signature(run).parameters.values()
        shown = [*own, *(_option(name, one) for name, one in offered.items()), *general]
        vars(run)["__signature__"] = inspect.Signature(shown)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def as_arguments(section: Settings) -> list[str]:
    """The options that give another program these settings; flags are not among them."""
    values, declared = dict(section), settings_of(type(section)).values()
    given = [one for one in declared if one.option and values[one.path] is not None]
    return [f"{one.option}={values[one.path]}" for one in given]


def _flag(one: Declared) -> Any:
    """What an option that takes no value sets: a section on, or a default turned round."""
    if one.section is not None:
        return {}
    return not one.usual if bool in one.kinds else None


def _option(name: str, one: Declared) -> inspect.Parameter:
    """The option for typer; whatever it says is text, which the settings validate."""
    text = one.help + (f", {one.unit}" if one.unit else "")
    annotation: Any
    if _flag(one) is not None:
        annotation = Annotated[bool | None, Flag(one.option, show_default=False, help=text)]
    else:
        kinds = [get_origin(kind) or kind for kind in one.kinds]
        words = [_METAVARS[kind] for kind in kinds if kind in _METAVARS]
        if (usual := one.usual) not in (None, (), {}):
            shown = ",".join(map(str, usual)) if isinstance(usual, tuple) else usual
            text += f"; {shown} by default"
        metavar = "|".join([*words, *map(str, one.choices)]) or "TEXT"
        text_of: Any = list[str] if tuple in kinds else str
        annotation = Annotated[text_of | None, typer.Option(one.option, help=text, metavar=metavar)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)


def app_of(help: str, *commands: Callable[..., None] | typer.Typer) -> typer.Typer:
    """A command line of commands, some of which may be groups of commands, with a name."""
    app = typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command()(command)
    return app


def run_app(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, that of the process by default."""
    for argument in sys.argv[1:] if arguments is None else arguments:
        if (text := argument.encode(errors="replace").decode()) != argument:
            raise WrongUsage(f"'{text}' is no UTF-8, in which settings are kept: rename it")
    app(arguments, prog_name=program)


PYTHON = shlex.quote(sys.orig_argv[0]) if os.name == "posix" else sys.orig_argv[0]
"""The interpreter as it was called, so that a line that is copied runs in its environment."""


def _called(script: str, otherwise: str) -> str:
    """How whoever runs this calls a program: by its console script, if they called one."""
    mine = Path(sys.argv[0])
    if not mine.stem.startswith("hvf-"):
        return f"{PYTHON} {otherwise}"
    return script if shutil.which(script) else str(mine.with_name(script))


LIVE = _called("hvf-live", "run_realtime.py")
TRAIN = _called("hvf-train", "-m offline_train")
Step = Literal[
    "record",
    "finish",
    "prepare",
    "mbp",
    "gallery",
    "prepare-test",
    "calibrate",
    "personalise",
    "evaluate",
    "adapt",
    "live",
    "export",
    "decode-again",
]
STEPS: Mapping[Step, str] = {
    "record": f"{LIVE} record --require {{eeg}} --require {{markers}} --out s01.xdf",
    "prepare": f"{TRAIN} prepare {{recording}} --out trials",
    "mbp": f"{TRAIN} mbp {{trials}} --images {{images}} --encoders {{encoders}} --out model/bundle",
    "gallery": f"{TRAIN} gallery --bundle {{bundle}} --out {{gallery}}",
    "prepare-test": f"{TRAIN} prepare-test {{recording}} --bundle {{bundle}} --out held_out",
    "calibrate": f"{TRAIN} calibrate --bundle {{bundle}} --gallery {{gallery}} --trials {{trials}}",
    "personalise": f"{TRAIN} personalise --bundle {{bundle}} --trials {{trials}} "
    "--gallery {gallery} --out mine/bundle",
    "evaluate": f"{TRAIN} evaluate --bundle {{bundle}} --gallery {{gallery}} --trials {{trials}}",
    "adapt": f"{LIVE} adapt --eeg {{eeg}} --markers {{markers}} --bundle {{bundle}}",
    "live": f"{LIVE} live --eeg {{eeg}} --markers {{markers}} --bundle {{bundle}}",
    "export": f"{LIVE} export {{folder}} --bids study --subject {{subject}} --task {{task}} "
    "--line-freq {hz}",
    "finish": f"{LIVE} finish {{folder}}",
    "decode-again": f"{TRAIN} evaluate --session {{folder}}",
}
"""With the least that each needs, in the order of a lab's day."""


def onward(step: Step, *more: object, **known: object) -> str:
    """`next: ` and a command; what nobody knows yet stands there in capitals.

    Args:
        step: which command.
        more: words that follow, as options that this one needs.
        known: what is known of the names in its words; None is not known.
    """
    told = {name: shlex.quote(str(value)) for name, value in known.items() if value is not None}
    words = STEPS[step].format_map(_Capitals(told))
    return " ".join(["next:", words, *(shlex.quote(str(word)) for word in more)])


class _Capitals(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name.upper()
