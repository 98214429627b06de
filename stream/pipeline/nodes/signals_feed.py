"""The EEG for those who watch it, and how good its channels are: made only while somebody does."""

from collections.abc import Sequence

import numpy as np

from stream.acquire.channels import beside_columns
from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.markers import marker_text
from stream.acquire.watch.signals import Decimator, QualityMeter
from stream.pipeline.outputs.blind import leaving
from stream.pipeline.wire.bus import Publisher
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.keys import lab_endpoint
from stream.pipeline.wire.messages import ChannelQuality, Eeg

_PIECE_S = 0.05
_LATEST_S = 0.1  # without a calm moment


class SignalsFeed:
    """Publishes `Eeg` and `ChannelQuality`, each from the moment on at which somebody hears it.

    It waits for nobody, and sends nothing again: what a slow watcher misses is lost to him. What
    comes is only put down by `add`; `flush` has the work, and is called when no answer waits.
    """

    def __init__(
        self,
        config: SessionConfig,
        channels: Sequence[str],
        rate_hz: float,
        kinds: Sequence[str] = (),
    ):
        self._channels = list(channels)
        self._rate_hz = rate_hz
        also = lab_endpoint(config.outputs.listen, "signals")
        self._publisher = Publisher(config.endpoints.signals, config.session, leaving(config), also)
        self._hidden: list[int] = []  # columns whose codes may tell what is shown
        if config.outputs.blind:
            self._hidden = beside_columns(channels, kinds)
            if config.trigger is not None:
                self._hidden.append(self._channels.index(config.trigger.channel))
        self._decimator: Decimator | None = None
        self._meter: QualityMeter | None = None
        self._waiting: list[Chunk] = []
        self._markers: list[tuple[float, str]] = []

    @property
    def is_watched(self) -> bool:
        """Whether anything was wanted when something came last."""
        return self._decimator is not None or self._meter is not None

    def add(self, stream: StreamKind, chunk: Chunk) -> None:
        """Takes what arrived on `eeg` or `markers`."""
        shape = (self._rate_hz, len(self._channels))
        heard = self._publisher.is_heard(Eeg)
        self._decimator = (self._decimator or Decimator(*shape)) if heard else None
        heard = self._publisher.is_heard(ChannelQuality)
        self._meter = (self._meter or QualityMeter(*shape)) if heard else None
        if not self.is_watched:
            self._waiting, self._markers = [], []
        elif stream == "eeg":
            self._waiting.append(chunk)
        else:
            stamps_s = chunk.raw_s + chunk.offset_s
            self._markers += zip(stamps_s.tolist(), map(marker_text, chunk.samples), strict=True)

    def flush(self, is_calm: bool) -> None:
        """Sends what has come, once it is a piece.

        Args:
            is_calm: whether nobody waits for a sample that comes soon; else two pieces may come.
        """
        least_s = _PIECE_S if is_calm else _LATEST_S
        n_waiting = sum(len(chunk.raw_s) for chunk in self._waiting)
        if n_waiting and n_waiting >= least_s * self._rate_hz:
            self._send()

    def close(self) -> None:
        self._publisher.close()

    def _send(self) -> None:
        samples = np.concatenate([chunk.samples for chunk in self._waiting])  # a copy
        samples[:, self._hidden] = 0
        stamps_s = np.concatenate([chunk.raw_s + chunk.offset_s for chunk in self._waiting])
        self._waiting = []
        if self._decimator is not None:
            self._send_eeg(self._decimator, *self._decimator.take(samples, stamps_s))
        if self._meter is not None:
            for quality in self._meter.take(samples, stamps_s):
                self._publisher.publish(ChannelQuality(channels=self._channels, **vars(quality)))

    def _send_eeg(self, decimator: Decimator, samples: np.ndarray, stamps_s: np.ndarray) -> None:
        if not len(samples):
            return  # the filter is not full yet
        message = Eeg(
            channels=self._channels,
            rate_hz=decimator.rate_hz,
            stamps_s=stamps_s.tolist(),
            markers=[text for _, text in self._markers],
            markers_s=[stamp_s for stamp_s, _ in self._markers],
            array=samples.astype(np.float32),
        )
        self._markers = []
        self._publisher.publish(message)
