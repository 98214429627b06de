"""Evidence over repeats of one stimulus: what several presentations say together."""

import numpy as np


class RepeatMean:
    """The running mean of the EEG of one group's trials.

    The mean of n trials has 1/√n of one trial's noise; the encoders are trained on such means
    (THINGS-EEG2: 4 repeats in training, up to 80 in test).
    """

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._trials: set[int] = set()

    @property
    def n(self) -> int:
        """Trials that are in the mean."""
        return len(self._trials)

    def add(self, trial: int, eeg: np.ndarray) -> np.ndarray:
        """Adds a trial, (channels, times), and returns the mean, float32.

        A trial that comes again, as after a lost connection, counts once.
        """
        if trial not in self._trials:
            self._trials.add(trial)
            self._sum = eeg.astype(np.float64) if self._sum is None else self._sum + eeg
        return (self._sum / self.n).astype(np.float32)
