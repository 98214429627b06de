"""From a cut trial to what the brain encoder takes: one implementation, offline and live.

Per trial: pick channels, reference, baseline, resample, whiten. Every step is linear, so a
`TrialTransform` is two small matrices that are computed once, when the stream is known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from decoder.bundle import Bundle
from hvf_core.problem import Problem
from stream.acquire.channels import column_of
from stream.acquire.filters import HALF_WIDTH, REACH, StreamFilter, kernel, one_sided_kernel
from stream.acquire.reject import as_index
from stream.acquire.settings import PreprocessSettings, as_made
from stream.acquire.trials import Window
from stream.acquire.units import EEG, Signal
from stream.acquire.whitening import noise_covariance, whitener

if TYPE_CHECKING:  # each process of a session imports this, and one of them resamples
    from scipy import sparse

    _Resampling = np.ndarray | sparse.csr_array

_SCALE_TRIALS = 500  # enough for a median per channel
_FEW_TIMES = 40  # of a part: more than the last slice of a trial at 250 Hz has
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
            settings = PreprocessSettings.model_validate(as_made(bundle.manifest.preprocessing))
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
                "other names with --rename, or train a bundle for this montage"
            )
        return found


class TrialTransform:
    """Turns trials of one stream into the brain encoder's input.

    Attributes:
        stream_filter: for the continuous stream, before trials are cut; None where none is asked.
        window: the samples of the stream that a trial needs, counted from its onset sample.
        columns: of the stream, that the settings' channels are in.
        n_columns: channels of the stream.
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
        self.n_columns = n_columns
        # Channels that nobody uses are left out, not multiplied by zero: NaN in one would spread.
        self._spatial = preprocessing.spatial_matrix(settings.channels).T.copy()
        self._resampler = None
        # At the model's own rate: a stream's that is a hair beside it may round to other samples.
        wanted = Window.of(settings.tmin_s, settings.tmax_s, settings.rate_hz)
        if rate_hz > settings.rate_hz * (1 + 1e-6):
            self._resampler = _Resampler(settings, rate_hz)
            wanted = self._resampler.inputs
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
        self._parts: dict[tuple[int, int, int], tuple[slice, _Resampling | None]] = {}

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(window.count, stream channels) microvolts to (output channels, times), float32."""
        if samples.shape != (self.window.count, self.n_columns):
            raise ValueError(
                f"a trial of shape {samples.shape}, expected "
                f"({self.window.count}, {self.n_columns})"
            )
        return self.part(samples, 0, self.n_times)

    def rows_for(self, n_times: int) -> int:
        """Of how many of the window's samples the first `n_times` of the result are made."""
        stop = n_times if self._resampler is None else self._resampler.rows_for(n_times)
        return self._rows_and_baseline(stop)

    def rows_at(self, n_times: int) -> int:
        """How many of the window's samples there are at the time of the result's `n_times`-th.

        Where they are fewer than `rows_for`, the last samples of the result are estimates.
        """
        stop = n_times if self._resampler is None else self._resampler.rows_at(n_times)
        return self._rows_and_baseline(stop)

    def settled(self, n_rows: int, n_times: int) -> int:
        """How many of the first `n_times` of the result no later sample of a trial changes."""
        rows = n_rows - self._wanted.start
        return n_times if self._resampler is None else self._resampler.settled(rows, n_times)

    def part(self, samples: np.ndarray, start: int, stop: int) -> np.ndarray:
        """A part of a trial that may still be going on.

        Args:
            samples: (rows, stream channels) microvolts: the window's first `rows_at(stop)`, or
                more. With `rows_for(stop)` or more the part is equal to that of the whole trial.
            start: first time of the result, counted from 0.
            stop: the time after its last one.

        Returns:
            float32 (output channels, stop - start).
        """
        rows, resampling = self._part(start, stop, len(samples))
        trial = samples[rows, self._used]
        if self._baseline is not None:
            level = samples[self._baseline, self._used].mean(axis=0, dtype=np.float64)
            trial = trial - level.astype(np.float32)
        trial = trial @ self._spatial
        if resampling is not None:
            trial = resampling @ trial
        return np.ascontiguousarray(trial.T)

    def _rows_and_baseline(self, stop: int) -> int:
        baseline = self._baseline.stop if self._baseline is not None else 0
        return max(self._wanted.start + stop, baseline)

    def _part(self, start: int, stop: int, n_rows: int) -> "tuple[slice, _Resampling | None]":
        """The window's rows that a part needs, and what resamples them; made once for each part."""
        n_rows = min(n_rows, self.rows_for(stop))
        if (start, stop, n_rows) not in self._parts:
            first, resampling = self._wanted.start, None
            rows = slice(first + start, first + stop)
            if self._resampler is not None:
                whole = self._resampler.matrix(start, stop, n_rows - first)
                low, high = whole.indices.min(), whole.indices.max() + 1
                part = whole[:, low:high]
                # What an answer waits for are few: one call in place of many.
                resampling = part.toarray() if stop - start <= _FEW_TIMES else part
                rows = slice(first + int(low), first + int(high))
            self._parts[start, stop, n_rows] = rows, resampling
        return self._parts[start, stop, n_rows]


class _Resampler:
    """Band-limited interpolation from a stream's samples to those of a trial.

    Attributes:
        inputs: the samples of the stream that a trial is made of, counted from its onset. With the
            one-sided kernel the last is that at tmax; with the two-sided one they go on for half
            its width, which somebody has to wait for.
    """

    def __init__(self, settings: PreprocessSettings, rate_hz: float):
        from scipy import sparse

        self._rate_hz, self._output_rate_hz = rate_hz, settings.rate_hz
        outputs = Window.of(settings.tmin_s, settings.tmax_s, settings.rate_hz)
        self._output_s = np.arange(outputs.first, outputs.last + 1) / settings.rate_hz
        half_s = HALF_WIDTH / settings.rate_hz
        self.inputs = _inside(self._output_s[0] - half_s, self._output_s[-1] + half_s, rate_hz)
        self._waits = settings.kernel == "two_sided"
        # What each output is made of where all is there: at once, as one by one it takes 20 times.
        near = np.ceil((self._output_s - half_s) * rate_hz - 1e-6).astype(int)[:, None]
        near = near + np.arange(int(2 * half_s * rate_hz) + 2)  # the last ones' weights are 0
        weights = kernel(self._output_s[:, None], near / rate_hz, settings.rate_hz)
        places = np.indices(near.shape)[0].ravel(), near.ravel() - self.inputs.first
        self._whole = sparse.csr_array((weights.ravel().astype(np.float32), places))
        self._whole.eliminate_zeros()
        # How many inputs each output is made of and, where nothing is waited for, are there.
        self._needed = np.floor((self._output_s + half_s) * rate_hz + 1e-6) - self.inputs.first + 1
        self._n_near = self._needed
        self._there = np.round(self._output_s * rate_hz) - self.inputs.first + 1
        if not self._waits:
            self.inputs = Window(self.inputs.first, round(self._output_s[-1] * rate_hz))
            self._needed = np.minimum(self._needed, self.inputs.count)

    def rows_for(self, n_times: int) -> int:
        """Inputs that the first outputs are made of."""
        return int(self._needed[n_times - 1])

    def rows_at(self, n_times: int) -> int:
        """Inputs that are there at the time of an output, if nothing is waited for."""
        return int((self._needed if self._waits else self._there)[n_times - 1])

    def settled(self, n_rows: int, n_times: int) -> int:
        """How many of the first outputs are made of these inputs and no later one."""
        return int(np.searchsorted(self._needed[:n_times], n_rows, "right"))

    def matrix(self, start: int, stop: int, n_rows: int) -> "sparse.csr_array":
        """(outputs from start to stop, inputs), of which there are `n_rows`."""
        from scipy import sparse

        n_rows = min(n_rows, self.inputs.count)
        known = start + int(np.searchsorted(self._n_near[start:stop], n_rows, "right"))
        estimates = np.zeros((stop - known, n_rows), np.float32)
        for row, output_s in zip(estimates, self._output_s[known:stop], strict=True):
            self._estimate(output_s, row)
        whole = self._whole[start:known, :n_rows]
        return sparse.vstack([whole, sparse.csr_array(estimates)], format="csr")

    def _estimate(self, output_s: float, row: np.ndarray) -> None:
        """Puts the weights of the inputs that are there into their row."""
        half_s, reach_s = HALF_WIDTH / self._output_rate_hz, REACH / self._output_rate_hz
        first, end = self.inputs.first, self.inputs.first + len(row)
        low = max(first, _inside(output_s - reach_s, output_s, self._rate_hz).first)
        inputs = np.arange(low, _inside(output_s, output_s + half_s, self._rate_hz).last + 1)
        there_s, unknown_s = np.split(inputs / self._rate_hz, [end - low])
        row[low - first :] = one_sided_kernel(output_s, there_s, unknown_s, self._output_rate_hz)


class Trials(Protocol):
    """Some trials (channels, times), to be read more than once: an array, or what is on disk."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


def fit(
    settings: PreprocessSettings, trials: Trials, noise: np.ndarray | None = None
) -> Preprocessing:
    """Fits what the settings ask for to training trials.

    Args:
        trials: of `settings.channels`, as the transform of the same settings without whitening and
            scaling gives them with all channels as output.
        noise: their `noise_covariance`, where it is known already.

    Returns:
        The settings with `whitener` and `scale` where they are asked for, and `trial_covariance`
        (outputs, outputs): the mean over trials of what comes out, which adaptation starts from.
    """
    arrays: dict[str, np.ndarray] = {}
    if settings.whitening == "mvnn":
        found = noise_covariance(np.asarray(trials)) if noise is None else noise
        arrays["whitener"] = whitener(found)
    if settings.scaling == "robust":
        step = max(1, len(trials) // _SCALE_TRIALS)
        some = np.stack([*islice(trials, 0, None, step)])
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


def _mean_trial_covariance(spatial: np.ndarray, trials: Trials) -> np.ndarray:
    """The mean over trials of `spatial @ trial`'s covariance, without outliers, as live."""
    powers = np.array([(spatial @ trial).var(axis=1).sum() for trial in trials])
    kept = powers <= OUTLIER_RATIO * np.median(powers)
    found = (trial_covariance(spatial @ trial) for trial in compress(trials, kept))
    return sum(found, np.zeros(())) / np.count_nonzero(kept)


def _rows(part: Window, whole: Window) -> slice:
    return slice(part.first - whole.first, part.last - whole.first + 1)


def _inside(start_s: float, stop_s: float, rate_hz: float) -> Window:
    """The samples at times from start to stop, both included, as MNE takes a baseline."""
    return Window(int(np.ceil(start_s * rate_hz - 1e-6)), int(np.floor(stop_s * rate_hz + 1e-6)))
