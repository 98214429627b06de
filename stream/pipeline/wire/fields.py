"""The types of the fields of messages, as strict as those who read them need them."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, JsonValue

Fate = Literal["begun", "cancelled", "failed"]
Outcome = Literal["decoded", "cut", "dropped"]
Number = Annotated[int, Field(ge=0, lt=2**53)]
"""Of a trial, or of samples: whatever reads it takes it without loss, JSON too."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Facts = Mapping[str, JsonValue]


def _dated(stamps: dict[str, Finite]) -> dict[str, Finite]:
    if "window_end" not in stamps:
        raise ValueError("the stamp window_end is missing")
    return stamps


def _all_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float32:
        raise ValueError(f"an array of {array.dtype} is not one of float32")
    return array


def _of_reader(facts: Facts) -> Facts:
    notices, delay_ms = facts.get("notices", []), facts.get("filter_delay_ms_at_10_hz")
    if not isinstance(notices, list) or not all(isinstance(one, str) for one in notices):
        raise ValueError("notices are no list of sentences")
    if not isinstance(delay_ms, float | int | None):
        raise ValueError("filter_delay_ms_at_10_hz is no number")
    if not isinstance(facts.get("simulated", False), bool):
        raise ValueError("simulated is neither true nor false")
    return facts


Stamps = Annotated[dict[str, Finite], AfterValidator(_dated)]
"""The moments that what is told has passed, by stage, on the reader's clock."""
Float32 = Annotated[np.ndarray, AfterValidator(_all_float32)]
ReaderFacts = Annotated[Facts, AfterValidator(_of_reader)]
"""Those of them that are more than shown are of the right type."""
