"""What does not change while a page is open, or rarely: the session, its settings and its form."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import TypeAdapter

from decoder.bundle import BundleManifest, open_bundle
from hvf_core.problem import Problem
from hvf_core.settings import live_settings, settings_of
from stream.dashboard.asks import VERBS, label_of
from stream.dashboard.board.board import Board
from stream.dashboard.board.scores import BUDGETS_MS
from stream.pipeline.books.about import FORM
from stream.pipeline.wire.config import SessionConfig, SessionSettings

VERSION = 1
"""Of what pages and servers say to each other."""
_OF_ANSWERS = {"decoding", "top_k"}
_MONTAGE = "colin27_1005"


def mode_of(config: SessionConfig) -> str:
    """What kind of a session it is, in a word."""
    if config.demo is not None or config.simulated:
        return "demo"
    if config.replay is not None:
        return "replay"
    return "live" if config.bundle is not None else "record"


def hello(board: Board, *, n_gallery: int, rights: str, now_s: float, over: bool) -> dict[str, Any]:
    """The first that a page is told.

    Args:
        n_gallery: images that answers are among.
        rights: `control` or `look`.
        over: whether the session has ended before the page was opened.
    """
    config = board.config
    chance = {"top1": 1 / n_gallery, "top5": min(1.0, 5 / n_gallery)} if n_gallery else None
    mode = mode_of(config)
    session = {
        "id": config.session,
        "title": f"{mode} {config.session}",
        "folder": str(config.folder),
        "mode": "finished" if over else mode,
        "started": _started(config),
        "blind": config.outputs.blind,
        "simulated": board.is_simulated,
    }
    return {
        "kind": "hello",
        "v": VERSION,
        "session": session,
        "rights": rights,
        "now_s": now_s,
        "n_gallery": n_gallery,
        "n_repeats": config.demo.repeats if config.demo is not None else None,
        "window_ends_s": _window_ends(config),
        "window_s": list(window_of(config)),
        "chance": chance,
        "channels": head_map(board.channels or _bundle_channels(config)),
        "rate_hz": board.rate_hz,
        "budgets_ms": dict(BUDGETS_MS),
        "verbs": [verb.told() for verb in VERBS],
        "settings": {"schema": _schema(config), "values": _values(board, live_paths(config))},
        "form": form(board),
    }


def form(board: Board) -> dict[str, Any]:
    """The facts of the session that a person fills in."""
    values = _values(board, FORM)
    declared = settings_of(SessionSettings)
    fields = [
        {
            "name": path,
            "label": label_of(path),
            "value": values[path],
            "help": declared[path].help,
            "required": False,
            "type": "number" if {int, float} & {*declared[path].kinds} else "text",
        }
        for path in FORM
    ]
    return {"fields": fields, "needed": board.config.about.form and not board.started}


def live_paths(config: SessionConfig) -> list[str]:
    """The settings that may change in this session, and are none of the form."""
    values = config.model_dump(mode="json", exclude=None if config.bundle else _OF_ANSWERS)
    there = [path for path in live_settings(SessionSettings) if path not in FORM]
    return [path for path in there if values.get(path.split(".")[0]) is not None]


def window_of(config: SessionConfig) -> tuple[float, float]:
    """Begin and end of a trial, around its onset."""
    if config.bundle is not None and (manifest := _manifest(config.bundle)) is not None:
        return manifest.tmin_s, manifest.tmax_s
    return config.trials.tmin_s, config.trials.tmax_s


@cache
def _manifest(bundle: Path) -> BundleManifest | None:
    try:
        return open_bundle(bundle).manifest
    except Problem:  # it was moved since
        return None


def head_map(channels: Sequence[str]) -> list[dict[str, Any]]:
    """Where channels are, from above: in a disk of radius 1, x to the right, y to the front."""
    places = _places()
    told = []
    for name in channels:
        x, y = places.get(name.casefold(), (0.0, 0.0))
        told.append({"name": name, "x": x, "y": y, "known": name.casefold() in places})
    return told


@cache
def _places() -> dict[str, tuple[float, float]]:
    import mne  # here: it takes a moment

    found = mne.channels.make_standard_montage(_MONTAGE).get_positions()["ch_pos"]
    center = np.mean([found[name] for name in ("T7", "T8", "Fpz", "Oz")], axis=0)
    places = {}
    for name, place in found.items():
        right, front, up = place - center
        # Azimuthal: the angle from the top becomes the distance, so that the rim is not crowded.
        angle = np.arctan2(np.hypot(right, front), up) / (np.pi / 2)
        far = max(np.hypot(right, front), 1e-9)
        places[name.casefold()] = (
            round(float(angle * right / far), 3),
            round(float(angle * front / far), 3),
        )
    return places


def _window_ends(config: SessionConfig) -> list[float]:
    _, end_s = window_of(config)  # as answers say it: of the last one there is a sample
    return [*sorted(s for s in {*config.decoding.tmax_s} if s < end_s), end_s]


def _bundle_channels(config: SessionConfig) -> Sequence[str]:
    manifest = _manifest(config.bundle) if config.bundle is not None else None
    return manifest.channels if manifest is not None else ()


def _started(config: SessionConfig) -> str:
    try:
        began = datetime.strptime(config.session[:15], "%Y%m%d-%H%M%S")
    except ValueError:  # its id is another program's
        began = datetime.fromtimestamp((config.folder / "config.json").stat().st_mtime)
    return began.isoformat()


def _values(board: Board, paths: Sequence[str]) -> dict[str, Any]:
    """The values of settings by path, as they are by now."""
    config = board.config.model_dump(mode="json")
    values = {}
    for path in paths:
        at: Any = config
        for name in path.split("."):
            at = at[name] if at is not None else None
        values[path] = board.values.get(path, at)
    return values


def _schema(config: SessionConfig) -> dict[str, Any]:
    properties = {path: _property(path) for path in live_paths(config)}
    return {"type": "object", "properties": properties}


@cache
def _property(path: str) -> dict[str, Any]:
    """The JSON schema of a setting, flat: where it may be none, `nullable` says so."""
    one = settings_of(SessionSettings)[path]
    *sections, name = path.split(".")
    tree: Any = SessionSettings
    for section in sections:
        tree = settings_of(tree)[section].section
    field = tree.model_fields[name]
    kind: Any = Annotated[field.annotation, field]
    found = TypeAdapter(kind).json_schema()
    options = found.pop("anyOf", [])
    kinds = [kind for kind in options if kind != {"type": "null"}]
    found |= kinds[0] if kinds else {}
    found.pop("live", None)
    found.pop("option", None)
    usual = json.loads(json.dumps(one.usual, default=str))
    told: dict[str, Any] = {"title": one.path.rpartition(".")[2].replace("_", " ")}
    told |= {"description": one.help}
    told |= {"unit": one.unit, "default": usual, "x-live": True}
    return found | told | {"nullable": len(kinds) < len(options)}
