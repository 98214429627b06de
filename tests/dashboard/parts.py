"""What of a made-up session is the same in every scene: montage, labels, verbs, settings, form."""

from typing import Any

import numpy as np

ROWS = {
    0.92: "Fp1 Fpz Fp2",
    0.74: "AF7 AF3 AFz AF4 AF8",
    0.48: "F7 F5 F3 F1 Fz F2 F4 F6 F8",
    0.24: "FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8",
    0.0: "T7 C5 C3 C1 Cz C2 C4 C6 T8",
    -0.24: "TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8",
    -0.48: "P7 P5 P3 P1 Pz P2 P4 P6 P8",
    -0.72: "PO7 PO3 POz PO4 PO8",
    -0.92: "O1 Oz O2",
}
LABELS = [
    f"{material} {colour} {shape}"
    for shape in ("star", "mug", "duck", "mushroom", "house", "car", "chair", "tree")
    for material, colour in (("striped", "red"), ("dotted", "blue"), ("veined", "green"))
]
ENDS_S = [0.3, 0.5, 1.0]
EEG_HZ, PIECE_S, CHANCE = 100.0, 0.05, {"top1": 0.005, "top5": 0.025}
VERBS: list[dict[str, Any]] = [
    {"verb": verb, "label": label, "argument": argument, "confirm": confirm, "when": when}
    for verb, label, argument, confirm, when in (
        ("start", "Start", None, False, ["waiting"]),
        ("pause", "Pause", None, False, ["ready"]),
        ("resume", "Resume", None, False, ["paused"]),
        ("mark", "Mark", "text", False, ["waiting", "ready", "paused"]),
        ("reset_group", "Reset repeats", "id", False, ["ready", "paused"]),
        ("gallery", "Other gallery", "folder", True, ["ready", "paused"]),
        ("like", "More like", "id", False, ["ready", "paused"]),
        ("finish", "Finish", None, True, ["waiting", "ready", "paused"]),
        ("stop", "Stop", None, True, ["starting", "waiting", "ready", "paused", "ending"]),
    )
]
SCHEMA = {
    "properties": {
        "decoding.min_confidence": {
            "title": "Min confidence",
            "description": "Answers less sure than this abstain.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0,
            "x-live": True,
        },
        "painting.steps": {
            "title": "Paint steps",
            "description": "Denoising steps of a painting.",
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"type": "null"}],
            "default": None,
            "x-live": True,
        },
        "decoding.search": {
            "title": "Search",
            "description": "What finds the nearest images.",
            "enum": ["auto", "exact", "graph"],
            "default": "auto",
            "x-live": True,
        },
        "reject.flat_uv": {
            "title": "Flat",
            "description": "A channel of less is flat.",
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}],
            "unit": "uV",
            "default": None,
            "x-live": True,
        },
        "reject.keep_bad": {
            "title": "Keep bad",
            "description": "Trials that would be rejected are kept, and marked.",
            "type": "boolean",
            "default": False,
            "x-live": True,
        },
    }
}
FIELDS: list[dict[str, Any]] = [
    {"name": name, "label": label, "value": value, "help": told, "required": must, "type": "text"}
    for name, label, value, told, must in (
        ("subject", "Subject", "", "letters and digits, as in sub-01", True),
        ("session", "Session", "01", "one visit of the subject", True),
        ("task", "Task", "rsvp", "what the subject does", True),
        ("run", "Run", "1", "a take within the visit", False),
        ("experimenter", "Experimenter", "", "who measures", False),
        ("cap", "Cap", "", "maker and model", False),
        ("line_hz", "Mains", "50", "50 or 60 Hz", False),
    )
]


def positions() -> list[dict[str, Any]]:
    """63 channels of the 10-10 system, roughly where they are; the last two have no place."""
    found = []
    for y, names in ROWS.items():
        row, half = (
            names.split(),
            np.sqrt(max(0.93 - y * y, 0.12)) * (0.98 if abs(y) < 0.9 else 0.8),
        )
        for name, x in zip(row, np.linspace(-half, half, len(row)), strict=True):
            found.append({"name": name, "x": round(float(x), 3), "y": y, "known": True})
    return found + [{"name": n, "x": 0, "y": 0, "known": False} for n in ("A1", "EOG")]


STAGES = {
    "LSL": (0.17, 0.31, 0.52, None),
    "cut": (0.3, 0.41, 0.77, None),
    "hop": (0.32, 0.6, 0.9, None),
    "embed": (0.41, 0.8, 1.4, 2.0),
    "search": (0.11, 0.16, 0.4, 0.5),
    "publish": (0.07, 0.1, 0.3, None),
    "answer": (1.86, 2.71, 4.18, 4.0),
    "painting": (412.0, 480.0, 731.0, None),
}
"""Of latency: p50, p95, p99 and budget in milliseconds."""

FOUND = [
    ("machine", "ok", "8 cores (x86_64), and 1.4 programs want one"),
    ("machine", "ok", "11.2 of 16.6 GB memory are free"),
    (
        "machine",
        "warn",
        "sessions '/lab/sessions/20261126': 1.9 GB free, 1 MB is on the disk after 12 ms: an hour "
        "of 63 channels at 1 kHz takes 0.94, make room or give another folder with --out",
    ),
    ("network", "ok", "IPv4 multicast comes back on eth0, lo"),
    ("LSL", "ok", "a sample came through LSL in 0.61 ms"),
    ("LSL", "ok", "streams of others: 'BrainVision' (EEG), 'Gaze' (Gaze)"),
    ("streams", "FAIL", "no LSL stream named 'PsychoPy' appeared within 5 s: start its program"),
    ("streams", "ok", "samples come at 1000.0 Hz"),
]
"""What the doctor says, in its order: section, state and text."""


def checks(state: str, n: int = len(FOUND)) -> dict[str, Any]:
    """The kind `checks`, with the first verdicts."""
    keys = ("section", "state", "text")
    verdicts = [dict(zip(keys, one, strict=True)) for one in FOUND[:n]]
    return {"kind": "checks", "state": state, "at": "12:31:07", "verdicts": verdicts}
