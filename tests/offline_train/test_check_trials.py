"""Trials that are not as a bundle needs them: the refusal names what differs, and no more."""

from types import SimpleNamespace
from typing import cast

import pytest

from decoder.bundle import Bundle
from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import check_trials


def test_of_two_ways_to_preprocess_only_what_differs_is_told() -> None:
    shared = {"channels": ("Pz", "Oz"), "rate_hz": 250.0, "tmin_s": 0.0, "tmax_s": 1.0}
    trials, needed = (
        SimpleNamespace(**shared, preprocessing={"high_pass_hz": 0.1, "kernel": kernel})
        for kernel in ("causal", "two_sided")
    )
    alone = r"has preprocessing \{'kernel': 'causal'\}, the bundle"
    with pytest.raises(Problem, match=alone) as told:
        check_trials(
            cast(Bundle, SimpleNamespace(manifest=needed)),
            cast(TrialSet, SimpleNamespace(format=trials)),
        )
    assert "high_pass_hz" not in str(told.value)
