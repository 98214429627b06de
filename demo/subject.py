"""The simulated subject: turns images that are shown to it into a continuous EEG recording."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft, signal

from demo.head import CHANNELS, CORTEX_DEPTH, Brain, Head, head_of
from hvf_core.problem import Problem

# Of the evoked response's power, the share that changes from presentation to presentation.
TRIAL_VARIANCE_SHARE = 0.15
LATENCY_SD_S = 0.005

# Ongoing EEG is made ahead in blocks of this length, whatever the size of the chunks read.
BLOCK_S = 0.25

SLOPE = 1.2  # of the background: power falls with the frequency to this power
ALPHA_BANDWIDTH_HZ = 1.5  # narrow enough to wax and wane within a second
DRIFT_CORNER_HZ = 0.03
BLINK_DECAY_S = 0.04  # a blink peaks after three of these


@dataclass(frozen=True)
class SubjectSettings:
    """Who the subject is, and how noisy the recording."""

    rate_hz: float = 250.0  # sampling rate, 50 to 2000
    amplitude: float = 1.0  # of everything evoked; 0 evokes nothing at all
    seed: int = 0  # of this subject's brain; the recording has a seed of its own
    person: int | None = None  # whose head and cap, by `head_of`; None has the usual ones
    noise_uv: float = 11.0  # background with a 1/f spectrum, RMS below 100 Hz, mean of electrodes
    alpha_uv: float = 7.0  # posterior alpha rhythm, RMS where it is strongest
    alpha_hz: float = 10.0  # its frequency
    sensor_uv: float = 1.0  # white noise of each electrode, RMS below 125 Hz
    drift_uv: float = 12.0  # slow drift of each electrode, RMS after the first minute
    line_uv: float = 1.5  # interference of the mains, mean amplitude
    line_hz: float = 50.0  # frequency of the mains; lost above half the sampling rate
    blink_uv: float = 200.0  # typical peak of a blink at the electrode next to the eyes
    blinks_per_minute: float = 10.0

    def __post_init__(self) -> None:
        if not 50 <= self.rate_hz <= 2000:
            raise Problem(
                f"The simulated subject's rate_hz is {self.rate_hz:g}, but must lie between 50 "
                "and 2000: choose a rate in that range."
            )


class SimulatedSubject:
    """One recording of one subject: present images, and read the EEG sample by sample.

    The same settings, recording seed and presentations give the same samples, in chunks of any
    size. All EEG is in microvolts, its channels are `demo.head.CHANNELS`.
    """

    def __init__(self, settings: SubjectSettings, recording_seed: int) -> None:
        self.settings = settings
        self.next_sample = 0  # the first one that has not been read yet
        whose = [] if settings.person is None else [settings.person]
        seeds = np.random.SeedSequence([settings.seed, recording_seed, *whose])
        ongoing_seed, trial_seed = seeds.spawn(2)
        head = head_of(settings.person)
        self._brain, self._gains = Brain(settings.seed, head), head.gains
        self._ongoing = _OngoingEeg(settings, np.random.default_rng(ongoing_seed))
        self._trials = np.random.default_rng(trial_seed)
        self._ahead = np.empty((0, len(CHANNELS)), np.float32)
        self._presentations: list[tuple[int, np.ndarray]] = []  # onset, response (n, 63)

    def evoked(self, image: np.ndarray, attributes: Mapping[str, str]) -> np.ndarray:
        """Mean response to an image: float32 (63, n) in microvolts, sample 0 at its onset.

        image is uint8 (h, w, 3), at least 32 px on a side; attributes name what is seen in it
        (shape, material, colour, place), in any words.
        """
        response = self._brain.evoked(image, attributes, self.settings.rate_hz)
        return np.float32(self.settings.amplitude) * response

    def present(self, onset_sample: int, evoked: np.ndarray) -> None:
        """Let a response (63, n) begin at a sample; overlapping ones add up.

        Each presentation has a gain and a latency of its own. It is kept until it has been read,
        so present as the recording goes along. Raises ValueError if the onset has been read.
        """
        if onset_sample < self.next_sample:
            raise ValueError(
                f"onset_sample {onset_sample} is in the past: the next sample to be read is "
                f"{self.next_sample}"
            )
        # Log-normal with mean 1 and E[gain^2] = 1 / (1 - share), so that its share is variance.
        spread = np.sqrt(-np.log1p(-TRIAL_VARIANCE_SHARE))
        gain = np.exp(spread * self._trials.standard_normal() - spread**2 / 2)
        delay_s = LATENCY_SD_S * np.clip(self._trials.standard_normal(), -3, 3)
        response = np.float32(gain) * _delayed(evoked, delay_s * self.settings.rate_hz)
        self._presentations.append((onset_sample, response.T))

    def read(self, n_samples: int) -> np.ndarray:
        """The next samples of the recording: float32 (n_samples, 63) in microvolts."""
        n_blocks = -(-(n_samples - len(self._ahead)) // self._ongoing.block_size)
        blocks = [self._ongoing.next_block() for _ in range(n_blocks)]
        chunk, self._ahead = np.split(np.concatenate([self._ahead, *blocks]), [n_samples])
        start, stop = self.next_sample, self.next_sample + n_samples
        for onset, response in self._presentations:
            first, last = max(onset, start), min(onset + len(response), stop)
            if first < last:
                chunk[first - start : last - start] += response[first - onset : last - onset]
        chunk *= self._gains
        self._presentations = [
            (onset, response)
            for onset, response in self._presentations
            if onset + len(response) > stop
        ]
        self.next_sample = stop
        return chunk


class _Filter:
    """A causal filter over rows that carries its state from block to block."""

    def __init__(self, sos: np.ndarray, n_rows: int) -> None:
        self._sos = sos
        self._state = np.zeros((len(sos), n_rows, 2))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        filtered, self._state = signal.sosfilt(self._sos, rows, axis=1, zi=self._state)
        return filtered


class _OngoingEeg:
    """What the electrodes record while nothing is shown, in blocks of BLOCK_S."""

    def __init__(self, settings: SubjectSettings, random: np.random.Generator) -> None:
        n = len(CHANNELS)
        rate_hz = settings.rate_hz
        self._settings = settings
        self._random = random
        self.block_size = round(BLOCK_S * rate_hz)
        self._start = 0
        head = head_of(settings.person)
        self._background_mix = settings.noise_uv * _background_mix(head)
        self._background = _Filter(_power_law(rate_hz), n)
        self._alpha_mix = settings.alpha_uv * _alpha_mix(head)
        self._alpha = _Filter(_resonance(settings.alpha_hz, rate_hz), self._alpha_mix.shape[1])
        self._drift = _Filter(_drift(rate_hz), n)
        self._blink_map = settings.blink_uv * _blink_map(head)
        self._blinks = _Filter(_blink(rate_hz), 1)
        # Mains reach every electrode with a strength and a phase of its own.
        visible = settings.line_hz < rate_hz / 2
        strength = settings.line_uv * visible * random.lognormal(-0.125, 0.5, n)
        phase = random.normal(0, 0.5, n)
        self._line_mix = strength[:, None] * np.column_stack([np.cos(phase), np.sin(phase)])

    def next_block(self) -> np.ndarray:
        """The next float32 (samples, 63)."""
        n, size, rate_hz = len(CHANNELS), self.block_size, self._settings.rate_hz
        # White noise of one density at every rate, so that what the filters make of it is too.
        white = np.sqrt(rate_hz / 2) * self._random.standard_normal((n, size))
        eeg = self._background_mix @ self._background(white)
        alpha = self._random.standard_normal((self._alpha_mix.shape[1], size))
        eeg += self._alpha_mix @ self._alpha(alpha)
        eeg += self._settings.drift_uv * self._drift(self._random.standard_normal((n, size)))
        eeg += self._blink_map[:, None] * self._blinks(self._blink_onsets())
        cycles = self._settings.line_hz * (self._start + np.arange(size)) / rate_hz
        eeg += self._line_mix @ np.stack([np.sin(2 * np.pi * cycles), np.cos(2 * np.pi * cycles)])
        sensor = self._settings.sensor_uv * np.sqrt(rate_hz / 250)
        eeg += sensor * self._random.standard_normal((n, size))
        self._start += size
        return np.ascontiguousarray(eeg.T, np.float32)

    def _blink_onsets(self) -> np.ndarray:
        """(1, samples): the size of the blink that begins at a sample, else 0."""
        size = self.block_size
        per_sample = self._settings.blinks_per_minute / 60 / self._settings.rate_hz
        begins = self._random.random((1, size)) < per_sample
        return begins * self._random.lognormal(0, 0.2, (1, size))


@cache
def _background_mix(head: Head) -> np.ndarray:
    """(63, 63): mixes independent rows as cortex would, to a mean RMS of 1 over electrodes.

    Cortex is a few hundred dipoles all over the sphere. As all have the same spectrum, 63 rows
    with the dipoles' covariance are as good as the dipoles themselves, and much cheaper.
    """
    random = np.random.RandomState(0)
    where = random.standard_normal((800, 3))
    where /= np.linalg.norm(where, axis=1, keepdims=True)
    where = where[where[:, 2] > -0.4]
    maps = head.maps(CORTEX_DEPTH * where, where + 0.7 * random.standard_normal(where.shape))
    axes, sizes, _ = np.linalg.svd(maps, full_matrices=False)
    mix = axes * sizes
    return mix / np.linalg.norm(mix, axis=1).mean()


def _alpha_mix(head: Head) -> np.ndarray:
    """(63, 6): maps of the alpha generators, at most 1 RMS in sum."""
    where = np.array([[x, -0.85, z] for x in (-0.45, 0.0, 0.45) for z in (0.15, 0.55)])
    where /= np.linalg.norm(where, axis=1, keepdims=True)
    maps = head.maps(CORTEX_DEPTH * where, where)
    return maps / np.linalg.norm(maps, axis=1).max()


def _blink_map(head: Head) -> np.ndarray:
    """(63,): the eyes' dipoles turned up, 1 at the electrode next to them."""
    eyes = 0.75 * np.array([[-0.35, 0.85, -0.35], [0.35, 0.85, -0.35]])
    both = head.maps(eyes, np.array([[-0.2, 1.0, 0.6], [0.2, 1.0, 0.6]])).sum(axis=1)
    return both / np.abs(both).max()


def _power_law(rate_hz: float) -> np.ndarray:
    """Filter from white noise of density 1 per Hz to 1/f**SLOPE above 0.1 Hz, RMS 1 below 100 Hz.

    Real poles and zeros in turn, evenly spaced on the logarithmic axis: each pair is a step of
    the staircase that a power law is (Keshner 1982).
    """
    corners_hz = np.geomspace(0.1, 400, 8)
    poles = -2 * np.pi * corners_hz
    zeros = poles * (corners_hz[1] / corners_hz[0]) ** (SLOPE / 2)
    freqs_hz = np.linspace(0.01, 100, 10_000)
    # The stubs of SciPy take its gain for an array.
    _, gain = signal.freqs_zpk(zeros, poles, 1.0, 2 * np.pi * freqs_hz)  # type: ignore[call-overload]
    rms = np.sqrt(np.trapezoid(np.abs(gain) ** 2, freqs_hz))
    return signal.zpk2sos(*signal.bilinear_zpk(zeros, poles, 1 / rms, rate_hz))


def _resonance(peak_hz: float, rate_hz: float) -> np.ndarray:
    """Filter from white noise to a rhythm of RMS 1: a pair of poles near the unit circle."""
    radius = np.exp(-np.pi * ALPHA_BANDWIDTH_HZ / rate_hz)
    pole = radius * np.exp(2j * np.pi * peak_hz / rate_hz)
    sos = signal.zpk2sos([], [pole, pole.conj()], 1.0)
    sos[0, :3] /= np.linalg.norm(_impulse_response(sos, 10 * rate_hz))
    return sos


def _drift(rate_hz: float) -> np.ndarray:
    """Filter from white noise to a bounded random walk of RMS 1 that begins at 0."""
    pole = np.exp(-2 * np.pi * DRIFT_CORNER_HZ / rate_hz)
    return signal.zpk2sos([], [pole], np.sqrt(1 - pole**2))


def _blink(rate_hz: float) -> np.ndarray:
    """Filter from a unit impulse to the course of a blink with peak 1: fast up, slower down."""
    sos = signal.zpk2sos([], 4 * [np.exp(-1 / (BLINK_DECAY_S * rate_hz))], 1.0)
    sos[0, :3] /= _impulse_response(sos, rate_hz).max()
    return sos


def _impulse_response(sos: np.ndarray, n_samples: float) -> np.ndarray:
    return signal.sosfilt(sos, signal.unit_impulse(round(n_samples)))


def _delayed(evoked: np.ndarray, n_samples: float) -> np.ndarray:
    """A response (63, n) later by a fraction of samples: exact, as responses are band-limited."""
    n = evoked.shape[1]
    turn = np.exp(-2j * np.pi * fft.rfftfreq(n) * n_samples).astype(np.complex64)
    return fft.irfft(fft.rfft(evoked, axis=1) * turn, n, axis=1)
