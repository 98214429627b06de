"""How a stream is: whether it flows, and which channels are dead."""

from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np

State = Literal["waiting", "streaming", "stalled", "lost", "recovered"]

_STALL_S = 0.2  # silence that is a stall, or ...
_STALL_CHUNKS = 4.0  # ... this many chunks of it, where chunks are longer
_LOST_S = 5.0  # silence that is a loss
_QUIET_S = 2.0  # silence after which the source of a marker stream is looked for
_RECOVERED_S = 1.0  # how long a stream counts as recovered before it is simply streaming
_CHUNK_MEMORY = 0.2  # per chunk, for how long chunks are
_LOOK_S = 1.0  # of samples that flat and clipped channels are told by
_FLAT_UV = 1e-3
_CLIPPED_SHARE = 0.05  # of samples at a channel's extreme value, when the extreme is repeated


@dataclass(frozen=True)
class Health:
    """The health of a stream at one moment."""

    state: State
    age_s: float
    """Of the newest sample, since it could be read; 0 before the first."""
    flat: tuple[str, ...]
    clipped: tuple[str, ...]


class HealthMonitor:
    """Watches one stream. The reader hands it what arrives and asks it how the stream is.

    Attributes:
        newest: the last second that was looked at, (n, channels); None before the first.
    """

    def __init__(self, channels: tuple[str, ...], rate_hz: float):
        self.newest: np.ndarray | None = None
        self._channels = channels
        self._state: State = "waiting"
        self._arrived_s: float | None = None
        self._since_s = 0.0
        self._nominal_hz = rate_hz
        self._chunk_s = 0.0
        self._wanted = max(2, round(_LOOK_S * rate_hz))
        self._recent: list[np.ndarray] = []
        self._n_recent = 0
        self._flat: tuple[str, ...] = ()
        self._clipped: tuple[str, ...] = ()

    def arrived(self, samples: np.ndarray, now_s: float) -> None:
        """Takes samples (n, channels) that could be read at `now_s`."""
        if self._arrived_s is None:
            self._state, self._since_s = "streaming", now_s
            self._chunk_s = len(samples) / self._nominal_hz
        elif self._state in ("stalled", "lost"):
            self._state, self._since_s = "recovered", now_s
        self._chunk_s += _CHUNK_MEMORY * (len(samples) / self._nominal_hz - self._chunk_s)
        self._arrived_s = now_s
        self._look(samples)

    def state(self, now_s: float) -> State:
        """The state now; call it often, as silence is noticed here."""
        if self._arrived_s is None:
            return self._state
        silence_s = now_s - self._arrived_s
        if silence_s > max(_LOST_S, 2 * _STALL_CHUNKS * self._chunk_s):
            self._state = "lost"
        elif silence_s > max(_STALL_S, _STALL_CHUNKS * self._chunk_s):
            self._state = "stalled"
        elif self._state == "recovered" and now_s - self._since_s > _RECOVERED_S:
            self._state = "streaming"
        return self._state

    def is_quiet(self, now_s: float) -> bool:
        """Whether it is time to look what answers under the stream's name."""
        return self.state(now_s) in ("stalled", "lost", "recovered")

    def report(self, now_s: float) -> Health:
        """All of it."""
        arrived_s = self._arrived_s
        return Health(
            state=self.state(now_s),
            age_s=0.0 if arrived_s is None else now_s - arrived_s,
            flat=self._flat,
            clipped=self._clipped,
        )

    def _look(self, samples: np.ndarray) -> None:
        self._recent.append(samples)
        self._n_recent += len(samples)
        if self._n_recent < self._wanted:
            return
        self.newest = np.concatenate(self._recent)
        is_flat, is_clipped = flat_and_clipped(self.newest)
        self._recent, self._n_recent = [], 0
        self._flat = tuple(compress(self._channels, is_flat))
        self._clipped = tuple(compress(self._channels, is_clipped))


class MarkerMonitor:
    """Watches a marker stream, whose silence says nothing: only whether its source answers does.

    Attributes:
        is_lost: whether the source answers no more; whoever looks for it says so here.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self._arrived_s: float | None = None

    def arrived(self, samples: np.ndarray, now_s: float) -> None:
        """Takes markers that could be read at `now_s`."""
        self._arrived_s = now_s

    def is_quiet(self, now_s: float) -> bool:
        """Whether it is time to look whether the source is still there."""
        return self._arrived_s is None or now_s - self._arrived_s > _QUIET_S

    def state(self, now_s: float) -> State:
        """`waiting` before the first marker, `lost` while the source is away."""
        if self.is_lost and self.is_quiet(now_s):
            return "lost"
        return "waiting" if self._arrived_s is None else "streaming"

    def report(self, now_s: float) -> Health:
        """All of it; there are no channels."""
        age_s = 0.0 if self._arrived_s is None else now_s - self._arrived_s
        return Health(self.state(now_s), age_s, (), ())


def flat_and_clipped(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which channels of (n, channels) do not move, and which others rest at their limits."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    is_flat = ~(high - low > _FLAT_UV)
    at_extreme = np.maximum((samples == high).mean(axis=0), (samples == low).mean(axis=0))
    return is_flat, (at_extreme > _CLIPPED_SHARE) & ~is_flat
