"""Live adaptation without labels: EEG of this session is mapped onto that of training.

Between training and a session the spatial covariance moves: cap, gel, gains. Before each trial a
symmetric matrix A is made of what the session has shown so far, and x' = A x for that trial.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hvf_core.artifact import whole_file, write_tensors
from hvf_core.problem import Problem
from stream.acquire.preprocess import OUTLIER_RATIO, Preprocessing, trial_covariance
from stream.acquire.settings import AdaptationSettings

_MEMORY = 31  # trials that the usual power is the median of ...
_START = 5  # ... with the training's counted this often before the first of them
_FLOOR = 1e-4  # of the mean variance, added to both covariances: neither is then singular


class Adaptation:
    """The running estimate of a session's covariance, and the matrix that takes it to training's.

    The estimate L = (n0 R + sum of n trials' covariances) / (n0 + n), where R is the mean trial
    covariance of training and n0 is `prior_trials`. The matrix is the optimal-transport (Monge) map
    between the Gaussians of covariance L and R (Knott and Smith 1984; Peyré and Cuturi 2019, remark
    2.31), A = L^-1/2 (L^1/2 R L^1/2)^1/2 L^-1/2: of all matrices with A L A' = R the one that moves
    the data least, and the identity for L = R. With R = I it is L^-1/2, the Euclidean alignment of
    He and Wu (2020). In the limit it undoes every symmetric positive mixing of the channels, gains
    among them; what is not seen in a covariance, such as another response, it cannot undo.

    The mean is not re-centred. The baseline correction has removed every offset, and what is left
    of a trial's mean is the evoked response, which is to be decoded, and slow drift, which differs
    from trial to trial. Covariances are therefore taken about each trial's own mean.

    A trial with more than `OUTLIER_RATIO` times the median power of the last trials (a blink, a
    cable) is counted and not absorbed. The median is over outliers too, so that a lasting change is
    followed after some trials; before the first trials it is the training's power.

    Args:
        preprocessing: of the bundle; holds the training's covariance.

    Attributes:
        n_absorbed: trials that the matrix is made of, windows of a rest among them.
        n_outliers: trials that were left out for their power.
        n_taken: trials that were added in this process, pending ones among them.

    Raises:
        Problem: the bundle has no trial covariance.
    """

    def __init__(self, preprocessing: Preprocessing, settings: AdaptationSettings):
        self._settings = settings
        self._reference = _reference(preprocessing)
        n = len(self._reference)
        power = float(np.trace(self._reference))
        self._floor = _FLOOR * power / n * np.eye(n)
        self._sum = np.zeros((n, n))
        self._weight = 0.0  # trials in the sum
        self.n_absorbed = self.n_outliers = self.n_taken = 0
        self._powers = deque([power] * _START, _MEMORY)
        self._pending: list[tuple[float, np.ndarray]] = []
        self._matrix = np.eye(n, dtype=np.float32)

    @classmethod
    def from_rest(
        cls,
        preprocessing: Preprocessing,
        windows: Iterable[np.ndarray],
        settings: AdaptationSettings,
    ) -> "Adaptation":
        """What a session with a resting recording starts with.

        Args:
            windows: (output channels, times) each, as trials are cut and preprocessed; they count
                as `rest_trials` at most.

        Raises:
            Problem: there is no window, or one that is not finite.
        """
        adaptation = cls(preprocessing, settings)
        for number, window in enumerate(windows):
            adaptation.add(float(number), window)
        adaptation.matrix(np.inf)
        if not adaptation.n_absorbed:
            raise Problem(
                "no window of the resting recording can be adapted to; record at least some "
                "seconds of quiet EEG, or start without it"
            )
        share = min(1.0, settings.rest_trials / adaptation.n_absorbed)
        adaptation._sum *= share
        adaptation._weight *= share
        adaptation._matrix = adaptation._made()
        return adaptation

    def add(self, last_stamp_s: float, trial: np.ndarray) -> None:
        """Takes a finished trial, for trials whose onset lies after its last sample.

        Args:
            last_stamp_s: of its last sample.
            trial: (output channels, times), as preprocessed, before any adaptation.

        Raises:
            Problem: the trial holds values that are not finite.
        """
        if trial.ndim != 2 or len(trial) != len(self._reference) or not trial.shape[1]:
            raise ValueError(
                f"a trial of shape {trial.shape}, expected ({len(self._reference)}, times)"
            )
        if not np.isfinite(trial).all():
            raise Problem(
                f"the trial that ends at {last_stamp_s:.3f} s holds values that are not finite and "
                "cannot be adapted to: look at the amplifier's channels, or reject such trials"
            )
        self._pending.append((last_stamp_s, trial_covariance(trial)))
        self.n_taken += 1

    def matrix(self, onset_s: float) -> np.ndarray:
        """The matrix for a trial: float32 (output channels, output channels), to be kept as it is.

        Call it once for a trial, in the order of the onsets, when the stream has reached its onset
        and every trial that ended before has been added: then it depends on the data's stamps only,
        never on chunks or speed, and a replay gives the same. A trial that was opened late gets the
        newest matrix.

        Args:
            onset_s: trials whose last sample lies before it are absorbed; infinite takes all.
        """
        past = [entry for entry in self._pending if entry[0] < onset_s]
        if past:
            self._pending = [entry for entry in self._pending if entry[0] >= onset_s]
            for _, covariance in sorted(past, key=lambda entry: entry[0]):
                self._absorb(covariance)
            self._matrix = self._made()
        return self._matrix

    def state(self) -> dict[str, np.ndarray]:
        """All that is known so far, as arrays; trials that no onset has passed yet are apart."""
        n = len(self._reference)
        return {
            "trial_covariance": self._reference.copy(),
            "covariance_sum": self._sum.copy(),
            "weight": np.array([self._weight]),
            "counts": np.array([self.n_absorbed, self.n_outliers]),
            "powers": np.array(self._powers),
            "pending_last_stamp_s": np.array([stamp_s for stamp_s, _ in self._pending]),
            "pending_covariance": np.array([c for _, c in self._pending]).reshape(-1, n, n),
        }

    def go_on_from(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what another process has come to, as `state` has it, for its own."""
        self._sum, self._weight = state["covariance_sum"].copy(), float(state["weight"][0])
        self.n_absorbed, self.n_outliers = map(int, state["counts"])
        self._powers = deque(map(float, state["powers"]), _MEMORY)
        stamps_s = map(float, state["pending_last_stamp_s"])
        self._pending = list(zip(stamps_s, state["pending_covariance"], strict=True))
        if self._weight:
            self._matrix = self._made()

    def _absorb(self, covariance: np.ndarray) -> None:
        power = float(np.trace(covariance))
        if power > OUTLIER_RATIO * np.median(self._powers):
            self.n_outliers += 1
        else:
            self.n_absorbed += 1
            self._weight += 1.0
            self._sum += covariance
        self._powers.append(power)

    def _made(self) -> np.ndarray:
        prior, weight = self._settings.prior_trials, self._weight
        live = (prior * self._reference + self._sum) / (prior + weight)
        matrix = monge_map(live + self._floor, self._reference + self._floor)
        gains, directions = np.linalg.eigh(matrix)
        gains = np.minimum(gains, self._settings.max_gain)
        return ((directions * gains) @ directions.T).astype(np.float32)


def write_state(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes the state of an adaptation as safetensors, whole or not at all."""
    with whole_file(path) as draft:
        write_tensors(draft, state)


def monge_map(live: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The symmetric positive A with A @ live @ A = reference, for positive definite covariances."""
    values, vectors = np.linalg.eigh(live)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ reference @ root)
    middle = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return inverse_root @ middle @ inverse_root


def _reference(preprocessing: Preprocessing) -> np.ndarray:
    reference = preprocessing.arrays.get("trial_covariance")
    n = len(preprocessing.settings.output_channels)
    if reference is None:
        raise Problem(
            "the bundle holds no trial covariance, from which adaptation starts; prepare and train "
            "it again with this version, or run without adaptation"
        )
    if reference.shape != (n, n) or not np.isfinite(reference).all() or not reference.any():
        raise Problem(
            f"the bundle's trial covariance is of shape {reference.shape} or not finite, expected "
            f"({n}, {n}) finite values; prepare and train it again, or run without adaptation"
        )
    return reference.astype(np.float64)
