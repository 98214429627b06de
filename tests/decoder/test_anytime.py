"""Slices that are added up give what the encoder gives of whole trials, at every mark."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.anytime import Anytime, shares_of
from decoder.brain.base import BrainEncoder
from decoder.brain.convolutional import NICE
from decoder.brain.mbp import MBP, UBP
from decoder.evidence import AveragedEEG, Repeats, Weights, known_mean
from hvf_core.problem import Problem

N_CHANNELS, N_TIMES, DIM = 3, 80, 8
N_TRIALS = 6


def _encoders() -> dict[str, BrainEncoder]:
    torch.manual_seed(0)
    shape = (N_CHANNELS, N_TIMES, DIM)
    made = {"mbp": MBP(*shape, hidden=6), "ubp": UBP(*shape), "nice": NICE(*shape)}
    for encoder in made.values():
        for weight in encoder.parameters():  # NICE starts so small that all trials look alike
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, 0.0, weight[0].numel() ** -0.5)
        encoder.project.bias.data.normal_()
        encoder.eval()
    return made


ENCODERS = _encoders()
NAMES = st.sampled_from(list(ENCODERS))


def eeg_of(trial: int) -> np.ndarray:
    eeg = np.random.default_rng(trial).normal(0.5, 1, (N_CHANNELS, N_TIMES)).astype(np.float32)
    eeg.flags.writeable = False  # as it comes out of a message
    return eeg


def group_of(trial: int) -> str:
    return "cat" if trial % 2 else "dog"


class Trials(Anytime):
    """With the repeats of each group, whose EEG is averaged."""

    def __init__(self, shares) -> None:
        super().__init__(shares)
        repeats = Repeats(shares.shape, 2**20, pytest.fail)
        self.shares, self.weights = shares, Weights("mean", 0.0, None)
        self.evidence = AveragedEEG(self.weights, repeats)

    def finish(self, trial: int) -> None:
        self.evidence.finish(trial, group_of(trial), self.shown(trial), None)
        self.forget(trial)

    def rest_input(self, trial: int, mark: int, alone: bool = False) -> tuple[np.ndarray, int]:
        none = AveragedEEG(self.weights, Repeats(self.shares.shape, 2**20, pytest.fail))
        evidence = none if alone else self.evidence
        n_parts = self.shares.n_parts(mark)
        known = evidence.known(trial, group_of(trial), self.shown(trial), n_parts)
        query = evidence.query(trial, group_of(trial), np.ones(DIM, np.float32), mark)
        return self.shares.rest_input(known), query.n_repeats


def opened(name: str, marks: list[int]):
    shares = shares_of(ENCODERS[name], marks)
    return shares, Trials(shares)


@torch.inference_mode()
def embedded(shares, rest_input: np.ndarray) -> np.ndarray:
    assert rest_input.dtype == np.float32
    assert rest_input.shape == shares.rest_shape
    return shares.rest(torch.from_numpy(rest_input)[None])[0].numpy()


def at_once(name: str, trials: list[int], n_times: int = N_TIMES) -> np.ndarray:
    """The encoder run on whole trials, of the last of which `n_times` samples are there."""
    return _at_once(name, tuple(trials), n_times)


@lru_cache(1000)
@torch.inference_mode()
def _at_once(name: str, trials: tuple[int, ...], n_times: int) -> np.ndarray:
    mean = known_mean(np.stack([eeg_of(trial) for trial in trials]), n_times)
    return ENCODERS[name](torch.from_numpy(mean)[None])[0].numpy()


def check_known(name, shares, anytime, trial, mark, finished):
    """With the finished repeats of its group, and alone."""
    repeats = [one for one in finished if group_of(one) == group_of(trial)]
    if trial in repeats:
        expected, n = at_once(name, repeats), len(repeats)
    else:
        expected, n = at_once(name, [*repeats, trial], mark), len(repeats) + 1
    known, n_repeats = anytime.rest_input(trial, mark)
    assert n_repeats == n
    np.testing.assert_allclose(embedded(shares, known), expected, rtol=1e-3, atol=2e-4)
    known, n_repeats = anytime.rest_input(trial, mark, alone=True)
    assert n_repeats == 1
    expected = at_once(name, [trial], mark)
    np.testing.assert_allclose(embedded(shares, known), expected, rtol=1e-3, atol=2e-4)


@st.composite
def marks_of(draw) -> list[int]:
    return sorted({*draw(st.sets(st.integers(1, N_TIMES - 1), max_size=4)), N_TIMES})


def test_the_encoders_tell_these_trials_apart() -> None:
    """Else equal embeddings would say nothing."""
    for name in ENCODERS:
        outputs = [at_once(name, [1]), at_once(name, [2]), at_once(name, [1, 2])]
        outputs += [at_once(name, [1, 2], 40), at_once(name, [1, 2], 41), at_once(name, [1], 79)]
        for i, one in enumerate(outputs):
            assert all(np.abs(one - other).max() > 2e-3 for other in outputs[:i])


@settings(max_examples=60, deadline=None)
@given(NAMES, marks_of(), st.sets(st.integers(1, N_TIMES - 1), max_size=6))
def test_a_trial_is_known_at_every_mark_as_the_encoder_knows_it(name, marks, cuts) -> None:
    shares, anytime = opened(name, marks)
    seen, edges = [], [0, *sorted(cuts), N_TIMES]
    for start, stop in pairwise(edges):
        reached = anytime.add(1, start, eeg_of(1)[:, start:stop])
        assert reached == [mark for mark in marks if start < mark <= stop]
        seen += reached
        for mark in reached:
            check_known(name, shares, anytime, 1, mark, [])
    assert seen == marks
    for mark in marks:  # only the samples up to it count, now as then
        check_known(name, shares, anytime, 1, mark, [])


acts = st.lists(
    st.tuples(
        st.sampled_from(["slice"] * 8 + ["rest of it"] * 4 + ["forget", "again"]),
        st.integers(1, N_TRIALS),
        st.integers(1, 50),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(NAMES, marks_of(), acts)
def test_interleaved_trials_and_groups_that_are_forgotten_and_come_again(name, marks, acts) -> None:
    """A list of what each trial has shown so far is the oracle."""
    shares, anytime = opened(name, marks)
    open_, finished = {}, []
    for act, trial, n in acts:
        if act == "forget":
            anytime.forget(trial)
            open_.pop(trial, None)
            continue
        first = 0 if act == "again" else open_.get(trial, 0)
        stop = N_TIMES if act == "rest of it" else min(first + n, N_TIMES)
        for at in range(N_TIMES + 1):
            assert anytime.follows(trial, at) == (at in (0, open_.get(trial, 0)))
        reached = anytime.add(trial, first, eeg_of(trial)[:, first:stop])
        assert reached == [mark for mark in marks if first < mark <= stop]
        open_[trial] = stop
        for mark in reached:
            check_known(name, shares, anytime, trial, mark, finished)
        if stop == N_TIMES:
            anytime.finish(trial)
            del open_[trial]
            finished += [trial] * (trial not in finished)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_trial_that_is_going_on_is_no_repeat_for_others(name: str) -> None:
    shares, anytime = opened(name, [40, N_TIMES])
    anytime.add(1, 0, eeg_of(1)[:, :79])
    anytime.add(3, 0, eeg_of(3))
    check_known(name, shares, anytime, 3, N_TIMES, [])
    anytime.finish(3)
    anytime.add(1, 79, eeg_of(1)[:, 79:])
    check_known(name, shares, anytime, 1, N_TIMES, [3])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_finished_trial_that_comes_again_changes_nothing(name: str) -> None:
    shares, anytime = opened(name, [40, N_TIMES])
    for trial in (1, 3, 1):
        anytime.add(trial, 0, eeg_of(trial))
        anytime.finish(trial)
    anytime.add(3, 0, eeg_of(3)[:, :40])
    known, n_repeats = anytime.rest_input(3, 40)
    assert n_repeats == 2
    np.testing.assert_allclose(embedded(shares, known), at_once(name, [1, 3]), atol=2e-4)
    anytime.add(5, 0, eeg_of(5))
    check_known(name, shares, anytime, 5, N_TIMES, [1, 3])


@pytest.mark.parametrize("name", ENCODERS)
def test_what_came_in_is_neither_kept_nor_changed(name: str) -> None:
    shares, anytime = opened(name, [N_TIMES])
    eeg = eeg_of(1).copy()
    anytime.add(1, 0, eeg)
    np.testing.assert_array_equal(eeg, eeg_of(1))
    eeg[:] = 1e6
    check_known(name, shares, anytime, 1, N_TIMES, [])


def test_of_a_linear_encoder_only_its_head_is_left_to_run() -> None:
    for name, rest_shape in (("mbp", (DIM,)), ("ubp", (DIM,)), ("nice", (N_CHANNELS, N_TIMES))):
        shares = shares_of(ENCODERS[name], [40, N_TIMES])
        assert shares.rest_shape == rest_shape
        assert shares.rest is (ENCODERS[name].head if name != "nice" else ENCODERS[name])


@pytest.mark.parametrize("marks", [[0, 80], [40], [40, 40, 80], [60, 40, 80], [40, 80, 81]])
@pytest.mark.parametrize("name", ENCODERS)
def test_marks_that_do_not_fit_the_window_are_a_mistake(name: str, marks: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise from 1 or more to 80"):
        shares_of(ENCODERS[name], marks)


# --- what does not fit ---------------------------------------------------------------------------


def with_nan(value: float) -> np.ndarray:
    eeg = eeg_of(1)[:, 30:50].copy()
    eeg[1, 7] = value
    return eeg


@pytest.mark.parametrize(
    ("first", "eeg", "sentence"),
    [
        (31, eeg_of(1)[:, 31:50], "trial 1 goes on with sample 31 where sample 30 was expected"),
        (29, eeg_of(1)[:, 29:50], "sample 29 where sample 30 was expected"),
        (-1, eeg_of(1)[:, :1], "sample -1 where sample 30 was expected"),
        (30, eeg_of(1)[:2, 30:50], r"shape \(2, 20\), the bundle needs \(3 channels, times\)"),
        (30, np.zeros((4, 5), np.float32), r"shape \(4, 5\)"),
        (30, np.zeros(3, np.float32), r"shape \(3,\)"),
        (30, np.zeros((3, 5, 1), np.float32), r"shape \(3, 5, 1\)"),
        (0, np.zeros((2, 5), np.float32), r"shape \(2, 5\)"),
        (30, np.zeros((3, 51), np.float32), "trial 1 has 81 samples, the bundle's window has 80"),
        (0, np.zeros((3, 81), np.float32), "has 81 samples"),
        (30, with_nan(np.nan), "trial 1 holds values that are not finite"),
        (30, with_nan(-np.inf), "not finite"),
        (0, with_nan(np.inf), "not finite"),
    ],
)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_slice_that_does_not_fit_is_refused_and_its_trial_forgotten(
    name: str, first: int, eeg: np.ndarray, sentence: str
) -> None:
    shares, anytime = opened(name, [40, N_TIMES])
    anytime.add(3, 0, eeg_of(3))
    anytime.finish(3)
    anytime.add(1, 0, eeg_of(1)[:, :30])
    anytime.add(5, 0, eeg_of(5)[:, :30])
    with pytest.raises(Problem, match=sentence) as caught:
        anytime.add(1, first, eeg)
    assert "\n" not in str(caught.value)
    assert not anytime.follows(1, 30)
    with pytest.raises(Problem, match="sample 30 where sample 0 was expected"):
        anytime.add(1, 30, eeg_of(1)[:, 30:])
    assert anytime.add(5, 30, eeg_of(5)[:, 30:]) == [40, N_TIMES]
    check_known(name, shares, anytime, 5, N_TIMES, [3])
    anytime.add(1, 0, eeg_of(1))
    check_known(name, shares, anytime, 1, N_TIMES, [3])


def test_a_slice_of_an_unknown_trial_follows_nothing() -> None:
    _, anytime = opened("mbp", [N_TIMES])
    assert anytime.follows(1, 0)
    assert not anytime.follows(1, 5)
    with pytest.raises(Problem, match="a slice of it was lost"):
        anytime.add(1, 5, eeg_of(1)[:, 5:])
    anytime.forget(1)  # of which nothing is known
