"""How a recording is played, apart from what plays it: read where no LSL is loaded."""

from typing import Annotated, Literal

from pydantic import Field

from hvf_core.settings import Settings, setting

NOTICE = "notice: "
"""Begins a line of a player's log that a person should read."""


class ReadSettings(Settings):
    """What of a recording is read."""

    start_s: float = setting(0.0, option="--start")
    """Begin so far into the recording."""
    stim_channel: str | None = setting(None, option="--stim-channel")
    """Channel to take the markers from."""
    eeg_stream: str | None = setting(None, option="--eeg-stream")
    """Of an XDF file, by name or id."""
    marker_stream: str | None = setting(None, option="--marker-stream")
    """Of an XDF file, by name or id."""


ALL = ReadSettings()


class ReplaySettings(ReadSettings):
    """How a recording is played."""

    speed: Annotated[float, Field(gt=0)] | Literal["max"] = setting(1.0, option="--speed")
    """Times the recorded timing; `max`: as fast as it can be decoded, without LSL."""
    duration_s: float | None = setting(None, option="--duration", gt=0)
    """End after this much of the recording."""

    @property
    def stop_s(self) -> float | None:
        """Where in the recording it ends, if not with it."""
        return self.duration_s and self.start_s + self.duration_s
