"""Markers whose stamps are none, or of another clock than the EEG's, in virtual time."""

import json

import numpy as np
import pytest

from stream.acquire.chunk import Chunk
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Opened, Trial

RATE_HZ = 250.0
LSL_S = 5000.0  # the session's clock when it begins
UNIX_S = 1.7e9


def session(eeg_shift_s=0.0, marker_shift_s=0.0, odd=(), eeg_stops_s=np.inf, n_s=20):
    """EEG and a marker a second, at its middle, each with its clock's shift; `odd` stamps too.

    Returns the outcomes with the moment at which they were decided, and the notices with theirs.
    """
    trials = TrialStream(("Cz",), RATE_HZ, TrialPlan(window_s=(-0.1, 0.5)))
    told, notices = [], []
    for tenth in range(10 * n_s):
        numbers = np.arange(tenth * 25, (tenth + 1) * 25)
        now_s = LSL_S + (tenth + 1) / 10
        if tenth < 10 * eeg_stops_s:
            raw_s = LSL_S + numbers / RATE_HZ + eeg_shift_s
            trials.add("eeg", Chunk(raw_s, numbers[:, None].astype(np.float32), 0.0, now_s))
        stamps_s = [now_s + marker_shift_s] if tenth % 10 == 5 else []
        stamps_s += [stamp_s for at, stamp_s in odd if at == tenth]
        for stamp_s in stamps_s:
            row = np.array([[f"at {stamp_s}"]], object)
            told += trials.add("markers", Chunk(np.array([stamp_s]), row, 0.0, now_s))
        for one in trials.due(now_s):
            if isinstance(one, Trial):
                shown = one.event.onset_s - LSL_S - eeg_shift_s
                assert abs(one.samples[25, 0] - shown * RATE_HZ) <= 0.6
            told.append(one)
        notices += [(now_s - LSL_S, said) for said in trials.acquisition.notices]
        trials.acquisition.notices.clear()
    told += trials.end("shutdown", "")
    assert sum(isinstance(one, Opened) for one in told) * 2 == len(told)
    return told, notices


def drops(told):
    return [one for one in told if isinstance(one, Drop)]


@pytest.mark.parametrize(
    ("eeg_shift_s", "marker_shift_s", "expected"),
    [
        (UNIX_S, 0.0, ("the session's clock", "Unix time", "before")),
        (-LSL_S, 0.0, ("the session's clock", "a device's own time", "after")),
        (0.0, UNIX_S, ("Unix time", "the session's clock", "after")),
        (0.0, -LSL_S, ("a device's own time", "the session's clock", "before")),
    ],
)
def test_clocks_that_differ_are_named_once_and_soon(eeg_shift_s, marker_shift_s, expected):
    told, notices = session(eeg_shift_s, marker_shift_s)
    ((when_s, sentence),) = notices
    assert when_s < 6.0
    marker_clock, eeg_clock, side = expected
    of_marker, of_eeg = sentence.split(" s (it looks like ")[1:]
    assert of_marker.startswith(marker_clock)
    assert of_eeg.startswith(eeg_clock)
    assert f" s {side} the EEG's" in sentence
    ended_early = [one for one in drops(told) if one.reason != "shutdown"]
    assert len(ended_early) >= 16
    assert not any(isinstance(one, Trial) for one in told)


@pytest.mark.parametrize("shift_s", [UNIX_S, -LSL_S, 1000.0])
def test_two_streams_of_one_foreign_clock_are_right(shift_s):
    told, notices = session(shift_s, shift_s)
    assert notices == []
    assert {one.reason for one in drops(told)} <= {"shutdown"}


def test_markers_that_come_while_the_eeg_is_away_are_of_no_other_clock():
    told, notices = session(eeg_stops_s=5.0, n_s=200)
    assert notices == []
    assert {one.reason for one in drops(told)} == {"no_data", "shutdown"}


@pytest.mark.parametrize("stamp_s", [np.nan, np.inf, -np.inf, 1e300, -1e300, -1.0, 0.0, 1e9])
def test_an_odd_stamp_costs_its_own_marker_only(stamp_s):
    told, _ = session(odd=[(52, stamp_s), (53, stamp_s)])
    odd = [one for one in drops(told) if one.event.stimulus == f"at {stamp_s}"]
    assert len(odd) == 2
    assert {one.reason for one in odd} <= {"no_data", "late", "duplicate"}
    assert [one.reason for one in drops(told) if one not in odd] in ([], ["shutdown"])
    json.dumps([one.event.onset_s for one in told if isinstance(one, Opened)], allow_nan=False)
