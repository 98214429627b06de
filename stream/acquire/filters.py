"""What passes: causal filters of the continuous stream, and the kernel that resamples a trial."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.settings import FilterSettings

DELAY_AT_HZ = 10.0
"""Where the delay of filters is told: in the middle of what evoked responses are made of."""
HALF_WIDTH = 4
"""Of the kernel, in samples of the result."""
_CUTOFF = 0.72  # of the result's Nyquist frequency: -6 dB at 90 Hz for 250 Hz
_KAISER_BETA = 4.0  # aliases about 45 dB down
# What the EEG is taken for where it has to be continued: 1/f from 0.5 Hz to nearly the result's
# Nyquist frequency, and a thousandth of its power as white noise.
_LOWEST_HZ, _HIGHEST, _WHITE = 0.5, 0.96, 1e-3
REACH = 12
"""How far back a one-sided kernel reaches, in samples of the result."""


def sections(one: FilterSettings, rate_hz: float) -> np.ndarray:
    """Second-order sections (n, 6); raises `Problem` where the frequency is not below rate / 2."""
    from scipy import signal  # here: half a second, that a reader without filters does without

    if one.freq_hz >= rate_hz / 2:
        raise Problem(
            f"a {one.kind} at {one.freq_hz:g} Hz needs a rate above {2 * one.freq_hz:g} Hz, "
            f"the stream has {rate_hz:g} Hz; record faster, or filter lower"
        )
    if one.kind == "notch":
        return signal.tf2sos(*signal.iirnotch(one.freq_hz, one.quality, rate_hz))
    return signal.butter(one.order, one.freq_hz, one.kind, output="sos", fs=rate_hz)


def delay_s(filters: Sequence[FilterSettings], rate_hz: float, at_hz: float) -> float:
    """The group delay of filters one after another at a frequency, which the EEG comes late by."""
    from scipy import signal

    near_hz = np.array([at_hz - 0.01, at_hz + 0.01])
    responses = [
        signal.freqz_sos(sections(one, rate_hz), near_hz, fs=rate_hz)[1] for one in filters
    ]
    before, after = np.prod(responses, axis=0)
    return float(-np.angle(after / before) / (2 * np.pi * 0.02))


class StreamFilter:
    """Filters a stream, chunk by chunk.

    It starts, and starts again after missing samples, as if the first value had always been there,
    so an offset of thousands of microvolts does not ring.

    Args:
        columns: of the stream, that are used: it starts again where one of them is not finite.

    Attributes:
        delay_s: group delay at `DELAY_AT_HZ`.
    """

    def __init__(self, filters: tuple[FilterSettings, ...], rate_hz: float, columns: Sequence[int]):
        from scipy import signal

        self._filter = signal.sosfilt
        self.delay_s = delay_s(filters, rate_hz, DELAY_AT_HZ)
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
            filtered[start:stop], self._state = self._filter(
                self._sos, part, axis=0, zi=self._state
            )
        return filtered


def kernel(output_s: float | np.ndarray, input_s: np.ndarray, rate_hz: float) -> np.ndarray:
    """Weights of inputs at times `input_s` for the output at `output_s` of a result of `rate_hz`.

    A Kaiser-windowed sinc, `HALF_WIDTH` to both sides: linear phase, no delay. Many outputs (n, 1)
    with inputs (n, m) each have weights (n, m).
    """
    distance = (input_s - output_s) * rate_hz / HALF_WIDTH
    taper = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - distance**2, 0, 1)))
    weights = np.sinc(_CUTOFF * HALF_WIDTH * distance) * taper
    weights[np.abs(distance) > 1 + 1e-9] = 0.0
    return weights / weights.sum(axis=-1, keepdims=True)


def one_sided_kernel(
    output_s: float, input_s: np.ndarray, unknown_s: np.ndarray, rate_hz: float
) -> np.ndarray:
    """What comes nearest to `kernel` where the inputs at `unknown_s` are not there yet.

    The least-squares estimate of its result (Wiener) from the inputs at `input_s`, which should
    reach back by `REACH`; a constant stays that constant.

    Returns:
        Weights of the inputs at `input_s`.
    """
    all_s = np.concatenate([input_s, unknown_s])
    wanted = kernel(output_s, all_s, rate_hz)
    n = len(input_s)
    # The weights, and the multiplier of the condition that they sum to 1.
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = _autocovariance(input_s[:, None] - input_s, rate_hz)
    system[n, n] = 0.0
    right = np.append(_autocovariance(input_s[:, None] - all_s, rate_hz) @ wanted, 1.0)
    return np.linalg.solve(system, right)[:n]


def _autocovariance(lag_s: np.ndarray, rate_hz: float) -> np.ndarray:
    """Of what the EEG is taken for, of power 1 and the white noise."""
    lags_s, places = np.unique(np.abs(lag_s).round(9), return_inverse=True)
    hz = np.geomspace(_LOWEST_HZ, _HIGHEST * rate_hz / 2, 500)  # so that 1/f is equal everywhere
    values = np.cos(2 * np.pi * lags_s[:, None] * hz).mean(axis=1) + _WHITE * (lags_s == 0)
    return values[places]
