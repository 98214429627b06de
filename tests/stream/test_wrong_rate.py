"""A stream at another rate than it declares: named, and no trial of other seconds is cut."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.acquire.chunk import Chunk
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial

DECLARED_HZ = 250.0
TMIN_S, TMAX_S = -0.2, 1.0
LASTS_S = 40.0
CHUNK = 10


def session(off: float, jitter_s: float = 0.0, seed: int = 0) -> tuple[list[Trial | Drop], str]:
    """The ends of 25 trials, and what was said; the one channel says when a sample was taken."""
    rng = np.random.default_rng(seed)
    taken_s = np.arange(int(LASTS_S * DECLARED_HZ * (1 + off))) / (DECLARED_HZ * (1 + off))
    raw_s = 1000.0 + taken_s + np.abs(rng.normal(0.0, jitter_s, len(taken_s)))
    trials = TrialStream(("Cz",), DECLARED_HZ, TrialPlan(window_s=(TMIN_S, TMAX_S)))
    onsets_s = 1000.0 + np.arange(5.0, LASTS_S - 3.0, 1.3)
    ends: list[Trial | Drop] = []
    for start in range(0, len(taken_s), CHUNK):
        part = slice(start, start + CHUNK)
        now_s = float(raw_s[part][-1])
        due, onsets_s = onsets_s[onsets_s <= now_s], onsets_s[onsets_s > now_s]
        for onset_s in due:
            trials.add("markers", Chunk(np.array([onset_s]), np.array([["a"]], object), 0.0, now_s))
        trials.add("eeg", Chunk(raw_s[part], taken_s[part, None], 0.0, now_s))
        for one in trials.due(now_s):
            if isinstance(one, Trial):
                check(one, jitter_s)
            ends.append(one)
    return ends, " ".join(trials.acquisition.notices)


def check(trial: Trial, jitter_s: float) -> None:
    """What was cut is the window, by when its samples were taken."""
    taken_s = trial.samples[:, 0] + 1000.0 - trial.event.onset_s
    allowed_s = 0.01 * (TMAX_S - TMIN_S) + 2.5 / DECLARED_HZ + 2 * jitter_s
    assert taken_s[0] == pytest.approx(TMIN_S, abs=allowed_s)
    assert taken_s[-1] == pytest.approx(TMAX_S, abs=allowed_s)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    off=st.floats(-0.25, 0.25),
    jitter_s=st.sampled_from([0.0, 0.001, 0.003]),
    seed=st.integers(0, 99),
)
@example(off=0.02, jitter_s=0.0, seed=0)
@example(off=-0.02, jitter_s=0.0, seed=0)
@example(off=0.05, jitter_s=0.0, seed=0)
def test_every_trial_that_is_cut_has_its_seconds(off: float, jitter_s: float, seed: int) -> None:
    ends, said = session(off, jitter_s, seed)
    assert len(ends) == 25
    if abs(off) > 0.006:
        assert f"declares a rate of {DECLARED_HZ:g} Hz" in said
        real_hz = float(said.split("come at ")[1].split(" Hz")[0])
        assert real_hz == pytest.approx(DECLARED_HZ * (1 + off), rel=0.01)
    if abs(off) > 0.03:
        assert {one.reason for one in ends if isinstance(one, Drop)} <= {"gap", "rejected"}
        assert not any(isinstance(one, Trial) for one in ends)


@pytest.mark.parametrize("off", [0.0, 200e-6, -200e-6, 0.005, -0.005])
def test_trials_are_cut_where_the_rate_is_nearly_right(off: float) -> None:
    ends, _ = session(off)
    assert all(isinstance(one, Trial) for one in ends)


def test_a_trial_that_lasts_too_long_says_so_with_both_rates() -> None:
    ends, _ = session(-0.02)
    details = {one.detail for one in ends if isinstance(one, Drop) and one.reason == "rejected"}
    assert "its samples last 1.224 s, not 1.200 s: they come at 245.0 Hz, not at 250 Hz" in details
