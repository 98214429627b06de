"""Settings: frozen models, declared once, that command lines, TOML files and forms all read.

A setting is a field of a `Settings` class: its name ends in its unit, the string under it is its
help, and `setting` adds the option it has on command lines and whether it may change during a
session. A field that holds another `Settings` class is a section; one that may also be None is a
section that is off until one of its settings is given.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from hvf_core.problem import WrongUsage
from hvf_core.text import printable

UNITS = {"s": "s", "hz": "Hz", "uv": "uV", "px": "pixels"}
"""Units by the end of a setting's name."""
_WRONG = {
    "multiple_of": "is no multiple of {multiple_of:g}",
    "dict_type": "is no list such as EEG1=Pz,EEG2=Oz",
    "extra_forbidden": "is no setting",
    "int_parsing_size": "is too large",
    "tuple_type": "is no list",
    "too_short": "has {actual_length} values, and needs {min_length} or more",
}
"""What is said of errors whose text by pydantic would help nobody."""


def _with_units(schema: dict[str, Any]) -> None:
    for name, part in schema.get("properties", {}).items():
        if (end := name.rpartition("_")[2]) in UNITS:
            part["unit"] = UNITS[end]


class Settings(BaseModel):
    """The base of all settings: frozen, every number finite, no unknown key."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_with_units,
    )
    version: ClassVar[int] = 1
    """Of the names in the tree of which this is the root; a TOML file may say its own."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Paths of older versions, to those of today."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and {int, float} & set(
            settings_of(cls)[str(info.field_name)].kinds
        ):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


Tree = TypeVar("Tree", bound=Settings)


def setting(
    default: Any = ..., *, option: str | None = None, live: bool = False, **constraints: Any
) -> Any:
    """A field with the option that command lines offer, and whether it may change in a session.

    A `bool`, or a section that may be off, has a flag for its option. `constraints` are pydantic's.
    """
    extra = {"option": option} if option else {}
    return Field(default, json_schema_extra=extra | ({"live": True} if live else {}), **constraints)


@dataclass(frozen=True)
class Declared:
    """A setting, or a section, as its class declares it."""

    path: str
    """`section.name`."""
    help: str
    """The first sentence of the string under it."""
    usual: Any
    """Its default; None where it has none."""
    option: str
    """On the command line; empty where it has none there."""
    is_live: bool
    kinds: tuple[Any, ...]
    """The type that it has, or the several that it may have."""

    @classmethod
    def of(cls, path: str, field: FieldInfo) -> "Declared":
        extra: Any = field.json_schema_extra or {}
        text = " ".join((field.description or "").split())
        is_union = get_origin(field.annotation) in (Union, UnionType)
        kinds = get_args(field.annotation) if is_union else (field.annotation,)
        return cls(
            path,
            help=re.split(r"(?<!\.)\.(?: |$)", text)[0],
            usual=None if field.is_required() else field.default,
            option=extra.get("option", ""),
            is_live="live" in extra,
            kinds=tuple(get_args(k)[0] if get_origin(k) is Annotated else k for k in kinds),
        )

    @property
    def unit(self) -> str:
        return UNITS.get(self.path.rpartition("_")[2], "")

    @property
    def section(self) -> type[Settings] | None:
        found = (k for k in self.kinds if isinstance(k, type) and issubclass(k, Settings))
        return next(found, None)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of which it is one, where they are listed."""
        return tuple(v for k in self.kinds if get_origin(k) is Literal for v in get_args(k))


@cache
def settings_of(tree: type[Settings], prefix: str = "") -> Mapping[str, Declared]:
    """All settings and sections of a tree by path, every section before what is in it."""
    found: dict[str, Declared] = {}
    for name, field in tree.model_fields.items():
        found[prefix + name] = one = Declared.of(prefix + name, field)
        if one.section is not None:
            found |= settings_of(one.section, f"{one.path}.")
    return found


def live_settings(tree: type[Settings]) -> Mapping[str, Declared]:
    """The settings that may change during a session."""
    return {path: one for path, one in settings_of(tree).items() if one.is_live}


def schema(tree: type[Settings]) -> dict[str, Any]:
    """The JSON schema of a tree, with help, unit, option and `live` of each setting."""
    found = tree.model_json_schema()
    found["properties"]["version"] = {"const": tree.version}
    return found


@dataclass(frozen=True)
class Given:
    """A value that somebody gave, and what it was called there."""

    value: Any
    named: str


Layer = Mapping[str, Given]
"""Values by path. Of a section the value is {}, which switches it on, or None."""


def merge(tree: type[Tree], *layers: Layer, where: str = "") -> Tree:
    """The settings that layers make together; what comes later wins.

    `WrongUsage` says which value is not allowed, or which one that is needed is missing `where`.
    """
    merged: dict[str, Given] = {}
    for layer in layers:
        for path, given in layer.items():
            if given.value is None:
                merged = {p: g for p, g in merged.items() if not p.startswith(f"{path}.")}
            merged[path] = given
    nested: dict[str, Any] = {}
    for path in sorted(merged, key=lambda path: path.count(".")):
        *parents, name = path.split(".")
        at = nested
        for parent in parents:
            at[parent] = at = {} if at.get(parent) is None else at[parent]
        value = merged[path].value
        at[name] = {} if value == {} else value  # a fresh one: what is in it is put there
    return _validated(tree, nested, merged, where)


def with_value(settings: Tree, path: str, text: str) -> Tree:
    """The same settings with one that is live changed, to a text as after `--set`.

    `WrongUsage` if there is none such, it is not live or not in use, or the value is not allowed.
    """
    one = find(type(settings), path)
    if not one.is_live:
        can = ", ".join(live_settings(type(settings)))
        raise WrongUsage(f"{path} cannot change during a session; these can: {can}")
    values = at = settings.model_dump()
    *sections, name = path.split(".")
    for section in sections:
        at = at[section]
        if at is None:
            raise WrongUsage(f"{path} cannot be set: this session runs without {section}")
    at[name] = value_of(one, text)
    return _validated(type(settings), values, {path: Given(at[name], path)})


def from_assignments(tree: type[Settings], assignments: Sequence[str]) -> Layer:
    """The settings of texts `section.name=value`; `WrongUsage` for any other."""
    layer: dict[str, Given] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals:
            raise WrongUsage(f"--set '{text}' has no value; write --set {text}=VALUE")
        one = find(tree, path.strip(), " (--set)")
        for path, part in spread(tree, one.path, value_of(one, value), " (--set)"):
            layer.pop(path, None)  # what is said again counts where it is said last
            layer[path] = Given(part, f"--set {path}")
    return layer


def value_of(one: Declared, text: str) -> Any:
    """What a text says for a setting: TOML, else the text itself; `0.3,0.5` is a list too.

    `none` is no value, where the setting may have none; it is validated with the others.
    """
    text = text.strip()
    if text == "none" and NoneType in one.kinds and "none" not in one.choices:
        return None
    try:
        (value,) = tomllib.loads(f"value = {text}").values()  # one, though text may go on
    except (ValueError, RecursionError):
        value = text
    origins = {get_origin(kind) or kind for kind in one.kinds}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if tuple in origins and not isinstance(value, list):
        return parts
    if dict in origins and not isinstance(value, dict) and all("=" in part for part in parts):
        return dict(part.split("=", 1) for part in parts)
    is_text = origins & {str, Path, Literal}
    return text if is_text and not isinstance(value, str) else value


def find(tree: type[Settings], path: str, where: str = "") -> Declared:
    """The setting of a path; else `WrongUsage` names the nearest, or the new name of an old one."""
    known = settings_of(tree)
    if path in known:
        return known[path]
    if path in tree.renamed:
        raise WrongUsage(f"the setting '{path}'{where} is called '{tree.renamed[path]}' now")
    # Of those that end nearly so the nearest; an option may be what somebody had in mind too.
    ends = [(p.rpartition(".")[2], p) for p in known]
    ends += [(one.option.lstrip("-"), p) for p, one in known.items() if one.option]
    near = get_close_matches(path.rpartition(".")[2], [end for end, _ in ends], 1, 0.7)
    best = get_close_matches(path, [p for end, p in ends if end in near], 1, 0)
    there = ", ".join(p for p in known if "." not in p)
    hint = f"did you mean '{best[0]}'?" if best else f"there are {there}"
    raise WrongUsage(f"there is no setting {_short(path)}{where}; {hint}")


def spread(tree: type[Settings], path: str, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The values by path that a table for a section, or a value for a setting, comes to."""
    if find(tree, path, where).section is None or value is None:
        yield path, value
    elif isinstance(value, dict):
        yield path, {}
        for key, inner in value.items():
            yield from spread(tree, f"{path}.{key}", inner, where)
    else:
        raise WrongUsage(f"{path}{where} is {_short(value)}, and must be a table of settings")


def _validated(tree: type[Tree], values: Mapping[str, Any], given: Layer, where: str = "") -> Tree:
    """Raises the sentence of a validation error: key or option, value, what is allowed."""
    try:
        return tree.model_validate(values)
    except ValidationError as failure:
        errors = failure.errors()
    error = errors[0]
    parts = [str(part) for part in error["loc"]]
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    if error["type"] == "missing" and (one := settings_of(tree).get(paths[0])):
        also = f" (or {one.path})" if one.option else ""
        raise WrongUsage(f"{one.option or one.path}{also} is missing{where}: {one.help}")
    named = next(
        (
            given[path].named + _inside(error["loc"][path.count(".") + 1 :])
            for path in paths
            if path in given
        ),
        ".".join(parts),
    )
    if error["type"] == "value_error":
        said = printable(error["msg"].removeprefix("Value error, "))
        raise WrongUsage(f"{named}: {said}" if named else said)
    if error["type"] == "missing":
        raise WrongUsage(f"{named} is missing")
    value = error["input"]
    # Several, where the setting may be of several kinds.
    wrong = " or ".join(_wrong(one) for one in errors if one["input"] is value)
    raise WrongUsage(f"{named} {_short(value)} {wrong}")


def _inside(loc: Sequence[str | int]) -> str:
    """Where in a value that is a list of tables or a table something is; lists are short."""
    names = [str(part + 1) if isinstance(part, int) else part for part in loc if part != "[key]"]
    return "".join(f" {name}" for name in names) if any(isinstance(p, str) for p in loc) else ""


def _short(value: Any) -> str:
    """A value in a sentence: on one line, and not without end."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _wrong(error: Any) -> str:
    said = error["msg"].replace("Input should be", "must be").split(", unable to")[0]
    return _WRONG.get(error["type"], said).format(**error.get("ctx", {}))
