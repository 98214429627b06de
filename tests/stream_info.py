"""What LSL says of a stream, for recordings that tests write."""

from collections.abc import Sequence

from stream.acquire.lsl import pylsl


def stream_info(
    name: str,
    type: str,
    n_channels: int,
    rate_hz: float,
    channel_format: str,
    source_id: str = "",
    labels: Sequence[str] = (),
    units: Sequence[str] = (),
) -> "pylsl.StreamInfo":
    info = pylsl.StreamInfo(name, type, n_channels, rate_hz, channel_format, source_id)
    if labels:
        info.set_channel_labels(list(labels))
    if units:
        info.set_channel_units(list(units))
    return info
