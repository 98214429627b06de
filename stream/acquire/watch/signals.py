"""Signals to watch: fewer samples of an EEG stream, and how good its channels are."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stream.acquire.watch.health import flat_and_clipped

_HALF_TAPS = 10  # for each sample that goes: as long as scipy.signal.decimate's
_PASSED = 0.8  # of what the new rate holds: at its edge half of a mains of 50 Hz would pass
_MAINS_HZ = (50.0, 60.0)


def low_pass(half: int, cutoff: float) -> np.ndarray:
    """The taps (2 half + 1,) of scipy.signal.firwin, whose import delays a reader's start."""
    taps = np.sinc(cutoff * np.arange(-half, half + 1)) * np.hamming(2 * half + 1)
    return taps / taps.sum()


class Decimator:
    """Keeps every `factor`-th sample, behind a FIR low pass as long as scipy.signal.decimate's.

    The stamps that it gives are those of the samples in the middle of the filter, so that nothing
    is late. How the samples are cut into chunks makes no difference.

    Attributes:
        factor: the smallest that leads to `most_hz` or less.
        rate_hz: what it leads to.
    """

    def __init__(self, rate_hz: float, n_channels: int, most_hz: float = 100.0):
        self.factor = math.ceil(rate_hz / most_hz)
        self.rate_hz = rate_hz / self.factor
        self._half = _HALF_TAPS * self.factor if self.factor > 1 else 0
        cutoff = _PASSED / self.factor  # of half the rate
        self._taps = low_pass(self._half, cutoff)
        self._samples = np.empty((0, n_channels))
        self._stamps_s = np.empty(0)

    def take(self, samples: np.ndarray, stamps_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes samples (n, channels) and returns those that are due by now, and their stamps."""
        self._samples = np.concatenate([self._samples, samples])
        self._stamps_s = np.concatenate([self._stamps_s, stamps_s])
        n_due = max(0, (len(self._samples) - len(self._taps)) // self.factor + 1)
        if not n_due:
            return self._samples[:0], self._stamps_s[:0]
        windows = sliding_window_view(self._samples, len(self._taps), axis=0)
        due = windows[:: self.factor] @ self._taps
        due_s = self._stamps_s[self._half :: self.factor][:n_due]
        self._samples = self._samples[n_due * self.factor :]
        self._stamps_s = self._stamps_s[n_due * self.factor :]
        return due, due_s


@dataclass(frozen=True)
class Quality:
    """How the channels were for a second: a value for each, of the deviation from its mean."""

    until_s: float
    """Stamp of its last sample."""
    rms_uv: list[float]
    peak_to_peak_uv: list[float]
    line_uv: list[float]
    """Of this, the part (rms) at `line_hz`."""
    line_hz: float
    """50 or 60 Hz, whichever is stronger in all channels together; 0 where neither is sampled."""
    flat: list[bool]
    clipped: list[bool]


class QualityMeter:
    """Measures every second of a stream, wherever its chunks begin and end."""

    def __init__(self, rate_hz: float, n_channels: int):
        self._n = max(2, round(rate_hz))
        times_s = np.arange(self._n) / rate_hz
        self._mains_hz = [hz for hz in _MAINS_HZ if hz < rate_hz / 2]
        self._waves = np.exp([-2j * np.pi * hz * times_s for hz in self._mains_hz])
        self._samples = np.empty((0, n_channels))
        self._stamps_s = np.empty(0)

    def take(self, samples: np.ndarray, stamps_s: np.ndarray) -> list[Quality]:
        """Takes samples (n, channels), in microvolts, and returns the seconds that they fill."""
        self._samples = np.concatenate([self._samples, samples])
        self._stamps_s = np.concatenate([self._stamps_s, stamps_s])
        full = []
        while len(self._samples) >= self._n:
            until_s = float(self._stamps_s[self._n - 1])
            full.append(self._measure(self._samples[: self._n], until_s))
            self._samples, self._stamps_s = self._samples[self._n :], self._stamps_s[self._n :]
        return full

    def _measure(self, second: np.ndarray, until_s: float) -> Quality:
        deviation = second - second.mean(axis=0)
        line_hz, line_uv = 0.0, np.zeros(second.shape[1])
        if self._mains_hz:
            lines_uv = np.abs(self._waves @ deviation) * math.sqrt(2) / self._n
            strongest = int((lines_uv**2).sum(axis=1).argmax())
            line_hz, line_uv = self._mains_hz[strongest], lines_uv[strongest]
        is_flat, is_clipped = flat_and_clipped(second)
        return Quality(
            until_s=until_s,
            rms_uv=np.sqrt((deviation**2).mean(axis=0)).tolist(),
            peak_to_peak_uv=np.ptp(second, axis=0).tolist(),
            line_uv=line_uv.tolist(),
            line_hz=line_hz,
            flat=is_flat.tolist(),
            clipped=is_clipped.tolist(),
        )
