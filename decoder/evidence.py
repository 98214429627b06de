"""Evidence over repeats of one stimulus: what several presentations say together.

Either what they have shown is averaged before the network's head (`Repeats`), or what each of them
says is added (`LogLikelihoods`).
"""

import numpy as np


class Repeats:
    """The sum of what the finished repeats of one stimulus have shown, part by part.

    What a trial has shown is an array (parts, width): shares of the encoder's first layer, or the
    EEG itself, a part for each stretch of time. Both add up over repeats, so that averaging here
    is averaging the EEG. The mean of n trials has 1/√n of one trial's noise; the encoders are
    trained on such means (THINGS-EEG2: 4 repeats in training, up to 80 in test).
    """

    def __init__(self, parts: int, width: int) -> None:
        self._sum = np.zeros((parts, width))
        self._mean = np.zeros((parts, width))
        self._trials: set[int] = set()

    @property
    def n(self) -> int:
        """Finished repeats."""
        return len(self._trials)

    def __contains__(self, trial: int) -> bool:
        return trial in self._trials

    def add(self, trial: int, shown: np.ndarray) -> None:
        """Adds a finished trial; one that comes again, as after a lost connection, counts once."""
        if trial not in self._trials:
            self._trials.add(trial)
            self._sum += shown

    def mean_with(self, shown: np.ndarray, n_parts: int) -> np.ndarray:
        """The mean of all that is known while a further repeat is at its part `n_parts`.

        Args:
            shown: (parts, width) of that repeat; what lies behind `n_parts` is not looked at.
            n_parts: how many of its parts are there.

        Returns:
            float64 (parts, width), good until the next call: over all repeats up to `n_parts`, from
            there on over the finished ones; zeros where there are none.
        """
        mean = self._mean
        np.add(self._sum[:n_parts], shown[:n_parts], out=mean[:n_parts])
        mean[:n_parts] /= self.n + 1
        np.divide(self._sum[n_parts:], max(self.n, 1), out=mean[n_parts:])
        return mean

    def mean(self) -> np.ndarray:
        """The mean over the finished repeats, float64 (parts, width), good until the next call."""
        return np.divide(self._sum, self.n, out=self._mean)


class LogLikelihoods:
    """The sum of what the finished repeats of one stimulus say, each on its own.

    With equal priors a trial's log-probabilities are its log-likelihoods but for a constant, and
    those of independent trials add.
    """

    def __init__(self, n_gallery: int) -> None:
        self._sum = np.zeros(n_gallery)
        self._trials: set[int] = set()

    @property
    def n(self) -> int:
        """Finished repeats."""
        return len(self._trials)

    def add(self, trial: int, log_probabilities: np.ndarray) -> None:
        """Adds a finished trial's (n_gallery,); one that comes again counts once."""
        if trial not in self._trials:
            self._trials.add(trial)
            self._sum += log_probabilities

    def sum_with(self, trial: int, log_probabilities: np.ndarray) -> tuple[np.ndarray, int]:
        """The sum when a trial, which may be going on, is added; and the repeats in it."""
        if trial in self._trials:
            return self._sum, self.n
        return self._sum + log_probabilities, self.n + 1


def known_mean(trials: np.ndarray, n_times: int) -> np.ndarray:
    """The mean of all that is known of a stimulus while its last repeat is still going on.

    This is, on whole trials, what `Repeats` adds up while they arrive.

    Args:
        trials: (repeats, channels, times), in the order in which they were seen.
        n_times: samples of the last repeat that are there; of the others all are.

    Returns:
        float32 (channels, times): the mean over all repeats up to `n_times`, from there on the mean
        over all but the last one, or zeros where the last one is the only one.
    """
    mean = np.zeros(trials.shape[1:], np.float32)
    mean[:, :n_times] = trials[..., :n_times].mean(axis=0)
    if len(trials) > 1:
        mean[:, n_times:] = trials[:-1, :, n_times:].mean(axis=0)
    return mean
