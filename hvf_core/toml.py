"""Settings as a TOML file: read with the place of every mistake, written with what each means."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvf_core.problem import WrongUsage
from hvf_core.settings import Declared, Given, Layer, Settings, settings_of, spread


def read_toml(tree: type[Settings], file: Path) -> Layer:
    """The settings of a TOML file.

    `WrongUsage` if it cannot be read, is of a later version, or has a key that is no setting.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors write a mark
    except OSError as error:
        raise WrongUsage(
            f"the settings '{file}' cannot be read ({error.strerror}); give a TOML file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise WrongUsage(
            f"the settings '{file}' are no TOML: {error}; text stands in quotes there, as in "
            'evidence = "mean"'
        ) from None
    version = tables.pop("version", tree.version)
    if type(version) is not int or not 1 <= version <= tree.version:
        raise WrongUsage(
            f"the settings '{file}' are of version {version!r}, and this program knows those up to "
            f"{tree.version}: bring it up to date, or begin anew with version = {tree.version}"
        )
    return {
        path: Given(value, f"'{file}': {path}")
        for key, table in tables.items()
        for path, value in spread(tree, key, table, f" in '{file}'")
    }


def to_toml(settings: Settings) -> str:
    """A TOML file of settings, every one with its help; those that nobody gave are comments."""
    lines = [f"version = {settings.version}", *_lines(type(settings), settings, "")]
    return "\n".join(lines) + "\n"


def _lines(tree: type[Settings], settings: Settings | None, prefix: str) -> Iterator[str]:
    """The lines of a section: its own settings, then the sections in it."""
    declared = {path: one for path, one in settings_of(tree).items() if "." not in path}
    for name, one in declared.items():
        is_fixed = len(one.choices) == len(one.kinds) == 1  # a mark, and nothing to choose
        if one.section is None and not is_fixed:
            is_given = settings is not None and name in settings.model_fields_set
            value = getattr(settings, name) if is_given else one.usual
            mute = "" if is_given and value is not None else "# "
            yield from ["", f"# {_about(one)}", f"{mute}{name} = {_text(value)}".rstrip()]
    for name, one in declared.items():
        if one.section is not None:
            inner = None if settings is None else getattr(settings, name)
            yield from ["", f"# {_about(one)}", f"{'' if inner else '# '}[{prefix}{name}]"]
            yield from _lines(one.section, inner, f"{prefix}{name}.")


def _about(one: Declared) -> str:
    told = [", ".join(map(str, one.choices)), one.unit, one.option, "live" if one.is_live else ""]
    return f"{one.help} ({'; '.join(filter(None, told))})" if any(told) else one.help


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(k)} = {_text(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    text = "" if value is None else json.dumps(value, default=str, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # which TOML does not take as it is
