"""Multivariate noise normalisation (MVNN): noise that is equal and independent on all channels."""

import numpy as np


def noise_covariance(trials: np.ndarray) -> np.ndarray:
    """Mean over trials of the shrunk covariance over time, (channels, channels), microvolts².

    Args:
        trials: (n, channels, times), baseline-corrected.

    Each trial's channels are standardised, their covariance is shrunk by the rule of Ledoit and
    Wolf (2004) and scaled back, as THINGS-EEG2 is preprocessed (Gifford et al. 2022; whitening
    after Guggenmos et al. 2018, with the covariance taken over the samples of each epoch).

    Raises:
        ValueError: no trials, or a value that is not finite.
    """
    if trials.ndim != 3 or not len(trials):
        raise ValueError(
            f"trials of shape {trials.shape}, expected (n, channels, times) with n > 0"
        )
    if not np.isfinite(trials).all():
        raise ValueError("trials with NaN or infinite values, expected finite ones")
    found = (shrunk_covariance(trial.astype(np.float64)) for trial in trials)
    return sum(found, np.zeros(())) / len(trials)


def whitener(covariance: np.ndarray) -> np.ndarray:
    """The symmetric W with W @ covariance @ W = I."""
    from scipy.linalg import fractional_matrix_power  # here: processes that never fit start sooner

    return np.real(fractional_matrix_power(covariance, -0.5))


def shrunk_covariance(trial: np.ndarray) -> np.ndarray:
    """Of one trial, float64 (channels, times): what `noise_covariance` is the mean of."""
    from sklearn.covariance import ledoit_wolf  # here: the live reader applies, it never fits

    scale = trial.std(axis=1)
    scale[scale <= 1e-9 * scale.max()] = 1.0  # a flat channel, up to rounding
    standardised = (trial - trial.mean(axis=1, keepdims=True)) / scale[:, None]
    covariance, _ = ledoit_wolf(standardised.T, assume_centered=True)
    return covariance * np.outer(scale, scale)
