"""Evidence over repeats of one stimulus: several presentations are put together in one of two ways.

Their EEG is averaged before the network's head and the mean is looked up ("mean"), or each is
embedded alone and their log-likelihoods are added ("added"). A trial's log-likelihood of an image
is, but for a constant, a weight times a cosine; the sum over trials is therefore one inner product
with the weighted sum of their embeddings. Either way a gallery is asked one question, and what is
kept of a group does not depend on the gallery.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Set
from functools import cache, partial

import numpy as np

from decoder.answer import Query
from decoder.bundle import BundleManifest
from decoder.calibration import Calibration, Evidence, temperature_of

MAX_BYTES = 256 * 2**20
"""For the sums of all groups: at 1024 float64 each, some 33,000 of them."""


class Weights:
    """What a cosine weighs, and how sure repeats make, by the way they are put together.

    `logit_scale` and `calibration` are the bundle's.
    """

    def __init__(self, evidence: Evidence, logit_scale: float, calibration: Calibration | None):
        self.alone = evidence == "added"
        """Each repeat is embedded alone; else their mean is."""
        self._evidence, self._factor = evidence, math.exp(logit_scale)
        self._temperature = cache(partial(temperature_of, calibration))

    def of_one(self, tmax_s: float) -> float:
        """The weight of the cosines of an embedding whose window ends at `tmax_s`."""
        return self._factor / (self._temperature("mean", tmax_s, 1) if self.alone else 1.0)

    def temperature(self, tmax_s: float, n_repeats: int) -> float:
        """Of the log-likelihoods of `n_repeats`, the last of which goes on up to `tmax_s`.

        Raises Problem where evidence is to be added and there is no calibration.
        """
        return self._temperature(self._evidence, tmax_s, n_repeats)


class Repeats:
    """Sums over the finished repeats of each group, of as many groups as the memory given holds.

    Of more, the one that was asked for longest ago is forgotten: its next repeat counts as the
    first one, as the answer's number of repeats says.

    Args:
        shape: of what each repeat gives.
        max_bytes: for all sums together.
        say: hears a sentence when the first group is forgotten.

    Attributes:
        added: hears of each trial that is added: its number, its group, and what it gave.
    """

    def __init__(self, shape: tuple[int, ...], max_bytes: int, say: Callable[[str], None]) -> None:
        self.shape, self._say = shape, say
        self._most = max(1, max_bytes // (8 * math.prod(shape)))
        self._groups: OrderedDict[str, tuple[np.ndarray, set[int]]] = OrderedDict()
        self._has_forgotten = False
        self.added: Callable[[int, str, np.ndarray], None] = lambda trial, group, given: None

    def of(self, group: str) -> tuple[np.ndarray, Set[int]]:
        """The sum, float64 and not to be changed, and the trials in it; zeros of a new group."""
        if group not in self._groups:
            return np.zeros(self.shape), frozenset()
        self._groups.move_to_end(group)
        return self._groups[group]

    def add(self, trial: int, group: str, given: np.ndarray) -> None:
        """Adds a finished trial; one that comes again, as after a lost connection, counts once."""
        sum_, trials = self._groups.setdefault(group, (np.zeros(self.shape), set()))
        self._groups.move_to_end(group)
        if trial not in trials:
            trials.add(trial)
            sum_ += given
            self.added(trial, group, given)
        if len(self._groups) > self._most:
            oldest, _ = self._groups.popitem(last=False)
            if not self._has_forgotten:
                self._say(
                    f"the repeats of {self._most} stimuli fill the memory that is meant for them: "
                    f"from now on those of the stimulus seen longest ago are forgotten, as of "
                    f"{oldest!r}"
                )
            self._has_forgotten = True

    def forget(self, group: str) -> None:
        """Begins a group anew."""
        self._groups.pop(group, None)


class AveragedEEG:
    """The mean of what the repeats of a group have shown is embedded.

    What a trial has shown is an array (parts, width): shares of the encoder's first layer, or the
    EEG itself, a part for each stretch of time. Both add up over repeats, so that averaging here
    is averaging the EEG. The mean of n trials has 1/√n of one trial's noise; the encoders are
    trained on such means (THINGS-EEG2: 4 repeats in training, up to 80 in test).

    Args:
        weights: for "mean".
        repeats: of the shape (parts, width).
    """

    def __init__(self, weights: Weights, repeats: Repeats) -> None:
        self.repeats, self._weights = repeats, weights
        self._mean = np.zeros(repeats.shape)

    def known(self, trial: int, group: str, shown: np.ndarray, n_parts: int) -> np.ndarray:
        """What is to be embedded while a further repeat is at its part `n_parts`.

        Args:
            trial: its number; if it is finished already, it counts with what it showed then.
            group: whose repeat it is.
            shown: (parts, width) of it; what lies behind `n_parts` is not looked at.
            n_parts: how many of its parts are there.

        Returns:
            (parts, width), good until the next call: the mean over all repeats up to `n_parts`,
            from there on over the finished ones, zeros where there are none.
        """
        sum_, trials = self.repeats.of(group)
        n, mean = len(trials), self._mean
        if not n and n_parts == len(shown):
            return shown
        n_parts = 0 if trial in trials else n_parts
        np.add(sum_[:n_parts], shown[:n_parts], out=mean[:n_parts])
        mean[:n_parts] /= n + 1
        np.divide(sum_[n_parts:], max(n, 1), out=mean[n_parts:])
        return mean

    def query(self, trial: int, group: str, z: np.ndarray, tmax_s: float) -> Query:
        """What the gallery is asked, given the unit-length embedding (dim,) of what is known."""
        _, trials = self.repeats.of(group)
        n_repeats = len(trials) + (trial not in trials)
        temperature = self._weights.temperature(tmax_s, n_repeats)
        return Query(z, self._weights.of_one(tmax_s), temperature, n_repeats, by_cosine=True)

    def finish(self, trial: int, group: str, shown: np.ndarray, z: np.ndarray) -> None:
        """A trial is whole, and counts as a repeat from now on."""
        self.repeats.add(trial, group, shown)


class AddedLikelihoods:
    """Each repeat of a group is embedded alone, and what they say is added.

    With equal priors a trial's log-probabilities are its log-likelihoods but for a constant, and
    those of independent trials add. The methods are those of `AveragedEEG`.

    Args:
        weights: for "added".
        repeats: of the shape (dim,).
        shape: (parts, width) of what a trial shows.
        tmax_s: end of the whole window.
    """

    def __init__(
        self, weights: Weights, repeats: Repeats, shape: tuple[int, int], tmax_s: float
    ) -> None:
        self.repeats, self._weights, self._tmax_s = repeats, weights, tmax_s
        self._known = np.zeros(shape)

    def known(self, trial: int, group: str, shown: np.ndarray, n_parts: int) -> np.ndarray:
        self._known[:n_parts], self._known[n_parts:] = shown[:n_parts], 0
        return self._known

    def query(self, trial: int, group: str, z: np.ndarray, tmax_s: float) -> Query:
        total, trials = self.repeats.of(group)
        n_repeats = len(trials) + (trial not in trials)
        if trial not in trials:
            total = total + self._weights.of_one(tmax_s) * z.astype(np.float64)
        temperature = self._weights.temperature(tmax_s, n_repeats)
        return Query(total, float(np.linalg.norm(total)), temperature, n_repeats, by_cosine=False)

    def finish(self, trial: int, group: str, shown: np.ndarray, z: np.ndarray) -> None:
        self.repeats.add(trial, group, self._weights.of_one(self._tmax_s) * z.astype(np.float64))


def evidence_of(
    manifest: BundleManifest,
    evidence: Evidence,
    shape: tuple[int, int],
    say: Callable[[str], None],
    max_bytes: int = MAX_BYTES,
) -> AveragedEEG | AddedLikelihoods:
    """What a live decoder knows of repeats: here is decided how they are put together.

    A trial shows an array of the given shape, (parts, width); the rest is as in `LiveDecoder`.

    Raises:
        Problem: evidence is to be added, and the bundle has no calibration.
    """
    weights = Weights(evidence, manifest.logit_scale, manifest.calibration)
    weights.temperature(manifest.tmax_s, 1)
    if not weights.alone:
        return AveragedEEG(weights, Repeats(shape, max_bytes, say))
    repeats = Repeats((manifest.embedding_dim,), max_bytes, say)
    return AddedLikelihoods(weights, repeats, shape, manifest.tmax_s)


def known_mean(trials: np.ndarray, n_times: int) -> np.ndarray:
    """The mean of all that is known of a stimulus while its last repeat is still going on.

    This is, on whole trials, what `AveragedEEG` adds up while they arrive.

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
