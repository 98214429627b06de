"""A stream that comes back must be the stream that went away: the same channels, the same rate."""

import threading
from collections.abc import Sequence

from stream.acquire.lsl import FoundStream, pylsl

_LOOK_S = 1.0
_INFO_WAIT_S = 2.0


class ReturnGuard:
    """Looks, in a thread of its own, at what answers under the name of a stream that fell silent.

    liblsl reconnects to a source that restarted at another rate without a word, and waits for ever
    for one that restarted with other channels.

    Attributes:
        refusal: why the session cannot go on with what came back; None while nothing speaks
            against it.
    """

    def __init__(self, stream: FoundStream, channels: Sequence[str]):
        self._stream = stream
        self._channels = tuple(channels)
        self._thread: threading.Thread | None = None
        self.refusal: str | None = None

    def look(self) -> None:
        """Starts looking, unless it looks already; returns at once."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        for info in pylsl.resolve_byprop("name", self._stream.name, 1, _LOOK_S):
            found = FoundStream.of(info)
            if found.source_id == self._stream.source_id:
                self.refusal = self._compare(found) or self.refusal

    def _compare(self, found: FoundStream) -> str | None:
        was = self._stream
        if found.rate_hz != was.rate_hz:
            change = f"at {found.rate_hz:g} Hz, the session began at {was.rate_hz:g} Hz"
        elif found.n_channels != was.n_channels:
            change = f"with {found.n_channels} channels, the session began with {was.n_channels}"
        elif self._labels(found) not in ((), self._channels):
            change = "with other channel names than the session began with"
        else:
            return None
        return f"the stream '{was.name}' came back {change}; end it and begin a new session"

    def _labels(self, found: FoundStream) -> tuple[str, ...]:
        """Its channel names; () where it has none, or does not answer in time."""
        inlet = pylsl.StreamInlet(found.info, recover=False)
        try:
            labels = inlet.info(_INFO_WAIT_S).get_channel_labels()
        except (TimeoutError, pylsl.util.LostError):
            return ()
        return tuple(labels) if labels and all(labels) else ()
