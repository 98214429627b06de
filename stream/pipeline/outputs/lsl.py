"""The answers over LSL."""

from typing import Any

from stream.acquire.lsl import pylsl
from stream.pipeline.wire.config import SessionConfig

OUTLET_NAME = "hvf-live-results"


def opened(config: SessionConfig) -> Any:
    """The LSL outlet of answers as JSON strings, for programs that have nothing but LSL."""
    source_id = f"{OUTLET_NAME}-{config.session}"
    info = pylsl.StreamInfo(OUTLET_NAME, "Results", 1, 0, "string", source_id)
    info.desc().append_child_value("session", config.session)
    return pylsl.StreamOutlet(info)
