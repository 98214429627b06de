"""What a page asks for: what there is, checked before anything is done with it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hvf_core.problem import Problem
from stream.pipeline.books.about import FORM
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.orders import changed

LONGEST = 16 * 1024  # bytes of a request
_GOING = ("ready", "paused")
_OPEN = ("starting", "waiting", *_GOING)


def label_of(path: str) -> str:
    """What people call a field of the form."""
    return path.rpartition(".")[2].replace("line_hz", "line frequency")


class WrongForm(Problem):
    """A form of which some fields need another value: why, by the path of each."""

    def __init__(self, fields: Mapping[str, str]):
        super().__init__("; ".join(f"{label_of(path)}: {why}" for path, why in fields.items()))
        self.fields = fields


@dataclass(frozen=True)
class Verb:
    """A control of the page; see docs/control.md for what it does."""

    verb: str
    label: str
    when: tuple[str, ...]
    """States in which it has a meaning."""
    argument: Literal["text", "id", "folder"] | None = None
    confirm: bool = False
    """Ask before."""

    def told(self) -> dict[str, Any]:
        return asdict(self) | {"when": list(self.when)}


VERBS = (
    Verb("start", "Start", ("waiting",)),
    Verb("pause", "Pause", ("ready",)),
    Verb("resume", "Resume", ("paused",)),
    Verb("mark", "Mark", _GOING, "text"),
    Verb("reset_group", "Reset group", _GOING, "id"),
    Verb("gallery", "Other gallery", _GOING, "folder", confirm=True),
    Verb("like", "More like", _GOING, "id"),
    Verb("finish", "Finish", ("waiting", *_GOING), confirm=True),
    Verb("stop", "Stop", (*_OPEN, "ending"), confirm=True),
)
WATCHED = ("eeg", "quality", "evoked")
"""Kinds that are sent only while a page shows them."""
LOOKS = ("watch", "trial_eeg", "like")
"""What those may ask who only look."""
Ask = Literal[
    "start",
    "pause",
    "resume",
    "finish",
    "stop",
    "mark",
    "reset_group",
    "gallery",
    "like",
    "set",
    "form",
    "watch",
    "trial_eeg",
    "check",
]
_Scalar = str | int | float | bool | None


class Request(BaseModel):
    """One request of a page."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    id: int
    ask: Ask
    argument: str = ""
    path: str = ""
    value: _Scalar | list[_Scalar] = None
    values: Mapping[str, _Scalar] = Field(default={}, max_length=len(FORM))
    start: bool = False
    kinds: list[Literal["eeg", "quality", "evoked"]] = []
    trial: int = 0

    def orders(self, config: SessionConfig) -> list[tuple[str, str]]:
        """The verbs of the session that it comes to, with their arguments.

        Raises:
            WrongForm: fields of the form may not have their values: none is ordered.
            Problem: the form has no such field.
        """
        if self.ask == "set":
            return [("set", f"{self.path} {as_text(self.value)}")]
        if self.ask == "form":
            if unknown := [name for name in self.values if name not in FORM]:
                raise Problem(f"the form has no '{unknown[0][:40]}'; it has {', '.join(FORM)}")
            told = {path: f"{path} {as_text(value)}" for path, value in self.values.items()}
            if wrong := dict(_wrong(config, told)):
                raise WrongForm(wrong)
            return [("set", one) for one in told.values()] + [("start", "")] * self.start
        argument = self.argument
        if self.ask == "like":
            argument = f"5 {argument}"
        return [(self.ask, argument)]


def _wrong(config: SessionConfig, told: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The fields that may not have their values, and why, without the name of the setting."""
    for path, argument in told.items():
        try:
            changed(config, "set", argument)
        except Problem as problem:
            yield path, str(problem).removeprefix(path).lstrip(": ")


_CHECK = TypeAdapter(Request)


def read_request(text: str) -> Request:
    """A page's request.

    Raises:
        Problem: it is none.
    """
    try:
        return _CHECK.validate_json(text)
    except ValidationError as failure:
        error = failure.errors()[0]
        where = ".".join(map(str, error["loc"])) or "it"
        raise Problem(f"this is no request of a page: {where}: {error['msg']}") from None


def id_in(text: str) -> int | None:
    """The number of something that is no request, where it has one."""
    try:
        found = json.loads(text)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, int) else None


def as_text(value: Any) -> str:
    """A value of a form as `set` takes it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(as_text, value))
    return str(value)
