"""What a session was asked to do: what differs from the defaults first."""

from collections.abc import Mapping
from typing import Any

from hvf_core.settings import settings_of
from stream.pipeline.report.markup import folded, section, table
from stream.pipeline.wire.config import SessionConfig, SessionSettings


def settings_part(config: SessionConfig, summary: Mapping[str, Any], numbers: str) -> str:
    """The settings, the program's versions, and the checksums of models; all of it folded.

    Args:
        numbers: the table that the terminal showed.
    """
    changed, usual = [], []
    values = config.model_dump(mode="json")
    for path, one in settings_of(SessionSettings).items():
        value = _at(values, path)
        if one.section is not None or value is _OFF:
            continue
        default = _plain(one.usual)
        if value == default:
            usual.append((path, _told(value), one.help))
        else:
            changed.append((path, _told(value), _told(default), one.help))
    made = [(f"{name}.json", summary[name]) for name in ("bundle", "gallery") if summary[name]]
    made += [("seed", str(summary["seed"]))] if summary["seed"] is not None else []
    head = ("setting", "value", "by default", "")
    return section(
        "settings",
        "Settings and versions",
        folded(f"{len(changed)} settings that differ from the defaults", table(head, changed)),
        folded(
            f"{len(usual)} settings as they are by default", table(("setting", "value", ""), usual)
        ),
        folded("Versions and checksums", table((), [*summary["versions"].items(), *made])),
        folded("The numbers as the terminal shows them", numbers),
    )


_OFF = object()


def _at(values: Mapping[str, Any], path: str) -> Any:
    """The value of a setting; `_OFF` where its section is off."""
    at: Any = values
    for name in path.split("."):
        if not isinstance(at, Mapping) or name not in at:
            return _OFF
        at = at[name]
    return at


def _plain(value: Any) -> Any:
    """A default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _told(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
