"""The three LSL streams of a session: JSON, numbers, and a marker for each end."""

import json
import math
from collections.abc import Callable
from typing import Any

from stream.acquire.chunk import RESULTS
from stream.acquire.lsl import pylsl
from stream.pipeline.outputs.story import ENDS, FORMAT, Told
from stream.pipeline.wire.config import NUMBERS, SessionConfig

COLUMNS = {
    "trial": "",
    "answer": "",
    "probability": "",
    "rank": "",
    "repeats": "",
    "window_end": "s",
    "provisional": "",
    "abstain": "",
    "latency": "ms",
    "series": "",
}
"""Labels of the numbers, and their units."""
Sample = list[str] | list[float] | list[int]


class LslOutlet:
    """One stream.

    Args:
        name: of this one among the three.
        info: of the stream.
        sample_of: what is sent of a message; None: nothing.
    """

    def __init__(self, name: str, info: Any, sample_of: Callable[[Told], Sample | None]):
        self.name = name
        self._outlet, self._sample_of = pylsl.StreamOutlet(info), sample_of

    @property
    def is_heard(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._outlet.have_consumers())

    def tell(self, told: Told) -> None:
        """Sends a message, stamped with when it was entered."""
        sample = self._sample_of(told)
        if sample is not None:
            self._outlet.push_sample(sample, told["at_s"])


def lsl_outlets(config: SessionConfig) -> list[LslOutlet]:
    """The streams of a session, which are there from now on."""
    name, labels = config.outputs.results, list(COLUMNS)
    text = LslOutlet("text", _info(config, name, RESULTS, "string", ["message"]), as_text)
    info = _info(config, f"{name}-numbers", RESULTS, "float32", labels)
    info.set_channel_units(list(COLUMNS.values()))
    numbers = LslOutlet("numbers", info, as_numbers)
    info = _info(config, f"{name}-markers", "Markers", "int32", ["answer"])
    return [text, numbers, LslOutlet("markers", info, as_marker)]


def _info(config: SessionConfig, name: str, kind: str, form: str, labels: list[str]) -> Any:
    source_id = f"{name}-{config.session}"
    info = pylsl.StreamInfo(name, kind, len(labels), 0, form, source_id)
    info.set_channel_labels(labels)
    facts = {
        "session": config.session,
        "format": FORMAT,
        "blind": str(config.outputs.blind).lower(),
    }
    for fact, value in facts.items():
        info.desc().append_child_value(fact, str(value))
    return info


def as_text(told: Told) -> list[str]:
    """A message as JSON."""
    return [json.dumps(told, separators=(",", ":"), ensure_ascii=False, allow_nan=False)]


def as_numbers(told: Told) -> list[float] | None:
    """A message as the numbers of `COLUMNS`; None where it is of no trial."""
    if "trial" not in told:
        return None
    series, trial = divmod(told["trial"] - 1, NUMBERS)
    numbers = {
        "trial": trial + 1,
        "answer": told.get("numbers", [None])[0],
        "probability": told.get("confidence"),
        "rank": told.get("rank"),
        "repeats": told.get("n_repeats"),
        "window_end": told.get("tmax_s"),
        "provisional": told.get("provisional", False),
        "abstain": told.get("abstain", True),
        "latency": told.get("latency_ms"),
        "series": series,
    }
    return [math.nan if value is None else float(value) for value in numbers.values()]


def as_marker(told: Told) -> list[int] | None:
    """The place of an answer in the gallery, from 1; 0 where a marker ends without one."""
    if told["event"] not in ENDS:
        return None
    is_given = told["event"] == "decoded" and not told["abstain"]
    return [(told["numbers"][0] or 0) if is_given else 0]
