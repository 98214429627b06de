"""What `record` records, read where no LSL is loaded."""

from hvf_core.settings import Settings, setting


class RecordSettings(Settings):
    """Which streams go into the file, and from when on until when."""

    streams: tuple[str, ...] = setting(("*",), option="--stream")
    """Names, or patterns as Eye*; one that is named is waited for."""
    require: tuple[str, ...] = setting((), option="--require")
    """Streams, by name or pattern, that are taken too, and waited for."""
    now: bool = setting(False, option="--now")
    """Begin at once; what comes later is taken when it is there."""
    wait_s: float | None = setting(None, option="--wait", gt=0)
    """For the streams to appear; without end by default."""
    duration_s: float | None = setting(None, option="--duration", gt=0)
    """End after so much was recorded."""
