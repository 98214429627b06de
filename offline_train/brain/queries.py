"""What a gallery is asked: brain embeddings of held-out trials, alone and as means of repeats."""

import numpy as np

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.evidence import Weights
from index.search.measure import Queries
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import check_trials, embed

MOST = 500
"""Of each sort."""


def brain_queries(bundle: Bundle, trial_set: TrialSet) -> Queries:
    """The embeddings of trials and, where there are repeats, of their means, in random order.

    Raises:
        Problem: the trials are not preprocessed as the bundle needs them.
    """
    check_trials(bundle, trial_set)
    manifest, rng = bundle.manifest, np.random.default_rng(0)
    repeats = list(trial_set.repeats.values())
    alone = np.arange(len(trial_set))[:, None]
    together = [trials for trials in repeats if len(trials) > 1]
    groups = [sort[i] for sort in (alone, together) for i in rng.permutation(len(sort))[:MOST]]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    vectors = embed(load_brain_encoder(bundle), trial_set.mean(groups))
    weights = Weights("mean", manifest.logit_scale, manifest.calibration)
    tmax_s = manifest.tmax_s
    temperatures = [weights.temperature(tmax_s, len(group)) for group in groups]
    return Queries(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        weights.of_one(tmax_s) / np.array(temperatures),
        "brain",
    )
