"""From a cut trial to what the brain encoder takes: one implementation, offline and live.

Per trial: pick channels, reference, baseline, resample, whiten. Every step is linear, so a
`TrialTransform` is two small matrices that are computed once, when the stream is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from decoder.bundle import Bundle
from hvf_core.problem import Problem
from stream.acquire.filters import StreamFilter
from stream.acquire.reject import as_index
from stream.acquire.settings import PreprocessSettings
from stream.acquire.trials import Window
from stream.acquire.units import EEG, Signal
from stream.acquire.whitening import noise_covariance, whitener

_KERNEL_HALF_WIDTH = 4  # output samples
_KERNEL_CUTOFF = 0.72  # of the output's Nyquist frequency: -6 dB at 90 Hz for 250 Hz
_KERNEL_KAISER_BETA = 4.0  # aliases about 45 dB down
_SCALE_TRIALS = 500  # enough for a median per channel
OUTLIER_RATIO = 4.0  # a trial with more power than this times the median: a blink, a movement


@dataclass(frozen=True)
class Preprocessing:
    """Settings with what was fitted: `whitener` (channels, channels), `scale` (outputs,)."""

    settings: PreprocessSettings
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    signal: Signal = EEG
    """What the channels of the training recorded, which a stream's must record too."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Preprocessing":
        """The preprocessing of a bundle; raises `Problem` where it is not that of this version."""
        try:
            settings = PreprocessSettings.model_validate(bundle.manifest.preprocessing)
        except ValueError as error:
            raise Problem(
                f"the preprocessing of the bundle '{bundle.directory}' is not understood "
                f"({str(error).splitlines()[0]}); train it again with this version"
            ) from None
        manifest = bundle.manifest
        theirs = (manifest.channels, manifest.rate_hz, manifest.tmin_s, manifest.tmax_s)
        if (settings.output_channels, settings.rate_hz, settings.tmin_s, settings.tmax_s) != theirs:
            raise Problem(
                f"the preprocessing of the bundle '{bundle.directory}' gives other channels, "
                "another rate or another window than its brain encoder takes: make the bundle again"
            )
        arrays = bundle.arrays("preprocessing")
        n, n_outputs = len(settings.channels), len(settings.output_channels)
        needed: dict[str, tuple[int, ...]] = {}
        needed |= {"whitener": (n, n)} if settings.whitening == "mvnn" else {}
        needed |= {"scale": (n_outputs,)} if settings.scaling == "robust" else {}
        for name, shape in needed.items():
            if name not in arrays or arrays[name].shape != shape:
                raise Problem(
                    f"the preprocessing of the bundle '{bundle.directory}' lacks the array {name} "
                    f"of shape {shape}: make the bundle again"
                )
        return cls(settings, arrays, Signal(manifest.kind, manifest.unit))

    def prepare(self, stream_channels: Sequence[str], stream_rate_hz: float) -> "TrialTransform":
        """The transform for trials of one stream.

        Raises:
            Problem: the stream lacks a channel, or is slower than the model.
        """
        columns, rate_hz = self._columns(stream_channels), self.settings.rate_hz
        if stream_rate_hz < rate_hz * (1 - 1e-6):
            raise Problem(
                f"the stream runs at {stream_rate_hz:g} Hz, the bundle needs at least "
                f"{rate_hz:g} Hz; raise the amplifier's rate, or train a bundle for it"
            )
        return TrialTransform(self, columns, len(stream_channels), stream_rate_hz)

    def spatial_matrix(self, stream_channels: Sequence[str]) -> np.ndarray:
        """Everything that mixes channels: (output channels, stream channels), float32."""
        settings, arrays = self.settings, self.arrays
        matrix = np.eye(len(stream_channels))[self._columns(stream_channels)]
        if settings.reference == "average":
            matrix = matrix - matrix.mean(axis=0)
        elif settings.reference != "none":
            matrix = matrix - matrix[settings.channels.index(settings.reference)]
        if settings.whitening == "mvnn":
            matrix = arrays["whitener"] @ matrix
        matrix = matrix[[settings.channels.index(name) for name in settings.output_channels]]
        if settings.scaling == "robust":
            matrix = matrix / arrays["scale"][:, None]
        return matrix.astype(np.float32)

    def _columns(self, stream_channels: Sequence[str]) -> list[int]:
        """Where the settings' channels are in a stream."""
        places = {name: column_of(name, stream_channels) for name in self.settings.channels}
        found = [place for place in places.values() if place is not None]
        if len(found) < len(places):
            missing = ", ".join(name for name, place in places.items() if place is None)
            raise Problem(
                f"the stream has {len(stream_channels)} channels, the bundle needs "
                f"{len(places)}: missing {missing}; name those that have "
                "other names with --channels, or train a bundle for this montage"
            )
        return found


class TrialTransform:
    """Turns trials of one stream into the brain encoder's input.

    Attributes:
        stream_filter: for the continuous stream, before trials are cut; None where none is asked.
        window: the samples of the stream that a trial needs, counted from its onset sample.
        columns: of the stream, that the settings' channels are in.
        n_times: samples of the result.
        rate_hz: of the result.
    """

    def __init__(
        self, preprocessing: Preprocessing, columns: list[int], n_columns: int, rate_hz: float
    ) -> None:
        settings = preprocessing.settings
        self.columns = columns
        filters = settings.filters
        self.stream_filter = StreamFilter(filters, rate_hz, self.columns) if filters else None
        self._used = as_index(self.columns)
        self._n_columns = n_columns
        # Channels that nobody uses are left out, not multiplied by zero: NaN in one would spread.
        self._spatial = preprocessing.spatial_matrix(settings.channels).T.copy()
        self._resampling = None
        wanted = Window.of(settings.tmin_s, settings.tmax_s, rate_hz)
        if rate_hz > settings.rate_hz * (1 + 1e-6):
            wanted, self._resampling = _resampling_matrix(settings, rate_hz)
        baseline = None
        if settings.baseline_s is not None:
            baseline = _inside(*settings.baseline_s, rate_hz)
            if baseline.count < 1:
                raise Problem(
                    f"the baseline {settings.baseline_s} s holds no sample at {rate_hz:g} Hz; make "
                    "it longer than a sample"
                )
        parts = [wanted, baseline] if baseline else [wanted]
        self.window = Window(min(p.first for p in parts), max(p.last for p in parts))
        self._wanted = _rows(wanted, self.window)
        self._baseline = _rows(baseline, self.window) if baseline else None
        self.n_times = settings.n_times
        self.rate_hz = settings.rate_hz
        self._parts: dict[tuple[int, int], tuple[slice, sparse.csr_array | None]] = {}

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(window.count, stream channels) microvolts to (output channels, times), float32."""
        if samples.shape != (self.window.count, self._n_columns):
            raise ValueError(
                f"a trial of shape {samples.shape}, expected "
                f"({self.window.count}, {self._n_columns})"
            )
        return self.part(samples, 0, self.n_times)

    def rows_for(self, n_times: int) -> int:
        """How many of the window's samples the first `n_times` of the result need."""
        rows, _ = self._part(0, n_times)
        return max(rows.stop, self._baseline.stop if self._baseline is not None else 0)

    def part(self, samples: np.ndarray, start: int, stop: int) -> np.ndarray:
        """A part of a trial that may still be going on, equal to that part of the whole.

        Args:
            samples: (rows, stream channels) microvolts: the window's first `rows_for(stop)`, or
                more.
            start: first time of the result, counted from 0.
            stop: the time after its last one.

        Returns:
            float32 (output channels, stop - start).
        """
        rows, resampling = self._part(start, stop)
        trial = samples[rows, self._used]
        if self._baseline is not None:
            level = samples[self._baseline, self._used].mean(axis=0, dtype=np.float64)
            trial = trial - level.astype(np.float32)
        trial = trial @ self._spatial
        if resampling is not None:
            trial = resampling @ trial
        return np.ascontiguousarray(trial.T)

    def _part(self, start: int, stop: int) -> tuple[slice, sparse.csr_array | None]:
        """The window's rows that a part needs, and what resamples them; made once for each part."""
        if (start, stop) not in self._parts:
            first, resampling = self._wanted.start, None
            rows = slice(first + start, first + stop)
            if self._resampling is not None:
                resampling = self._resampling[start:stop]
                low, high = resampling.indices.min(), resampling.indices.max() + 1
                resampling = resampling[:, low:high]
                rows = slice(first + int(low), first + int(high))
            self._parts[start, stop] = rows, resampling
        return self._parts[start, stop]


def column_of(name: str, stream_channels: Sequence[str]) -> int | None:
    """Where a channel is in a stream, by its name, if need be in other capitals (FP1, Fp1)."""
    if name in stream_channels:
        return stream_channels.index(name)
    folded = [other.casefold() for other in stream_channels]
    return folded.index(name.casefold()) if folded.count(name.casefold()) == 1 else None


def fit(settings: PreprocessSettings, trials: np.ndarray) -> Preprocessing:
    """Fits what the settings ask for to training trials.

    Args:
        trials: (n, channels, times) of `settings.channels`, as the transform of the same settings
            without whitening and scaling gives them with all channels as output.

    Returns:
        The settings with `whitener` and `scale` where they are asked for, and `trial_covariance`
        (outputs, outputs): the mean over trials of what comes out, which adaptation starts from.
    """
    arrays: dict[str, np.ndarray] = {}
    if settings.whitening == "mvnn":
        arrays["whitener"] = whitener(noise_covariance(trials))
    if settings.scaling == "robust":
        some = trials[:: max(1, len(trials) // _SCALE_TRIALS)]
        if "whitener" in arrays:
            some = np.einsum("ij,njt->nit", arrays["whitener"], some)
        rows = [settings.channels.index(name) for name in settings.output_channels]
        values = np.moveaxis(some[:, rows], 1, 0).reshape(len(rows), -1)
        centre = np.median(values, axis=1, keepdims=True)
        arrays["scale"] = 1.4826 * np.median(np.abs(values - centre), axis=1)
    spatial = Preprocessing(settings, arrays).spatial_matrix(settings.channels)
    arrays["trial_covariance"] = _mean_trial_covariance(spatial, trials)
    return Preprocessing(settings, arrays)


def trial_covariance(trial: np.ndarray) -> np.ndarray:
    """Over the samples of a trial (channels, times), about its mean, as `noise_covariance` does."""
    return np.atleast_2d(np.cov(trial, bias=True))


def _mean_trial_covariance(spatial: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """The mean over trials of `spatial @ trial`'s covariance, without outliers, as live."""
    powers = np.array([(spatial @ trial).var(axis=1).sum() for trial in trials])
    kept = np.flatnonzero(powers <= OUTLIER_RATIO * np.median(powers))
    found = (trial_covariance(spatial @ trials[number]) for number in kept)
    return sum(found, np.zeros(())) / len(kept)


def _rows(part: Window, whole: Window) -> slice:
    return slice(part.first - whole.first, part.last - whole.first + 1)


def _inside(start_s: float, stop_s: float, rate_hz: float) -> Window:
    """The samples at times from start to stop, both included, as MNE takes a baseline."""
    return Window(int(np.ceil(start_s * rate_hz - 1e-6)), int(np.floor(stop_s * rate_hz + 1e-6)))


def _resampling_matrix(
    settings: PreprocessSettings, rate_hz: float
) -> tuple[Window, sparse.csr_array]:
    """Input window and (output times, input times) matrix of a band-limited interpolation.

    A Kaiser-windowed sinc around each output time: linear phase, so there is no delay to
    compensate, at the price of waiting for half its width after tmax (16 ms at 250 Hz).
    """
    outputs = Window.of(settings.tmin_s, settings.tmax_s, settings.rate_hz)
    output_s = np.arange(outputs.first, outputs.last + 1) / settings.rate_hz
    half_width_s = _KERNEL_HALF_WIDTH / settings.rate_hz
    inputs = _inside(output_s[0] - half_width_s, output_s[-1] + half_width_s, rate_hz)
    input_s = np.arange(inputs.first, inputs.last + 1) / rate_hz
    distance = (input_s[None, :] - output_s[:, None]) / half_width_s
    inside = np.abs(distance) <= 1 + 1e-9
    taper = np.i0(_KERNEL_KAISER_BETA * np.sqrt(np.clip(1 - distance**2, 0, 1)))
    kernel = np.where(inside, np.sinc(_KERNEL_CUTOFF * _KERNEL_HALF_WIDTH * distance) * taper, 0.0)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return inputs, sparse.csr_array(kernel.astype(np.float32))
