"""Causal filters on the continuous stream, with state: the same result at any chunk size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import signal

from hvf_core.problem import Problem
from stream.acquire.settings import FilterSettings


def sections(one: FilterSettings, rate_hz: float) -> np.ndarray:
    """Second-order sections (n, 6); raises `Problem` where the frequency is not below rate / 2."""
    if one.freq_hz >= rate_hz / 2:
        raise Problem(
            f"a {one.kind} at {one.freq_hz:g} Hz needs a rate above {2 * one.freq_hz:g} Hz, "
            f"the stream has {rate_hz:g} Hz; record faster, or filter lower"
        )
    if one.kind == "notch":
        return signal.tf2sos(*signal.iirnotch(one.freq_hz, one.quality, rate_hz))
    return signal.butter(one.order, one.freq_hz, one.kind, output="sos", fs=rate_hz)


class StreamFilter:
    """Filters a stream, chunk by chunk.

    It starts, and starts again after missing samples, as if the first value had always been there,
    so an offset of thousands of microvolts does not ring.

    Args:
        columns: of the stream, that are used: it starts again where one of them is not finite.
    """

    def __init__(self, filters: tuple[FilterSettings, ...], rate_hz: float, columns: Sequence[int]):
        self._columns = list(columns)
        self._sos = np.concatenate([sections(one, rate_hz) for one in filters])
        self._rest = signal.sosfilt_zi(self._sos)[:, :, None]
        self._state: np.ndarray | None = None

    def __call__(self, samples: np.ndarray, breaks: np.ndarray) -> np.ndarray:
        """(n, channels) to (n, channels) float32; `breaks` are positions after missing samples.

        A sample that is not finite gives NaN, and the filter starts again after it.
        """
        filtered = np.full(samples.shape, np.nan, np.float32)
        is_good = np.isfinite(samples[:, self._columns]).all(axis=1)
        edges = {0, len(samples), *breaks.tolist()}
        edges.update((np.flatnonzero(np.diff(is_good)) + 1).tolist())
        for start, stop in pairwise(sorted(edges)):
            if not is_good[start]:
                self._state = None
                continue
            part = samples[start:stop].astype(np.float64)
            if self._state is None or start in breaks:
                self._state = self._rest * part[0]
            filtered[start:stop], self._state = signal.sosfilt(
                self._sos, part, axis=0, zi=self._state
            )
        return filtered
