"""What a bundle has seen in its training, so that nothing is judged by what was learnt from.

Trials are known again by their content, whatever became of their names, their order and the file.
"""

import hashlib
from collections.abc import Mapping
from unicodedata import normalize

import numpy as np
from scipy.spatial import cKDTree

from decoder.bundle import SEEN, Bundle
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from offline_train.data.trial_set import TrialSet

N_LOOKS = 8
"""Numbers of a fingerprint."""
GIVE_OTHERS = "give others, or say --seen, and all that comes of it is marked"
_SAME = 3e-4  # rounding moves a fingerprint by 1e-6; different trials are 1e-2 apart
_BLOCK = 256


class Seen(Frozen):
    """How much of what a bundle is judged by was in its training."""

    n_trials: int
    """Trials that it was trained on."""
    n_items: int
    """Stimuli that it was trained on, with these trials or others."""


def fingerprints(trial_set: TrialSet) -> np.ndarray:
    """Some numbers of each trial by which it is known again, float32 (n, 8).

    How far eight fixed time courses lie in the space that the channels' span: no reference,
    whitening or adaptation changes that, as long as it mixes these channels alone. Where there are
    nearly as many channels as times, whose span says nothing, projections of the whole trial.
    """
    _, n_channels, n_times = trial_set.data.shape
    wide = n_channels > n_times / 2
    shape = (n_channels * n_times if wide else n_times, N_LOOKS)
    looks = np.random.default_rng(0).standard_normal(shape)
    looks /= 1 if wide else np.linalg.norm(looks, axis=0)
    found = np.zeros((len(trial_set), N_LOOKS), np.float32)
    for start in range(0, len(trial_set), _BLOCK):
        rows = trial_set.rows[start : start + _BLOCK]
        trials = trial_set.data[rows].astype(np.float64)
        if wide:
            trials = trials.reshape(len(rows), -1)
            lengths = np.linalg.norm(trials, axis=1, keepdims=True)
            found[start : start + len(rows)] = trials @ looks / np.maximum(lengths, 1e-30)
            continue
        gram = trials @ trials.transpose(0, 2, 1)
        # A little on the diagonal, as a reference leaves channels that follow from the others.
        size = np.trace(gram, axis1=1, axis2=2)[:, None, None] / n_channels
        gram += np.maximum(1e-9 * size, 1e-30) * np.eye(n_channels)
        shares = trials @ looks
        found[start : start + len(rows)] = (shares * np.linalg.solve(gram, shares)).sum(axis=1)
    return found


def memory_of(trial_set: TrialSet) -> dict[str, np.ndarray]:
    """What a bundle that is trained on these trials keeps of them: `trials` and `stimuli`."""
    return {"trials": fingerprints(trial_set), "stimuli": _named(trial_set)}


def check_seen(
    bundle: Bundle,
    trial_set: TrialSet,
    allowed: bool = False,
    way_out: str = "give others, such as trials of stimuli that it has not seen",
) -> Seen | None:
    """How much of the trials the bundle was trained on; None where it does not say.

    Bundles of before say only which trial set they were trained on, and of it which selection: the
    rest of it alone was not seen.

    Raises:
        Problem: it was trained on some of them, and that is not allowed.
    """
    memory = _memory(bundle)
    if memory is None:
        seen, n_trials = None, _of_the_same_set(bundle, trial_set)
    else:
        tree = cKDTree(memory["trials"])
        prints = fingerprints(trial_set)
        away, _ = tree.query(prints, p=np.inf, distance_upper_bound=_SAME)
        n_trials = int(np.count_nonzero(np.isfinite(away) & prints.any(axis=1)))
        n_items = np.isin(_named(trial_set), memory["stimuli"]).sum()
        seen = Seen(n_trials=n_trials, n_items=int(n_items))
    if n_trials and not allowed:
        raise Problem(
            f"the bundle '{bundle.directory}' was trained on {n_trials} of these {len(trial_set)} "
            f"trials, where it is surer than on anything new: {way_out}"
        )
    return seen or (Seen(n_trials=n_trials, n_items=len(trial_set.items)) if n_trials else None)


def told(seen: Seen | None, n_items: int) -> str:
    """What titles say of stimuli, such as `200 held-out stimuli`."""
    if seen is None:  # a bundle that does not say what it was trained on
        return f"{n_items} stimuli"
    if seen.n_trials:
        return f"{n_items} stimuli, SEEN: {seen.n_trials} trials were trained on"
    if seen.n_items:
        return f"{n_items} stimuli, {seen.n_items} of them trained on, in new trials"
    return f"{n_items} held-out stimuli"


def _named(trial_set: TrialSet) -> np.ndarray:
    """A number for each stimulus, uint64 (n,)."""
    names = (normalize("NFC", item).encode() for item in trial_set.items)
    digests = b"".join(hashlib.sha256(name).digest()[:8] for name in names)
    return np.frombuffer(digests, "<u8")


def _memory(bundle: Bundle) -> Mapping[str, np.ndarray] | None:
    if bundle.file(SEEN).name not in bundle.manifest.files:
        return None
    memory = bundle.arrays(SEEN)
    wanted = {"trials": ("<f4", (N_LOOKS,)), "stimuli": ("<u8", ())}
    found = {name: (array.dtype.str, array.shape[1:]) for name, array in memory.items()}
    if found != wanted or not np.isfinite(memory["trials"]).all():
        raise Problem(f"'{bundle.file(SEEN)}' does not say what was seen: make the bundle again")
    return memory


def _of_the_same_set(bundle: Bundle, trial_set: TrialSet) -> int:
    """How many trials may have been trained on."""
    training = bundle.manifest.training
    if training.get("trials_sha256") != trial_set.checksum:
        return 0
    rest = np.setdiff1d(np.arange(len(trial_set.data)), trial_set.rows)
    was_rest = training.get("selection_sha256") == hashlib.sha256(rest.tobytes()).hexdigest()
    return 0 if was_rest else len(trial_set)
