"""Calibration: what turns the cosines of an answer into probabilities."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hvf_core.problem import Problem
from hvf_core.specs import Frozen

Evidence = Literal["mean", "added"]
"""How repeats are put together: their EEG is averaged, or their log-likelihoods are added."""

CALIBRATE = "train with `mbp --hold-out 200`, or run `python -m offline_train calibrate`"
"""The way out where a bundle is not calibrated."""


class Calibration(Frozen):
    """Temperatures by the end of the window and the number of repeats (Guo et al., ICML 2017).

    With averaged EEG the logits are `exp(logit_scale) · cosine / mean[tmax][repeats]`. With added
    evidence each repeat gives its log-likelihoods from `mean[tmax][1 repeat]`, their sum is divided
    by `added[tmax][repeats]`.
    """

    tmax_s: tuple[float, ...] = Field(min_length=1)
    repeats: tuple[int, ...] = Field(min_length=1)
    mean: tuple[tuple[float, ...], ...]
    added: tuple[tuple[float, ...], ...]
    n_items: int = Field(ge=2)
    """Held-out stimuli that it was fitted on, which were each other's gallery too."""

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        if not np.isfinite(self.tmax_s).all():
            raise ValueError(f"tmax_s {list(self.tmax_s)} is not finite")
        if list(self.tmax_s) != sorted(set(self.tmax_s)):
            raise ValueError(f"tmax_s {list(self.tmax_s)} does not rise")
        if self.repeats[0] != 1 or list(self.repeats) != sorted(set(self.repeats)):
            raise ValueError(f"repeats {list(self.repeats)} does not rise from 1")
        for name, table in (("mean", self.mean), ("added", self.added)):
            if [len(row) for row in table] != [len(self.repeats)] * len(self.tmax_s):
                raise ValueError(f"{name} has not one temperature for each tmax_s and repeats")
            if not all(0 < value < np.inf for row in table for value in row):
                raise ValueError(f"{name} holds a temperature that is not positive and finite")
        return self

    def temperature(self, evidence: Evidence, tmax_s: float, n_repeats: int) -> float:
        """By interpolation in tmax_s and in log(repeats); beyond the table its border holds."""
        table = np.log(self.mean if evidence == "mean" else self.added)
        at_tmax = [np.interp(tmax_s, self.tmax_s, column) for column in table.T]
        return float(np.exp(np.interp(np.log(n_repeats), np.log(self.repeats), at_tmax)))


def temperature_of(
    calibration: Calibration | None, evidence: Evidence, tmax_s: float, n_repeats: int
) -> float:
    """The temperature of a bundle's calibration, or 1 where it has none.

    An answer from a bundle without calibration is shown as uncalibrated by whoever shows it.

    Raises:
        Problem: when evidence is to be added and there is no calibration to weigh it by.
    """
    if calibration is not None:
        return calibration.temperature(evidence, tmax_s, n_repeats)
    if evidence == "added":
        raise Problem(
            "the bundle has no calibration and evidence 'added' adds calibrated probabilities: "
            f"{CALIBRATE}, or take evidence 'mean'"
        )
    return 1.0


def log_softmax(scores: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """`log softmax(factor · scores)` over the last axis, float64, of finite scores of any size."""
    result = np.multiply(scores, factor, dtype=np.float64)
    result -= result.max(axis=-1, keepdims=True)
    result -= np.log(np.exp(result).sum(axis=-1, keepdims=True))
    return result
